/**
 * One front-end's connection to a back-end: every message, in any order, from a peer that is not trusted. What a message
 * gets wrong is answered where the protocol has an answer (REPLY_ACK, an empty GET_CONFIG) and ends the connection where
 * it has none, because a front-end that believes in a state that is not there must not go on.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Descriptors } from '../framed-socket.ts';
import { READABLE, type Watch, WRITABLE } from '../reactor.ts';
import { encodeMessage, type Header, parseRequest } from './message.ts';
import { type MessageSocket, messageSocket } from './message-socket.ts';
import { NO_PAYLOAD, type Payload } from './payload.ts';
import {
  FRONT_END_MESSAGES,
  type FrontEndMessage,
  frontEndMessage,
  hasProtocolFeature,
  type MessageKind,
  NEED_REPLY,
  REPLY,
} from './protocol.ts';
import { type Answer, Requests, type RequestsOwner } from './requests.ts';

export interface SessionOwner extends RequestsOwner {
  /** The connection is over; told once. `vhost-user-closed` is how a front-end leaves in order. */
  readonly ended: (why: Problem) => void;
}

export class Session {
  readonly requests: Requests;
  private readonly owner: SessionOwner;
  private readonly socket: MessageSocket;
  private readonly watch: Watch;
  private open = true;

  /** Takes over `fd`, a connected, non-blocking stream socket. */
  constructor(owner: SessionOwner, fd: number) {
    this.owner = owner;
    this.requests = new Requests(owner);
    this.socket = messageSocket(owner.calls, fd);
    this.watch = owner.reactor.watch(fd, READABLE, () => this.turn());
  }

  private turn(): void {
    const problem = this.socket.flush();
    if (problem !== null) {
      this.close(problem);
      return;
    }
    while (this.open && !this.socket.pending) {
      const frame = this.socket.next();
      if (!frame.ok) {
        this.close(frame.error);
        return;
      }
      if (frame.value === null) break;
      const { header, payload, descriptors } = frame.value;
      const outcome = this.handle(header, payload, descriptors);
      descriptors.close();
      if (!outcome.ok) this.close(outcome.error);
    }
    // Whoever does not read its replies is not listened to either.
    if (this.open) this.watch.setEvents(this.socket.pending ? WRITABLE : READABLE);
  }

  /** A failure ends the connection. */
  private handle(header: Header, bytes: Uint8Array, descriptors: Descriptors): Result<void> {
    if ((header.flags & REPLY) !== 0) return fail('vhost-user-flags', `request ${header.request} says it is a reply`);
    const name = frontEndMessage(header.request);
    if (name === undefined) {
      return this.refuse(header, null, { code: 'vhost-user-unknown', message: `request ${header.request}` });
    }
    const kind = FRONT_END_MESSAGES[name];
    const answer = this.answer(name, kind, bytes, descriptors);
    if (!answer.ok) return this.refuse(header, kind, answer.error);
    if (answer.value !== null) return this.reply(header, answer.value.payload, answer.value.fds);
    return this.acknowledges(header, kind) ? this.reply(header, { form: 'u64', words: [0, 0] }) : ok(undefined);
  }

  private answer(
    name: FrontEndMessage,
    kind: MessageKind,
    bytes: Uint8Array,
    descriptors: Descriptors,
  ): Result<Answer> {
    const { requests } = this;
    // A question may be asked as soon as the feature is on offer; front-ends do, before they agree.
    const known = kind.reply === null ? requests.agreed : requests.offered;
    if (kind.needs !== null && !hasProtocolFeature(known, kind.needs)) {
      return fail('vhost-user-not-negotiated', `${name} needs ${kind.needs}`);
    }
    const payload = parseRequest(kind, bytes, descriptors.count);
    return payload.ok ? requests.handle(name, payload.value, descriptors) : payload;
  }

  /** Says no, where the protocol lets one. What has no effect by being ignored is only reported. */
  private refuse(header: Header, kind: MessageKind | null, problem: Problem): Result<void> {
    if (kind?.name === 'GET_CONFIG') return this.told(problem, this.reply(header, NO_PAYLOAD));
    if (kind?.name === 'GET_INFLIGHT_FD') {
      const area = { size: 0, offset: 0, queues: 0, queueSize: 0 };
      return this.told(problem, this.reply(header, { form: 'inflight', area }));
    }
    if (kind?.reply != null) return { ok: false, error: problem };
    if (this.acknowledges(header, kind)) return this.told(problem, this.reply(header, { form: 'u64', words: [1, 0] }));
    const harmless = kind === null || kind.name === 'SET_CONFIG' || kind.name === 'IOTLB_MSG';
    return harmless ? this.told(problem, ok(undefined)) : { ok: false, error: problem };
  }

  private told(problem: Problem, result: Result<void>): Result<void> {
    this.owner.report(problem);
    return result;
  }

  /** Does the front-end wait for a word? IOTLB messages are acknowledged without REPLY_ACK, too. */
  private acknowledges(header: Header, kind: MessageKind | null): boolean {
    if ((header.flags & NEED_REPLY) === 0) return false;
    return kind?.name === 'IOTLB_MSG' || hasProtocolFeature(this.requests.agreed, 'REPLY_ACK');
  }

  private reply(header: Header, payload: Payload, fds: readonly number[] = []): Result<void> {
    return this.socket.send(encodeMessage(header.request, REPLY, payload), fds);
  }

  /** Ends the connection: queues stop, what was taken is given back, everything is let go of. */
  close(why: Problem): void {
    if (!this.open) return;
    this.open = false;
    this.watch.close();
    this.requests.close();
    this.socket.close();
    this.owner.ended(why);
  }
}
