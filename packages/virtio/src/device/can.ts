import { type DeviceType, le16 } from '../config/field.ts';

export const can: DeviceType = {
  name: 'can',
  clause: '5.20',
  config: [le16('status', 0)],
  queues: [{ names: ['Txq', 'Rxq', 'Controlq'] }],
};
