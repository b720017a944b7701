import { type DeviceType, le16, le64 } from '../config/field.ts';

export const memory: DeviceType = {
  name: 'memory',
  clause: '5.15',
  config: [
    le64('block_size', 0, { min: 1, powerOfTwo: true }),
    le16('node_id', 8, { features: ['MEM_F_ACPI_PXM'] }),
    le64('addr', 16),
    le64('region_size', 24),
    le64('usable_region_size', 32),
    le64('plugged_size', 40),
    le64('requested_size', 48),
  ],
  queues: [{ names: ['guest-request'] }],
};
