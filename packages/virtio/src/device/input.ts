import { bytes, type DeviceType, u8 } from '../config/field.ts';

export const input: DeviceType = {
  name: 'input',
  clause: '5.8',
  config: [
    u8('select', 0, { access: 'read-write' }),
    u8('subsel', 1, { access: 'read-write' }),
    u8('size', 2, { max: 128 }),
    // A union: text, a bitmap, axis limits or ids, as `select` asks.
    bytes('u', 8, 128),
  ],
  queues: [{ names: ['eventq', 'statusq'] }],
};
