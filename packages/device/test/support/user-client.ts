/** A guest of the user-mode network, as plain as can be: frames by hand, and a TCP client that keeps nothing out of order. */
import { type Frame, ownFrame } from '@airlock/device/net/frame.ts';
import { ALL_OFFLOADS, NO_OFFLOADS, type Offloads } from '@airlock/device/net/offloads.ts';
import { UserNetwork } from '@airlock/device/net/user/network.ts';
import { plainChecksum, pseudoHeader } from './net-ends.ts';

export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 10, 0, 2, 2);
export const GUEST = 0x0a00_020f;
export const GATEWAY = 0x0a00_0202;
export { ALL_OFFLOADS, NO_OFFLOADS };

export class Wire {
  time = 0;
  readonly network: UserNetwork;
  /** Says which frames are lost; each direction asks for every frame. */
  lose: () => boolean = () => false;
  readonly seen: { flags: number; gsoSize: number }[] = [];
  private readonly frame = ownFrame();

  constructor(offloads: Offloads = NO_OFFLOADS, mtu = 1500) {
    let state = 12_345;
    const random = () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return state;
    };
    this.network = new UserNetwork({ now: () => this.time, random, mtu });
    this.network.setOffloads(offloads);
  }

  send(bytes: Uint8Array, more: Partial<Frame> = {}): void {
    if (this.lose()) return;
    const { frame } = this;
    frame.complete();
    frame.bytes.set(bytes, frame.start);
    frame.length = bytes.length;
    Object.assign(frame, more);
    this.network.input(frame);
  }

  /** The next frame of the network that is not lost. */
  next(): Uint8Array | null {
    while (this.network.output(this.frame)) {
      const { start, length, flags, gsoSize } = this.frame;
      if (this.lose()) continue;
      this.seen.push({ flags, gsoSize });
      return this.frame.bytes.slice(start, start + length);
    }
    return null;
  }

  all(): Uint8Array[] {
    const found: Uint8Array[] = [];
    for (let one = this.next(); one !== null; one = this.next()) found.push(one);
    return found;
  }
}

export interface Ipv4Options {
  readonly source?: number;
  readonly target?: number;
  readonly fragment?: number;
  readonly mac?: Uint8Array;
}

/** An IPv4 packet in an Ethernet frame. */
export function ipv4(protocol: number, payload: Uint8Array, options: Ipv4Options = {}): Uint8Array {
  const bytes = new Uint8Array(34 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set(options.mac ?? GATEWAY_MAC);
  bytes.set(GUEST_MAC, 6);
  view.setUint16(12, 0x0800);
  view.setUint16(14, 0x4500);
  view.setUint16(16, (20 + payload.length) & 0xffff);
  view.setUint16(20, options.fragment ?? 0);
  view.setUint8(22, 64);
  view.setUint8(23, protocol);
  view.setUint32(26, options.source ?? GUEST);
  view.setUint32(30, options.target ?? GATEWAY);
  view.setUint16(24, plainChecksum(bytes.subarray(14, 34)));
  bytes.set(payload, 34);
  return bytes;
}

export function udp(from: number, to: number, payload: Uint8Array, options: Ipv4Options = {}): Uint8Array {
  const datagram = new Uint8Array(8 + payload.length);
  const view = new DataView(datagram.buffer);
  view.setUint16(0, from);
  view.setUint16(2, to);
  view.setUint16(4, datagram.length);
  datagram.set(payload, 8);
  const bytes = ipv4(17, datagram, options);
  const sum = plainChecksum(pseudoHeader(bytes, 14, 4, datagram.length, 17), bytes.subarray(34));
  new DataView(bytes.buffer).setUint16(40, sum === 0 ? 0xffff : sum);
  return bytes;
}

export interface TcpFields {
  readonly from: number;
  readonly to: number;
  readonly sequence: number;
  readonly acknowledged?: number;
  readonly flags: number;
  readonly window?: number;
  readonly options?: readonly number[];
  readonly payload?: Uint8Array;
}

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const ACK = 16;

export function tcp(fields: TcpFields): Uint8Array {
  const { options = [], payload = new Uint8Array(0) } = fields;
  const header = 20 + options.length;
  const segment = new Uint8Array(header + payload.length);
  const view = new DataView(segment.buffer);
  view.setUint16(0, fields.from);
  view.setUint16(2, fields.to);
  view.setUint32(4, fields.sequence >>> 0);
  view.setUint32(8, (fields.acknowledged ?? 0) >>> 0);
  view.setUint16(12, ((header / 4) << 12) | fields.flags);
  view.setUint16(14, fields.window ?? 0xffff);
  segment.set(options, 20);
  segment.set(payload, header);
  const bytes = ipv4(6, segment);
  const sum = plainChecksum(pseudoHeader(bytes, 14, 4, segment.length), segment);
  new DataView(bytes.buffer).setUint16(50, sum);
  return bytes;
}

export interface TcpSeen {
  readonly sequence: number;
  readonly acknowledged: number;
  readonly flags: number;
  readonly window: number;
  readonly payload: Uint8Array;
}

/** The TCP fields of a frame of the network, or null when it is something else. */
export function readTcp(bytes: Uint8Array): TcpSeen | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(12) !== 0x0800 || view.getUint8(23) !== 6) return null;
  return {
    sequence: view.getUint32(38),
    acknowledged: view.getUint32(42),
    flags: view.getUint8(47),
    window: view.getUint16(48),
    payload: bytes.subarray(34 + (view.getUint8(46) >>> 4) * 4),
  };
}

