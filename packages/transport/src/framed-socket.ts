/**
 * One end of a stream of messages with descriptors: whole messages out of what has arrived, and messages into what the
 * socket takes. Nothing here waits: a peer that sends half a message, or does not read, holds up nobody but itself.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { receive, send, type UnixCalls } from './unix-socket.ts';

/** Descriptors that came with a message. Whoever handles it takes those that it keeps; the others are closed. */
export class Descriptors {
  readonly count: number;
  private readonly fds: (number | null)[];
  private readonly calls: UnixCalls;

  constructor(calls: UnixCalls, fds: readonly number[]) {
    this.count = fds.length;
    this.fds = [...fds];
    this.calls = calls;
  }

  /** Descriptor `at`, now the caller's to close; -1 where there is none (any more). */
  take(at: number): number {
    const fd = this.fds[at] ?? -1;
    if (fd >= 0) this.fds[at] = null;
    return fd;
  }

  close(): void {
    this.fds.forEach((fd, at) => {
      if (fd === null) return;
      this.fds[at] = null;
      this.calls.close(fd);
    });
  }
}

/** What a protocol's messages look like on the wire. */
export interface Framing<Header> {
  readonly headerSize: number;
  /** The longest body. */
  readonly bodyLimit: number;
  /** The most descriptors with one message. */
  readonly descriptorsLimit: number;
  /** Bytes that may wait to be sent; a peer that does not read is given up when there are more. */
  readonly backlogLimit: number;
  /** The header, with the size of the body that follows it: at most `bodyLimit`. */
  parse(head: Uint8Array): Result<Header & { readonly size: number }>;
  readonly codes: {
    readonly closed: string;
    readonly cutOff: string;
    readonly descriptors: string;
    readonly notReading: string;
  };
}

export interface Frame<Header> {
  readonly header: Header & { readonly size: number };
  /** Valid until the next call of `next`. */
  readonly payload: Uint8Array;
  readonly descriptors: Descriptors;
}

/** Descriptors, and where the last byte lies that came with them: in their message. */
interface Came {
  at: number;
  readonly fds: readonly number[];
}

function countOf(came: readonly Came[]): number {
  return came.reduce((sum, { fds }) => sum + fds.length, 0);
}

interface Waiting {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  sent: number;
}

/** Bytes of what has arrived that are kept at first; a longer message makes it longer, until the connection ends. */
const ROOM = 4096;

export class FramedSocket<Header> {
  readonly fd: number;
  private readonly calls: UnixCalls;
  private readonly framing: Framing<Header>;
  /** What arrived and was not handed out lies in `room` from `start` to `end`: many messages, or a part of one. */
  private room = new Uint8Array(ROOM);
  private start = 0;
  private end = 0;
  /** Of the message at `start`, once its header is here. */
  private header: (Header & { readonly size: number }) | null = null;
  /** A message was handed out since null was given: what else the socket has is told by its readiness. */
  private looked = false;
  /** Descriptors that are nobody's yet. */
  private came: Came[] = [];
  /** Of all messages that came without. */
  private readonly none: Descriptors;
  private backlog: Waiting[] = [];
  private backlogBytes = 0;
  private closed = false;

  /** `fd` is a non-blocking stream socket, from now on this object's to close. */
  constructor(calls: UnixCalls, fd: number, framing: Framing<Header>) {
    this.calls = calls;
    this.fd = fd;
    this.framing = framing;
    this.none = new Descriptors(calls, []);
  }

  /**
   * The next whole message of what one look at the socket brings; null at the end of that, with no call to find out
   * whether there is more (readiness is level-triggered and tells). To be called until it gives null: of messages that
   * are here already nobody tells again. They are at most what fits into one read, so that no peer holds the loop.
   *
   * Codes: the framing's (`closed`: the other side is gone; `cutOff`: that was within a message; `descriptors`), those of
   * its `parse` and of the socket. After a failure the stream is of no more use.
   */
  next(): Result<Frame<Header> | null> {
    for (;;) {
      const missing = this.missing();
      if (!missing.ok) return missing;
      if (missing.value === 0) return this.take();
      if (this.looked) break;
      const received = this.receive(missing.value);
      if (!received.ok) return received;
      if (!received.value) break;
    }
    this.looked = false;
    return ok(null);
  }

  /** How many bytes the message at `start` needs at least that are not here; 0: it is whole. */
  private missing(): Result<number> {
    const { headerSize } = this.framing;
    const have = this.end - this.start;
    if (this.header === null) {
      if (have < headerSize) return ok(headerSize - have);
      const parsed = this.framing.parse(this.room.subarray(this.start, this.start + headerSize));
      if (!parsed.ok) return parsed;
      this.header = parsed.value;
    }
    return ok(Math.max(0, headerSize + this.header.size - have));
  }

