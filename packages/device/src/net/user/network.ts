/**
 * A whole network of one other machine, in memory: the gateway 10.0.2.2 answers ARP, DHCP, ICMP echo, and the services of
 * `service.ts` over UDP and TCP. It reaches nothing else: what goes to other addresses is answered "unreachable". For
 * tests, and for guests that need a network that is there and leads nowhere.
 *
 * Pure: frames in, frames out; the clock and the randomness are passed in.
 */
import { checksumOf, foldSum, sumBytes } from '../checksum.ts';
import { ETHERNET_HEADER, type Frame, ownFrame } from '../frame.ts';
import { NO_OFFLOADS, type Offloads } from '../offloads.ts';
import { ETHER_ARP, Packet, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../packet.ts';
import { BROADCAST, BROADCAST_MAC, GATEWAY, GATEWAY_MAC, isHost } from './address.ts';
import { pseudoSum, TRANSPORT, UDP_HEADER, writeEthernet, writeIpv4, writeUdp } from './compose.ts';
import { answerDhcp, toEverybody } from './dhcp.ts';
import { CHARGEN, DISCARD, ECHO, readChargen } from './service.ts';
import { Tcp } from './tcp.ts';

/** Answers that wait for the driver to take them, and their bytes; more are dropped, and counted. */
const ANSWERS_LIMIT = 256;
const ANSWERS_BYTES = 512 * 1024;
const ARP_LENGTH = 28;
const ICMP_HEADER = 8;
const ECHO_REQUEST = 8;
const UNREACHABLE = 3;
const NET_UNREACHABLE = 0;
const PORT_UNREACHABLE = 3;
/** RFC 864: a datagram of up to 512 characters. */
const CHARGEN_DATAGRAM = 512;
const BOOTP_SERVER = 67;
const BOOTP_CLIENT = 68;

export interface UserNetworkOptions {
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number;
  /** 32 bits that no one can foresee. */
  readonly random: () => number;
  /** Of the frames that it sends, and told to DHCP clients when it is not 1500. */
  readonly mtu: number;
}

export class UserNetwork {
  readonly tcp: Tcp;
  /** Packets that were not understood or broke a rule; those for which nobody is there; answers dropped for want of room. */
  readonly counters = { malformed: 0, unserved: 0, answersDropped: 0 };
  private readonly options: UserNetworkOptions;
  private readonly packet = new Packet();
  private readonly scratch = ownFrame();
  private readonly answers: Uint8Array[] = [];
  private answersBytes = 0;
  private offloads: Offloads = NO_OFFLOADS;

  constructor(options: UserNetworkOptions) {
    this.options = options;
    this.tcp = new Tcp(options.random, options.mtu);
  }

  /** What the other side does itself. */
  setOffloads(offloads: Offloads): void {
    this.offloads = offloads;
  }

  /** A frame of the guest; checksums and segments may be left undone, if they can be done. */
  input(frame: Frame): void {
    const { packet } = this;
    if (!packet.read(frame.view, frame.start, frame.length)) {
      this.counters.malformed++;
      return;
    }
    // A tag says that it is for another network.
    if (packet.network !== ETHERNET_HEADER) this.counters.unserved++;
    else if (packet.etherType === ETHER_ARP) this.arp(frame);
    else if (packet.version === 4) this.ipv4(frame);
    else this.counters.unserved++;
  }

  /** Writes the next frame for the guest; false when there is none. */
  output(frame: Frame): boolean {
    const answer = this.answers.shift();
    if (answer !== undefined) {
      this.answersBytes -= answer.length;
      frame.bytes.set(answer, frame.start);
      frame.length = answer.length;
      frame.complete();
      return true;
    }
    return this.tcp.output(frame, this.offloads, this.options.now());
  }

  /** Forgets what waits. */
  clear(): void {
    this.answers.length = 0;
    this.answersBytes = 0;
  }

  private answer(write: (frame: Frame) => void): void {
    if (this.answers.length >= ANSWERS_LIMIT || this.answersBytes >= ANSWERS_BYTES) {
      this.counters.answersDropped++;
      return;
    }
    const { scratch } = this;
    write(scratch);
    this.answers.push(scratch.bytes.slice(scratch.start, scratch.start + scratch.length));
    this.answersBytes += scratch.length;
  }

  /** RFC 826: who has 10.0.2.2? */
  private arp(frame: Frame): void {
    const { view, bytes } = frame;
    const at = frame.start + ETHERNET_HEADER;
    const whole = frame.length >= ETHERNET_HEADER + ARP_LENGTH;
    // Ethernet, IPv4, lengths 6 and 4.
    if (!whole || view.getUint32(at) !== 0x0001_0800 || view.getUint16(at + 4) !== 0x0604) {
      this.counters.malformed++;
      return;
    }
    if (view.getUint16(at + 6) !== 1 || view.getUint32(at + 24) !== GATEWAY) return;
    const sender = bytes.slice(at + 8, at + 18);
    this.answer((out) => {
      writeEthernet(out, sender.subarray(0, 6), ETHER_ARP);
      const to = out.start + ETHERNET_HEADER;
      out.bytes.set(bytes.subarray(at, at + 6), to);
      out.view.setUint16(to + 6, 2);
      out.bytes.set(GATEWAY_MAC, to + 8);
      out.view.setUint32(to + 14, GATEWAY);
      out.bytes.set(sender, to + 18);
      out.length = ETHERNET_HEADER + ARP_LENGTH;
    });
  }

  private ipv4(frame: Frame): void {
    const { packet } = this;
    const { view, start } = frame;
    const at = start + packet.network;
    const header = packet.transport - packet.network;
    // The length of a joined packet is the frame's: it may not fit the field.
    const joined = frame.gsoType !== 0;
    const total = joined ? frame.length - packet.network : view.getUint16(at + 2);
    const end = packet.network + total;
    const sound = total >= header && end <= frame.length && foldSum(sumBytes(view, at, at + header)) === 0xffff;
    if (!sound && !(joined && end <= frame.length)) {
      this.counters.malformed++;
      return;
    }
    const source = view.getUint32(at + 12);
    const target = view.getUint32(at + 16);
    if (packet.fragment) {
      // Nothing here sends packets that have to be put together, and what is kept for others can be made to run over.
      this.counters.unserved++;
      return;
    }
    if (target === BROADCAST && packet.protocol === PROTOCOL_UDP) {
      this.udp(frame, end, source, target);
    } else if (target !== GATEWAY) {
      this.counters.unserved++;
      if (isHost(target)) this.unreachable(frame, source, NET_UNREACHABLE);
    } else if (packet.protocol === PROTOCOL_ICMP) {
      this.icmp(frame, end, source);
    } else if (packet.protocol === PROTOCOL_UDP) {
      this.udp(frame, end, source, target);
    } else if (packet.protocol === PROTOCOL_TCP) {
      if (isHost(source) && this.transportSound(frame, end, PROTOCOL_TCP)) {
        const now = this.options.now();
        if (this.tcp.input(frame, packet, end, now, (write) => this.answer(write))) return;
      }
      this.counters.malformed++;
    } else {
      this.counters.unserved++;
    }
  }

  /** Is the checksum of the transport right? One that is still to be done is. */
  private transportSound(frame: Frame, end: number, protocol: number): boolean {
    if (frame.needsChecksum) return true;
    const { packet } = this;
    const pseudo = pseudoSum(frame, packet.network, protocol, end - packet.transport);
    const sum = sumBytes(frame.view, frame.start + packet.transport, frame.start + end);
    return foldSum(pseudo + sum) === 0xffff;
  }

  private icmp(frame: Frame, end: number, source: number): void {
    const { packet } = this;
    const { view, bytes, start } = frame;
    const at = start + packet.transport;
    const length = end - packet.transport;
    if (length < ICMP_HEADER || foldSum(sumBytes(view, at, start + end)) !== 0xffff) {
      this.counters.malformed++;
      return;
    }
    if (view.getUint8(at) !== ECHO_REQUEST || view.getUint8(at + 1) !== 0 || !isHost(source)) {
      this.counters.unserved++;
      return;
    }
    this.answer((out) => {
      const to = out.start + TRANSPORT;
      out.bytes.set(bytes.subarray(at, start + end), to);
      this.finishIcmp(out, bytes.subarray(start + 6, start + 12), source, 0, length);
    });
  }

  private finishIcmp(out: Frame, mac: Uint8Array, target: number, kind: number, length: number): void {
    const to = out.start + TRANSPORT;
    out.view.setUint8(to, kind);
    out.view.setUint16(to + 2, 0);
    out.view.setUint16(to + 2, checksumOf(sumBytes(out.view, to, to + length)), true);
    writeIpv4(out, mac, target, PROTOCOL_ICMP, length);
  }

  /** RFC 792: what nobody takes. Never for what is an error itself, nor to groups. */
  private unreachable(frame: Frame, source: number, code: number): void {
    const { packet } = this;
    const { bytes, start, length } = frame;
    if (!isHost(source) || (bytes[start] as number) % 2 === 1) return;
    if (packet.protocol === PROTOCOL_ICMP && (bytes[start + packet.transport] ?? 0) !== ECHO_REQUEST) return;
    const quoted = Math.min(length - packet.network, packet.transport - packet.network + 8);
    const at = start + packet.network;
    this.answer((out) => {
      const to = out.start + TRANSPORT;
      out.view.setUint8(to + 1, code);
      out.view.setUint32(to + 4, 0);
      out.bytes.set(bytes.subarray(at, at + quoted), to + ICMP_HEADER);
      this.finishIcmp(out, bytes.subarray(start + 6, start + 12), source, UNREACHABLE, ICMP_HEADER + quoted);
    });
  }

  private udp(frame: Frame, end: number, source: number, target: number): void {
    const { packet } = this;
    const { view, bytes, start } = frame;
    const at = start + packet.transport;
    const length = end - packet.transport < UDP_HEADER ? 0 : view.getUint16(at + 4);
    const unchecked = length >= UDP_HEADER && view.getUint16(at + 6) === 0;
    const fits = length >= UDP_HEADER && packet.transport + length <= end;
    if (!fits || !(unchecked || this.transportSound(frame, packet.transport + length, PROTOCOL_UDP))) {
      this.counters.malformed++;
      return;
    }
    const from = view.getUint16(at);
    const to = view.getUint16(at + 2);
    const payload = bytes.subarray(at + UDP_HEADER, at + length);
    const mac = bytes.subarray(start + 6, start + 12);
    if (to === BOOTP_SERVER) {
      this.dhcp(payload, mac);
    } else if (target === BROADCAST || !isHost(source)) {
      this.counters.unserved++;
    } else if (to === ECHO) {
      this.datagram(mac, source, ECHO, from, payload.length, (into, place) => into.set(payload, place));
    } else if (to === CHARGEN) {
      const write = (into: Uint8Array, place: number) => readChargen(0, into, place, CHARGEN_DATAGRAM);
      this.datagram(mac, source, CHARGEN, from, CHARGEN_DATAGRAM, write);
    } else if (to !== DISCARD) {
      this.counters.unserved++;
      this.unreachable(frame, source, PORT_UNREACHABLE);
    }
  }

  private dhcp(request: Uint8Array, mac: Uint8Array): void {
    const { mtu } = this.options;
    const answer = answerDhcp(request, mtu === 1500 ? undefined : mtu);
    if (answer === null) {
      this.counters.unserved++;
      return;
    }
    const everybody = toEverybody(request, answer);
    const address = everybody ? BROADCAST : new DataView(request.buffer, request.byteOffset).getUint32(12);
    const hardware = everybody ? BROADCAST_MAC : mac;
    this.datagram(hardware, address, BOOTP_SERVER, BOOTP_CLIENT, answer.length, (into, at) => into.set(answer, at));
  }

  private datagram(
    mac: Uint8Array,
    target: number,
    fromPort: number,
    toPort: number,
    length: number,
    write: (into: Uint8Array, at: number) => void,
  ): void {
    this.answer((out) => {
      write(out.bytes, out.start + TRANSPORT + UDP_HEADER);
      writeIpv4(out, mac, target, PROTOCOL_UDP, UDP_HEADER + length);
      writeUdp(out, fromPort, toPort, length);
    });
  }
}

/** The least MTU with which everything here works: RFC 791's, and room for a DHCP answer. */
export const LEAST_MTU = 576;
