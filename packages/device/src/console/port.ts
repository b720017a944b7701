/**
 * One port: bytes of the guest to whoever is at the host's end, and back. A port that nobody takes from holds one chain
 * and its own queues, never those of others; a console instead drops what nobody takes, because a kernel that prints
 * waits for its buffer with everything else stopped. VIRTIO 1.4 §5.3.6.
 */
import { HANGUP, READABLE, WRITABLE } from '@airlock/transport/reactor.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink } from '@airlock/virtio/served-device.ts';
import { ByteQueue } from '../byte-queue.ts';
import { STREAM_END, STREAM_FAILED } from '../host-stream.ts';
import type { PortEnd } from './port-end.ts';

export const CHAIN_LIMIT = 64;
/** Bytes that wait for the host's end: of a console all that it may be behind, of other ports only what a pause left. */
export const BEHIND_LIMIT = 64 * 1024;
const CHUNK = 16 * 1024;
/** What one turn does at most. */
const TURN_CHAINS = 128;
const TURN_BYTES = 1024 * 1024;

export interface PortCounts {
  /** Bytes of the guest that nobody took in time. */
  dropped: number;
  /** Chains that made no sense. */
  malformed: number;
}

export class ConsolePort {
  readonly name: string;
  readonly isConsole: boolean;
  readonly counts: PortCounts = { dropped: 0, malformed: 0 };
  private readonly rxIndex: number;
  private readonly end: PortEnd;
  private readonly sending = new Chain(2 * CHAIN_LIMIT);
  private readonly receiving = new Chain(2 * CHAIN_LIMIT);
  private readonly scratch = new Uint8Array(CHUNK);
  /** Came from the guest. */
  private readonly behind = new ByteQueue(BEHIND_LIMIT);
  /** Came from the host: what is left of one read. */
  private readonly fromHost = new ByteQueue(CHUNK);
  private link: DeviceLink | null = null;
  private rx: DeviceQueue | null = null;
  private tx: DeviceQueue | null = null;
  /** Where in the chain that is being sent, -1 when there is none. */
  private at = -1;
  private accepting = false;
  private hungUp = false;
  private waiting = 0;

  /** `rxIndex`: the number of its receive queue; its transmit queue is the next. */
  constructor(port: { readonly name: string; readonly isConsole: boolean }, rxIndex: number, end: PortEnd) {
    this.name = port.name;
    this.isConsole = port.isConsole;
    this.rxIndex = rxIndex;
    this.end = end;
  }

  get connected(): boolean {
    return this.end.stream !== null;
  }

  /** `changed` is called when somebody came to the host's end, or left. */
  begin(changed: (port: ConsolePort) => void): void {
    this.end.begin(() => {
      this.hungUp = false;
      this.waiting = 0;
      changed(this);
      this.turn();
    });
  }

  start(link: DeviceLink): void {
    this.link = link;
  }

  startQueue(index: number, queue: DeviceQueue): void {
    if (index === this.rxIndex) this.rx = queue;
    else this.tx = queue;
    this.turn();
  }

  stopQueue(index: number): void {
    if (index === this.rxIndex) {
      this.rx = null;
      return;
    }
    if (this.tx !== null && this.at >= 0) this.setAside(this.tx);
    this.tx = null;
  }

  /** Keeps what is left of the chain that is being sent, and gives it back. */
  private setAside(queue: DeviceQueue): void {
    while (this.at < this.sending.readableBytes && this.behind.room > 0) {
      const count = this.sending.read(this.at, this.scratch);
      this.at += this.behind.push(this.scratch.subarray(0, count));
    }
    this.counts.dropped += this.sending.readableBytes - this.at;
    this.giveSent(queue);
    queue.publish();
    this.link?.notify(this.rxIndex + 1);
  }

  /** The driver is gone; whoever is at the host's end stays. */
  stop(): void {
    this.link = null;
    this.accepting = false;
    this.fromHost.clear();
    this.wait();
  }

  close(): void {
    this.end.close();
  }

  /** Does the guest want what comes from the host? */
  accept(accepting: boolean): void {
    this.accepting = accepting;
    this.turn();
  }

  /** Works on a queue of this port; how many chains it took. */
  serve(index: number): number {
    const taken = index === this.rxIndex ? this.receive() : this.send();
    this.wait();
    return taken;
  }

  private turn(): void {
    this.send();
    this.receive();
    // Nobody at either end: the next may come.
    if (this.hungUp && (this.rx === null || !this.accepting)) this.end.lost();
    this.wait();
  }

  // ---- guest to host ---------------------------------------------------------------------------------------------

