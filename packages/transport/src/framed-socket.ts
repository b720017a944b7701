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

interface Waiting {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  sent: number;
}

export class FramedSocket<Header> {
  readonly fd: number;
  private readonly calls: UnixCalls;
  private readonly framing: Framing<Header>;
  private readonly head: Uint8Array;
  private body = new Uint8Array(4096);
  private header: (Header & { readonly size: number }) | null = null;
  private have = 0;
  private fds: number[] = [];
  private backlog: Waiting[] = [];
  private backlogBytes = 0;
  private closed = false;

  /** `fd` is a non-blocking stream socket, from now on this object's to close. */
  constructor(calls: UnixCalls, fd: number, framing: Framing<Header>) {
    this.calls = calls;
    this.fd = fd;
    this.framing = framing;
    this.head = new Uint8Array(framing.headerSize);
  }

  /**
   * The next whole message; null when there is none yet. Codes: the framing's (`closed`: the other side is gone;
   * `cutOff`: that was within a message; `descriptors`), those of its `parse` and of the socket. After a failure the
   * stream is of no more use.
   */
  next(): Result<Frame<Header> | null> {
    const { framing } = this;
    for (;;) {
      const { header } = this;
      const target = header === null ? this.head : this.body;
      const size = header === null ? framing.headerSize : header.size;
      if (this.have < size) {
        const received = receive(this.calls, this.fd, target.subarray(this.have, size), framing.descriptorsLimit);
        if (!received.ok) return received;
        const { length, fds, closed } = received.value;
        this.fds.push(...fds);
        if (closed) return this.ended();
        if (length === 0) return ok(null);
        this.have += length;
        if (this.fds.length > framing.descriptorsLimit) {
          return fail(framing.codes.descriptors, `more than ${framing.descriptorsLimit} descriptors with one message`);
        }
        continue;
      }
      if (header === null) {
        const parsed = framing.parse(this.head);
        if (!parsed.ok) return parsed;
        this.header = parsed.value;
        this.have = 0;
        if (parsed.value.size > this.body.length) this.body = new Uint8Array(parsed.value.size);
        continue;
      }
      const descriptors = new Descriptors(this.calls, this.fds);
      this.header = null;
      this.have = 0;
      this.fds = [];
      return ok({ header, payload: this.body.subarray(0, header.size), descriptors });
    }
  }

  private ended(): Result<never> {
    const { codes } = this.framing;
    const within = this.header !== null || this.have > 0;
    return within
      ? fail(codes.cutOff, 'the other side went away within a message')
      : fail(codes.closed, 'the other side went away');
  }

  /**
   * Sends a whole message, or keeps it until there is room; `bytes` is the socket's from now on. The descriptors stay the
   * caller's and must stay open until `pending` is false. Codes: those of the socket, the framing's `notReading`.
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): Result<void> {
    if (this.backlogBytes + bytes.length > this.framing.backlogLimit) {
      return fail(this.framing.codes.notReading, `${this.backlogBytes} bytes wait for a peer that does not read`);
    }
    this.backlog.push({ bytes, fds, sent: 0 });
    this.backlogBytes += bytes.length;
    const problem = this.flush();
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
    for (const fd of this.fds) this.calls.close(fd);
    this.fds = [];
    this.backlog = [];
    this.calls.close(this.fd);
  }
}
