/** The requests of one queue: which slots are free, and where each request that has one stands. */

import type { BlockSegment } from '@airlock/virtio/request/block.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import type { DeviceQueue } from '@airlock/virtio/ring/queue.ts';

/** Stands for a slot without a chain; nothing is taken into it. */
const NO_CHAIN = new Chain(1);

const FREE = 0;
const IN_USE = 1;
/** The disk has not ended it, and its queue was stopped: the slot cannot be used, the chain is not touched. */
export const ORPHAN = 2;

export const NO_SEGMENTS: readonly BlockSegment[] = [];

/** A queue has as many slots as it may have elements, so a chain that can be taken always finds one. */
export class BlockQueue {
  readonly index: number;
  /** The token of slot 0. */
  readonly base: number;
  readonly slots: number;
  /** The ring, while the queue is started. */
  ring: DeviceQueue | null = null;
  /** Requests that were taken and are not given back. */
  busy = 0;
  /** Something was given back and is not published. */
  unpublished = false;

  // What a request is and how far it is. One entry a slot; nothing is allocated for a request.
  readonly chains: Chain[];
  readonly types: Uint32Array;
  /** Where the transfer begins on the disk, in bytes. */
  readonly positions: Float64Array;
  /** Bytes of the transfer, and how many of them are done. */
  readonly lengths: Float64Array;
  readonly done: Float64Array;
  /** Of a discard or write-zeroes: its segments, and how many of them are done. */
  readonly segments: (readonly BlockSegment[])[];
  readonly segmentsDone: Uint32Array;
  readonly states: Uint8Array;

  private readonly free: Uint32Array;
  private freeCount: number;
  private readonly chainPieces: number;
  private readonly chainBytes: number;

  constructor(index: number, slots: number, chainPieces: number, chainBytes: number) {
    this.index = index;
    this.base = index * slots;
    this.slots = slots;
    this.chainPieces = chainPieces;
    this.chainBytes = chainBytes;
    this.chains = Array.from({ length: slots }, () => NO_CHAIN);
    this.types = new Uint32Array(slots);
    this.positions = new Float64Array(slots);
    this.lengths = new Float64Array(slots);
    this.done = new Float64Array(slots);
    this.segments = Array.from({ length: slots }, () => NO_SEGMENTS);
    this.segmentsDone = new Uint32Array(slots);
    this.states = new Uint8Array(slots);
    // The slot that was freed last is used next: its chain is still in the processor's cache.
    this.free = Uint32Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.freeCount = slots;
  }

  /** The slot that the next request will have, with its chain made; -1 when none is free. It stays free until `occupy`. */
  next(): number {
    if (this.freeCount === 0) return -1;
    const slot = this.free[this.freeCount - 1] as number;
    if (this.chains[slot] === NO_CHAIN) this.chains[slot] = new Chain(this.chainPieces, this.chainBytes);
    return slot;
  }

  /** Takes the slot that `next` returned. */
  occupy(slot: number): void {
    this.freeCount--;
    this.busy++;
    this.states[slot] = IN_USE;
  }

  release(slot: number): void {
    if (this.states[slot] === IN_USE) this.busy--;
    this.states[slot] = FREE;
    this.free[this.freeCount++] = slot;
  }

  /** The queue was stopped: requests that the disk still has are nobody's any more. */
  abandon(): void {
    for (let slot = 0; slot < this.slots; slot++) if (this.states[slot] === IN_USE) this.states[slot] = ORPHAN;
    this.busy = 0;
  }
}
