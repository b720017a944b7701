import type { DeviceType } from '../config/field.ts';

export const entropy: DeviceType = { name: 'entropy', clause: '5.4', config: [], queues: [{ names: ['requestq'] }] };
