/**
 * A TAP interface of this machine: Linux's network stack at the other end. With IFF_VNET_HDR each frame has the header of
 * virtio before it, so checksums and joined frames go through as they are. linux/Documentation/networking/tuntap.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Reactor } from '@airlock/transport/reactor.ts';
import { O_CLOEXEC, O_RDWR, pathBytes } from '@airlock/transport/sys/directories.ts';
import { O_NONBLOCK } from '@airlock/transport/sys/files.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import { callFailed, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { NET_HDR_F_NEEDS_CSUM, NET_HEADER_SIZE } from '@airlock/virtio/request/net.ts';
import type { NetEnd } from './end.ts';
import { ETHERNET_HEADER, FRAME_LIMIT, Frame, HEADROOM } from './frame.ts';
import { ALL_OFFLOADS, type Offloads } from './offloads.ts';
import { Readiness } from './readiness.ts';

const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUN_F_CSUM = 1;
const TUN_F_TSO4 = 2;
const TUN_F_TSO6 = 4;
const TUN_F_TSO_ECN = 8;
/** struct ifreq: a name of 16 bytes, then flags. */
const IFREQ_SIZE = 40;
const NAME_SIZE = 16;

/** As Linux takes it: 1 to 15 characters, no slash and no space; fewer here, so that it can be printed. */
export function isInterfaceName(name: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name);
}

/**
 * The interface `name`: made when there is none, which needs CAP_NET_ADMIN; one that was made for this user before
 * (`ip tuntap add NAME mode tap user USER`) needs nothing. Codes: `device-option-invalid`, `net-tap-refused`,
 * `system-call-failed`.
 */
export function openTap(calls: SystemCalls, reactor: Reactor, name: string): Result<NetEnd> {
  const path = pathBytes('/dev/net/tun');
  if (!isInterfaceName(name) || path === null) return fail('device-option-invalid', `no name of an interface: ${name}`);
  const fd = calls.open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd < 0) return callFailed(calls, 'open(/dev/net/tun)', fd);
  const memory = calls.allocate(IFREQ_SIZE);
  for (let i = 0; i < name.length; i++) memory.view.setUint8(i, name.charCodeAt(i));
  memory.view.setUint16(NAME_SIZE, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true);
  const attached = calls.ioctl(fd, TUNSETIFF, memory.address);
  if (attached < 0) {
    calls.close(fd);
    return fail('net-tap-refused', `TAP ${name}: ${calls.errnoName(-attached)}`, {
      hint: `it has to be a TAP that nobody else uses: ip tuntap add ${name} mode tap user "$USER" vnet_hdr`,
    });
  }
  memory.view.setInt32(0, NET_HEADER_SIZE, true);
  const sized = calls.ioctl(fd, TUNSETVNETHDRSZ, memory.address);
  if (sized < 0) {
    calls.close(fd);
    return callFailed(calls, 'ioctl(TUNSETVNETHDRSZ)', sized);
  }
  return ok(new TapEnd(calls, reactor, fd, name));
}

class TapEnd implements NetEnd {
  readonly name: string;
  readonly takes = ALL_OFFLOADS;
  readonly gives = ALL_OFFLOADS;
  readonly up = true;
  readonly counters = { malformed: 0, refused: 0 };

  private readonly calls: SystemCalls;
  private readonly reactor: Reactor;
  private readonly fd: number;
  private readiness: Readiness | null = null;
  private readonly out: Memory;
  private readonly slot: Frame;
  // The frame in the slot could not be written yet.
  private waiting = false;
  private readonly into: Memory;
  private readonly next: Frame;
  private nextReady = false;

  constructor(calls: SystemCalls, reactor: Reactor, fd: number, name: string) {
    this.calls = calls;
    this.reactor = reactor;
    this.fd = fd;
    this.name = `TAP ${name}`;
    // One byte more than a frame may have shows that there was more.
    this.out = calls.allocate(HEADROOM + FRAME_LIMIT + 1);
    this.into = calls.allocate(HEADROOM + FRAME_LIMIT + 1);
    this.slot = new Frame(this.out.bytes);
    this.next = new Frame(this.into.bytes);
  }

  open(wake: () => void): void {
    this.readiness = new Readiness(this.reactor, this.fd, () => {
      if (this.waiting) this.write();
      wake();
    });
  }

  setOffloads(offloads: Offloads): void {
    let flags = 0;
    if (offloads.checksum) {
      flags = TUN_F_CSUM;
      if (offloads.tcp4) flags |= TUN_F_TSO4;
      if (offloads.tcp6) flags |= TUN_F_TSO6;
      if (offloads.ecn && flags > TUN_F_CSUM) flags |= TUN_F_TSO_ECN;
    }
    // A kernel that refuses gives complete frames, or frames that the device completes.
    this.calls.ioctl(this.fd, TUNSETOFFLOAD, flags);
  }

  room(): Frame | null {
    if (this.waiting) this.write();
    return this.waiting ? null : this.slot;
  }

  send(): void {
    this.slot.writeHeader(NET_HEADER_SIZE, 0);
    this.write();
  }

  private write(): void {
    const { calls, slot } = this;
    const length = NET_HEADER_SIZE + slot.length;
    for (;;) {
      const written = calls.write(this.fd, this.out.address + slot.start - NET_HEADER_SIZE, length);
      const name = written < 0 ? calls.errnoName(-written) : '';
      if (name === 'EINTR') continue;
      const blocked = name === 'EAGAIN' || name === 'ENOBUFS';
      if (blocked !== this.waiting) this.readiness?.full(blocked);
      this.waiting = blocked;
      // The interface is down (EIO), or the kernel does not like the header (EINVAL).
      if (written < 0 && !blocked) this.counters.refused++;
      return;
    }
  }

  flush(): void {}

  peek(): Frame | null {
    if (this.nextReady) return this.next;
    const { calls, next } = this;
    while (this.readiness?.drained === false) {
      const got = calls.read(
        this.fd,
        this.into.address + HEADROOM - NET_HEADER_SIZE,
        NET_HEADER_SIZE + FRAME_LIMIT + 1,
      );
      if (got < 0) {
        if (calls.errnoName(-got) === 'EINTR') continue;
        this.readiness.empty();
        return null;
      }
      next.length = got - NET_HEADER_SIZE;
      if (next.length < ETHERNET_HEADER || next.length > FRAME_LIMIT) {
        this.counters.malformed++;
        continue;
      }
      next.readHeader(NET_HEADER_SIZE);
      if ((next.flags & NET_HDR_F_NEEDS_CSUM) !== 0 && next.checksumStart + next.checksumOffset + 2 > next.length) {
        this.counters.malformed++;
        continue;
      }
      this.nextReady = true;
      return next;
    }
    return null;
  }

  advance(): void {
    this.nextReady = false;
  }

  close(): void {
    this.readiness?.close();
    this.readiness = null;
    this.calls.close(this.fd);
  }
}
