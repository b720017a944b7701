/**
 * IN_ORDER on the device side (§2.7.9, §2.8.8): chains may be finished in any order, and are given back in the order in
 * which they were taken.
 */
export class HoldBack {
  private readonly mask: number;
  private readonly ids: Uint16Array;
  private readonly done: Uint8Array;
  private readonly written: Float64Array;
  /** By id: where it stands in the line. */
  private readonly place: Uint32Array;
  private first = 0;
  private end = 0;

  /** `length` is a power of two, at least as many as can be in flight; ids are below it. */
  constructor(length: number) {
    this.mask = length - 1;
    this.ids = new Uint16Array(length);
    this.done = new Uint8Array(length);
    this.written = new Float64Array(length);
    this.place = new Uint32Array(length);
  }

  /** `id` was taken. */
  enter(id: number): void {
    const slot = this.end & this.mask;
    this.ids[slot] = id;
    this.done[slot] = 0;
    this.place[id & this.mask] = slot;
    this.end = (this.end + 1) >>> 0;
  }

  /** `id` is finished. */
  finish(id: number, written: number): void {
    const slot = this.place[id & this.mask] as number;
    this.done[slot] = 1;
    this.written[slot] = written;
  }

  /** Is the one that has waited longest, or the `ahead`th after it, finished? */
  ready(ahead = 0): boolean {
    return (this.end - this.first) >>> 0 > ahead && this.done[(this.first + ahead) & this.mask] === 1;
  }

  idAt(ahead: number): number {
    return this.ids[(this.first + ahead) & this.mask] as number;
  }

  writtenAt(ahead: number): number {
    return this.written[(this.first + ahead) & this.mask] as number;
  }

  /** Takes the first `count` out of the line. */
  leave(count: number): void {
    this.first = (this.first + count) >>> 0;
  }

  clear(): void {
    this.first = 0;
    this.end = 0;
  }
}
