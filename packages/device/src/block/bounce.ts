/** A buffer of our own, for transfers past the page cache whose buffers in guest memory are not aligned for it. */
import type { SystemCalls } from '@airlock/transport/system-calls.ts';

const BOUNCE_BYTES = 2 ** 18;

export class Bounce {
  private readonly calls: SystemCalls;
  private readonly alignment: number;
  private place = 0;
  private view: Uint8Array = new Uint8Array(0);

  constructor(calls: SystemCalls, alignment: number) {
    this.calls = calls;
    this.alignment = alignment;
  }

  readonly length = BOUNCE_BYTES;

  get address(): number {
    this.make();
    return this.place;
  }

  get bytes(): Uint8Array {
    this.make();
    return this.view;
  }

  /** Made when first used: with guests that align their buffers it never is. */
  private make(): void {
    if (this.place !== 0) return;
    const { address, bytes } = this.calls.allocate(BOUNCE_BYTES + this.alignment);
    this.place = Math.ceil(address / this.alignment) * this.alignment;
    this.view = bytes.subarray(this.place - address, this.place - address + BOUNCE_BYTES);
  }
}
