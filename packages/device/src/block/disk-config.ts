/** What a virtual disk says about itself: features and configuration space. VIRTIO 1.4 §5.2.3, §5.2.4. */
import type { Result } from '@airlock/core/result.ts';
import { type ConfigValues, encodeConfig } from '@airlock/virtio/config/space.ts';
import { block } from '@airlock/virtio/device/block.ts';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { BLK_SECTOR } from '@airlock/virtio/request/block.ts';
import type { Disk } from './disk.ts';

export const BLK_F_SIZE_MAX = 1;
export const BLK_F_SEG_MAX = 2;
export const BLK_F_RO = 5;
export const BLK_F_BLK_SIZE = 6;
export const BLK_F_FLUSH = 9;
export const BLK_F_TOPOLOGY = 10;
export const BLK_F_CONFIG_WCE = 11;
export const BLK_F_MQ = 12;
export const BLK_F_DISCARD = 13;
export const BLK_F_WRITE_ZEROES = 14;
const RING_FEATURES = [28, 29, 34, 35];

/** Where `writeback` stands in the configuration space. */
export const WRITEBACK_OFFSET = 32;

/** Bytes of one buffer; with it and `segments` a request has an end. */
export const SIZE_MAX = 2 ** 20;
/** The most segments of one discard or write-zeroes request. */
export const RANGE_SEGMENTS = 64;
/** 2 GiB a segment: a hole is made at once, whatever its size. */
const DISCARD_SECTORS = 2 ** 22;
/** 16 MiB a segment: zeros may have to be written. */
const ZEROES_SECTORS = 2 ** 15;

export interface DiskShape {
  readonly queues: number;
  readonly queueSize: number;
  /** Data buffers of one request. */
  readonly segments: number;
  /** At most 20 bytes of plain ASCII. */
  readonly serial: string;
  /** Without it, what was written is on the medium before the driver hears of it, until the driver says otherwise. */
  readonly writeback: boolean;
}

export function diskFeatures(disk: Disk, shape: DiskShape): Features {
  const bits = [...RING_FEATURES, BLK_F_SIZE_MAX, BLK_F_SEG_MAX, BLK_F_BLK_SIZE, BLK_F_TOPOLOGY, BLK_F_FLUSH];
  if (shape.queues > 1) bits.push(BLK_F_MQ);
  if (disk.readOnly) bits.push(BLK_F_RO);
  else {
    bits.push(BLK_F_CONFIG_WCE, BLK_F_WRITE_ZEROES);
    if (disk.canDiscard) bits.push(BLK_F_DISCARD);
  }
  return featureSet(bits);
}

/** The configuration space. Codes: those of `encodeConfig`. */
export function diskConfig(disk: Disk, shape: DiskShape, features: Features, writeback: boolean): Result<Uint8Array> {
  const physical = disk.physicalBlockSize / disk.blockSize;
  const zero: ConfigValues = {
    max_write_zeroes_sectors: ZEROES_SECTORS,
    max_write_zeroes_seg: RANGE_SEGMENTS,
    write_zeroes_may_unmap: disk.canDiscard ? 1 : 0,
  };
  const discard: ConfigValues = {
    max_discard_sectors: DISCARD_SECTORS,
    max_discard_seg: RANGE_SEGMENTS,
    discard_sector_alignment: disk.physicalBlockSize / BLK_SECTOR,
  };
  return encodeConfig(block, features, {
    capacity: disk.size / BLK_SECTOR,
    size_max: SIZE_MAX,
    seg_max: shape.segments,
    blk_size: disk.blockSize,
    'topology.physical_block_exp': Math.log2(physical),
    'topology.alignment_offset': 0,
    'topology.min_io_size': physical,
    'topology.opt_io_size': 0,
    writeback: writeback ? 1 : 0,
    num_queues: shape.queues,
    ...(disk.readOnly ? {} : zero),
    ...(disk.readOnly || !disk.canDiscard ? {} : discard),
  });
}
