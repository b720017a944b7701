/** Driver and device over the same memory, with guard bytes around everything. */
import assert from 'node:assert/strict';
import type { Result } from '@airlock/core/result.ts';
import { makeRegion, type Region } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import type { QueueAddresses } from '@airlock/virtio/ring/layout.ts';
import type { DeviceQueue, DriverQueue, RingFeatures } from '@airlock/virtio/ring/queue.ts';

export function must<T>(result: Result<T>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.error.code}: ${result.error.message}`);
  return result.value;
}

export const PLAIN: RingFeatures = { packed: false, indirect: false, eventIndex: false, inOrder: false };
export const PACKED: RingFeatures = { ...PLAIN, packed: true };

/** Every combination of the ring features. */
export function allFeatures(): RingFeatures[] {
  return Array.from({ length: 16 }, (_, bits) => ({
    packed: (bits & 1) !== 0,
    indirect: (bits & 2) !== 0,
    eventIndex: (bits & 4) !== 0,
    inOrder: (bits & 8) !== 0,
  }));
}

export function describeFeatures(features: RingFeatures): string {
  const names = [features.packed ? 'packed' : 'split'];
  if (features.indirect) names.push('indirect');
  if (features.eventIndex) names.push('event-index');
  if (features.inOrder) names.push('in-order');
  return names.join('+');
}

/** Where things stand in the region; the guest address of its first byte is BASE. */
export const BASE = 0x1_0000_0000;
export const RINGS = 0;
export const GUARD = 4096;
const GUARD_BYTE = 0xa5;

export interface GuardedMemory {
  readonly region: Region;
  readonly space: AddressSpace;
  /** Throws when a byte outside of the region was changed. */
  checkGuards(): void;
}

/** A region of `length` bytes within a larger buffer whose other bytes are watched. */
export function guardedMemory(length: number, base = BASE): GuardedMemory {
  const buffer = new ArrayBuffer(length + 2 * GUARD);
  const whole = new Uint8Array(buffer).fill(GUARD_BYTE);
  whole.fill(0, GUARD, GUARD + length);
  const region = must(makeRegion('ram', buffer, GUARD, length));
  const space = new AddressSpace();
  must(space.map({ start: base, size: length, region, offset: 0, access: 3 }));
  return {
    region,
    space,
    checkGuards() {
      for (let i = 0; i < GUARD; i++) {
        if (whole[i] !== GUARD_BYTE || whole[GUARD + length + i] !== GUARD_BYTE) {
          throw new Error(`guard byte ${i} was changed`);
        }
      }
    },
  };
}

export interface Layout {
  readonly addresses: QueueAddresses;
  readonly indirect: { readonly address: number; readonly limit: number };
  /** First free offset after the rings and tables. */
  readonly data: number;
}

/** Rings at the start of the memory, then indirect tables, then data. */
export function placeRings(size: number, base = BASE, indirectLimit = 8): Layout {
  const descriptors = base;
  const driver = descriptors + 16 * size;
  const device = Math.ceil((driver + 6 + 2 * size) / 4) * 4;
  const tables = Math.ceil((device + 6 + 8 * size) / 16) * 16;
  const data = Math.ceil((tables + 16 * size * indirectLimit - base) / 4096) * 4096;
  return { addresses: { descriptors, driver, device }, indirect: { address: tables, limit: indirectLimit }, data };
}

export interface Ends {
  readonly memory: GuardedMemory;
  readonly layout: Layout;
  readonly driver: DriverQueue;
  readonly device: DeviceQueue;
}

export function bothEnds(
  size: number,
  features: RingFeatures,
  options: { readonly memory?: number; readonly strictLength?: boolean; readonly chainLimit?: number } = {},
): Ends {
  const layout = placeRings(size);
  const memory = guardedMemory(options.memory ?? layout.data + 65536);
  const { addresses, indirect } = layout;
  const strictLength = options.strictLength ?? false;
  const driver = must(createDriverQueue(memory.space, { size, features, addresses, indirect, strictLength }));
  const chainLimit = options.chainLimit ?? size;
  const device = must(createDeviceQueue(memory.space, memory.space, { size, features, addresses, chainLimit }));
  return { memory, layout, driver, device };
}

/** A small random source with a seed: xorshift32. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}