  private send(): number {
    this.flushBehind();
    const queue = this.tx;
    if (queue === null) return 0;
    let taken = 0;
    let bytes = 0;
    while (taken < TURN_CHAINS && bytes < TURN_BYTES) {
      if (this.at < 0) {
        // Behind goes first; a console does not wait for it.
        if (this.behind.length > 0 && !this.isConsole) break;
        const outcome = queue.take(this.sending);
        if (outcome === MALFORMED) this.counts.malformed++;
        else if (outcome === DONE) this.at = 0;
        else {
          this.checkBroken(outcome, queue);
          break;
        }
        taken++;
        if (outcome === MALFORMED) continue;
      }
      const moved = this.moveOn();
      bytes += moved;
      if (this.at >= this.sending.readableBytes) this.giveSent(queue);
      else if (moved === 0) break;
    }
    queue.publish();
    this.link?.notify(this.rxIndex + 1);
    return taken > 0 || bytes === 0 ? taken : 1;
  }

  private giveSent(queue: DeviceQueue): void {
    queue.give(this.sending.id, 0);
    this.at = -1;
  }

  /** Sends a piece of the chain on; how many bytes, 0 when none can be taken now. */
  private moveOn(): number {
    const left = this.sending.readableBytes - this.at;
    if (this.end.stream === null) {
      // Nobody is there: as with a cable that leads nowhere.
      this.at += left;
      return left;
    }
    const count = this.sending.read(this.at, this.scratch);
    const piece = this.scratch.subarray(0, count);
    const taken = this.behind.length > 0 ? 0 : this.write(piece);
    if (this.isConsole) {
      const kept = this.behind.push(piece.subarray(taken));
      this.counts.dropped += count - taken - kept;
      this.at += count;
      return count;
    }
    this.at += taken;
    return taken;
  }

  private flushBehind(): void {
    while (this.behind.length > 0) {
      const piece = this.behind.peek();
      const taken = this.end.stream === null ? piece.length : this.write(piece);
      if (taken === 0) return;
      this.behind.drop(taken);
    }
  }

  /** How many bytes the end took; all of them when it never will. */
  private write(bytes: Uint8Array): number {
    const taken = this.end.stream?.write(bytes) ?? bytes.length;
    if (taken >= 0) return taken;
    this.hungUp = true;
    this.counts.dropped += bytes.length;
    return bytes.length;
  }

  // ---- host to guest ---------------------------------------------------------------------------------------------

  private receive(): number {
    const queue = this.rx;
    if (queue === null) return 0;
    let taken = 0;
    while (taken < TURN_CHAINS && this.pull()) {
      const outcome = queue.take(this.receiving);
      if (outcome === DONE) queue.give(this.receiving.id, this.fill());
      else if (outcome === MALFORMED) this.counts.malformed++;
      else {
        this.checkBroken(outcome, queue);
        break;
      }
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      this.link?.notify(this.rxIndex);
    }
    return taken;
  }

  /** Is there something for the guest? Reads where nothing is left. */
  private pull(): boolean {
    if (!this.accepting) return false;
    if (this.fromHost.length > 0) return true;
    const count = this.end.stream?.read(this.scratch) ?? 0;
    if (count > 0) {
      this.fromHost.push(this.scratch.subarray(0, count));
      return true;
    }
    if (count === STREAM_END || count === STREAM_FAILED || this.hungUp) this.end.lost();
    return false;
  }

  private fill(): number {
    const { receiving, fromHost } = this;
    const written = receiving.write(0, fromHost.front(Math.min(receiving.writableBytes, fromHost.length)));
    if (written === 0) this.counts.malformed++;
    fromHost.drop(written);
    return written;
  }

  // ---- both ------------------------------------------------------------------------------------------------------

  private ready(events: number): void {
    if ((events & HANGUP) !== 0) this.hungUp = true;
    this.turn();
  }

  private wait(): void {
    const { stream } = this.end;
    if (stream === null) return;
    let events = 0;
    if (this.at >= 0 || this.behind.length > 0) events |= WRITABLE;
    if (this.accepting && this.rx !== null && this.fromHost.length === 0) events |= READABLE;
    if (this.hungUp) events = 0;
    if (events === this.waiting) return;
    this.waiting = events;
    stream.wait(events, (found) => this.ready(found));
  }

  private checkBroken(outcome: number, queue: DeviceQueue): void {
    if (outcome === BROKEN && queue.violation !== null) this.link?.needsReset(queue.violation);
  }

  /** A byte of a driver that cannot use its queues (§5.3.4, emerg_wr). */
  emergency(byte: number): void {
    this.behind.push(Uint8Array.of(byte));
    this.turn();
  }
}