/** Sends all of `data`, then closes; takes what comes. Retransmits everything from the first gap when time passes. */
export class TcpClient {
  state: 'opening' | 'open' | 'closed' | 'reset' = 'opening';
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  /** Window that it tells; unscaled. */
  window = 0xffff;
  /** Close only after so many bytes came. */
  closeAfter = 0;
  private readonly wire: Wire;
  private readonly port: number;
  private readonly to: number;
  private readonly data: Uint8Array;
  private readonly first = 0xffff_f000;
  private theirFirst = 0;
  private expected = 0;
  private acknowledged = 0;
  private sent = 0;
  private finAcknowledged = false;
  private theirFin = false;
  private theirWindow = 0;

  constructor(wire: Wire, to: number, data: Uint8Array, port = 40_000) {
    this.wire = wire;
    this.to = to;
    this.data = data;
    this.port = port;
  }

  private put(flags: number, place: number, payload: Uint8Array = NOTHING, options: readonly number[] = []): void {
    const acknowledged = (this.theirFirst + this.expected) >>> 0;
    const common = { from: this.port, to: this.to, window: this.window, flags, payload, options };
    this.wire.send(tcp({ ...common, sequence: this.first + place, acknowledged: flags & ACK ? acknowledged : 0 }));
  }

  /** Everything that was not acknowledged, again. */
  again(): void {
    if (this.state === 'opening') this.put(SYN, 0, NOTHING, [2, 4, 5, 180, 1, 3, 3, 0]);
    else if (this.state === 'open') {
      this.sent = this.acknowledged;
      this.put(ACK, this.sent);
      this.push();
    }
  }

  private get wantsToClose(): boolean {
    return this.receivedBytes >= this.closeAfter;
  }

  push(): void {
    if (this.state !== 'open') return;
    const end = this.acknowledged + this.theirWindow;
    while (this.sent < 1 + this.data.length && this.sent < end) {
      const length = Math.min(1400, 1 + this.data.length - this.sent, end - this.sent);
      this.put(ACK, this.sent, this.data.subarray(this.sent - 1, this.sent - 1 + length));
      this.sent += length;
    }
    if (this.sent === 1 + this.data.length && this.wantsToClose && !this.finAcknowledged)
      this.put(ACK | FIN, this.sent);
  }

  /** Takes the frames that are there; not without end, since every answer may bring more. */
  pull(): void {
    for (let i = 0; i < 200; i++) {
      const bytes = this.wire.next();
      if (bytes === null) return;
      const seen = readTcp(bytes);
      if (seen === null) continue;
      if ((seen.flags & RST) !== 0) {
        this.state = 'reset';
        return;
      }
      this.take(seen);
    }
  }

  private take(seen: TcpSeen): void {
    const place = (seen.acknowledged - this.first) >>> 0;
    if (this.state === 'opening') {
      if ((seen.flags & (SYN | ACK)) !== (SYN | ACK) || place !== 1) return;
      this.theirFirst = seen.sequence;
      this.expected = 1;
      this.acknowledged = 1;
      this.sent = 1;
      this.theirWindow = seen.window;
      this.state = 'open';
      this.put(ACK, 1);
      return;
    }
    if (place <= this.data.length + 2 && place >= this.acknowledged) {
      this.acknowledged = Math.min(place, this.data.length + 1);
      this.sent = Math.max(this.sent, this.acknowledged);
      this.theirWindow = (seen.flags & SYN) !== 0 ? seen.window : seen.window * 32;
      if (place === this.data.length + 2) this.finAcknowledged = true;
    }
    const begin = (seen.sequence - this.theirFirst) >>> 0;
    const fin = (seen.flags & FIN) !== 0;
    if (seen.payload.length === 0 && !fin) return;
    if (begin === this.expected && !this.theirFin) {
      this.received.push(seen.payload.slice());
      this.receivedBytes += seen.payload.length;
      this.expected += seen.payload.length;
      if (fin) {
        this.expected++;
        this.theirFin = true;
      }
    }
    this.put(ACK, this.sent + (this.finAcknowledged ? 1 : 0));
    if (this.theirFin && this.finAcknowledged) this.state = 'closed';
  }

  /** Runs until the connection is over; false when it did not end. */
  run(rounds = 4000): boolean {
    for (let i = 0; i < rounds; i++) {
      this.again();
      this.pull();
      for (let quick = 0; quick < 20 && this.state === 'open'; quick++) {
        const before = this.receivedBytes + this.acknowledged;
        this.push();
        this.pull();
        if (this.receivedBytes + this.acknowledged === before) break;
      }
      if (this.state === 'closed' || this.state === 'reset') return true;
      this.wire.time += 100;
      this.wire.network.tcp.tick(this.wire.time);
    }
    return false;
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.receivedBytes);
    let at = 0;
    for (const part of this.received) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

const NOTHING: Uint8Array = new Uint8Array(0);
