/**
 * One Ethernet frame on its way between a driver and the device's other end, with what is still to be done to it: the
 * fields of the header that VIRTIO 1.4 §5.1.6 puts before every packet. A frame is a window on somebody's buffer; nothing
 * is allocated for a packet.
 */
import { NET_HDR_F_NEEDS_CSUM, NET_HEADER_SIZE } from '@airlock/virtio/request/net.ts';

/** Destination, source, type. */
export const ETHERNET_HEADER = 14;
/** The longest IPv4 packet behind an Ethernet header with a VLAN tag: no frame is longer, segments still joined. */
export const FRAME_LIMIT = 65_535 + ETHERNET_HEADER + 4;
/** Bytes before every frame that are free to be written: the header of virtio or of a TAP, or the length on a stream. */
export const HEADROOM = 16;

export class Frame {
  bytes: Uint8Array;
  /** Of the same bytes. */
  view: DataView;
  /** Where the frame begins; at least HEADROOM bytes before it are free. */
  start: number;
  length = 0;
  /** NET_HDR_F_*. */
  flags = 0;
  /** GSO_*, the bit GSO_ECN included. */
  gsoType = 0;
  headerLength = 0;
  gsoSize = 0;
  /** From `start`. */
  checksumStart = 0;
  /** From there. */
  checksumOffset = 0;

  constructor(bytes: Uint8Array, start: number = HEADROOM) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.start = start;
  }

  /** Nothing is left to be done to it. */
  complete(): void {
    this.flags = 0;
    this.gsoType = 0;
    this.headerLength = 0;
    this.gsoSize = 0;
    this.checksumStart = 0;
    this.checksumOffset = 0;
  }

  /** Takes the fields from the header that stands before the frame. They are claims: see `acceptFrame`. */
  readHeader(size: number): void {
    const { view } = this;
    const at = this.start - size;
    this.flags = view.getUint8(at);
    this.gsoType = view.getUint8(at + 1);
    this.headerLength = view.getUint16(at + 2, true);
    this.gsoSize = view.getUint16(at + 4, true);
    this.checksumStart = view.getUint16(at + 6, true);
    this.checksumOffset = view.getUint16(at + 8, true);
  }

  /** Writes the header before the frame: `size` bytes, 10 without the number of buffers. */
  writeHeader(size: number, buffers: number): void {
    const { view } = this;
    const at = this.start - size;
    view.setUint16(at, this.flags | (this.gsoType << 8), true);
    view.setUint16(at + 2, this.headerLength, true);
    view.setUint16(at + 4, this.gsoSize, true);
    view.setUint16(at + 6, this.checksumStart, true);
    view.setUint16(at + 8, this.checksumOffset, true);
    if (size >= NET_HEADER_SIZE) view.setUint16(at + 10, buffers, true);
  }

  get needsChecksum(): boolean {
    return (this.flags & NET_HDR_F_NEEDS_CSUM) !== 0;
  }
}

/** A frame with a buffer of its own, long enough for any. */
export function ownFrame(): Frame {
  return new Frame(new Uint8Array(HEADROOM + FRAME_LIMIT));
}
