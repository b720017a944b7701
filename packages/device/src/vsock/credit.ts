/**
 * Credit: neither end sends more than the other said it has room for. VIRTIO 1.4 §5.10.6.3. Counters are 32 bits wide
 * and wrap.
 */

/** More room than this is not believed: with it, differences of counters keep their sign in 32 bits. */
const ROOM_LIMIT = 2 ** 30;

/** What the guest lets us send. */
export class SendCredit {
  /** Bytes sent so far. */
  private sent = 0;
  private forwarded = 0;
  private allocation = 0;

  /**
   * The guest's `buf_alloc` and `fwd_cnt`, as they come with every packet. An older `fwd_cnt` than one before is left
   * alone: two threads of a guest can put their packets into the queue in either order. False when it counts bytes that
   * were never sent.
   */
  told(allocation: number, forwardCount: number): boolean {
    if (((forwardCount - this.sent) | 0) > 0) return false;
    if (((forwardCount - this.forwarded) | 0) > 0) this.forwarded = forwardCount >>> 0;
    this.allocation = Math.min(allocation, ROOM_LIMIT);
    return true;
  }

  /** Bytes that may be sent now. */
  get room(): number {
    return Math.max(0, this.allocation - ((this.sent - this.forwarded) >>> 0));
  }

  /** The whole of the guest's buffer. */
  get largest(): number {
    return this.allocation;
  }

  spend(bytes: number): void {
    this.sent = (this.sent + bytes) >>> 0;
  }
}

/** What we let the guest send. */
export class ReceiveCredit {
  /** `buf_alloc` of every packet of ours. */
  readonly allocation: number;
  /** `fwd_cnt` of every packet of ours: bytes that left our buffer. */
  forwarded = 0;
  private received = 0;
  private told = 0;

  constructor(allocation: number) {
    this.allocation = allocation;
  }

  /** `bytes` came. False when the guest had no credit for them. */
  take(bytes: number): boolean {
    if (bytes > this.allocation - ((this.received - this.forwarded) >>> 0)) return false;
    this.received = (this.received + bytes) >>> 0;
    return true;
  }

  forward(bytes: number): void {
    this.forwarded = (this.forwarded + bytes) >>> 0;
  }

  /** A packet went out, and `forwarded` with it. */
  tell(): void {
    this.told = this.forwarded;
  }

  /**
   * Is it time for a CREDIT_UPDATE of its own? When the guest, for all that it was told, may be short of room: less
   * than half of the buffer, while there is more.
   */
  get updateDue(): boolean {
    if (this.told === this.forwarded) return false;
    return this.allocation - ((this.received - this.told) >>> 0) < this.allocation / 2;
  }
}
