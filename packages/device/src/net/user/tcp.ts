/** All TCP connections of the user-mode network. */
import { checksumOf, sumBytes } from '../checksum.ts';
import { ETHERNET_HEADER, type Frame } from '../frame.ts';
import type { Offloads } from '../offloads.ts';
import { type Packet, PROTOCOL_TCP } from '../packet.ts';
import { TCP_CHECKSUM } from '../segmenter.ts';
import { IPV4_HEADER, pseudoSum, TRANSPORT, writeIpv4 } from './compose.ts';
import { serviceOf } from './service.ts';
import { type Outgoing, TcpConnection, WINDOW_SHIFT } from './tcp-connection.ts';
import { ACK, FIN, RST, Segment, SYN } from './tcp-segment.ts';

/** As many connections as there may be at a time; who opens more is refused. */
export const CONNECTIONS_LIMIT = 128;
const HEADER = 20;
/** Kinds 2 and 3, and one of padding. */
const SYN_OPTIONS = 8;
const NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
/** The longest IPv4 packet. */
const PACKET_LIMIT = 65_535;

export interface TcpCounters {
  opened: number;
  refused: number;
  retransmitted: number;
  untaken: number;
}

/** Writes an answer that does not belong to a connection; false when there is no room for it. */
type Answer = (write: (frame: Frame) => void) => void;

export class Tcp {
  readonly counters: TcpCounters = { opened: 0, refused: 0, retransmitted: 0, untaken: 0 };
  private readonly connections = new Map<number, TcpConnection>();
  private readonly segment = new Segment();
  private readonly outgoing: Outgoing = { flags: 0, place: 0, length: 0 };
  private readonly random: () => number;
  private readonly mss: number;
  // Whose turn it is to send.
  private turn: TcpConnection[] = [];

  /** `random` gives 32 bits that no one can foresee: initial sequence numbers. `mtu` is that of our frames. */
  constructor(random: () => number, mtu: number) {
    this.random = random;
    this.mss = mtu - IPV4_HEADER - HEADER;
  }

  get size(): number {
    return this.connections.size;
  }

  /** A segment to the gateway whose checksum holds. `end` is where its IP packet ends within the frame. */
  input(frame: Frame, packet: Packet, end: number, now: number, answer: Answer): boolean {
    const { segment } = this;
    if (!segment.read(frame, packet, end)) return false;
    const key = keyOf(segment);
    let connection = this.connections.get(key);
    if (connection?.localPort !== segment.targetPort) connection = undefined;
    const opens = (segment.flags & (SYN | ACK | RST | FIN)) === SYN;
    // RFC 9293 §3.6.1: who waits for stray segments makes way for a new connection.
    if (connection !== undefined && opens && connection.state === 'time-wait') {
      this.end(connection);
      connection = undefined;
    }
    if (connection === undefined) {
      if (opens) connection = this.accept(frame, key, now);
      if (connection === undefined) {
        if ((segment.flags & RST) === 0) answer((out) => this.writeReset(out, frame, segment));
        return true;
      }
    } else {
      const before = connection.untaken;
      if (connection.input(segment, now)) answer((out) => this.writeReset(out, frame, segment));
      this.counters.untaken += connection.untaken - before;
      if (connection.state === 'closed') this.end(connection);
    }
    return true;
  }

  private accept(frame: Frame, key: number, now: number): TcpConnection | undefined {
    const service = serviceOf(this.segment.targetPort);
    if (service === null || (this.connections.size >= CONNECTIONS_LIMIT && !this.makeRoom())) {
      this.counters.refused++;
      return undefined;
    }
    const mac = frame.bytes.slice(frame.start + 6, frame.start + 12);
    const connection = new TcpConnection(this.segment, mac, key, service, this.random(), this.mss, now);
    this.connections.set(key, connection);
    this.turn.push(connection);
    this.counters.opened++;
    return connection;
  }

  /** Ends a connection that is over but for waiting, or was never answered. */
  private makeRoom(): boolean {
    for (const state of ['time-wait', 'fin-wait-2', 'syn-received']) {
      for (const connection of this.connections.values()) {
        if (connection.state !== state) continue;
        this.end(connection);
        return true;
      }
    }
    return false;
  }

  private end(connection: TcpConnection): void {
    this.connections.delete(connection.key);
    this.turn = this.turn.filter((one) => one !== connection);
  }

