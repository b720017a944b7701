/**
 * Which pair of queues a flow belongs to: frames for the driver go to the pair on which the driver sends that flow's
 * frames, as VIRTIO 1.4 §5.1.6.5.5 asks for ("automatic receive steering").
 */
import type { Frame } from './frame.ts';
import { type Packet, PROTOCOL_TCP, PROTOCOL_UDP } from './packet.ts';

const SLOTS = 256;
const NOBODY = 0xffff;

export class Steering {
  private readonly pairs = new Uint16Array(SLOTS).fill(NOBODY);

  /** The driver sent a frame of this flow on a pair. */
  learn(frame: Frame, packet: Packet, pair: number): void {
    this.pairs[flowSlot(frame, packet)] = pair;
  }

  /** The pair for a frame that comes in, of `count` pairs; what was never sent is spread. */
  pairFor(frame: Frame, packet: Packet, count: number): number {
    const slot = flowSlot(frame, packet);
    const pair = this.pairs[slot] as number;
    return pair < count ? pair : slot % count;
  }

  clear(): void {
    this.pairs.fill(NOBODY);
  }
}

/** The same number for both directions of a flow. */
function flowSlot(frame: Frame, packet: Packet): number {
  const { view, start, length } = frame;
  if (!packet.read(view, start, length) || packet.version === 0) return 0;
  const network = start + packet.network;
  let hash: number;
  if (packet.version === 4) hash = view.getUint32(network + 12) ^ view.getUint32(network + 16);
  else hash = view.getUint32(network + 20) ^ view.getUint32(network + 36);
  const ports = packet.protocol === PROTOCOL_TCP || packet.protocol === PROTOCOL_UDP;
  if (ports && !packet.fragment && length >= packet.transport + 4) {
    hash ^= view.getUint16(start + packet.transport) ^ view.getUint16(start + packet.transport + 2);
  }
  return (Math.imul(hash, 0x9e37_79b1) >>> 24) & (SLOTS - 1);
}
