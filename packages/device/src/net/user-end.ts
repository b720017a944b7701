/** The user-mode network at the end of a device. */
import type { Reactor } from '@airlock/transport/reactor.ts';
import type { NetEnd } from './end.ts';
import { type Frame, ownFrame } from './frame.ts';
import { ALL_OFFLOADS, type Offloads } from './offloads.ts';
import { UserNetwork } from './user/network.ts';

/** How often connections that wait for a time are looked at, in milliseconds. */
const TICK = 100;

export class UserEnd implements NetEnd {
  readonly name = 'user-mode network, gateway 10.0.2.2';
  // Everything stays in memory: nobody reads a checksum that nobody damaged.
  readonly takes: Offloads = { ...ALL_OFFLOADS, tcp6: false };
  readonly gives: Offloads = { ...ALL_OFFLOADS, tcp6: false, ecn: false };
  readonly up = true;

  private readonly network: UserNetwork;
  private readonly reactor: Reactor;
  private wake: () => void = () => {};
  private cancel: (() => void) | null = null;
  private readonly slot = ownFrame();
  private readonly next = ownFrame();
  private nextReady = false;

  constructor(reactor: Reactor, random: () => number, mtu: number) {
    this.reactor = reactor;
    this.network = new UserNetwork({ now: () => reactor.now(), random, mtu });
  }

  get counters() {
    const { malformed, unserved, answersDropped } = this.network.counters;
    return { malformed, refused: answersDropped, unserved, ...prefixed(this.network.tcp.counters) };
  }

  open(wake: () => void): void {
    this.wake = wake;
  }

  setOffloads(offloads: Offloads): void {
    this.network.setOffloads(offloads);
  }

  room(): Frame {
    return this.slot;
  }

  send(): void {
    this.network.input(this.slot);
  }

  flush(): void {
    this.arm();
  }

  private arm(): void {
    if (this.cancel !== null || this.network.tcp.size === 0) return;
    this.cancel = this.reactor.after(TICK, () => {
      this.cancel = null;
      this.network.tcp.tick(this.reactor.now());
      this.wake();
      this.arm();
    });
  }

  peek(): Frame | null {
    if (!this.nextReady) this.nextReady = this.network.output(this.next);
    return this.nextReady ? this.next : null;
  }

  advance(): void {
    this.nextReady = false;
  }

  close(): void {
    this.cancel?.();
    this.cancel = null;
  }
}

function prefixed(counters: { readonly opened: number; readonly refused: number; readonly retransmitted: number }) {
  const { opened, refused, retransmitted } = counters;
  return { tcpOpened: opened, tcpRefused: refused, tcpRetransmitted: retransmitted };
}
