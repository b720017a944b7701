/** A TCP segment as it came: fields, options, where its payload is. RFC 9293 §3.1, RFC 7323 §2. */
import type { Frame } from '../frame.ts';
import type { Packet } from '../packet.ts';

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

const TCP_HEADER = 20;
/** RFC 9293 §3.7.1: what is taken for granted when the other side says nothing. */
const DEFAULT_MSS = 536;
/** RFC 7323 §2.3: a larger shift counts as this. */
const SHIFT_LIMIT = 14;

export class Segment {
  source = 0;
  sourcePort = 0;
  targetPort = 0;
  sequence = 0;
  acknowledged = 0;
  flags = 0;
  window = 0;
  /** Payload within the frame's buffer. */
  bytes: Uint8Array = NOTHING;
  from = 0;
  to = 0;
  mss = DEFAULT_MSS;
  /** The other side's window shift, or -1 when it did not send one. */
  shift = -1;

  /** Reads the segment in an IPv4 frame that `packet` has read; `end` is where the IP packet ends. False when it is cut. */
  read(frame: Frame, packet: Packet, end: number): boolean {
    const { view, start } = frame;
    const at = start + packet.transport;
    if (start + end < at + TCP_HEADER) return false;
    const header = (view.getUint8(at + 12) >>> 4) * 4;
    if (header < TCP_HEADER || at + header > start + end) return false;
    this.source = view.getUint32(start + packet.network + 12);
    this.sourcePort = view.getUint16(at);
    this.targetPort = view.getUint16(at + 2);
    this.sequence = view.getUint32(at + 4);
    this.acknowledged = view.getUint32(at + 8);
    this.flags = view.getUint8(at + 13) & 0x3f;
    this.window = view.getUint16(at + 14);
    this.bytes = frame.bytes;
    this.from = at + header;
    this.to = start + end;
    if ((this.flags & SYN) !== 0) this.readOptions(view, at + TCP_HEADER, at + header);
    return true;
  }

  /** Bytes of payload. */
  get length(): number {
    return this.to - this.from;
  }

  private readOptions(view: DataView, from: number, end: number): void {
    this.mss = DEFAULT_MSS;
    this.shift = -1;
    for (let at = from; at < end; ) {
      const kind = view.getUint8(at);
      if (kind === 0) return;
      if (kind === 1) {
        at++;
        continue;
      }
      if (at + 2 > end) return;
      const length = view.getUint8(at + 1);
      if (length < 2 || at + length > end) return;
      if (kind === 2 && length === 4) this.mss = view.getUint16(at + 2);
      if (kind === 3 && length === 3) this.shift = Math.min(view.getUint8(at + 2), SHIFT_LIMIT);
      at += length;
    }
  }
}

const NOTHING = new Uint8Array(0);
