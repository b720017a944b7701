/** A host stream in memory: the test is the process at the other end. */

import { type HostStream, STREAM_END, STREAM_FAILED } from '@airlock/device/host-stream.ts';
import { HANGUP, READABLE, WRITABLE } from '@airlock/transport/reactor.ts';

export class FakeStream implements HostStream {
  /** What the device wrote, in the pieces of its writes. */
  readonly written: Uint8Array[] = [];
  /** Bytes that the device may still write before the other end's buffer is full. */
  room = Number.POSITIVE_INFINITY;
  writingEnded = false;
  closed = false;
  /** The other end is gone. */
  gone = false;
  reads = 0;
  private readonly messages: boolean;
  private readonly incoming: Uint8Array[] = [];
  private ended = false;
  private events = 0;
  private ready: (events: number) => void = () => {};

  constructor(options: { readonly messages?: boolean } = {}) {
    this.messages = options.messages ?? false;
  }

  read(into: Uint8Array): number {
    this.reads++;
    if (this.closed) return STREAM_FAILED;
    const first = this.incoming[0];
    if (first === undefined) return this.ended || this.gone ? STREAM_END : 0;
    const count = Math.min(first.length, into.length);
    into.set(first.subarray(0, count));
    if (this.messages || count === first.length) this.incoming.shift();
    else this.incoming[0] = first.subarray(count);
    return count;
  }

  write(bytes: Uint8Array): number {
    if (this.closed || this.gone) return STREAM_FAILED;
    if (this.messages && bytes.length > this.room) return 0;
    const count = Math.min(bytes.length, this.room);
    if (count > 0) this.written.push(bytes.slice(0, count));
    this.room -= count;
    return count;
  }

  endWriting(): void {
    this.writingEnded = true;
  }

  wait(events: number, ready: (events: number) => void): void {
    this.events = events;
    this.ready = ready;
  }

  close(): void {
    this.closed = true;
    this.events = 0;
  }

  /** The other end sends. */
  send(bytes: Uint8Array): void {
    this.incoming.push(bytes);
  }

  /** The other end will send no more. */
  end(): void {
    this.ended = true;
  }

  /** The other end closes altogether. */
  hangUp(): void {
    this.gone = true;
  }

  get waitsFor(): number {
    return this.events;
  }

  /** What poll(2) would say; calls the device as a reactor does. Returns whether there was anything to say. */
  turn(): boolean {
    if (this.closed || this.events === 0) return false;
    let found = this.gone ? HANGUP : 0;
    if (this.incoming.length > 0 || this.ended || this.gone) found |= this.events & READABLE;
    if (this.room > 0 || this.gone) found |= this.events & WRITABLE;
    if (found === 0) return false;
    this.ready(found);
    return true;
  }

  /** Everything that was written so far, in one piece. */
  get all(): Uint8Array {
    return join(this.written);
  }
}

export function join(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Timers that the test turns by hand. */
export class FakeTimers {
  private readonly waiting = new Set<() => void>();
  after(_milliseconds: number, call: () => void): () => void {
    const one = () => {
      this.waiting.delete(one);
      call();
    };
    this.waiting.add(one);
    return () => void this.waiting.delete(one);
  }
  get count(): number {
    return this.waiting.size;
  }
  expire(): void {
    for (const one of [...this.waiting]) one();
  }
}
