import { type DeviceType, le64 } from '../config/field.ts';

export const vsock: DeviceType = {
  name: 'vsock',
  clause: '5.10',
  // 0, 1, 2 and 0xffffffff are reserved, and so are the upper 32 bits.
  config: [le64('guest_cid', 0, { min: 3, max: 0xfffffffe })],
  queues: [{ names: ['rx', 'tx', 'event'] }],
};
