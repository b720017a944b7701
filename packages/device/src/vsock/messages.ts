/** Where the messages of a SEQPACKET connection end in the bytes that wait for the host. VIRTIO 1.4 §5.10.6.6. */

/** Messages that wait; empty ones take no credit, so they must be counted. */
const MESSAGES_LIMIT = 1024;

export class Messages {
  private readonly lengths: number[] = [];
  private open = 0;

  /** Bytes of a message came, and its end perhaps. False when too many messages wait. */
  add(bytes: number, end: boolean): boolean {
    this.open += bytes;
    if (!end) return true;
    this.lengths.push(this.open);
    this.open = 0;
    return this.lengths.length <= MESSAGES_LIMIT;
  }

  /** Length of the first whole message. */
  get first(): number | undefined {
    return this.lengths[0];
  }

  shift(): void {
    this.lengths.shift();
  }

  clear(): void {
    this.lengths.length = 0;
    this.open = 0;
  }
}
