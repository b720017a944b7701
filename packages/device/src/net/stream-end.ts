/**
 * Frames over a Unix stream socket: each behind its length in 4 bytes, most significant first, as QEMU's `-netdev stream`
 * has them. Frames on it are complete: no header of virtio, nothing left to do.
 *
 * Both directions go through one large buffer each, so that many frames cost one system call.
 */
import { HANGUP, type Reactor } from '@airlock/transport/reactor.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import type { NetEnd } from './end.ts';
import { ETHERNET_HEADER, FRAME_LIMIT, Frame, HEADROOM } from './frame.ts';
import { NO_OFFLOADS } from './offloads.ts';
import { Readiness } from './readiness.ts';

const PREFIX = 4;
const BUFFER = 512 * 1024;
/** What a slot needs: the frame, its length, and what may have to stand before it. */
const SLOT = FRAME_LIMIT + PREFIX + HEADROOM;
/** The longest frame of QEMU (NET_BUFSIZE). What says to be longer is no stream of frames any more. */
const STREAM_FRAME_LIMIT = 4096 + 65_536;
/** Frames of the peer that are dropped in a row before others have their turn. */
const DROPS_LIMIT = 256;
/** Where both buffers begin: room for the header before the first frame. */
const BASE = HEADROOM;

/** Where connections come from. */
export interface StreamSource {
  readonly name: string;
  /** Whoever comes has to be accepted, or it would be told without end that somebody waits. */
  readonly listens: boolean;
  /** A connected, non-blocking socket, or null when there is none now. */
  connect(): number | null;
  /** Calls when `connect` may have one; the returned function ends that. */
  wait(reactor: Reactor, ready: () => void): () => void;
  close(): void;
}

export class StreamEnd implements NetEnd {
  readonly name: string;
  readonly takes = NO_OFFLOADS;
  readonly gives = NO_OFFLOADS;
  readonly counters = { malformed: 0, refused: 0, connections: 0, misframed: 0, turnedAway: 0 };
  up = false;

  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly source: StreamSource;
  private fd = -1;
  private readiness: Readiness | null = null;
  private stopWaiting: (() => void) | null = null;
  private wake: () => void = () => {};
  private waking = false;
  /** The peer will not read any more; there may still be frames of it. */
  private hungUp = false;
  private closed = false;

  private readonly out: Memory;
  private outFrom = BASE;
  private outTo = BASE;
  private readonly slot: Frame;
  private slotOpen = false;
  // The bytes before a slot belong to the frame before it, and the header of virtio is read over them.
  private savedLow = 0;
  private savedHigh = 0;

  private readonly into: Memory;
  private inFrom = BASE;
  private inTo = BASE;
  private readonly next: Frame;
  private nextReady = false;

  constructor(calls: SystemCalls, reactor: Reactor, source: StreamSource) {
    this.calls = calls;
    this.reactor = reactor;
    this.source = source;
    this.name = source.name;
    this.out = calls.allocate(BUFFER);
    this.into = calls.allocate(BUFFER);
    this.slot = new Frame(this.out.bytes);
    this.next = new Frame(this.into.bytes);
  }

  open(wake: () => void): void {
    this.wake = wake;
    this.stopWaiting = this.source.wait(this.reactor, () => this.connect());
    this.connect();
  }

  setOffloads(): void {}

  private connect(): void {
    if (this.closed) return;
    if (this.fd >= 0 && this.hungUp) this.disconnect();
    if (this.fd >= 0 && !this.source.listens) return;
    const fd = this.source.connect();
    if (fd === null) return;
    if (this.fd >= 0) {
      // One peer at a time, and the one that is there stays.
      this.calls.close(fd);
      this.counters.turnedAway++;
      return;
    }
    this.hungUp = false;
    this.fd = fd;
    this.up = true;
    this.counters.connections++;
    this.outFrom = BASE;
    this.outTo = BASE;
    this.slotOpen = false;
    this.inFrom = BASE;
    this.inTo = BASE;
    this.nextReady = false;
    this.readiness = new Readiness(this.reactor, fd, (events) => {
      if ((events & HANGUP) !== 0) this.hungUp = true;
      if (this.outTo > this.outFrom) this.flush();
      this.wake();
    });
    this.wakeLater();
  }

  private disconnect(): void {
    if (this.fd < 0) return;
    this.readiness?.close();
    this.readiness = null;
    this.calls.close(this.fd);
    this.fd = -1;
    this.up = false;
    this.nextReady = false;
    // What was on its way and not whole is gone with the wire.
    if (this.outTo > this.outFrom) this.counters.refused++;
    this.outFrom = BASE;
    this.outTo = BASE;
    this.wakeLater();
  }

