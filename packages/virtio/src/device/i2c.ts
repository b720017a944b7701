import type { DeviceType } from '../config/field.ts';

export const i2c: DeviceType = { name: 'i2c', clause: '5.16', config: [], queues: [{ names: ['requestq'] }] };
