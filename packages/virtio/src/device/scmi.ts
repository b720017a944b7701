import type { DeviceType } from '../config/field.ts';

export const scmi: DeviceType = {
  name: 'scmi',
  clause: '5.17',
  config: [],
  queues: [{ names: ['cmdq'] }, { names: ['eventq'], feature: 'SCMI_F_P2A_CHANNELS' }],
};
