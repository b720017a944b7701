/** Writes Ethernet, IPv4 and UDP headers into a frame. RFC 894, RFC 791, RFC 768. */
import { checksumOf, foldSum, sumBytes, swapHalf } from '../checksum.ts';
import { ETHERNET_HEADER, type Frame } from '../frame.ts';
import { ETHER_IPV4 } from '../packet.ts';
import { GATEWAY, GATEWAY_MAC } from './address.ts';

export const IPV4_HEADER = 20;
export const UDP_HEADER = 8;
/** Where the transport header stands in every frame of ours. */
export const TRANSPORT = ETHERNET_HEADER + IPV4_HEADER;
const TIME_TO_LIVE = 64;
const DONT_FRAGMENT = 0x4000;

export function writeEthernet(frame: Frame, to: Uint8Array, type: number): void {
  frame.bytes.set(to, frame.start);
  frame.bytes.set(GATEWAY_MAC, frame.start + 6);
  frame.view.setUint16(frame.start + 12, type);
}

/** Everything before the transport header, from the gateway; `length` is that of the transport header and payload. */
export function writeIpv4(frame: Frame, toMac: Uint8Array, to: number, protocol: number, length: number): void {
  writeEthernet(frame, toMac, ETHER_IPV4);
  const { view } = frame;
  const at = frame.start + ETHERNET_HEADER;
  view.setUint16(at, 0x4500);
  view.setUint16(at + 2, (IPV4_HEADER + length) & 0xffff);
  view.setUint16(at + 4, 0);
  view.setUint16(at + 6, DONT_FRAGMENT);
  view.setUint8(at + 8, TIME_TO_LIVE);
  view.setUint8(at + 9, protocol);
  view.setUint16(at + 10, 0);
  view.setUint32(at + 12, GATEWAY);
  view.setUint32(at + 16, to);
  view.setUint16(at + 10, checksumOf(sumBytes(view, at, at + IPV4_HEADER)), true);
  frame.length = TRANSPORT + length;
  frame.complete();
}

/** Sum of the pseudo header of a frame whose IPv4 header stands: addresses, protocol, `length` of the transport. */
export function pseudoSum(frame: Frame, network: number, protocol: number, length: number): number {
  const at = frame.start + network;
  return foldSum(sumBytes(frame.view, at + 12, at + 20) + (protocol << 8) + swapHalf(length & 0xffff));
}

/** A UDP header before the `length` bytes that are there already, with its checksum. */
export function writeUdp(frame: Frame, fromPort: number, toPort: number, length: number): void {
  const { view } = frame;
  const at = frame.start + TRANSPORT;
  view.setUint16(at, fromPort);
  view.setUint16(at + 2, toPort);
  view.setUint16(at + 4, UDP_HEADER + length);
  view.setUint16(at + 6, 0);
  const sum = pseudoSum(frame, ETHERNET_HEADER, 17, UDP_HEADER + length);
  const checksum = checksumOf(sum + sumBytes(view, at, at + UDP_HEADER + length));
  view.setUint16(at + 6, checksum === 0 ? 0xffff : checksum, true);
}
