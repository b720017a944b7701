/** Where the headers of a packet are. Made once and used for one frame after another. */
import { ETHERNET_HEADER } from './frame.ts';

export const ETHER_IPV4 = 0x0800;
export const ETHER_ARP = 0x0806;
export const ETHER_VLAN = 0x8100;
export const ETHER_IPV6 = 0x86dd;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const TCP_HEADER = 20;
/**
 * IPv6 extension headers that are skipped: hop-by-hop and destination options. Not routing: with one, the destination
 * that the transport's checksum counts is another.
 */
const EXTENSIONS: ReadonlySet<number> = new Set([0, 60]);
const EXTENSIONS_LIMIT = 8;

export class Packet {
  /** Of the frame, behind a VLAN tag if there is one. */
  etherType = 0;
  /** Where the network header begins, from the start of the frame. */
  network = 0;
  /** 4, 6, or 0 when it is no IP packet that could be understood. */
  version: 0 | 4 | 6 = 0;
  protocol = 0;
  /** Where the transport header begins. */
  transport = 0;
  /** A piece of a larger packet: what stands at `transport` is no header, or not all of what it says. */
  fragment = false;

  /** Looks at the `length` bytes from `start`. False when they end within a header; nothing else is promised then. */
  read(view: DataView, start: number, length: number): boolean {
    this.version = 0;
    this.protocol = -1;
    this.fragment = false;
    if (length < ETHERNET_HEADER) return false;
    this.etherType = view.getUint16(start + 12);
    this.network = ETHERNET_HEADER;
    if (this.etherType === ETHER_VLAN) {
      if (length < ETHERNET_HEADER + 4) return false;
      this.etherType = view.getUint16(start + 16);
      this.network = ETHERNET_HEADER + 4;
    }
    this.transport = this.network;
    if (this.etherType === ETHER_IPV4) return this.readIpv4(view, start, length);
    if (this.etherType === ETHER_IPV6) return this.readIpv6(view, start, length);
    return true;
  }

  private readIpv4(view: DataView, start: number, length: number): boolean {
    const { network } = this;
    if (length < network + IPV4_HEADER) return false;
    const first = view.getUint8(start + network);
    const header = (first & 15) * 4;
    if (first >>> 4 !== 4 || header < IPV4_HEADER || length < network + header) return false;
    this.version = 4;
    this.fragment = (view.getUint16(start + network + 6) & 0x3fff) !== 0;
    this.protocol = view.getUint8(start + network + 9);
    this.transport = network + header;
    return true;
  }

  private readIpv6(view: DataView, start: number, length: number): boolean {
    let at = this.network + IPV6_HEADER;
    if (length < at || view.getUint8(start + this.network) >>> 4 !== 6) return false;
    let next = view.getUint8(start + this.network + 6);
    for (let i = 0; EXTENSIONS.has(next); i++) {
      if (i === EXTENSIONS_LIMIT || length < at + 8) return false;
      next = view.getUint8(start + at);
      at += 8 + 8 * view.getUint8(start + at + 1);
      if (length < at) return false;
    }
    this.version = 6;
    this.fragment = next === 44;
    this.protocol = next;
    this.transport = at;
    return true;
  }

  /** Where the payload of TCP begins; 0 when the `length` bytes end before its header does. */
  tcpPayload(view: DataView, start: number, length: number): number {
    const { transport } = this;
    if (length < transport + TCP_HEADER) return 0;
    const header = (view.getUint8(start + transport + 12) >>> 4) * 4;
    return header < TCP_HEADER || length < transport + header ? 0 : transport + header;
  }
}
