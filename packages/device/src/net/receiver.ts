/** One receive queue: frames into the driver's buffers. VIRTIO 1.4 §5.1.6.3, §5.1.6.4. */
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED, NONE } from '@airlock/virtio/ring/queue.ts';
import type { NetCounters } from './counters.ts';
import type { Frame } from './frame.ts';

/** What `deliver` returns. */
export const DELIVERED = 1;
/** No buffers now; the driver was asked to tell when there are. The frame is still to be delivered. */
export const STARVED = 2;
/** The frame does not fit and never will; it was counted. */
export const NO_FIT = 3;
/** The ring is broken: see its violation. */
export const RING_BROKEN = 4;
/** The driver gives buffers that are no use faster than they go back; deliver again after somebody else had a turn. */
export const AGAIN = 5;

export interface ReceiveForm {
  /** 12 bytes; 10 for a driver without VERSION_1 and MRG_RXBUF. */
  readonly headerSize: number;
  /** MRG_RXBUF: a frame may go into many chains. */
  readonly mergeable: boolean;
}

export class Receiver {
  readonly queue: DeviceQueue;
  /** Chains taken since `takeCount` was asked last. */
  private taken = 0;
  private readonly form: ReceiveForm;
  private readonly counters: NetCounters;
  private readonly pieces: number;
  private readonly holdLimit: number;
  // Chains that were taken and not used yet come first, in their order; the others are free.
  private readonly chains: Chain[] = [];
  private held = 0;
  private heldBytes = 0;
  private unpublished = false;
  private fresh = false;

  /** `pieces`: the most pieces of memory of one chain. */
  constructor(queue: DeviceQueue, form: ReceiveForm, pieces: number, counters: NetCounters) {
    this.queue = queue;
    this.form = form;
    this.pieces = pieces;
    this.counters = counters;
    this.holdLimit = form.mergeable ? queue.size : 1;
  }

  /** How many chains were taken since the last call. */
  takeCount(): number {
    const { taken } = this;
    this.taken = 0;
    return taken;
  }

  /** Puts header and frame into the next buffers. The HEADROOM before the frame is used. */
  deliver(frame: Frame): number {
    const { headerSize } = this.form;
    const needed = headerSize + frame.length;
    while (this.heldBytes < needed) {
      if (this.held === this.holdLimit) {
        // Everything that the driver can give is here: a frame that does not fit now never will. A smaller one may.
        this.counters.receivedNoFit++;
        return NO_FIT;
      }
      const outcome = this.take();
      if (outcome !== DONE) return outcome;
    }
    let used = 1;
    for (let bytes = (this.chains[0] as Chain).writableBytes; bytes < needed; used++) {
      bytes += (this.chains[used] as Chain).writableBytes;
    }
    frame.writeHeader(headerSize, used);
    this.place(frame, needed, used);
    this.counters.receivedFrames++;
    this.counters.receivedBytes += frame.length;
    return DELIVERED;
  }

  private place(frame: Frame, needed: number, used: number): void {
    const { queue, chains } = this;
    let from = frame.start - this.form.headerSize;
    let left = needed;
    for (let i = 0; i < used; i++) {
      const chain = chains[i] as Chain;
      const bytes = chain.writableBytes < left ? chain.writableBytes : left;
      chain.write(0, frame.bytes, from, bytes);
      queue.give(chain.id, bytes);
      from += bytes;
      left -= bytes;
      this.heldBytes -= chain.writableBytes;
    }
    this.unpublished = true;
    this.held -= used;
    if (this.held > 0) {
      const free = chains.splice(0, used);
      chains.push(...free);
    }
  }

  /** Takes one more chain: DONE, or what `deliver` returns. Chains that are no use for a packet go back. */
  private take(): number {
    const { queue } = this;
    let chain = this.chains[this.held];
    if (chain === undefined) {
      chain = new Chain(this.pieces);
      this.chains.push(chain);
    }
    for (let tries = 2 * queue.size; ; tries--) {
      if (tries === 0) return AGAIN;
      const outcome = queue.take(chain);
      if (outcome === DONE) {
        this.taken++;
        if (chain.writableBytes >= this.form.headerSize) break;
        this.counters.shortBuffers++;
        queue.give(chain.id, 0);
        this.unpublished = true;
      } else if (outcome === MALFORMED) {
        this.taken++;
        this.counters.malformedChains++;
        this.unpublished = true;
      } else if (outcome === BROKEN) {
        return RING_BROKEN;
      } else {
        // The driver has to see what it gets before it can give more; and there may be more since we looked.
        this.show();
        if (outcome !== NONE || !queue.requestNotifications()) return STARVED;
      }
    }
    this.held++;
    this.heldBytes += chain.writableBytes;
    return DONE;
  }

  private show(): void {
    if (!this.unpublished) return;
    this.queue.publish();
    this.unpublished = false;
    this.fresh = true;
  }

  /** Lets the driver see what it was given. True when it got anything since the last call: notify it. */
  publish(): boolean {
    this.show();
    const { fresh } = this;
    this.fresh = false;
    return fresh;
  }

  /** Gives back, empty, what was taken and not used. Result as of `publish`. */
  stop(): boolean {
    for (let i = 0; i < this.held; i++) this.queue.give((this.chains[i] as Chain).id, 0);
    if (this.held > 0) this.unpublished = true;
    this.held = 0;
    this.heldBytes = 0;
    return this.publish();
  }
}
