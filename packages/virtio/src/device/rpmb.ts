import { type DeviceType, u8 } from '../config/field.ts';

export const rpmb: DeviceType = {
  name: 'rpmb',
  clause: '5.12',
  config: [u8('capacity', 0, { max: 0x80 }), u8('max_wr_cnt', 1), u8('max_rd_cnt', 2)],
  queues: [{ names: ['requestq'] }],
};