  /** Reads once, with room for at least `missing` bytes; false when there was nothing. */
  private receive(missing: number): Result<boolean> {
    const { framing } = this;
    // All whole messages are handed out: what came with descriptors is one message.
    if (countOf(this.came) > framing.descriptorsLimit) return this.tooMany();
    this.makeRoom(missing);
    const most = Math.max(this.end + missing, Math.min(this.start + ROOM, this.room.length));
    const received = receive(this.calls, this.fd, this.room.subarray(this.end, most), framing.descriptorsLimit);
    if (!received.ok) return received;
    const { length, fds, closed } = received.value;
    if (closed) return this.ended();
    this.end += length;
    // The kernel ends a read behind the piece that descriptors came with: they belong to the message that it ends in.
    if (fds.length > 0) this.came.push({ at: this.end - 1, fds });
    return ok(length > 0);
  }

  private tooMany(): Result<never> {
    const { codes, descriptorsLimit } = this.framing;
    return fail(codes.descriptors, `more than ${descriptorsLimit} descriptors with one message`);
  }

  private makeRoom(missing: number): void {
    const have = this.end - this.start;
    if (have > 0 && this.end + missing <= this.room.length) return;
    const room = have + missing <= this.room.length ? this.room : new Uint8Array(have + missing);
    room.set(this.room.subarray(this.start, this.end));
    this.room = room;
    for (const piece of this.came) piece.at -= this.start;
    this.start = 0;
    this.end = have;
  }

  /** The message at `start`, which is whole. */
  private take(): Result<Frame<Header> | null> {
    const { header } = this;
    if (header === null) return ok(null);
    const from = this.start + this.framing.headerSize;
    const to = from + header.size;
    let descriptors = this.none;
    if (this.came.length > 0) {
      const mine = this.came.filter(({ at }) => at < to);
      if (countOf(mine) > this.framing.descriptorsLimit) return this.tooMany();
      this.came = this.came.filter(({ at }) => at >= to);
      descriptors = new Descriptors(
        this.calls,
        mine.flatMap(({ fds }) => fds),
      );
    }
    this.start = to;
    this.header = null;
    this.looked = true;
    return ok({ header, payload: this.room.subarray(from, to), descriptors });
  }

  private ended(): Result<never> {
    const { codes } = this.framing;
    const within = this.end > this.start;
    return within
      ? fail(codes.cutOff, 'the other side went away within a message')
      : fail(codes.closed, 'the other side went away');
  }

  /**
   * Sends a whole message, or keeps a copy of what there is no room for. Bytes and descriptors stay the caller's; the
   * descriptors must stay open until `pending` is false. Codes: those of the socket, the framing's `notReading`.
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): Result<void> {
    if (this.backlogBytes + bytes.length > this.framing.backlogLimit) {
      return fail(this.framing.codes.notReading, `${this.backlogBytes} bytes wait for a peer that does not read`);
    }
    let taken = 0;
    if (this.backlog.length === 0) {
      const sent = send(this.calls, this.fd, bytes, fds);
      if (!sent.ok) return sent;
      taken = sent.value;
    }
    if (taken === bytes.length) return ok(undefined);
    this.backlog.push({ bytes: bytes.slice(taken), fds: taken === 0 ? fds : [], sent: 0 });
    this.backlogBytes += bytes.length - taken;
    // A part was taken of a long one: the socket says itself when it is full.
    const problem = taken === 0 ? null : this.flush();
    return problem === null ? ok(undefined) : { ok: false, error: problem };
  }

  /** Is there something that the socket had no room for? */
  get pending(): boolean {
    return this.backlog.length > 0;
  }

  /** Sends what waits, as far as there is room. */
  flush(): Problem | null {
    for (;;) {
      const first = this.backlog[0];
      if (first === undefined) return null;
      const sent = send(this.calls, this.fd, first.bytes.subarray(first.sent), first.sent === 0 ? first.fds : []);
      if (!sent.ok) return sent.error;
      if (sent.value === 0) return null;
      first.sent += sent.value;
      if (first.sent < first.bytes.length) continue;
      this.backlog.shift();
      this.backlogBytes -= first.bytes.length;
    }
  }

  /** Closes the socket and the descriptors of a message that never became whole. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const { fds } of this.came) for (const fd of fds) this.calls.close(fd);
    this.came = [];
    this.backlog = [];
    this.calls.close(this.fd);
  }
}