  /** Writes the next segment that any connection has to send; false when none has. */
  output(frame: Frame, offloads: Offloads, now: number): boolean {
    const { turn, outgoing } = this;
    for (let i = 0; i < turn.length; i++) {
      const connection = turn[i] as TcpConnection;
      const before = connection.retransmitted;
      const most = offloads.checksum && offloads.tcp4 ? PACKET_LIMIT - IPV4_HEADER - HEADER : connection.mss;
      if (!connection.next(outgoing, most, now)) continue;
      this.counters.retransmitted += connection.retransmitted - before;
      // The one that sent goes to the end of the line.
      turn.splice(i, 1);
      turn.push(connection);
      this.write(frame, connection, offloads);
      return true;
    }
    return false;
  }

  private write(frame: Frame, connection: TcpConnection, offloads: Offloads): void {
    const { flags, place, length } = this.outgoing;
    const { view } = frame;
    const at = frame.start + TRANSPORT;
    const header = (flags & SYN) !== 0 ? HEADER + SYN_OPTIONS : HEADER;
    view.setUint16(at, connection.localPort);
    view.setUint16(at + 2, connection.remotePort);
    view.setUint32(at + 4, connection.wire(place));
    view.setUint32(at + 8, connection.acknowledgement);
    view.setUint16(at + 12, ((header / 4) << 12) | flags);
    view.setUint16(at + 14, connection.windowField(flags));
    view.setUint32(at + 16, 0);
    if ((flags & SYN) !== 0) {
      view.setUint32(at + 20, 0x0204_0000 | this.mss);
      view.setUint32(at + 24, connection.scales ? 0x0103_0300 | WINDOW_SHIFT : 0x0101_0101);
    }
    if (length > 0) connection.service.read(place - 1, frame.bytes, at + header, length);
    const total = header + length;
    writeIpv4(frame, connection.mac, connection.address, PROTOCOL_TCP, total);
    this.finish(frame, total, offloads);
    if (length > connection.mss) {
      frame.gsoType = GSO_TCPV4;
      frame.gsoSize = connection.mss;
      frame.headerLength = TRANSPORT + header;
    }
  }

  private finish(frame: Frame, length: number, offloads: Offloads): void {
    const { view } = frame;
    const at = frame.start + TRANSPORT;
    const pseudo = pseudoSum(frame, ETHERNET_HEADER, PROTOCOL_TCP, length);
    if (offloads.checksum) {
      view.setUint16(at + TCP_CHECKSUM, pseudo, true);
      frame.flags = NEEDS_CSUM;
      frame.checksumStart = TRANSPORT;
      frame.checksumOffset = TCP_CHECKSUM;
    } else {
      view.setUint16(at + TCP_CHECKSUM, checksumOf(pseudo + sumBytes(view, at, at + length)), true);
    }
  }

  /** RFC 9293 §3.5.2: to what belongs to no connection. */
  private writeReset(frame: Frame, asked: Frame, segment: Segment): void {
    const { view } = frame;
    const at = frame.start + TRANSPORT;
    const has = (flag: number) => (segment.flags & flag) !== 0;
    const length = segment.length + (has(SYN) ? 1 : 0) + (has(FIN) ? 1 : 0);
    view.setUint16(at, segment.targetPort);
    view.setUint16(at + 2, segment.sourcePort);
    view.setUint32(at + 4, has(ACK) ? segment.acknowledged : 0);
    view.setUint32(at + 8, has(ACK) ? 0 : (segment.sequence + length) >>> 0);
    view.setUint16(at + 12, 0x5000 | RST | (has(ACK) ? 0 : ACK));
    view.setUint16(at + 14, 0);
    view.setUint32(at + 16, 0);
    const mac = asked.bytes.subarray(asked.start + 6, asked.start + 12);
    writeIpv4(frame, mac, segment.source, PROTOCOL_TCP, HEADER);
    const pseudo = pseudoSum(frame, ETHERNET_HEADER, PROTOCOL_TCP, HEADER);
    view.setUint16(at + TCP_CHECKSUM, checksumOf(pseudo + sumBytes(view, at, at + HEADER)), true);
  }

  /** Does any connection wait for a time? Then `tick` is to be called in a while. */
  get timed(): boolean {
    for (const connection of this.connections.values()) if (connection.timed) return true;
    return false;
  }

  tick(now: number): void {
    for (const connection of [...this.connections.values()]) if (!connection.tick(now)) this.end(connection);
  }
}

/**
 * Source address and both ports as one number below 2^53: 32 bits, 16, and 5 of the local port, in which the ports that
 * have a service differ. Others never have a connection.
 */
function keyOf(segment: Segment): number {
  return ((segment.targetPort & 31) * 0x1_0000 + segment.sourcePort) * 0x1_0000_0000 + segment.source;
}
