/** What is mapped in a domain: ranges of I/O addresses that do not overlap, in order. */

export interface Range {
  readonly start: bigint;
  /** The last address. */
  readonly end: bigint;
  readonly physical: bigint;
  readonly flags: number;
}

export class Domain {
  readonly bypass: boolean;
  /** How many endpoints are attached. */
  endpoints = 0;
  private readonly ranges: Range[] = [];

  constructor(bypass: boolean) {
    this.bypass = bypass;
  }

  get size(): number {
    return this.ranges.length;
  }

  /** Where the first range is that ends at `address` or above. */
  private find(address: bigint): number {
    let [low, high] = [0, this.ranges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.ranges[middle]?.end ?? 0n) < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** False when it overlaps what is there. */
  map(range: Range): boolean {
    const at = this.find(range.start);
    const next = this.ranges[at];
    if (next !== undefined && next.start <= range.end) return false;
    this.ranges.splice(at, 0, range);
    return true;
  }

  /** Removes what lies in start to end; null, and nothing is done, where that would cut a range in two. */
  unmap(start: bigint, end: bigint): number | null {
    const first = this.find(start);
    let count = 0;
    for (let at = first; ; at++) {
      const range = this.ranges[at];
      if (range === undefined || range.start > end) break;
      if (range.start < start || range.end > end) return null;
      count++;
    }
    this.ranges.splice(first, count);
    return count;
  }

  /** Where an address leads; null where nothing is mapped. */
  translate(address: bigint): { readonly physical: bigint; readonly flags: number } | null {
    const range = this.ranges[this.find(address)];
    if (range === undefined || range.start > address) return null;
    return { physical: range.physical + (address - range.start), flags: range.flags };
  }
}
