/** Cuts a large TCP packet into those that fit the wire, for an end that does not do it itself. VIRTIO 1.4 §5.1.6.2. */
import { GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6 } from '@airlock/virtio/request/net.ts';
import { checksumOf, foldSum, sumBytes, swapHalf } from './checksum.ts';
import type { Frame } from './frame.ts';
import { Packet, PROTOCOL_TCP } from './packet.ts';

const FIN_PSH = 0x09;
const CWR = 0x80;

/** Where a TCP checksum stands in its header. */
export const TCP_CHECKSUM = 16;

/**
 * Are the claims of a frame that asks to be cut true? `packet` has read it. Returns where the payload begins, 0 when they
 * are not: the kind of segments is not that of the packet, or the checksum is not that of its TCP header.
 */
export function segmentable(frame: Frame, packet: Packet): number {
  const kind = frame.gsoType & ~GSO_ECN;
  const version = kind === GSO_TCPV4 ? 4 : kind === GSO_TCPV6 ? 6 : 0;
  if (version === 0 || packet.version !== version || packet.fragment || packet.protocol !== PROTOCOL_TCP) return 0;
  if (frame.checksumStart !== packet.transport || frame.checksumOffset !== TCP_CHECKSUM) return 0;
  return frame.gsoSize === 0 ? 0 : packet.tcpPayload(frame.view, frame.start, frame.length);
}

export class Segmenter {
  private readonly packet = new Packet();
  private source: Frame | null = null;
  private headers = 0;
  private done = 0;
  private number = 0;
  // Sums of what stays the same in every segment.
  private networkSum = 0;
  private pseudoSum = 0;

  /** Is there a frame that is not whole yet? */
  get busy(): boolean {
    return this.source !== null;
  }

  /** Begins with `frame`, which has to stay as it is until the last segment. False when it cannot be cut. */
  begin(frame: Frame): boolean {
    const { packet } = this;
    const { view, start } = frame;
    if (!packet.read(view, start, frame.length)) return false;
    this.headers = segmentable(frame, packet);
    if (this.headers === 0) return false;
    const network = start + packet.network;
    if (packet.version === 4) {
      // Without length, identification and checksum.
      this.networkSum =
        sumBytes(view, network, network + 2) +
        sumBytes(view, network + 6, network + 10) +
        sumBytes(view, network + 12, start + packet.transport);
      this.pseudoSum = sumBytes(view, network + 12, network + 20) + (PROTOCOL_TCP << 8);
    } else {
      this.pseudoSum = sumBytes(view, network + 8, network + 40) + (PROTOCOL_TCP << 8);
    }
    this.done = 0;
    this.number = 0;
    this.source = frame;
    return true;
  }

  /** Segments that are left. */
  get left(): number {
    const { source } = this;
    return source === null ? 0 : Math.max(1, Math.ceil((source.length - this.headers - this.done) / source.gsoSize));
  }

  /** Bytes of the next segment, headers included. */
  nextLength(): number {
    const { source } = this;
    return source === null ? 0 : this.headers + Math.min(source.gsoSize, source.length - this.headers - this.done);
  }

  /** Writes the next segment, checksums and all, to `out`, and moves on. */
  next(out: Frame): void {
    const { source, packet, headers } = this;
    if (source === null) return;
    const payload = Math.min(source.gsoSize, source.length - headers - this.done);
    const from = source.start + headers + this.done;
    const { bytes, view, start } = out;
    bytes.set(source.bytes.subarray(source.start, source.start + headers), start);
    bytes.set(source.bytes.subarray(from, from + payload), start + headers);
    out.length = headers + payload;
    out.complete();

    const network = start + packet.network;
    const transport = start + packet.transport;
    const last = this.done + payload === source.length - headers;
    if (packet.version === 4) {
      const length = swapHalf(out.length - packet.network);
      const id = swapHalf((view.getUint16(network + 4) + this.number) & 0xffff);
      view.setUint16(network + 2, length, true);
      view.setUint16(network + 4, id, true);
      view.setUint16(network + 10, checksumOf(this.networkSum + length + id), true);
    } else {
      view.setUint16(network + 4, out.length - packet.network - 40);
    }
    view.setUint32(transport + 4, (view.getUint32(transport + 4) + this.done) >>> 0);
    let flags = view.getUint8(transport + 13);
    if (!last) flags &= ~FIN_PSH;
    if (this.number > 0) flags &= ~CWR;
    view.setUint8(transport + 13, flags);
    view.setUint16(transport + TCP_CHECKSUM, 0, true);
    const tcpLength = swapHalf(out.length - packet.transport);
    const sum = foldSum(this.pseudoSum + tcpLength) + sumBytes(view, transport, start + out.length);
    view.setUint16(transport + TCP_CHECKSUM, checksumOf(sum), true);

    this.done += payload;
    this.number++;
    if (last) this.source = null;
  }

  /** Forgets what is left of the frame. */
  abandon(): void {
    this.source = null;
  }
}

/** Does the frame have to be cut before it is one that the wire takes? */
export function isJoined(frame: Frame): boolean {
  return (frame.gsoType & ~GSO_ECN) !== GSO_NONE;
}
