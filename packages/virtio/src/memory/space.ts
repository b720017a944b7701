/**
 * The addresses that a device may use, and where each leads: guest-physical addresses through a memory table, I/O
 * virtual addresses through an IOTLB, a driver's own pool. One class serves all of them, so that ring code always calls
 * the same `translate` and the engine can compile it in place.
 *
 * Addresses are numbers: whole and below 2^53, which every mapping must be. A 64-bit address from a descriptor that is
 * higher is outside of every mapping, so nothing wraps and nothing needs BigInt.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { NOWHERE, type Region } from './region.ts';

/** What `translate` returns instead of a length. */
export const OUTSIDE = -1;
export const DENIED = -2;
export const MISSING = -3;

/** No address is this high: the end of every mapping is at most this. */
export const ADDRESS_LIMIT = 2 ** 53;

/** Mappings that there is room for before the first growth. */
const FIRST_ROOM = 16;

export interface Mapping {
  readonly start: number;
  readonly size: number;
  readonly region: Region;
  /** Where in the region `start` leads. */
  readonly offset: number;
  /** READ, WRITE or both. */
  readonly access: number;
}

export class AddressSpace {
  /** Of the last successful `translate` (or `within`, for the region): which region, and where in it. */
  region: Region = NOWHERE;
  offset = 0;
  /** Of the last `translate` that returned MISSING. */
  missAddress = 0;
  missAccess = 0;

  private readonly limit: number;
  private readonly outside: number;
  // The mappings in the order of their addresses. Plain arrays of one kind of number each: no object per lookup. They
  // grow with the mappings: a VMM may announce tens of thousands, and most have ten.
  private starts = new Float64Array(FIRST_ROOM);
  private ends = new Float64Array(FIRST_ROOM);
  private offsets = new Float64Array(FIRST_ROOM);
  private accesses = new Uint8Array(FIRST_ROOM);
  private readonly targets: Region[] = [];
  private count = 0;
  // The mapping that was used last: first address, end, what to add to an address to get the offset in `region`, access.
  private windowStart = 0;
  private windowEnd = 0;
  private windowDelta = 0;
  private windowAccess = 0;
  // The one before that: a driver's headers and data often lie in two mappings, in turn.
  private otherStart = 0;
  private otherEnd = 0;
  private otherDelta = 0;
  private otherAccess = 0;
  private otherRegion: Region = NOWHERE;

  /**
   * `limit` is the most mappings it will hold. With `missing`, an address without a mapping is MISSING (ask for it)
   * and not OUTSIDE (it does not exist).
   */
  constructor(options: { readonly limit?: number; readonly missing?: boolean } = {}) {
    this.limit = options.limit ?? 512;
    this.outside = options.missing === true ? MISSING : OUTSIDE;
  }

  /**
   * Where `address` leads for `access`: the number of bytes that lie in one piece from there (at least 1), with
   * `region` and `offset` set; or OUTSIDE, DENIED or MISSING. Allocates nothing.
   */
  translate(address: number, access: number): number {
    if (!(address >= this.windowStart && address < this.windowEnd) && !this.look(address)) {
      if (this.outside === OUTSIDE || address >= ADDRESS_LIMIT) return OUTSIDE;
      this.missAddress = address;
      this.missAccess = access;
      return MISSING;
    }
    if ((this.windowAccess & access) !== access) return DENIED;
    this.offset = address + this.windowDelta;
    return this.windowEnd - address;
  }

  /**
   * The same for a buffer that lies whole in the mapping that was used last, which is nearly every buffer: its offset in
   * `region`, or -1 when it does not, or not for this access. A few comparisons, so that callers compile it in place.
   */
  within(address: number, length: number, access: number): number {
    return address >= this.windowStart &&
      length <= this.windowEnd - address &&
      length > 0 &&
      (this.windowAccess & access) === access
      ? address + this.windowDelta
      : -1;
  }

  /** Makes the mapping that holds `address` the window. */
  private look(address: number): boolean {
    const { windowStart, windowEnd, windowDelta, windowAccess, region } = this;
    if (address >= this.otherStart && address < this.otherEnd) {
      this.windowStart = this.otherStart;
      this.windowEnd = this.otherEnd;
      this.windowDelta = this.otherDelta;
      this.windowAccess = this.otherAccess;
      this.region = this.otherRegion;
    } else {
      const at = this.find(address);
      if (at < 0) return false;
      this.open(at);
    }
    this.otherStart = windowStart;
    this.otherEnd = windowEnd;
    this.otherDelta = windowDelta;
    this.otherAccess = windowAccess;
    this.otherRegion = region;
    return true;
  }

  private open(at: number): void {
    this.windowStart = this.starts[at] as number;
    this.windowEnd = this.ends[at] as number;
    this.windowDelta = (this.offsets[at] as number) - this.windowStart;
    this.windowAccess = this.accesses[at] as number;
    this.region = this.targets[at] as Region;
  }

  /** After any change: the next `translate` looks anew. */
  private closeWindow(): void {
    this.windowStart = 0;
    this.windowEnd = 0;
    this.windowAccess = 0;
    this.otherStart = 0;
    this.otherEnd = 0;
    this.otherAccess = 0;
    this.otherRegion = NOWHERE;
  }

