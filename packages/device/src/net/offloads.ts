/** Who does which part of a packet: checksums and segments. VIRTIO 1.4 §5.1.3, §5.1.6.2. */
import { type Features, hasFeature } from '@airlock/virtio/features.ts';
import {
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  NET_HDR_F_NEEDS_CSUM,
  NET_HEADER_SIZE,
  type NetOffloads,
  parseNetHeader,
} from '@airlock/virtio/request/net.ts';
import { finishChecksum } from './checksum.ts';
import type { Frame } from './frame.ts';
import type { Packet } from './packet.ts';
import { segmentable } from './segmenter.ts';

/** What a receiver of frames does itself, so that the sender may leave it undone. */
export interface Offloads {
  readonly checksum: boolean;
  readonly tcp4: boolean;
  readonly tcp6: boolean;
  readonly ecn: boolean;
}

/** No TCP has smaller segments (Linux: TCP_MIN_GSO_SIZE); one byte each would be 65,000 frames for one chain. */
const LEAST_SEGMENT = 8;

export const NO_OFFLOADS: Offloads = { checksum: false, tcp4: false, tcp6: false, ecn: false };
export const ALL_OFFLOADS: Offloads = { checksum: true, tcp4: true, tcp6: true, ecn: true };

/** What the device does for the driver: CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN. */
export function driverOffloads(features: Features): NetOffloads {
  const gsoTypes: number[] = [];
  if (hasFeature(features, 11)) gsoTypes.push(GSO_TCPV4);
  if (hasFeature(features, 12)) gsoTypes.push(GSO_TCPV6);
  return { checksum: hasFeature(features, 0), gsoTypes, ecn: hasFeature(features, 13), mergeable: false };
}

/** What the driver does itself: GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN. */
export function guestOffloads(features: Features): Offloads {
  return {
    checksum: hasFeature(features, 1),
    tcp4: hasFeature(features, 7),
    tcp6: hasFeature(features, 8),
    ecn: hasFeature(features, 9),
  };
}

export function bothOffloads(a: Offloads, b: Offloads): Offloads {
  return {
    checksum: a.checksum && b.checksum,
    tcp4: a.tcp4 && b.tcp4,
    tcp6: a.tcp6 && b.tcp6,
    ecn: a.ecn && b.ecn,
  };
}

/** May a frame of this kind of segments be handed over as it is? True for one that is not joined. */
export function takesJoined(offloads: Offloads, gsoType: number): boolean {
  const kind = gsoType & ~GSO_ECN;
  if (kind === GSO_NONE) return true;
  if ((gsoType & GSO_ECN) !== 0 && !offloads.ecn) return false;
  return kind === GSO_TCPV4 ? offloads.tcp4 : kind === GSO_TCPV6 && offloads.tcp6;
}

/**
 * Holds what a header says about its frame against what was negotiated and against the bytes themselves. False: the frame
 * is to be dropped. After true, offsets lie within the frame, a joined frame can be cut, and the fields that mean nothing
 * are zero.
 */
export function claimsHold(frame: Frame, offloads: NetOffloads, packet: Packet): boolean {
  // §5.1.6.2.2: flags that only a device may set, and those of later standards, are ignored.
  frame.flags &= NET_HDR_F_NEEDS_CSUM;
  if (frame.flags === 0 && frame.gsoType === GSO_NONE) {
    frame.complete();
    return true;
  }
  // Written anew: the number of buffers means nothing in this direction and may be missing.
  frame.writeHeader(NET_HEADER_SIZE, 0);
  const header = frame.bytes.subarray(frame.start - NET_HEADER_SIZE, frame.start);
  if (!parseNetHeader(header, frame.length, offloads).ok) return false;
  if (frame.gsoType === GSO_NONE) {
    frame.headerLength = 0;
    frame.gsoSize = 0;
    return true;
  }
  return (
    frame.gsoSize >= LEAST_SEGMENT &&
    packet.read(frame.view, frame.start, frame.length) &&
    segmentable(frame, packet) !== 0
  );
}

/** Does what the receiver of an uncut frame would not: fills in the checksum. */
export function settleChecksum(frame: Frame, offloads: Offloads): void {
  if (frame.needsChecksum && !offloads.checksum) finishChecksum(frame);
}
