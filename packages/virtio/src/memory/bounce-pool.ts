/**
 * The only memory that a device which is not trusted gets to see: slices of one region, cut once, kept for good
 * (making and unmaking shared memory per request costs most of the throughput), and wiped before anyone gets them again.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Region } from './region.ts';

export interface SizeClass {
  /** Bytes of each slice. */
  readonly size: number;
  readonly count: number;
}

/** The most slices of one pool. */
const SLICES_LIMIT = 2 ** 20;

/** Returned by `take` when no slice is free: the caller waits for one, it never falls back to other memory. */
export const NO_SLICE = -1;

export class BouncePool {
  readonly region: Region;
  /** Address of the region's first byte as the device knows it. */
  readonly address: number;
  private readonly classes: readonly { readonly size: number; readonly first: number; readonly count: number }[];
  private readonly offsets: Float64Array;
  private readonly sizes: Uint32Array;
  private readonly taken: Uint8Array;
  // Free slices of each class as a stack: the one given back last is still in the cache.
  private readonly stacks: Uint32Array;
  private readonly tops: Uint32Array;

  private constructor(region: Region, address: number, classes: readonly SizeClass[], total: number) {
    this.region = region;
    this.address = address;
    this.offsets = new Float64Array(total);
    this.sizes = new Uint32Array(total);
    this.taken = new Uint8Array(total);
    this.stacks = new Uint32Array(total);
    this.tops = new Uint32Array(classes.length);
    let offset = 0;
    let first = 0;
    this.classes = classes.map(({ size, count }, number) => {
      for (let i = 0; i < count; i++) {
        this.offsets[first + i] = offset + i * size;
        this.sizes[first + i] = size;
        this.stacks[first + i] = first + (count - 1 - i);
      }
      this.tops[number] = count;
      const one = { size, first, count };
      offset += size * count;
      first += count;
      return one;
    });
    region.bytes.fill(0, 0, offset);
  }

  /**
   * Cuts `region` into slices, smallest class first, and wipes it. Each size is a multiple of 16, so that a ring or an
   * indirect table can stand in a slice. Code: `bounce-pool-invalid`.
   */
  static create(region: Region, address: number, classes: readonly SizeClass[]): Result<BouncePool> {
    const sorted = [...classes].sort((a, b) => a.size - b.size);
    let bytes = 0;
    let total = 0;
    for (const { size, count } of sorted) {
      const whole = Number.isSafeInteger(size) && Number.isSafeInteger(count);
      if (!whole || size <= 0 || size % 16 !== 0 || size > 2 ** 31 || count <= 0 || count > SLICES_LIMIT) {
        return fail('bounce-pool-invalid', `${count} slices of ${size} bytes`);
      }
      bytes += size * count;
      total += count;
    }
    const fits = total > 0 && total <= SLICES_LIMIT && bytes <= region.bytes.length;
    if (!fits || !Number.isSafeInteger(address) || address < 0 || address % 16 !== 0 || bytes > 2 ** 53 - address) {
      return fail('bounce-pool-invalid', `${total} slices, ${bytes} bytes in ${region.bytes.length} at ${address}`);
    }
    return ok(new BouncePool(region, address, sorted, total));
  }

  /** A wiped slice of at least `length` bytes, of the smallest class that has one free; or NO_SLICE. */
  take(length: number): number {
    for (let number = 0; number < this.classes.length; number++) {
      const one = this.classes[number];
      if (one === undefined || one.size < length) continue;
      const top = this.tops[number] as number;
      if (top === 0) continue;
      this.tops[number] = top - 1;
      const slice = this.stacks[one.first + top - 1] as number;
      this.taken[slice] = 1;
      return slice;
    }
    return NO_SLICE;
  }

  /** Takes a slice back and wipes all of it. Code: `bounce-slice-invalid`. */
  give(slice: number): Result<void> {
    if (this.taken[slice] !== 1) return fail('bounce-slice-invalid', `slice ${slice} is not taken`);
    const offset = this.offsets[slice] as number;
    this.region.bytes.fill(0, offset, offset + (this.sizes[slice] as number));
    this.taken[slice] = 0;
    const number = this.classes.findIndex(({ first, count }) => slice >= first && slice < first + count);
    const top = this.tops[number] as number;
    this.stacks[(this.classes[number]?.first ?? 0) + top] = slice;
    this.tops[number] = top + 1;
    return ok(undefined);
  }

  /** Address of a slice as the device knows it, for a descriptor. */
  addressOf(slice: number): number {
    return this.address + this.offsetOf(slice);
  }

  /** Where in the region a slice begins. A number that is no slice has no offset: NaN, which no view accepts. */
  offsetOf(slice: number): number {
    return this.offsets[slice] ?? Number.NaN;
  }

  /** Bytes of a slice. */
  sizeOf(slice: number): number {
    return this.sizes[slice] ?? 0;
  }

  /** Copies into a taken slice what the device may see; returns how many bytes, at most the slice. */
  copyIn(slice: number, source: Uint8Array): number {
    if (this.taken[slice] !== 1) return 0;
    const length = Math.min(source.length, this.sizes[slice] as number);
    this.region.bytes.set(source.length === length ? source : source.subarray(0, length), this.offsets[slice]);
    return length;
  }

  /** Copies out of a taken slice what the device wrote: `length` bytes, at most the slice and the target. */
  copyOut(slice: number, target: Uint8Array, length: number): number {
    if (this.taken[slice] !== 1 || !(length > 0)) return 0;
    const bytes = Math.min(length, this.sizes[slice] as number, target.length);
    const offset = this.offsets[slice] as number;
    target.set(this.region.bytes.subarray(offset, offset + bytes));
    return bytes;
  }

  /** Free slices that hold `length` bytes. */
  free(length = 0): number {
    return this.classes.reduce((sum, { size }, number) => sum + (size >= length ? (this.tops[number] ?? 0) : 0), 0);
  }
}
