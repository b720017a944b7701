/** One transmit queue: the driver's frames to the other end. VIRTIO 1.4 §5.1.6.2. */
import type { NetOffloads } from '@airlock/virtio/request/net.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { NetCounters } from './counters.ts';
import type { NetEnd } from './end.ts';
import { ETHERNET_HEADER, FRAME_LIMIT, type Frame, ownFrame } from './frame.ts';
import { claimsHold, settleChecksum, takesJoined } from './offloads.ts';
import { Packet } from './packet.ts';
import { isJoined, Segmenter } from './segmenter.ts';

/** What one call of `serve` does at most, so that the other direction gets its turn. */
const SERVE_CHAINS = 256;
const SERVE_BYTES = 1024 * 1024;
/** What a segment costs, in bytes that are only copied. */
const SEGMENT_WEIGHT = 256;
/** What is longer than any frame on a wire is read where it can stay while it is cut. */
const WIRE_FRAME = 2048;

export interface TransmitForm {
  readonly headerSize: number;
  /** What the device was asked to do for the driver. */
  readonly offloads: NetOffloads;
}

export class Transmitter {
  readonly queue: DeviceQueue;
  /** The other end had no room: serve again when it says that it has. */
  blocked = false;
  private readonly end: NetEnd;
  private readonly form: TransmitForm;
  private readonly counters: NetCounters;
  private readonly onSent: ((frame: Frame, packet: Packet) => void) | null;
  private readonly chain: Chain;
  private readonly packet = new Packet();
  private readonly segmenter = new Segmenter();
  private readonly large = ownFrame();

  /** `onSent` sees every frame before it goes, for steering; `pieces` is the most pieces of memory of one chain. */
  constructor(
    queue: DeviceQueue,
    form: TransmitForm,
    pieces: number,
    end: NetEnd,
    counters: NetCounters,
    onSent: ((frame: Frame, packet: Packet) => void) | null,
  ) {
    this.queue = queue;
    this.form = form;
    this.chain = new Chain(pieces);
    this.end = end;
    this.counters = counters;
    this.onSent = onSent;
  }

  /** Takes chains until there are none, the end has no room, or it is another's turn. Returns how many it took. */
  serve(): number {
    const { queue, chain, end } = this;
    let taken = 0;
    let bytes = 0;
    this.blocked = false;
    while (taken < SERVE_CHAINS && bytes < SERVE_BYTES) {
      if (this.segmenter.busy && !this.cut()) break;
      const room = end.up ? end.room() : this.large;
      if (room === null) {
        this.blocked = true;
        break;
      }
      const outcome = queue.take(chain);
      if (outcome === DONE) {
        bytes += chain.readableBytes + this.forward(room);
      } else if (outcome === MALFORMED) {
        this.counters.malformedChains++;
      } else break;
      taken++;
    }
    if (taken > 0) queue.publish();
    end.flush();
    return taken;
  }

  /** Is the ring broken? `queue.violation` says how. */
  get broken(): boolean {
    return this.queue.violation !== null;
  }

  /**
   * Copies the frame of the chain that was taken, gives the chain back, and sends what is right. What that weighs in a
   * turn besides its bytes.
   */
  private forward(room: Frame): number {
    const { chain, counters, end } = this;
    const { headerSize, offloads } = this.form;
    const length = chain.readableBytes - headerSize;
    if (length < ETHERNET_HEADER || length > FRAME_LIMIT) {
      counters.sentLength++;
      this.queue.give(chain.id, 0);
      return 0;
    }
    let frame = length > WIRE_FRAME && offloads.gsoTypes.length > 0 ? this.large : room;
    chain.read(0, frame.bytes, frame.start - headerSize, chain.readableBytes);
    this.queue.give(chain.id, 0);
    frame.length = length;
    frame.readHeader(headerSize);
    if (!end.up) {
      counters.sentUnplugged++;
      return 0;
    }
    if (!claimsHold(frame, offloads, this.packet)) {
      counters.sentClaims++;
      return 0;
    }
    this.onSent?.(frame, this.packet);
    if (isJoined(frame) && !takesJoined(end.takes, frame.gsoType)) {
      if (frame !== this.large) frame = copyFrame(frame, this.large);
      // `claimsHold` has found that it can be cut.
      this.segmenter.begin(frame);
      const weight = this.segmenter.left * SEGMENT_WEIGHT;
      this.cut();
      return weight;
    }
    if (frame !== room) frame = copyFrame(frame, room);
    settleChecksum(frame, end.takes);
    this.count(frame);
    end.send();
    return 0;
  }

  /** Sends segments of the joined frame. False when the end has no room for the next one. */
  private cut(): boolean {
    const { segmenter, end } = this;
    while (segmenter.busy) {
      if (!end.up) {
        this.counters.sentUnplugged++;
        segmenter.abandon();
        return true;
      }
      const room = end.room();
      if (room === null) {
        this.blocked = true;
        return false;
      }
      segmenter.next(room);
      this.count(room);
      end.send();
    }
    return true;
  }

  private count(frame: Frame): void {
    this.counters.sentFrames++;
    this.counters.sentBytes += frame.length;
  }

  /** What is left of a joined frame is lost, as on a wire that is cut. */
  stop(): void {
    if (this.segmenter.busy) this.counters.sentUnplugged++;
    this.segmenter.abandon();
    this.blocked = false;
  }
}

function copyFrame(from: Frame, to: Frame): Frame {
  to.bytes.set(from.bytes.subarray(from.start, from.start + from.length), to.start);
  to.length = from.length;
  to.flags = from.flags;
  to.gsoType = from.gsoType;
  to.headerLength = from.headerLength;
  to.gsoSize = from.gsoSize;
  to.checksumStart = from.checksumStart;
  to.checksumOffset = from.checksumOffset;
  return to;
}
