/** Virtqueues from what driver and device agreed on. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Features, hasFeature } from '../features.ts';
import { READ_WRITE } from '../memory/region.ts';
import type { AddressSpace } from '../memory/space.ts';
import { DESCRIPTOR_SIZE, findRing, type QueueAddresses, ringArea } from './layout.ts';
import { PackedDevice } from './packed-device.ts';
import { PackedDriver } from './packed-driver.ts';
import type { DeviceQueue, DriverQueue, RingFeatures } from './queue.ts';
import { SplitDevice } from './split-device.ts';
import { type IndirectArea, SplitDriver } from './split-driver.ts';

/** The part of the negotiated features that rings care for. */
export function ringFeatures(features: Features): RingFeatures {
  return {
    packed: hasFeature(features, 34),
    indirect: hasFeature(features, 28),
    eventIndex: hasFeature(features, 29),
    inOrder: hasFeature(features, 35),
  };
}

export interface DriverQueueOptions {
  readonly size: number;
  readonly features: RingFeatures;
  readonly addresses: QueueAddresses;
  /** Where indirect tables may stand, size × limit × 16 bytes; without it none are used. */
  readonly indirect?: { readonly address: number; readonly limit: number };
  /** Take a used length above the writable bytes as a broken rule; otherwise it is cut and counted. */
  readonly strictLength?: boolean;
}

/** The most elements that an indirect table of ours has. */
const INDIRECT_LIMIT = 1024;

/**
 * The driver side of a queue whose memory lies in `space`, zeroed. Codes: those of `findRing`, `indirect-area-invalid`.
 */
export function createDriverQueue(space: AddressSpace, options: DriverQueueOptions): Result<DriverQueue> {
  const { size, features, addresses } = options;
  const areas = findRing(space, size, features.packed, addresses);
  if (!areas.ok) return areas;
  let indirect: IndirectArea | null = null;
  if (options.indirect !== undefined && features.indirect) {
    const { address, limit } = options.indirect;
    const bytes = size * limit * DESCRIPTOR_SIZE;
    const fits = Number.isInteger(limit) && limit >= 1 && limit <= INDIRECT_LIMIT && address % DESCRIPTOR_SIZE === 0;
    if (!fits || space.translate(address, READ_WRITE) < bytes) {
      return fail('indirect-area-invalid', `${size} tables of ${limit} descriptors at ${address}`);
    }
    const area = ringArea(space.region, space.offset, { size: bytes, alignment: 2 });
    if (!area.ok) return area;
    indirect = { area: area.value, address, limit };
  }
  const strict = options.strictLength ?? false;
  return ok(
    features.packed
      ? new PackedDriver(areas.value, features, indirect, strict)
      : new SplitDriver(areas.value, features, indirect, strict),
  );
}

export interface DeviceQueueOptions {
  readonly size: number;
  readonly features: RingFeatures;
  readonly addresses: QueueAddresses;
  /** The most descriptors of a chain, indirect ones counted; the queue size when absent, as the standard has it. */
  readonly chainLimit?: number;
}

/**
 * The device side of a queue. Ring addresses are looked up in `rings` (vhost-user: the front-end's own addresses),
 * descriptors in `buffers`. Codes: those of `findRing`, `chain-limit-invalid`.
 */
export function createDeviceQueue(
  rings: AddressSpace,
  buffers: AddressSpace,
  options: DeviceQueueOptions,
): Result<DeviceQueue> {
  const { size, features, addresses, chainLimit = size } = options;
  const areas = findRing(rings, size, features.packed, addresses);
  if (!areas.ok) return areas;
  if (!Number.isInteger(chainLimit) || chainLimit < 1 || chainLimit > 65536) {
    return fail('chain-limit-invalid', `chain limit ${chainLimit}`);
  }
  return ok(
    features.packed
      ? new PackedDevice(areas.value, buffers, features, chainLimit)
      : new SplitDevice(areas.value, buffers, features, chainLimit),
  );
}
