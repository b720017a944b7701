/**
 * Questions and answers between a front-end and a back-end that it does not trust: every answer has a limit of time and
 * of size, must be the one that was asked for, and whoever breaks that is not spoken to again.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Frame } from '../framed-socket.ts';
import type { SystemCalls } from '../system-calls.ts';
import { connectUnix } from '../unix-socket.ts';
import { encodeMessage, type Header } from './message.ts';
import { type MessageSocket, messageSocket } from './message-socket.ts';
import { NO_PAYLOAD, type Payload, parsePayload, type Words } from './payload.ts';
import { type Form, FRONT_END_MESSAGES, type FrontEndMessage, NEED_REPLY, REPLY } from './protocol.ts';
import type { Wait } from './wait.ts';

export interface CallerOptions {
  readonly calls: SystemCalls;
  readonly wait: Wait;
  /** Milliseconds that an answer may take. */
  readonly timeout: number;
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number;
}

/** An answer: its payload, and its descriptors, which are the caller's to close. */
export interface Answered {
  readonly payload: Payload;
  readonly fds: readonly number[];
}

export class Caller {
  /** Why nothing can be asked any more. */
  broken: Problem | null = null;
  /** Ask for an acknowledgement of everything: REPLY_ACK was agreed on. */
  acknowledged = false;
  /** Other descriptors to serve while waiting, and how: the back-end's own channel. */
  aside: { readonly fd: number; readonly serve: () => Problem | null } | null = null;
  private readonly options: CallerOptions;
  private readonly socket: MessageSocket;

  /** Takes over `fd`. */
  constructor(options: CallerOptions, fd: number) {
    this.options = options;
    this.socket = messageSocket(options.calls, fd);
  }

  /** Waits for a back-end that has others waiting already. Codes: those of `connectUnix`. */
  static connect(options: CallerOptions, path: string): Result<Caller> {
    const end = options.now() + options.timeout;
    for (;;) {
      const fd = connectUnix(options.calls, path);
      if (fd.ok) return ok(new Caller(options, fd.value));
      if (fd.error.code !== 'socket-busy' || options.now() >= end) return fd;
      options.wait([], -1, 10);
    }
  }

  /**
   * Asks, and waits for the answer that the message has by itself; its form must be the one that the standard says.
   * Codes: `vhost-user-reply-late`, `vhost-user-reply-invalid`, `vhost-user-closed`, those of the socket.
   */
  ask(name: FrontEndMessage, payload: Payload = NO_PAYLOAD, most = 0): Result<Answered> {
    const kind = FRONT_END_MESSAGES[name];
    const sent = this.send(kind.number, 0, payload, []);
    if (!sent.ok) return sent;
    return this.answer(name, kind.reply ?? 'u64', most);
  }

  /** The answer as 64 bits. Codes as `ask`. */
  askWords(name: FrontEndMessage): Result<Words> {
    const answered = this.ask(name);
    if (!answered.ok) return answered;
    const { payload } = answered.value;
    return payload.form === 'u64' ? ok(payload.words) : this.break('vhost-user-reply-invalid', `${name}: no number`);
  }

  /** The answer as a number below `limit`; a larger one is no answer. Codes as `ask`. */
  askNumber(name: FrontEndMessage, limit: number): Result<number> {
    const words = this.askWords(name);
    if (!words.ok) return words;
    const value = words.value[1] * 2 ** 32 + words.value[0];
    if (value < limit) return ok(value);
    return this.break('vhost-user-reply-invalid', `${name}: ${value}, and the limit is ${limit}`);
  }

  /**
   * Tells the back-end something; with REPLY_ACK waits until it says yes. Codes: `vhost-user-refused`, and as `ask`.
   * The descriptors stay the caller's.
   */
  tell(name: FrontEndMessage, payload: Payload = NO_PAYLOAD, fds: readonly number[] = []): Result<void> {
    const { number } = FRONT_END_MESSAGES[name];
    const sent = this.send(number, this.acknowledged ? NEED_REPLY : 0, payload, fds);
    if (!sent.ok || !this.acknowledged) return sent;
    const answered = this.answer(name, 'u64', 0);
    if (!answered.ok) return answered;
    const word = answered.value.payload;
    if (word.form === 'u64' && word.words[0] === 0 && word.words[1] === 0) return ok(undefined);
    return fail('vhost-user-refused', `the back-end refused ${name}`);
  }

