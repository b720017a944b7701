/**
 * Frames as datagrams between two Unix sockets, one each, as QEMU's `-netdev dgram` has them. The socket is connected, so
 * only that peer is heard, and a sandbox that has no paths any more can go on sending. What the other side does not take,
 * because it is not there or its queue is full, is counted or waits.
 */
import { basename, dirname } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import {
  AF_UNIX,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from '@airlock/transport/sys/sockets.ts';
import { callFailed, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { addressOf } from '@airlock/transport/unix-socket.ts';
import { openFolder } from '../socket-folder.ts';
import type { NetEnd } from './end.ts';
import { ETHERNET_HEADER, FRAME_LIMIT, Frame, HEADROOM } from './frame.ts';
import { NO_OFFLOADS } from './offloads.ts';
import { Readiness } from './readiness.ts';

/** Datagrams that are dropped in a row before others have their turn. */
const DROPS_LIMIT = 256;
/** When the other side's queue is full: nothing tells when it is not, so it is tried again, in milliseconds. */
const AGAIN_AFTER = 1;

/**
 * Bound to `local`, which must not be there yet, and sending to `remote`, which may come later; its folder has to be there.
 * Codes: `socket-path-invalid`, `socket-path-taken`, `system-call-failed`.
 */
export function openDatagrams(calls: SystemCalls, reactor: Reactor, local: string, remote: string): Result<NetEnd> {
  const [from, to] = [addressOf(local), addressOf(basename(remote))];
  if (from === null || to === null) {
    return fail('socket-path-invalid', `a socket path has 1 to 107 bytes: ${from === null ? local : remote}`);
  }
  const folder = openFolder(calls, dirname(remote));
  if (!folder.ok) return folder;
  const fd = calls.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    calls.close(folder.value);
    return callFailed(calls, 'socket(AF_UNIX)', fd);
  }
  const moded = calls.fchmod(fd, 0o600);
  const bound = moded < 0 ? moded : calls.bind(fd, from);
  if (bound < 0) {
    calls.close(fd);
    calls.close(folder.value);
    if (calls.errnoName(-bound) !== 'EADDRINUSE') return callFailed(calls, `bind(${local})`, bound);
    return fail('socket-path-taken', `${local} is there already`, { hint: 'remove it, or choose another path' });
  }
  return ok(new DatagramEnd(calls, reactor, fd, { folder: folder.value, name: to }, `dgram:${local},${remote}`));
}

/** A socket's name within a folder that is held open: afterwards no path is needed. */
interface Target {
  readonly folder: number;
  readonly name: Uint8Array;
}

const ROOT = new Uint8Array([0x2f, 0]);

class DatagramEnd implements NetEnd {
  readonly name: string;
  readonly takes = NO_OFFLOADS;
  readonly gives = NO_OFFLOADS;
  readonly up = true;
  readonly counters = { malformed: 0, refused: 0 };

  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly fd: number;
  private readonly to: Target;
  private connected = false;
  private readiness: Readiness | null = null;
  private wake: () => void = () => {};
  private cancel: (() => void) | null = null;
  private readonly slot: Frame;
  private waiting = false;
  private readonly into: Memory;
  private readonly next: Frame;
  private nextReady = false;

  constructor(calls: SystemCalls, reactor: Reactor, fd: number, to: Target, name: string) {
    this.calls = calls;
    this.reactor = reactor;
    this.fd = fd;
    this.to = to;
    this.name = name;
    this.slot = new Frame(new Uint8Array(HEADROOM + FRAME_LIMIT));
    this.into = calls.allocate(HEADROOM + FRAME_LIMIT + 1);
    this.next = new Frame(this.into.bytes);
    this.connect();
  }

  private connect(): boolean {
    const { calls, to } = this;
    // connect(2) knows no folder but the working one, so that is where this process stands for a moment.
    this.connected = calls.fchdir(to.folder) >= 0 && calls.connect(this.fd, to.name) >= 0;
    calls.chdir(ROOT);
    return this.connected;
  }

  open(wake: () => void): void {
    this.wake = wake;
    this.readiness = new Readiness(this.reactor, this.fd, wake);
  }

  setOffloads(): void {}

  room(): Frame | null {
    return this.waiting ? null : this.slot;
  }

  send(): void {
    const { calls, slot } = this;
    const bytes = slot.bytes.subarray(slot.start, slot.start + slot.length);
    this.waiting = false;
    for (let tries = 0; ; tries++) {
      if (!this.connected && !this.connect()) {
        this.counters.refused++;
        return;
      }
      const sent = calls.sendto(this.fd, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, null);
      if (sent >= 0) return;
      const name = calls.errnoName(-sent);
      if (name === 'EINTR') continue;
      if (name !== 'EAGAIN' && name !== 'ENOBUFS') {
        // The peer that was there has gone; there may be another at its path.
        this.connected = false;
        if (tries === 0) continue;
        this.counters.refused++;
        return;
      }
      this.waiting = true;
      this.cancel = this.reactor.after(AGAIN_AFTER, () => {
        this.send();
        if (!this.waiting) this.wake();
      });
      return;
    }
  }

  flush(): void {}

  peek(): Frame | null {
    if (this.nextReady) return this.next;
    const { calls, next } = this;
    for (let dropped = 0; this.readiness?.drained === false; dropped++) {
      if (dropped === DROPS_LIMIT) {
        this.reactor.after(0, this.wake);
        return null;
      }
      // One byte more than a frame may have shows that there was more.
      const got = calls.read(this.fd, this.into.address + HEADROOM, FRAME_LIMIT + 1);
      if (got < 0) {
        if (calls.errnoName(-got) === 'EINTR') continue;
        this.readiness.empty();
        return null;
      }
      if (got < ETHERNET_HEADER || got > FRAME_LIMIT) {
        this.counters.malformed++;
        continue;
      }
      next.length = got;
      next.complete();
      this.nextReady = true;
      return next;
    }
    return null;
  }

  advance(): void {
    this.nextReady = false;
  }

  close(): void {
    this.cancel?.();
    this.readiness?.close();
    this.readiness = null;
    this.calls.close(this.fd);
    this.calls.close(this.to.folder);
  }
}
