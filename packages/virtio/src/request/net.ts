/** The header before every packet. VIRTIO 1.4 §5.1.6. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const NET_HDR_F_NEEDS_CSUM = 1;
export const NET_HDR_F_DATA_VALID = 2;
export const NET_HDR_F_RSC_INFO = 4;

export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_UDP = 3;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;

/** Bytes of the header: num_buffers is always there since VERSION_1; 8 more with NET_F_HASH_REPORT. */
export const NET_HEADER_SIZE = 12;
export const NET_HASH_HEADER_SIZE = 20;

export interface NetHeader {
  readonly flags: number;
  /** Without the ECN bit. */
  readonly gsoType: number;
  readonly ecn: boolean;
  readonly headerLength: number;
  readonly gsoSize: number;
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly buffers: number;
}

/** What the receiver of a header lets the sender use: the features that were negotiated for this direction. */
export interface NetOffloads {
  readonly checksum: boolean;
  readonly gsoTypes: readonly number[];
  readonly ecn: boolean;
  /** Receiver is the driver: NET_F_MRG_RXBUF. For the device it is false: drivers set num_buffers to 0 (§5.1.6.2.1). */
  readonly mergeable: boolean;
}

/**
 * Reads and checks the header of a packet of which `packetLength` bytes follow. Everything in it is a claim about those
 * bytes: offsets are held against them, so that no later step computes a checksum or cuts segments outside the packet.
 * `bytes` is a private copy. Codes: `request-truncated`, `request-malformed`.
 */
export function parseNetHeader(bytes: Uint8Array, packetLength: number, offloads: NetOffloads): Result<NetHeader> {
  if (bytes.length < NET_HEADER_SIZE) return fail('request-truncated', `net header of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = view.getUint8(1);
  const header: NetHeader = {
    flags: view.getUint8(0),
    gsoType: kind & ~GSO_ECN,
    ecn: (kind & GSO_ECN) !== 0,
    headerLength: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    checksumStart: view.getUint16(6, true),
    checksumOffset: view.getUint16(8, true),
    buffers: view.getUint16(10, true),
  };
  const wrong = contradiction(header, packetLength, offloads);
  return wrong === null ? ok(header) : fail('request-malformed', `net header: ${wrong}`);
}

function contradiction(header: NetHeader, packetLength: number, offloads: NetOffloads): string | null {
  const { flags, gsoType, checksumStart, checksumOffset } = header;
  const needsChecksum = (flags & NET_HDR_F_NEEDS_CSUM) !== 0;
  if (needsChecksum) {
    if (!offloads.checksum) return 'a checksum is asked for that was not negotiated';
    if (checksumStart + checksumOffset + 2 > packetLength) return 'the checksum lies outside the packet';
  }
  if (gsoType !== GSO_NONE) {
    if (!offloads.gsoTypes.includes(gsoType)) return `segmentation type ${gsoType} was not negotiated`;
    if (header.gsoSize === 0) return 'segments of no bytes';
    // §5.1.6.2.1: whoever asks for segments of TCP or UDP leaves their checksums to do.
    if (!needsChecksum) return 'segmentation without a checksum to fill in';
    // hdr_len is a hint that is not exact without GUEST_HDRLEN; what it may not be is longer than the packet.
    if (header.headerLength > packetLength) return 'the headers are longer than the packet';
    if (checksumStart >= packetLength) return 'the transport header lies outside the packet';
  } else if (header.ecn) {
    return 'ECN without segmentation';
  }
  if (header.ecn && !offloads.ecn) return 'ECN was not negotiated';
  if (offloads.mergeable && header.buffers === 0) return 'a packet in no buffers';
  return null;
}

/** The 12 bytes of a header. */
export function encodeNetHeader(header: NetHeader): Uint8Array {
  const bytes = new Uint8Array(NET_HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags);
  view.setUint8(1, header.gsoType | (header.ecn ? GSO_ECN : 0));
  view.setUint16(2, header.headerLength, true);
  view.setUint16(4, header.gsoSize, true);
  view.setUint16(6, header.checksumStart, true);
  view.setUint16(8, header.checksumOffset, true);
  view.setUint16(10, header.buffers, true);
  return bytes;
}
