import { type DeviceType, le16, le32, le64, u8 } from '../config/field.ts';

const DISCARD = { features: ['BLK_F_DISCARD'] };
const ZEROES = { features: ['BLK_F_WRITE_ZEROES'] };
const ERASE = { features: ['BLK_F_SECURE_ERASE'] };
const ZONED = { features: ['BLK_F_ZONED'] };
const TOPOLOGY = { features: ['BLK_F_TOPOLOGY'] };
const GEOMETRY = { features: ['BLK_F_GEOMETRY'] };

export const block: DeviceType = {
  name: 'block',
  clause: '5.2',
  config: [
    // In sectors of 512 bytes; more than 2^53 bytes is no disk.
    le64('capacity', 0, { max: 2 ** 44 }),
    le32('size_max', 8, { features: ['BLK_F_SIZE_MAX'], min: 1 }),
    le32('seg_max', 12, { features: ['BLK_F_SEG_MAX'], min: 1 }),
    le16('geometry.cylinders', 16, GEOMETRY),
    u8('geometry.heads', 18, GEOMETRY),
    u8('geometry.sectors', 19, GEOMETRY),
    le32('blk_size', 20, { features: ['BLK_F_BLK_SIZE'], min: 512, powerOfTwo: true }),
    u8('topology.physical_block_exp', 24, { ...TOPOLOGY, max: 31 }),
    u8('topology.alignment_offset', 25, TOPOLOGY),
    le16('topology.min_io_size', 26, TOPOLOGY),
    le32('topology.opt_io_size', 28, TOPOLOGY),
    u8('writeback', 32, { features: ['BLK_F_CONFIG_WCE'], access: 'read-write', max: 1 }),
    le16('num_queues', 34, { features: ['BLK_F_MQ'], min: 1 }),
    le32('max_discard_sectors', 36, DISCARD),
    le32('max_discard_seg', 40, DISCARD),
    le32('discard_sector_alignment', 44, DISCARD),
    le32('max_write_zeroes_sectors', 48, ZEROES),
    le32('max_write_zeroes_seg', 52, ZEROES),
    u8('write_zeroes_may_unmap', 56, { ...ZEROES, max: 1 }),
    le32('max_secure_erase_sectors', 60, ERASE),
    le32('max_secure_erase_seg', 64, ERASE),
    le32('secure_erase_sector_alignment', 68, ERASE),
    le32('zoned.zone_sectors', 72, ZONED),
    le32('zoned.max_open_zones', 76, ZONED),
    le32('zoned.max_active_zones', 80, ZONED),
    le32('zoned.max_append_sectors', 84, ZONED),
    le32('zoned.write_granularity', 88, ZONED),
    u8('zoned.model', 92, { ...ZONED, max: 2 }),
  ],
  queues: [{ names: ['requestq{n}'], count: 'num_queues', countFeatures: ['BLK_F_MQ'] }],
};
