/**
 * The front-end's end of the channel on which a back-end speaks first. What it asks for is small, and there is a limit to
 * how often it may ask before anything else happens.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { SystemCalls } from '../system-calls.ts';
import { socketPair } from '../unix-socket.ts';
import { encodeMessage, parseRequest } from './message.ts';
import { type MessageSocket, messageSocket } from './message-socket.ts';
import { IOTLB_MISS, type IotlbEntry } from './payload.ts';
import { BACK_END_MESSAGES, backEndMessage, NEED_REPLY, REPLY } from './protocol.ts';

export interface BackEndWishes {
  readonly configChanged: () => void;
  /** The back-end knows no translation of an address. False where there is none. */
  readonly missed: (entry: IotlbEntry) => boolean;
}

export class BackEndRequests {
  /** The end that goes to the back-end; closed once it was sent. */
  readonly far: number;
  private readonly calls: SystemCalls;
  private readonly socket: MessageSocket;
  private readonly wishes: BackEndWishes;
  private farOpen = true;
  private ended = false;

  private constructor(calls: SystemCalls, near: number, far: number, wishes: BackEndWishes) {
    this.calls = calls;
    this.socket = messageSocket(calls, near);
    this.far = far;
    this.wishes = wishes;
  }

  /** Code: `system-call-failed`. */
  static open(calls: SystemCalls, wishes: BackEndWishes): Result<BackEndRequests> {
    const pair = socketPair(calls);
    return pair.ok ? ok(new BackEndRequests(calls, pair.value[0], pair.value[1], wishes)) : pair;
  }

  /** To be waited for; -1 when the back-end has closed its end. */
  get fd(): number {
    return this.ended ? -1 : this.socket.fd;
  }

  closeFar(): void {
    if (this.farOpen) this.calls.close(this.far);
    this.farOpen = false;
  }

  /** Handles what has arrived. A back-end that breaks a rule here is not to be spoken to again. */
  serve(): Problem | null {
    while (!this.ended) {
      const frame = this.socket.next();
      if (!frame.ok) {
        this.ended = true;
        return frame.error.code === 'vhost-user-closed' ? null : frame.error;
      }
      if (frame.value === null) return null;
      const { header, payload, descriptors } = frame.value;
      const handled = this.handle(header.request, payload, descriptors.count);
      descriptors.close();
      if (!handled.ok) return handled.error;
      if ((header.flags & NEED_REPLY) === 0) continue;
      const words = [handled.value ? 0 : 1, 0] as const;
      const sent = this.socket.send(encodeMessage(header.request, REPLY, { form: 'u64', words }));
      if (!sent.ok) return sent.error;
    }
    return null;
  }

  private handle(request: number, bytes: Uint8Array, descriptors: number): Result<boolean> {
    const name = backEndMessage(request);
    if (name !== 'BACKEND_IOTLB_MSG' && name !== 'BACKEND_CONFIG_CHANGE_MSG') {
      return fail('vhost-user-unsupported', `the back-end asks for ${name ?? `request ${request}`}`);
    }
    const payload = parseRequest(BACK_END_MESSAGES[name], bytes, descriptors);
    if (!payload.ok) return payload;
    if (payload.value.form === 'iotlb') {
      const { entry } = payload.value;
      return ok(entry.type === IOTLB_MISS && this.wishes.missed(entry));
    }
    this.wishes.configChanged();
    return ok(true);
  }

  close(): void {
    this.closeFar();
    this.socket.close();
  }
}
