import { type DeviceType, le64 } from '../config/field.ts';

const SHARED = { unless: 'PMEM_F_SHMEM_REGION' };

export const pmem: DeviceType = {
  name: 'pmem',
  clause: '5.19',
  config: [le64('start', 0, SHARED), le64('size', 8, SHARED)],
  queues: [{ names: ['req_vq'] }],
};
