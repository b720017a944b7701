/** Bytes that wait for somebody slow, in order, never more than a limit. */

const FIRST_CAPACITY = 4096;
const NOTHING = new Uint8Array(0);

/** Grows with what is in it up to the limit, and holds no memory while it is empty. */
export class ByteQueue {
  readonly limit: number;
  length = 0;
  private bytes = NOTHING;
  private first = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Bytes that still fit. */
  get room(): number {
    return this.limit - this.length;
  }

  /** Takes as many of the bytes as fit and returns how many. They are copied. */
  push(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    if (taken === 0) return 0;
    if (this.length + taken > this.bytes.length) this.grow(this.length + taken);
    const capacity = this.bytes.length;
    const at = (this.first + this.length) % capacity;
    const before = Math.min(taken, capacity - at);
    this.bytes.set(bytes.subarray(0, before), at);
    this.bytes.set(bytes.subarray(before, taken), 0);
    this.length += taken;
    return taken;
  }

  /** The longest piece from the front that lies in one stretch; true until the next change. */
  peek(): Uint8Array {
    return this.bytes.subarray(this.first, Math.min(this.first + this.length, this.bytes.length));
  }

  /** The first `count` bytes, copied only where they do not lie in one stretch. */
  front(count: number): Uint8Array {
    const piece = this.peek();
    if (count <= piece.length) return piece.subarray(0, count);
    const whole = new Uint8Array(Math.min(count, this.length));
    whole.set(piece);
    whole.set(this.bytes.subarray(0, whole.length - piece.length), piece.length);
    return whole;
  }

  /** Takes `count` bytes off the front. */
  drop(count: number): void {
    const dropped = Math.min(count, this.length);
    this.length -= dropped;
    this.first = this.length === 0 ? 0 : (this.first + dropped) % this.bytes.length;
    if (this.length === 0) this.bytes = NOTHING;
  }

  clear(): void {
    this.drop(this.length);
  }

  private grow(needed: number): void {
    const capacity = Math.min(this.limit, Math.max(FIRST_CAPACITY, needed, this.bytes.length * 2));
    const larger = new Uint8Array(capacity);
    const front = this.peek();
    larger.set(front);
    larger.set(this.bytes.subarray(0, this.length - front.length), front.length);
    this.bytes = larger;
    this.first = 0;
  }
}
