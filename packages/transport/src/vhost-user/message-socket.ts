/**
 * One end of a vhost-user stream: whole messages out of what has arrived, and messages into what the socket takes.
 * Nothing here waits: a peer that sends half a message, or does not read, holds up nobody but itself.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { receive, send, type UnixCalls } from '../unix-socket.ts';
import { DESCRIPTORS_LIMIT, encodeMessage, type Header, parseHeader } from './message.ts';
import { PAYLOAD_LIMIT, type Payload } from './payload.ts';
import { HEADER_SIZE } from './protocol.ts';

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

export interface Frame {
  readonly header: Header;
  readonly payload: Uint8Array;
  readonly descriptors: Descriptors;
}

/** Bytes that may wait to be sent. A peer that does not read its replies is given up when there are more. */
const BACKLOG_LIMIT = 65536;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  sent: number;
}

export class MessageSocket {
  readonly fd: number;
  private readonly calls: UnixCalls;
  private readonly head = new Uint8Array(HEADER_SIZE);
  private readonly body = new Uint8Array(PAYLOAD_LIMIT);
  private header: Header | null = null;
  private have = 0;
  private fds: number[] = [];
  private backlog: Waiting[] = [];
  private backlogBytes = 0;
  private closed = false;

  /** `fd` is a non-blocking stream socket, from now on this object's to close. */
  constructor(calls: UnixCalls, fd: number) {
    this.calls = calls;
    this.fd = fd;
  }

  /**
   * The next whole message; null when there is none yet. Its payload is valid until the next call. Codes:
   * `vhost-user-closed` (the other side is gone; `vhost-user-cut-off` when that was within a message), those of
   * `parseHeader` and of the socket, `vhost-user-descriptors`. After a failure the stream is of no more use.
   */
  next(): Result<Frame | null> {
    for (;;) {
      const { header } = this;
      const target = header === null ? this.head : this.body;
      const size = header === null ? HEADER_SIZE : header.size;
      if (this.have < size) {
        const received = receive(this.calls, this.fd, target.subarray(this.have, size), DESCRIPTORS_LIMIT);
        if (!received.ok) return received;
        const { length, fds, closed } = received.value;
        this.fds.push(...fds);
        if (closed) return this.ended();
        if (length === 0) return ok(null);
        this.have += length;
        if (this.fds.length > DESCRIPTORS_LIMIT) {
          return fail('vhost-user-descriptors', `more than ${DESCRIPTORS_LIMIT} descriptors with one message`);
        }
        continue;
      }
      if (header === null) {
        const parsed = parseHeader(this.head);
        if (!parsed.ok) return parsed;
        this.header = parsed.value;
        this.have = 0;
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
    const within = this.header !== null || this.have > 0;
    return within
      ? fail('vhost-user-cut-off', 'the other side went away within a message')
      : fail('vhost-user-closed', 'the other side went away');
  }

  /**
   * Sends a message, or keeps it until there is room. The descriptors stay the caller's and must stay open until
   * `pending` is false. Codes: those of the socket, `vhost-user-not-reading`.
   */
  send(request: number, flags: number, payload: Payload, fds: readonly number[] = []): Result<void> {
    const bytes = encodeMessage(request, flags, payload);
    if (this.backlogBytes + bytes.length > BACKLOG_LIMIT) {
      return fail('vhost-user-not-reading', `${this.backlogBytes} bytes wait for a peer that does not read`);
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