  /**
   * Adds a mapping; joins it to its neighbours where addresses, bytes and access go on without a seam.
   * Codes: `mapping-invalid`, `mapping-overlaps`, `mapping-limit`.
   */
  map(mapping: Mapping): Result<void> {
    const { start, size, region, offset, access } = mapping;
    const whole = Number.isSafeInteger(start) && Number.isSafeInteger(size) && Number.isSafeInteger(offset);
    if (
      !whole ||
      start < 0 ||
      offset < 0 ||
      size <= 0 ||
      size > ADDRESS_LIMIT - start ||
      size > region.bytes.length - offset ||
      access < 1 ||
      access > 3
    ) {
      return fail('mapping-invalid', `${size} bytes at ${start} to ${region.name} + ${offset}, access ${access}`);
    }
    this.closeWindow();
    let at = this.after(start);
    if (at > 0 && (this.ends[at - 1] as number) > start) return this.overlap(mapping, at - 1);
    if (at < this.count && (this.starts[at] as number) - start < size) return this.overlap(mapping, at);

    const end = start + size;
    if (at > 0 && this.ends[at - 1] === start && this.continues(at - 1, mapping)) {
      at--;
      this.ends[at] = end;
    } else {
      if (this.count === this.limit) return fail('mapping-limit', `${this.limit} mappings`);
      this.shift(at, 1);
      this.put(at, start, end, offset, region, access);
    }
    const next = at + 1;
    if (next < this.count && this.starts[next] === end && this.targets[next] === region) {
      const seam = (this.offsets[at] as number) + (end - (this.starts[at] as number));
      if (this.offsets[next] === seam && this.accesses[next] === access) {
        this.ends[at] = this.ends[next] as number;
        this.shift(next + 1, -1);
      }
    }
    return ok(undefined);
  }

  /** Takes `size` bytes from `start` out of all mappings, splitting those that reach beyond. Code: `mapping-limit`. */
  unmap(start: number, size: number): Result<void> {
    this.closeWindow();
    const end = Math.min(start + size, ADDRESS_LIMIT);
    let at = this.after(start);
    if (at > 0 && (this.ends[at - 1] as number) > start) at--;
    while (at < this.count && (this.starts[at] as number) < end) {
      const from = this.starts[at] as number;
      const to = this.ends[at] as number;
      if (from < start && to > end) {
        if (this.count === this.limit) return fail('mapping-limit', `${this.limit} mappings`);
        this.shift(at + 1, 1);
        this.put(
          at + 1,
          end,
          to,
          (this.offsets[at] as number) + (end - from),
          this.targets[at] as Region,
          this.accesses[at] as number,
        );
        this.ends[at] = start;
        return ok(undefined);
      }
      if (from < start) {
        this.ends[at] = start;
        at++;
      } else if (to > end) {
        this.offsets[at] = (this.offsets[at] as number) + (end - from);
        this.starts[at] = end;
        at++;
      } else {
        this.shift(at + 1, -1);
      }
    }
    return ok(undefined);
  }

  /** Forgets every mapping, and lets go of the regions. */
  clear(): void {
    this.targets.length = 0;
    this.region = NOWHERE;
    this.count = 0;
    this.closeWindow();
  }

  /** How many mappings there are. */
  get size(): number {
    return this.count;
  }

  /** The mappings in the order of their addresses, for people and tests. */
  mappings(): Mapping[] {
    return Array.from({ length: this.count }, (_, at) => ({
      start: this.starts[at] as number,
      size: (this.ends[at] as number) - (this.starts[at] as number),
      region: this.targets[at] as Region,
      offset: this.offsets[at] as number,
      access: this.accesses[at] as number,
    }));
  }

  /** Index of the mapping that holds `address`, or -1. */
  private find(address: number): number {
    const at = this.after(address) - 1;
    return at >= 0 && address < (this.ends[at] as number) ? at : -1;
  }

  /** Index of the first mapping that starts above `address`. */
  private after(address: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.starts[middle] as number) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private continues(at: number, { region, access, offset, start }: Mapping): boolean {
    const seam = (this.offsets[at] as number) + (start - (this.starts[at] as number));
    return this.targets[at] === region && this.accesses[at] === access && seam === offset;
  }

  private overlap(mapping: Mapping, at: number): Result<never> {
    return fail(
      'mapping-overlaps',
      `${mapping.size} bytes at ${mapping.start} meet the mapping at ${this.starts[at] as number}`,
    );
  }

  /** Moves the mappings from `at` on by one place. */
  private shift(at: number, by: 1 | -1): void {
    if (this.count + by > this.starts.length) this.grow();
    if (by > 0) this.targets.push(NOWHERE);
    for (const array of [this.starts, this.ends, this.offsets, this.accesses]) {
      array.copyWithin(at + by, at, this.count);
    }
    this.targets.copyWithin(at + by, at, this.count);
    this.count += by;
    if (by < 0) this.targets.length = this.count;
  }

  private grow(): void {
    const room = 2 * this.starts.length;
    const larger = (array: Float64Array<ArrayBuffer>) => {
      const grown = new Float64Array(room);
      grown.set(array);
      return grown;
    };
    this.starts = larger(this.starts);
    this.ends = larger(this.ends);
    this.offsets = larger(this.offsets);
    const accesses = new Uint8Array(room);
    accesses.set(this.accesses);
    this.accesses = accesses;
  }

  private put(at: number, start: number, end: number, offset: number, region: Region, access: number): void {
    this.starts[at] = start;
    this.ends[at] = end;
    this.offsets[at] = offset;
    this.targets[at] = region;
    this.accesses[at] = access;
  }
}

/** An address space in which an address is the offset into the one region. Code: `mapping-invalid`. */
export function identitySpace(region: Region, access = 3): Result<AddressSpace> {
  const space = new AddressSpace({ limit: 1 });
  const mapped = space.map({ start: 0, size: region.bytes.length, region, offset: 0, access });
  return mapped.ok ? ok(space) : mapped;
}
