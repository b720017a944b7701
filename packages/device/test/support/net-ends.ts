/** The other end of a network device as a test wants it, and the driver's side of its queues. */
import assert from 'node:assert/strict';
import { NetDevice, type NetOptions } from '@airlock/device/net/device.ts';
import type { NetEnd } from '@airlock/device/net/end.ts';
import { type Frame, ownFrame } from '@airlock/device/net/frame.ts';
import { NO_OFFLOADS, type Offloads } from '@airlock/device/net/offloads.ts';
import { encodeNetHeader, type NetHeader } from '@airlock/virtio/request/net.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { type DrivenDevice, type DrivenQueue, type DriveOptions, drive, must } from './in-memory-driver.ts';

export interface Sent {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly gsoType: number;
  readonly gsoSize: number;
}

/** Keeps what it is sent; gives what it is told to. */
export class FakeEnd implements NetEnd {
  readonly name = 'fake';
  readonly counters = { malformed: 0, refused: 0 };
  takes: Offloads = NO_OFFLOADS;
  gives: Offloads = NO_OFFLOADS;
  up = true;
  /** How many more frames it takes. */
  rooms = Number.POSITIVE_INFINITY;
  asked: Offloads = NO_OFFLOADS;
  flushes = 0;
  closed = false;
  readonly sent: Sent[] = [];
  readonly incoming: ((frame: Frame) => void)[] = [];
  private readonly outgoing = ownFrame();
  private readonly next = ownFrame();
  private ready = false;

  open(): void {}
  setOffloads(offloads: Offloads): void {
    this.asked = offloads;
  }
  room(): Frame | null {
    return this.rooms > 0 ? this.outgoing : null;
  }
  send(): void {
    this.rooms--;
    const { bytes, start, length, flags, gsoType, gsoSize } = this.outgoing;
    this.sent.push({ bytes: bytes.slice(start, start + length), flags, gsoType, gsoSize });
  }
  flush(): void {
    this.flushes++;
  }
  peek(): Frame | null {
    const make = this.incoming[0];
    if (make === undefined) return null;
    if (!this.ready) {
      this.next.complete();
      make(this.next);
      this.ready = true;
    }
    return this.next;
  }
  advance(): void {
    this.ready = false;
    this.incoming.shift();
  }
  close(): void {
    this.closed = true;
  }
  /** Gives the driver a frame of these bytes. */
  give(bytes: Uint8Array, more: Partial<Frame> = {}): void {
    this.incoming.push((frame) => {
      frame.bytes.set(bytes, frame.start);
      frame.length = bytes.length;
      Object.assign(frame, more);
    });
  }
}

export const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
export const PEER = Uint8Array.of(0x52, 0x55, 10, 0, 2, 2);
export const PLAIN_HEADER: NetHeader = {
  flags: 0,
  gsoType: 0,
  ecn: false,
  headerLength: 0,
  gsoSize: 0,
  checksumStart: 0,
  checksumOffset: 0,
  buffers: 0,
};

/** Ring features are left out; everything of the network device is in. */
export const EVERYTHING = [0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 18, 19, 20, 22, 23, 63];
export const without = (...bits: readonly number[]) => EVERYTHING.filter((bit) => !bits.includes(bit));

export interface NetUnderTest {
  readonly end: FakeEnd;
  readonly device: NetDevice;
  readonly driven: DrivenDevice;
  readonly receive: DrivenQueue;
  readonly transmit: DrivenQueue;
  /** Sends header and frame in chains of these element lengths (the whole in one when none are given). */
  send(header: Uint8Array, frame: Uint8Array, lengths?: readonly number[]): void;
  /** Gives the device a receive buffer and returns its address. */
  post(length: number): number;
  /** Completed receive buffers: what was written to each. */
  received(): Uint8Array[];
}

export function netUnderTest(
  options: DriveOptions & { readonly net?: Partial<NetOptions>; readonly end?: Partial<FakeEnd> } = {},
): NetUnderTest {
  const end = Object.assign(new FakeEnd(), options.end ?? {});
  const device = must(NetDevice.create({ mac: MAC, pairs: 1, end, ...options.net }));
  const driven = drive(device, { bits: EVERYTHING, ...options });
  const [receive, transmit] = driven.queues;
  assert.ok(receive !== undefined && transmit !== undefined);
  const posted: { address: number; length: number }[] = [];
  return {
    end,
    device,
    driven,
    receive,
    transmit,
    send(header, frame, lengths = []) {
      const whole = new Uint8Array(header.length + frame.length);
      whole.set(header);
      whole.set(frame, header.length);
      const address = driven.allocate(whole.length);
      driven.at(address, whole.length).set(whole);
      let at = 0;
      for (const length of lengths) {
        transmit.driver.readable(address + at, length);
        at += length;
      }
      if (at < whole.length) transmit.driver.readable(address + at, whole.length - at);
      assert.equal(transmit.driver.submit(0), DONE);
      transmit.driver.publish();
      device.serve(1);
      assert.equal(transmit.driver.complete(), DONE, 'the chain came back');
      assert.equal(transmit.driver.written, 0);
    },
    post(length) {
      const address = driven.allocate(length);
      receive.driver.writable(address, length);
      assert.equal(receive.driver.submit(posted.length), DONE);
      posted.push({ address, length });
      receive.driver.publish();
      return address;
    },
    received() {
      const found: Uint8Array[] = [];
      while (receive.driver.complete() === DONE) {
        const buffer = posted[receive.driver.token];
        assert.ok(buffer !== undefined);
        found.push(driven.at(buffer.address, receive.driver.written).slice());
      }
      return found;
    },
  };
}

