/**
 * The channel on which a back-end speaks first: IOTLB misses, configuration changes. vhost-user "Back-end communication".
 * Nothing here asks for a reply, and nothing waits: what the front-end does not take now is kept, and there is never more
 * of it than one change and one miss for each queue.
 */
import type { Problem } from '@airlock/core/result.ts';
import { HANGUP, type Reactor, type Watch, WRITABLE } from '../reactor.ts';
import type { UnixCalls } from '../unix-socket.ts';
import { encodeMessage } from './message.ts';
import { type MessageSocket, messageSocket } from './message-socket.ts';
import { IOTLB_MISS, NO_PAYLOAD } from './payload.ts';
import { BACK_END_MESSAGES } from './protocol.ts';
import type { Miss } from './vring.ts';

export class BackEndChannel {
  private readonly socket: MessageSocket;
  private readonly watch: Watch;
  private readonly failed: (problem: Problem) => void;
  private configWaits = false;
  private readonly misses: Miss[] = [];
  private closed = false;

  /** Takes over `fd`. `failed` is told once; the channel is closed then. */
  constructor(calls: UnixCalls, reactor: Reactor, fd: number, failed: (problem: Problem) => void) {
    this.socket = messageSocket(calls, fd);
    this.failed = failed;
    this.watch = reactor.watch(fd, 0, (events) => {
      if ((events & HANGUP) === 0) this.sendWaiting();
      else this.fail({ code: 'vhost-user-closed', message: 'the front-end closed the back-end’s channel' });
    });
  }

  configChanged(): void {
    this.configWaits = true;
    this.sendWaiting();
  }

  miss(miss: Miss): void {
    this.misses.push(miss);
    this.sendWaiting();
  }

  private sendWaiting(): void {
    if (this.closed) return;
    let problem = this.socket.flush();
    while (problem === null && !this.socket.pending && (this.configWaits || this.misses.length > 0)) {
      problem = this.sendOne();
    }
    if (problem !== null) {
      this.fail(problem);
      return;
    }
    this.watch.setEvents(this.socket.pending ? WRITABLE : 0);
  }

  private sendOne(): Problem | null {
    const next = this.misses.shift();
    if (next === undefined) {
      this.configWaits = false;
      const sent = this.socket.send(encodeMessage(BACK_END_MESSAGES.BACKEND_CONFIG_CHANGE_MSG.number, 0, NO_PAYLOAD));
      return sent.ok ? null : sent.error;
    }
    const { address, access } = next;
    const entry = { address, size: 0, userAddress: 0, access, type: IOTLB_MISS };
    const sent = this.socket.send(
      encodeMessage(BACK_END_MESSAGES.BACKEND_IOTLB_MSG.number, 0, { form: 'iotlb', entry }),
    );
    return sent.ok ? null : sent.error;
  }

  private fail(problem: Problem): void {
    if (this.closed) return;
    this.close();
    this.failed(problem);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.watch.close();
    this.socket.close();
  }
}
