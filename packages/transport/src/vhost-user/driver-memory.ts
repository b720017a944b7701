/**
 * All the memory that a back-end gets to see of a driver: one sealed memfd with the rings, tables for indirect
 * descriptors, and a bounce pool. Its addresses are made up, so that nothing of this process's layout is told.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { BouncePool, type SizeClass } from '@airlock/virtio/memory/bounce-pool.ts';
import { makeRegion, READ_WRITE } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { DESCRIPTOR_SIZE, type QueueAddresses, queueLayout } from '@airlock/virtio/ring/layout.ts';
import type { DriverQueue, RingFeatures } from '@airlock/virtio/ring/queue.ts';
import { createSharedMemory, type Mapping, mapSharedMemory } from '../shared-memory.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { RegionEntry } from './payload.ts';

/** Where the memory begins for descriptors, and for ring addresses in messages. */
export const DRIVER_BASE = 0x1000_0000;
export const DRIVER_USER_BASE = 0x20_0000_0000;

const PAGE = 4096;

export interface DriverMemoryPlan {
  readonly queues: number;
  /** Elements of each queue. */
  readonly size: number;
  readonly features: RingFeatures;
  /** Elements of an indirect table; 0 for none. */
  readonly indirectLimit: number;
  readonly pool: readonly SizeClass[];
}

export interface DriverMemory {
  readonly fd: number;
  readonly entry: RegionEntry;
  readonly pool: BouncePool;
  /** Driver side and ring addresses (as descriptors have them) of each queue. */
  readonly queues: readonly { readonly driver: DriverQueue; readonly addresses: QueueAddresses }[];
  close(): void;
}

const up = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Codes: those of `createSharedMemory`, `createDriverQueue` and `BouncePool.create`. */
export function createDriverMemory(calls: SystemCalls, plan: DriverMemoryPlan): Result<DriverMemory> {
  const layout = queueLayout(plan.size, plan.features.packed);
  if (!layout.ok) return layout;
  const { descriptors, driver, device } = layout.value;
  const driverAt = up(descriptors.size, 64);
  const deviceAt = up(driverAt + driver.size, 64);
  const tablesAt = up(deviceAt + device.size, 64);
  const share = up(tablesAt + plan.size * plan.indirectLimit * DESCRIPTOR_SIZE, PAGE);
  const poolAt = share * plan.queues;
  const poolBytes = plan.pool.reduce((sum, { size, count }) => sum + size * count, 0);
  const total = poolAt + up(poolBytes, PAGE);
  if (total > 2 ** 32) return fail('memory-size-invalid', `${total} bytes for ${plan.queues} queues`);
  const made = createSharedMemory(calls, 'airlock-driver', total);
  if (!made.ok) return made;
  const { fd, length } = made.value;
  const mapping = mapSharedMemory(calls, fd, { name: 'driver-memory', offset: 0, length, writable: true });
  const close = (): void => {
    if (mapping.ok) mapping.value.release();
    calls.close(fd);
  };
  if (!mapping.ok) {
    close();
    return mapping;
  }
  const built = build(mapping.value, plan, { share, driverAt, deviceAt, tablesAt, poolAt });
  if (!built.ok) {
    close();
    return built;
  }
  const entry = { guestAddress: DRIVER_BASE, userAddress: DRIVER_USER_BASE, size: length, offset: 0 };
  return ok({ fd, entry, ...built.value, close });
}

interface Places {
  readonly share: number;
  readonly driverAt: number;
  readonly deviceAt: number;
  readonly tablesAt: number;
  readonly poolAt: number;
}

function build(
  mapping: Mapping,
  plan: DriverMemoryPlan,
  places: Places,
): Result<Pick<DriverMemory, 'pool' | 'queues'>> {
  const { region } = mapping;
  const space = new AddressSpace({ limit: 1 });
  const mapped = space.map({ start: DRIVER_BASE, size: region.bytes.length, region, offset: 0, access: READ_WRITE });
  if (!mapped.ok) return mapped;
  const queues: DriverMemory['queues'][number][] = [];
  for (let index = 0; index < plan.queues; index++) {
    const base = DRIVER_BASE + index * places.share;
    const addresses = { descriptors: base, driver: base + places.driverAt, device: base + places.deviceAt };
    const indirect = { address: base + places.tablesAt, limit: plan.indirectLimit };
    const driver = createDriverQueue(space, {
      size: plan.size,
      features: plan.features,
      addresses,
      ...(plan.indirectLimit > 0 ? { indirect } : {}),
    });
    if (!driver.ok) return driver;
    queues.push({ driver: driver.value, addresses });
  }
  const { buffer, byteOffset } = region.view;
  const bytes = region.bytes.length - places.poolAt;
  const rest = makeRegion('bounce-pool', buffer, byteOffset + places.poolAt, bytes, region.host + places.poolAt);
  if (!rest.ok) return rest;
  const pool = BouncePool.create(rest.value, DRIVER_BASE + places.poolAt, plan.pool);
  return pool.ok ? ok({ pool: pool.value, queues }) : pool;
}