  /** Tells the back-end something and does not wait, whatever was agreed on. Codes: those of the socket. */
  tellOnly(name: FrontEndMessage, payload: Payload): Result<void> {
    return this.send(FRONT_END_MESSAGES[name].number, 0, payload, []);
  }

  /**
   * Sends a request of any number and tells what became of it: the number that came back, or null where nothing did
   * before the time was over. Codes as `ask`, but not `vhost-user-reply-late`.
   */
  probe(request: number, flags: number, payload: Payload, milliseconds: number): Result<number | null> {
    const sent = this.send(request, flags, payload, []);
    if (!sent.ok) return sent;
    const frame = this.receive(milliseconds);
    if (!frame.ok) return frame;
    if (frame.value === null) return ok(null);
    frame.value.descriptors.close();
    const { header, payload: bytes } = frame.value;
    if (header.request !== request || bytes.length !== 8) {
      return this.break('vhost-user-reply-invalid', `request ${request} was answered by ${header.request}`);
    }
    return ok(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true));
  }

  private send(request: number, flags: number, payload: Payload, fds: readonly number[]): Result<void> {
    if (this.broken !== null) return { ok: false, error: this.broken };
    const sent = this.socket.send(encodeMessage(request, flags, payload), fds);
    if (!sent.ok) return this.break(sent.error.code, sent.error.message);
    const end = this.options.now() + this.options.timeout;
    while (this.socket.pending) {
      const left = end - this.options.now();
      if (left <= 0) return this.break('vhost-user-reply-late', 'the back-end does not read what it is sent');
      this.options.wait([], this.socket.fd, left);
      const problem = this.socket.flush();
      if (problem !== null) return this.break(problem.code, problem.message);
    }
    return ok(undefined);
  }

  private answer(name: FrontEndMessage, form: Form, most: number): Result<Answered> {
    const frame = this.receive(this.options.timeout);
    if (!frame.ok) return frame;
    if (frame.value === null) {
      return this.break('vhost-user-reply-late', `${name} was not answered within ${this.options.timeout} ms`);
    }
    const { header, payload: bytes, descriptors } = frame.value;
    const refuse = (text: string): Result<never> => {
      descriptors.close();
      return this.break('vhost-user-reply-invalid', `${name}: ${text}`);
    };
    if (header.request !== FRONT_END_MESSAGES[name].number) return refuse(`answered by request ${header.request}`);
    if ((header.flags & REPLY) === 0) return refuse('the answer is no reply');
    if (descriptors.count > most) return refuse(`${descriptors.count} descriptors came along`);
    // GET_CONFIG says no with an empty payload.
    const empty = form === 'config' && bytes.length === 0;
    const payload = empty ? ok(NO_PAYLOAD) : parsePayload(form, bytes);
    if (!payload.ok) return refuse(payload.error.message);
    const fds = Array.from({ length: descriptors.count }, (_, at) => descriptors.take(at));
    return ok({ payload: payload.value, fds });
  }

  /** The next message; null when the time is over. */
  private receive(milliseconds: number): Result<Frame<Header> | null> {
    const end = this.options.now() + milliseconds;
    for (;;) {
      const frame = this.socket.next();
      if (!frame.ok) return this.break(frame.error.code, frame.error.message);
      if (frame.value !== null) return frame;
      const left = end - this.options.now();
      if (left <= 0) return ok(null);
      const { aside } = this;
      this.options.wait(aside === null ? [this.socket.fd] : [this.socket.fd, aside.fd], -1, left);
      const problem = aside?.serve() ?? null;
      if (problem !== null) return this.break(problem.code, problem.message);
    }
  }

  private break(code: string, message: string): Result<never> {
    this.broken ??= { code, message };
    return fail(code, message);
  }

  close(): void {
    this.broken ??= { code: 'vhost-user-closed', message: 'this front-end closed the connection' };
    this.socket.close();
  }
}
