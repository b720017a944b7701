import { type DeviceType, le32, text } from '../config/field.ts';

export const media: DeviceType = {
  name: 'media',
  clause: '5.22',
  config: [le32('device_caps', 0), le32('device_type', 4), text('card', 8, 32)],
  queues: [{ names: ['commandq', 'eventq'] }],
};
