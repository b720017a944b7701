/**
 * The client's memory as it maps and unmaps it. Many ranges are pieces of one file: it is mapped once, as a whole, and
 * stays mapped until the connection ends, so that no view of it dies while somebody holds it.
 */
import { fstatSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Region } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { type Mapping, mapSharedMemory, type SharedCalls } from '../shared-memory.ts';
import type { DmaRange } from './message.ts';

/** Ranges of one connection: what QEMU expects a server to hold at least. */
export const DMA_RANGES_LIMIT = 65535;
/** Different files of one connection. A VM's memory is one, or one for each NUMA node. */
const FILES_LIMIT = 64;

export class DmaMemory {
  readonly space = new AddressSpace({ limit: DMA_RANGES_LIMIT });
  private readonly calls: SharedCalls;
  private readonly files = new Map<string, Mapping>();
  /** Address → size of every range that is mapped, those without a file too. */
  private readonly ranges = new Map<number, number>();

  constructor(calls: SharedCalls) {
    this.calls = calls;
  }

  /**
   * Adds a range. `fd` (the caller's to close) is its file, or -1: then it is reached by messages only.
   * Codes: `vfio-user-dma-refused` (overlaps, too many), those of the mapping.
   */
  map(range: DmaRange, fd: number): Result<void> {
    const { address, size, offset, flags } = range;
    if (this.ranges.has(address)) return fail('vfio-user-dma-refused', `${address} is mapped already`);
    if (this.ranges.size >= DMA_RANGES_LIMIT) return fail('vfio-user-dma-refused', `${DMA_RANGES_LIMIT} ranges`);
    if (fd >= 0) {
      const region = this.regionOf(fd);
      if (!region.ok) return region;
      const mapped = this.space.map({ start: address, size, region: region.value, offset, access: flags });
      if (!mapped.ok) return fail('vfio-user-dma-refused', mapped.error.message);
    }
    this.ranges.set(address, size);
    return ok(undefined);
  }

  /** Takes out exactly a range that was added. Code: `vfio-user-dma-refused`. */
  unmap(address: number, size: number): Result<void> {
    if (this.ranges.get(address) !== size) {
      return fail('vfio-user-dma-refused', `${size} bytes at ${address} are no range that was mapped`);
    }
    this.ranges.delete(address);
    return this.space.unmap(address, size);
  }

  unmapAll(): void {
    this.ranges.clear();
    this.space.clear();
  }

  /** For good: nothing may hold a region of it any more. */
  close(): void {
    this.unmapAll();
    for (const mapping of this.files.values()) mapping.release();
    this.files.clear();
  }

  private regionOf(fd: number): Result<Region> {
    let key: string;
    let length: number;
    try {
      const stat = fstatSync(fd, { bigint: true });
      key = `${stat.dev}:${stat.ino}`;
      length = Number(stat.size);
    } catch {
      return fail('vfio-user-dma-refused', 'a descriptor that is no file');
    }
    const known = this.files.get(key);
    if (known !== undefined) return ok(known.region);
    if (this.files.size >= FILES_LIMIT) return fail('vfio-user-dma-refused', `${FILES_LIMIT} different files`);
    const mapping = mapSharedMemory(this.calls, fd, {
      name: `dma-${this.files.size}`,
      offset: 0,
      length,
      writable: true,
    });
    if (!mapping.ok) return mapping;
    this.files.set(key, mapping.value);
    return ok(mapping.value.region);
  }
}
