/** From what a front-end said about a queue to one that a device can work on. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Features } from '@airlock/virtio/features.ts';
import { READ_WRITE } from '@airlock/virtio/memory/region.ts';
import { type AddressSpace, MISSING } from '@airlock/virtio/memory/space.ts';
import { createDeviceQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import { findRing, type QueueAddresses, queueLayout } from '@airlock/virtio/ring/layout.ts';
import { PackedDevice } from '@airlock/virtio/ring/packed-device.ts';
import type { DeviceQueue } from '@airlock/virtio/ring/queue.ts';
import { SplitDevice } from '@airlock/virtio/ring/split-device.ts';
import type { InflightPart, TrackedQueue } from './inflight-area.ts';
import { PackedInflight } from './inflight-packed.ts';
import { SplitInflight } from './inflight-split.ts';
import { packedBase, packedPosition, type Vring } from './vring.ts';

/** Where rings and buffers are found, and where what is in flight is written down. */
export interface QueueSurroundings {
  readonly rings: AddressSpace;
  readonly buffers: AddressSpace;
  readonly features: Features;
  readonly chainLimit: number;
  readonly inflight: (size: number, packed: boolean) => Result<InflightPart | null>;
}

export interface MadeQueue {
  readonly queue: DeviceQueue;
  readonly tracked: TrackedQueue | null;
}

/**
 * The queue of a ring whose size and addresses are known, at its position. A split ring's used index is read from the
 * ring, because the protocol has no other place for it. Codes: `translation-missing` (`rings.missAddress` says for what),
 * `vhost-user-order`, those of `createDeviceQueue`, `queue-state-invalid`, `vhost-user-inflight-invalid`.
 */
export function makeQueue(vring: Vring, around: QueueSurroundings): Result<MadeQueue> {
  const { size, addresses } = vring;
  if (addresses === null || size === 0) {
    return fail('vhost-user-order', `queue ${vring.index} is started before its size and addresses are known`);
  }
  const features = ringFeatures(around.features);
  const there = checkTranslated(around.rings, size, features.packed, addresses);
  if (!there.ok) return there;
  const made = createDeviceQueue(around.rings, around.buffers, {
    size,
    features,
    addresses,
    chainLimit: around.chainLimit,
  });
  if (!made.ok) return made;
  const areas = findRing(around.rings, size, features.packed, addresses);
  if (!areas.ok) return areas;
  const part = around.inflight(size, features.packed);
  if (!part.ok) return part;
  const queue = made.value;
  if (part.value === null) {
    const usedIndex = Atomics.load(areas.value.device.halves, 1);
    const position = features.packed
      ? packedPosition(vring.base)
      : { avail: vring.base & 0xffff, availWrap: false, used: usedIndex, usedWrap: false };
    const wrong = queue.restore(position);
    return wrong === null ? ok({ queue, tracked: null }) : { ok: false, error: wrong };
  }
  if (queue instanceof PackedDevice) {
    const tracked = PackedInflight.start(
      queue,
      part.value,
      areas.value.descriptors,
      around.buffers,
      features,
      around.chainLimit,
      packedPosition(vring.base),
    );
    return tracked.ok ? ok({ queue: tracked.value, tracked: tracked.value }) : tracked;
  }
  if (!(queue instanceof SplitDevice)) return ok({ queue, tracked: null });
  const usedIndex = Atomics.load(areas.value.device.halves, 1);
  const tracked = SplitInflight.start(queue, part.value, features.inOrder, usedIndex);
  return tracked instanceof SplitInflight ? ok({ queue: tracked, tracked }) : { ok: false, error: tracked };
}

/** With an IOTLB a ring may be known page by page: the first address that is not is asked for. */
function checkTranslated(rings: AddressSpace, size: number, packed: boolean, addresses: QueueAddresses): Result<void> {
  const layout = queueLayout(size, packed);
  if (!layout.ok) return layout;
  for (const name of ['descriptors', 'driver', 'device'] as const) {
    const address = addresses[name];
    const { size: bytes } = layout.value[name];
    // Pages are 4096 bytes at least, so this ends after a few hundred steps.
    for (let done = 0; done < bytes; ) {
      const run = rings.translate(address + done, READ_WRITE);
      if (run === MISSING) return fail('translation-missing', `${name} at ${address + done}`);
      if (run <= 0) break;
      done += run;
    }
  }
  return ok(undefined);
}

/** What GET_VRING_BASE answers. */
export function baseOf(queue: DeviceQueue, packed: boolean): number {
  const position = queue.position();
  return packed ? packedBase(position) : position.avail;
}

/** Does a stretch of I/O virtual addresses touch the ring? */
export function touchesRing(vring: Vring, packed: boolean, start: number, size: number): boolean {
  const { addresses } = vring;
  const layout = queueLayout(vring.size, packed);
  if (addresses === null || !layout.ok) return false;
  return (['descriptors', 'driver', 'device'] as const).some(
    (name) => addresses[name] < start + size && start < addresses[name] + layout.value[name].size,
  );
}