export const header = (fields: Partial<NetHeader> = {}) => encodeNetHeader({ ...PLAIN_HEADER, ...fields });

/** An Ethernet frame of `length` bytes to the device's own address, its payload counting up. */
export function ethernet(length: number, type = 0x88b5, target: Uint8Array = MAC): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, i) => i & 0xff);
  frame.set(target);
  frame.set(PEER, 6);
  new DataView(frame.buffer).setUint16(12, type);
  return frame;
}

/** A TCP segment in IPv4 or IPv6 with right lengths, a right IPv4 checksum, and TCP's left to do (pseudo header only). */
export function tcpFrame(payload: Uint8Array, options: { version?: 4 | 6; vlan?: number; flags?: number } = {}) {
  const { version = 4, vlan, flags = 0x18 } = options;
  const network = vlan === undefined ? 14 : 18;
  const transport = network + (version === 4 ? 20 : 40);
  const bytes = new Uint8Array(transport + 20 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set(MAC);
  bytes.set(PEER, 6);
  if (vlan !== undefined) {
    view.setUint16(12, 0x8100);
    view.setUint16(14, vlan);
  }
  view.setUint16(network - 2, version === 4 ? 0x0800 : 0x86dd);
  const tcpLength = 20 + payload.length;
  if (version === 4) {
    view.setUint8(network, 0x45);
    view.setUint16(network + 2, (20 + tcpLength) & 0xffff);
    view.setUint16(network + 4, 0x1234);
    view.setUint16(network + 6, 0x4000);
    view.setUint8(network + 8, 64);
    view.setUint8(network + 9, 6);
    view.setUint32(network + 12, 0x0a00_020f);
    view.setUint32(network + 16, 0x0a00_0202);
    view.setUint16(network + 10, plainChecksum(bytes.subarray(network, network + 20)));
  } else {
    view.setUint8(network, 0x60);
    view.setUint16(network + 4, tcpLength & 0xffff);
    view.setUint8(network + 6, 6);
    view.setUint8(network + 7, 64);
    for (let i = 0; i < 32; i++) bytes[network + 8 + i] = i * 7;
  }
  view.setUint16(transport, 40_000);
  view.setUint16(transport + 2, 80);
  view.setUint32(transport + 4, 0xffff_ff00);
  view.setUint32(transport + 8, 77);
  view.setUint8(transport + 12, 0x50);
  view.setUint8(transport + 13, flags);
  view.setUint16(transport + 14, 1000);
  bytes.set(payload, transport + 20);
  const pseudo = pseudoHeader(bytes, network, version, tcpLength);
  view.setUint16(transport + 16, ~plainChecksum(pseudo) & 0xffff);
  return { bytes, network, transport, headerLength: transport + 20 };
}

export function pseudoHeader(
  bytes: Uint8Array,
  network: number,
  version: 4 | 6,
  length: number,
  protocol = 6,
): Uint8Array {
  const addresses =
    version === 4 ? bytes.subarray(network + 12, network + 20) : bytes.subarray(network + 8, network + 40);
  const pseudo = new Uint8Array(addresses.length + (version === 4 ? 4 : 8));
  const view = new DataView(pseudo.buffer);
  pseudo.set(addresses);
  if (version === 4) {
    view.setUint16(addresses.length, protocol);
    view.setUint16(addresses.length + 2, length & 0xffff);
  } else {
    view.setUint32(addresses.length, length);
    view.setUint32(addresses.length + 4, protocol);
  }
  return pseudo;
}

/** RFC 1071 as plainly as can be, in network order: the number that is stored. */
export function plainChecksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += ((part[i] ?? 0) << 8) | (part[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65_536);
  return ~sum & 0xffff;
}

/** Is the TCP checksum of a frame right, and that of its IPv4 header? */
export function tcpChecksumsHold(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const network = view.getUint16(12) === 0x8100 ? 18 : 14;
  const version = view.getUint8(network) >>> 4 === 4 ? 4 : 6;
  const transport = network + (version === 4 ? 20 : 40);
  if (version === 4 && plainChecksum(bytes.subarray(network, network + 20)) !== 0) return false;
  const segment = bytes.subarray(transport);
  return plainChecksum(pseudoHeader(bytes, network, version, segment.length), segment) === 0;
}