  /** Not from within a call of the device. */
  private wakeLater(): void {
    if (this.waking || this.closed) return;
    this.waking = true;
    this.reactor.after(0, () => {
      this.waking = false;
      if (!this.closed) this.wake();
    });
  }

  room(): Frame | null {
    this.closeSlot();
    if (BUFFER - this.outTo < SLOT) {
      this.flush();
      if (BUFFER - this.outTo < SLOT) return null;
    }
    if (this.fd < 0) return null;
    const { view } = this.out;
    this.savedLow = view.getUint32(this.outTo - 8);
    this.savedHigh = view.getUint32(this.outTo - 4);
    this.slotOpen = true;
    this.slot.start = this.outTo + PREFIX;
    return this.slot;
  }

  private closeSlot(): void {
    if (!this.slotOpen) return;
    this.slotOpen = false;
    this.out.view.setUint32(this.outTo - 8, this.savedLow);
    this.out.view.setUint32(this.outTo - 4, this.savedHigh);
  }

  send(): void {
    this.closeSlot();
    const { length } = this.slot;
    this.out.view.setUint32(this.outTo, length);
    this.outTo += PREFIX + length;
  }

  flush(): void {
    this.closeSlot();
    while (this.fd >= 0 && this.outFrom < this.outTo) {
      const sent = this.calls.write(this.fd, this.out.address + this.outFrom, this.outTo - this.outFrom);
      if (sent <= 0) {
        const name = this.calls.errnoName(-sent);
        if (name === 'EINTR') continue;
        if (name !== 'EAGAIN') {
          this.disconnect();
          return;
        }
        this.readiness?.full(true);
        // So that more frames fit behind what waits.
        if (this.outFrom > BUFFER / 2) {
          this.out.bytes.copyWithin(BASE, this.outFrom, this.outTo);
          this.outTo -= this.outFrom - BASE;
          this.outFrom = BASE;
        }
        return;
      }
      this.outFrom += sent;
    }
    this.outFrom = BASE;
    this.outTo = BASE;
    this.readiness?.full(false);
  }

  peek(): Frame | null {
    if (this.nextReady) return this.next;
    for (let dropped = 0; this.fd >= 0; ) {
      if (dropped === DROPS_LIMIT) {
        this.wakeLater();
        return null;
      }
      const have = this.inTo - this.inFrom;
      if (have < PREFIX) {
        if (!this.fill()) return null;
        continue;
      }
      const length = this.into.view.getUint32(this.inFrom);
      if (length === 0 || length > STREAM_FRAME_LIMIT) {
        // Nobody can tell where the next frame begins.
        this.counters.misframed++;
        this.disconnect();
        return null;
      }
      if (have < PREFIX + length) {
        if (!this.fill()) return null;
        continue;
      }
      if (length < ETHERNET_HEADER || length > FRAME_LIMIT) {
        this.counters.malformed++;
        dropped++;
        this.inFrom += PREFIX + length;
        continue;
      }
      this.next.start = this.inFrom + PREFIX;
      this.next.length = length;
      this.next.complete();
      this.nextReady = true;
      return this.next;
    }
    return null;
  }

  advance(): void {
    if (!this.nextReady) return;
    this.nextReady = false;
    this.inFrom += PREFIX + this.next.length;
  }

  /** Reads what there is. False when there was nothing, or nobody is there any more. */
  private fill(): boolean {
    if (this.readiness?.drained !== false) return false;
    if (this.inFrom === this.inTo) {
      this.inFrom = BASE;
      this.inTo = BASE;
    } else if (BUFFER - this.inFrom < PREFIX + STREAM_FRAME_LIMIT) {
      this.into.bytes.copyWithin(BASE, this.inFrom, this.inTo);
      this.inTo -= this.inFrom - BASE;
      this.inFrom = BASE;
    }
    for (;;) {
      const got = this.calls.read(this.fd, this.into.address + this.inTo, BUFFER - this.inTo);
      if (got > 0) {
        this.inTo += got;
        return true;
      }
      const name = got === 0 ? 'closed' : this.calls.errnoName(-got);
      if (name === 'EINTR') continue;
      if (name === 'EAGAIN') this.readiness.empty();
      else this.disconnect();
      return false;
    }
  }

  close(): void {
    this.closed = true;
    this.stopWaiting?.();
    this.disconnect();
    this.source.close();
  }
}
