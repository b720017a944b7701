import { type DeviceType, le16, le32 } from '../config/field.ts';

export const gpio: DeviceType = {
  name: 'gpio',
  clause: '5.18',
  config: [le16('ngpio', 0), le32('gpio_names_size', 4)],
  queues: [{ names: ['requestq'] }, { names: ['eventq'], feature: 'GPIO_F_IRQ' }],
};
