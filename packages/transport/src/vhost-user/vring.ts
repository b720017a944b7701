/** What a front-end has said about one queue, and its descriptors. vhost-user "Ring states". */
import type { QueueAddresses } from '@airlock/virtio/ring/layout.ts';
import type { DevicePosition, DeviceQueue } from '@airlock/virtio/ring/queue.ts';
import { signalPeer } from '../event-fd.ts';
import type { Watch } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { TrackedQueue } from './inflight-area.ts';

/** An IOTLB miss that the front-end was told of and has not answered. */
export interface Miss {
  readonly address: number;
  readonly access: number;
}

export class Vring {
  readonly index: number;
  size = 0;
  addresses: QueueAddresses | null = null;
  /** As SET_VRING_BASE has it: 16 bits for a split queue, two positions for a packed one. */
  base = 0;
  enabled = false;
  /** SET_VRING_KICK came, and no GET_VRING_BASE since. */
  started = false;
  /** The queue that the device works on; null while it does not. */
  queue: DeviceQueue | null = null;
  /** The same, where chains are written down. */
  tracked: TrackedQueue | null = null;
  miss: Miss | null = null;

  kickFd = -1;
  callFd = -1;
  errFd = -1;
  kickWatch: Watch | null = null;
  private readonly calls: SystemCalls;

  constructor(calls: SystemCalls, index: number) {
    this.calls = calls;
    this.index = index;
  }

  /** Takes over `fd`, or -1 for none. */
  setCall(fd: number): void {
    this.closeFd(this.callFd);
    this.callFd = fd;
  }

  setErr(fd: number): void {
    this.closeFd(this.errFd);
    this.errFd = fd;
  }

  setKick(fd: number, watch: Watch | null): void {
    this.kickWatch?.close();
    this.closeFd(this.kickFd);
    this.kickFd = fd;
    this.kickWatch = watch;
  }

  /** Tells the driver of used buffers. False where its descriptor is broken; it is closed then. */
  call(): boolean {
    if (this.callFd < 0 || signalPeer(this.calls, this.callFd)) return true;
    this.setCall(-1);
    return false;
  }

  /** Tells the front-end that the queue is broken. */
  err(): void {
    if (this.errFd >= 0 && !signalPeer(this.calls, this.errFd)) this.setErr(-1);
  }

  /** Back to what a new connection finds. */
  close(): void {
    this.setKick(-1, null);
    this.setCall(-1);
    this.setErr(-1);
  }

  private closeFd(fd: number): void {
    if (fd >= 0) this.calls.close(fd);
  }
}

/** "Vring descriptor indices for packed virtqueues". */
export function packedBase(position: DevicePosition): number {
  const half = (place: number, wrap: boolean): number => place | (wrap ? 0x8000 : 0);
  return (half(position.avail, position.availWrap) | (half(position.used, position.usedWrap) << 16)) >>> 0;
}

export function packedPosition(base: number): DevicePosition {
  // DPDK's front-end says where the driver is, and nothing in the upper half: taken by the word, the whole ring would be
  // in flight before the first buffer. What is not said follows.
  if (base >>> 16 === 0 && base !== 0) return packedPosition((base | (base << 16)) >>> 0);
  return {
    avail: base & 0x7fff,
    availWrap: (base & 0x8000) !== 0,
    used: (base >>> 16) & 0x7fff,
    usedWrap: base >>> 31 === 1,
  };
}
