import { type DeviceType, le16, le32 } from '../config/field.ts';

const MULTIPORT = 'CONSOLE_F_MULTIPORT';

// Named so because `console` is a global name.
export const consoleDevice: DeviceType = {
  name: 'console',
  clause: '5.3',
  config: [
    le16('cols', 0, { features: ['CONSOLE_F_SIZE'] }),
    le16('rows', 2, { features: ['CONSOLE_F_SIZE'] }),
    le32('max_nr_ports', 4, { features: [MULTIPORT], min: 1, max: 0x7fff }),
    le32('emerg_wr', 8, { features: ['CONSOLE_F_EMERG_WRITE'], access: 'write' }),
  ],
  queues: [
    { names: ['receiveq(port0)', 'transmitq(port0)'] },
    { names: ['control receiveq', 'control transmitq'], feature: MULTIPORT },
    {
      names: ['receiveq(port{n})', 'transmitq(port{n})'],
      count: 'max_nr_ports',
      less: 1,
      feature: MULTIPORT,
    },
  ],
};
