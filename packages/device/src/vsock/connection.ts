/** One connection between a port of the guest and a stream on the host. VIRTIO 1.4 §5.10.6. */
import { HANGUP, READABLE, WRITABLE } from '@airlock/transport/reactor.ts';
import { ByteQueue } from '../byte-queue.ts';
import { type HostStream, STREAM_END, STREAM_FAILED } from '../host-stream.ts';
import { ReceiveCredit, SendCredit } from './credit.ts';
import { Messages } from './messages.ts';

/** Bytes of one connection that wait for the host: `buf_alloc`. */
export const CONNECTION_BUFFER = 128 * 1024;

/** We asked the guest for it, who has not answered. */
export const REQUESTED = 0;
export const ESTABLISHED = 1;
/** Nothing will be sent or taken any more; the guest was told, and its RST is awaited. */
export const SHUT = 2;

/** Packets that are owed to the guest; each at most once, whatever the guest does. */
export const OWES_REQUEST = 1;
export const OWES_RESPONSE = 2;
export const OWES_UPDATE = 4;
export const OWES_SHUTDOWN = 8;

/** SHUTDOWN flags: who sends it will not receive, will not send any more. */
export const NO_RECEIVE = 1;
export const NO_SEND = 2;

/** What `pull` found. */
export const PULLED = 1;
export const DRY = 0;
export const ENDED = 2;
export const LOST = 3;

export class VsockConnection {
  readonly guestPort: number;
  readonly hostPort: number;
  readonly type: number;
  state: number;
  owed = 0;
  readonly send = new SendCredit();
  readonly receive = new ReceiveCredit(CONNECTION_BUFFER);
  /** Came from the guest, waits for the host. */
  readonly toHost = new ByteQueue(CONNECTION_BUFFER);
  /** Came from the host and was not sent yet: what is left of one read. */
  readonly fromHost = new ByteQueue(CONNECTION_BUFFER);
  /** SEQPACKET only. */
  readonly messages: Messages | null;
  /** The host will send no more. */
  hostEnded = false;
  /** The host will take no more. */
  hostRefuses = false;
  /** Nobody is at the other end of the stream any more; what it left can still be read. */
  hungUp = false;
  guestEnded = false;
  guestRefuses = false;
  /** Flags of the last SHUTDOWN that was sent. */
  told = 0;

  private readonly stream: HostStream;
  private readonly ready: (events: number) => void;
  private waiting = 0;
  private writingEnded = false;

  constructor(
    at: { readonly guestPort: number; readonly hostPort: number; readonly type: number; readonly messages: boolean },
    state: number,
    stream: HostStream,
    ready: (connection: VsockConnection, events: number) => void,
  ) {
    this.guestPort = at.guestPort;
    this.hostPort = at.hostPort;
    this.type = at.type;
    this.state = state;
    this.stream = stream;
    this.messages = at.messages ? new Messages() : null;
    this.ready = (events) => {
      if ((events & HANGUP) !== 0) this.hungUp = true;
      ready(this, events);
    };
  }

  /** May bytes be read from the host for the guest? */
  get mayPull(): boolean {
    return this.state === ESTABLISHED && !this.hostEnded && !this.guestRefuses && this.send.room > 0;
  }

  /** What the guest is to know about the end of the stream, as flags of a SHUTDOWN. */
  get ended(): number {
    const noMore = this.hostEnded || this.guestRefuses;
    const nobody = this.hungUp || this.hostRefuses || (this.guestEnded && this.toHost.length === 0);
    if (noMore && nobody) return NO_RECEIVE | NO_SEND;
    return (this.hostRefuses ? NO_RECEIVE : 0) | (this.hostEnded ? NO_SEND : 0);
  }

  /** Reads what the guest has room for into `fromHost`, through `scratch`: PULLED, DRY, ENDED or LOST. */
  pull(scratch: Uint8Array): number {
    // A message is read whole or not at all: what does not fit into `into` would be gone.
    const most = this.messages === null ? Math.min(this.send.room, scratch.length) : scratch.length;
    const count = this.stream.read(scratch.subarray(0, most));
    if (count > 0) {
      // A guest gives credit back for whole messages: one that is larger than its buffer would never be whole.
      if (this.messages !== null && count > this.send.largest) return LOST;
      this.fromHost.push(scratch.subarray(0, count));
      return PULLED;
    }
    if (count === STREAM_FAILED) return LOST;
    // Who hung up sends no more: nothing to read now is nothing to read for good.
    if (count !== STREAM_END && !this.hungUp) return DRY;
    this.hostEnded = true;
    return ENDED;
  }

  /**
   * Takes a payload of the guest's: to the host at once if it takes it, into the buffer otherwise. False where the
   * guest broke a rule of credit, or of messages.
   */
  accept(payload: Uint8Array, endOfMessage: boolean): boolean {
    if (!this.receive.take(payload.length)) return false;
    if (this.hostRefuses) {
      this.receive.forward(payload.length);
      return true;
    }
    if (this.messages !== null) {
      this.toHost.push(payload);
      return this.messages.add(payload.length, endOfMessage);
    }
    let taken = 0;
    if (this.toHost.length === 0) {
      taken = this.stream.write(payload);
      if (taken < 0) return this.refuse(payload.length);
      this.receive.forward(taken);
    }
    this.toHost.push(payload.subarray(taken));
    return true;
  }

  /** Moves what waits on to the host. */
  flush(): void {
    if (this.messages !== null) this.flushMessages(this.messages);
    else this.flushBytes();
    if (this.guestEnded && this.toHost.length === 0 && !this.writingEnded) {
      this.writingEnded = true;
      this.stream.endWriting();
    }
  }

  private flushBytes(): void {
    while (this.toHost.length > 0) {
      const count = this.stream.write(this.toHost.peek());
      if (count < 0) this.refuse(0);
      if (count <= 0) return;
      this.toHost.drop(count);
      this.receive.forward(count);
    }
  }

  private flushMessages(messages: Messages): void {
    for (let length = messages.first; length !== undefined; length = messages.first) {
      const count = this.stream.write(this.toHost.front(length));
      if (count < 0) this.refuse(0);
      if (count < 0 || (count === 0 && length > 0)) return;
      this.toHost.drop(length);
      this.receive.forward(length);
      messages.shift();
    }
  }

  /** The host takes no more: what waits for it, and `more` that was not put there, counts as gone. */
  private refuse(more: number): true {
    this.hostRefuses = true;
    this.receive.forward(this.toHost.length + more);
    this.toHost.clear();
    this.messages?.clear();
    return true;
  }

  /** The guest will not receive any more. */
  refuseFromGuest(): void {
    this.guestRefuses = true;
    this.fromHost.clear();
  }

  /** A few bytes of ours before those of the guest. False when the host does not take them at once. */
  greet(bytes: Uint8Array): boolean {
    return this.stream.write(bytes) === bytes.length;
  }

  /** Waits for what is to be waited for; `pulling`: somebody will read from it in any case. */
  wait(pulling: boolean): void {
    let events = 0;
    if (!this.hungUp && this.state !== SHUT) {
      const blocked = this.messages === null ? this.toHost.length > 0 : this.messages.first !== undefined;
      if (blocked) events |= WRITABLE;
      if (this.mayPull && !pulling && this.fromHost.length === 0) events |= READABLE;
    }
    if (events === this.waiting) return;
    this.waiting = events;
    this.stream.wait(events, this.ready);
  }

  close(): void {
    this.waiting = 0;
    this.stream.close();
    this.toHost.clear();
    this.fromHost.clear();
  }
}
