import { type DeviceType, le32 } from '../config/field.ts';

export const sound: DeviceType = {
  name: 'sound',
  clause: '5.14',
  config: [le32('jacks', 0), le32('streams', 4), le32('chmaps', 8), le32('controls', 12, { features: ['SND_F_CTLS'] })],
  queues: [{ names: ['controlq', 'eventq', 'txq', 'rxq'] }],
};
