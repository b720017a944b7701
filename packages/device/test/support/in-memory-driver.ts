/** A device served in memory: rings and buffers of a driver on one side, the device's own queues on the other. */
import assert from 'node:assert/strict';
import type { Problem, Result } from '@airlock/core/result.ts';
import { bothFeatures, type Features, featureSet } from '@airlock/virtio/features.ts';
import { makeRegion, type Region } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDeviceQueue, createDriverQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import type { DeviceQueue, DriverQueue } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';

export function must<T>(result: Result<T>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.error.code}: ${result.error.message}`);
  return result.value;
}

/** Guest address of the first byte of memory. */
export const BASE = 0x1_0000_0000;
const RING_BYTES = 0x10000;

export interface DrivenQueue {
  readonly driver: DriverQueue;
  readonly device: DeviceQueue;
}

export interface DrivenDevice {
  readonly device: ServedDevice;
  readonly region: Region;
  readonly queues: readonly DrivenQueue[];
  /** How often each queue was notified, by number. */
  readonly notified: number[];
  readonly configChanges: number[];
  readonly resets: Problem[];
  /** Guest address of the next `length` free bytes. */
  allocate(length: number): number;
  /** The bytes at a guest address. */
  at(address: number, length: number): Uint8Array;
  stop(): void;
}

export interface DriveOptions {
  /** Bits that the driver takes of what is offered; every bit when absent. */
  readonly bits?: readonly number[];
  readonly size?: number;
  readonly memory?: number;
  /** Numbers of the queues that are started; all when absent. */
  readonly start?: readonly number[];
}

/** Starts the device with the features that both know, and every queue. */
export function drive(device: ServedDevice, options: DriveOptions = {}): DrivenDevice {
  const bits = options.bits ?? Array.from({ length: 128 }, (_, bit) => bit).filter((bit) => bit < 28 || bit > 35);
  const features: Features = bothFeatures(
    featureSet([...device.features.flatMap(wordBits), 32]),
    featureSet([...bits, 32]),
  );
  const size = options.size ?? 64;
  const length = options.memory ?? 4 * 1024 * 1024;
  const rings = device.queueSizes.length * RING_BYTES;
  const region = must(makeRegion('ram', new ArrayBuffer(length + rings)));
  const space = new AddressSpace();
  must(space.map({ start: BASE, size: length + rings, region, offset: 0, access: 3 }));
  const notified = device.queueSizes.map(() => 0);
  const configChanges: number[] = [];
  const resets: Problem[] = [];
  const queues = device.queueSizes.map((most, index): DrivenQueue => {
    const base = BASE + index * RING_BYTES;
    const addresses = { descriptors: base, driver: base + 0x4000, device: base + 0x8000 };
    const of = { size: Math.min(size, most), features: ringFeatures(features), addresses };
    return {
      driver: must(createDriverQueue(space, of)),
      device: must(createDeviceQueue(space, space, { ...of, chainLimit: device.chainLimit })),
    };
  });
  const link: DeviceLink = {
    features,
    notify: (index) => {
      if (queues[index]?.device.shouldNotify()) notified[index] = (notified[index] ?? 0) + 1;
    },
    configChanged: () => void configChanges.push(configChanges.length),
    needsReset: (why) => void resets.push(why),
  };
  device.start(link);
  const started = options.start ?? queues.map((_, index) => index);
  for (const index of started) {
    const queue = queues[index];
    assert.ok(queue !== undefined);
    device.startQueue(index, queue.device);
  }
  let next = rings;
  return {
    device,
    region,
    queues,
    notified,
    configChanges,
    resets,
    allocate(bytes) {
      const address = BASE + next;
      next += Math.ceil(bytes / 16) * 16;
      assert.ok(next <= rings + length, 'the test ran out of memory');
      return address;
    },
    at: (address, bytes) => region.bytes.subarray(address - BASE, address - BASE + bytes),
    stop() {
      for (const index of started) device.stopQueue(index);
      device.stop();
    },
  };
}

function wordBits(word: number, at: number): number[] {
  return Array.from({ length: 32 }, (_, bit) => bit + 32 * at).filter((bit) => ((word >>> (bit & 31)) & 1) === 1);
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
