import { type DeviceType, le32, le64, u8 } from '../config/field.ts';

const INPUT = { features: ['IOMMU_F_INPUT_RANGE'] };
const DOMAINS = { features: ['IOMMU_F_DOMAIN_RANGE'] };

export const iommu: DeviceType = {
  name: 'iommu',
  clause: '5.13',
  config: [
    // Masks and the ends of ranges reach 2^64.
    le64('page_size_mask', 0, { words: true }),
    le64('input_range.start', 8, { ...INPUT, words: true }),
    le64('input_range.end', 16, { ...INPUT, words: true }),
    le32('domain_range.start', 24, DOMAINS),
    le32('domain_range.end', 28, DOMAINS),
    le32('probe_size', 32, { features: ['IOMMU_F_PROBE'] }),
    u8('bypass', 36, { features: ['IOMMU_F_BYPASS_CONFIG'], access: 'read-write', max: 1 }),
  ],
  queues: [{ names: ['requestq', 'eventq'] }],
};
