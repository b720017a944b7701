/** Frames of the other end, one after the other, each as the driver takes it. */
import { NET_HDR_F_DATA_VALID, NET_HDR_F_NEEDS_CSUM } from '@airlock/virtio/request/net.ts';
import type { NetCounters } from './counters.ts';
import type { NetEnd } from './end.ts';
import type { Filter } from './filter.ts';
import { ETHERNET_HEADER, type Frame, ownFrame } from './frame.ts';
import { NO_OFFLOADS, type Offloads, settleChecksum, takesJoined } from './offloads.ts';
import { isJoined, Segmenter } from './segmenter.ts';

/** Frames that nobody wants before others have their turn. */
const UNWANTED_LIMIT = 256;
const VLAN_TAG = 4;

export class Incoming {
  /** What the driver does itself. */
  offloads: Offloads = NO_OFFLOADS;
  /** The longest frame that is not joined. */
  longest = Number.POSITIVE_INFINITY;
  /** The last `next` gave up although there may be more. */
  gaveUp = false;
  private readonly end: NetEnd;
  private readonly filter: Filter;
  private readonly counters: NetCounters;
  // A joined frame that is being cut for a driver that does not take it, and the piece that is next.
  private readonly segmenter = new Segmenter();
  private readonly segment = ownFrame();
  private segmentReady = false;

  constructor(end: NetEnd, filter: Filter, counters: NetCounters) {
    this.end = end;
    this.filter = filter;
    this.counters = counters;
  }

  /** §5.1.4.1: nothing above the MTU that was negotiated, but for joined frames. A VLAN tag does not count. */
  setMtu(mtu: number | null): void {
    this.longest = mtu === null ? Number.POSITIVE_INFINITY : mtu + ETHERNET_HEADER + VLAN_TAG;
  }

  /** The next frame, the same until `done`; null when there is none. Those that the driver does not take are counted. */
  next(): Frame | null {
    this.gaveUp = false;
    if (this.segmentReady) return this.segment;
    if (!this.segmenter.busy) {
      const frame = this.pick();
      if (frame === null || takesJoined(this.offloads, frame.gsoType)) return frame;
    }
    this.segmenter.next(this.segment);
    this.segmentReady = true;
    return this.segment;
  }

  /** The frame was delivered or dropped. */
  done(): void {
    if (this.segmentReady) {
      this.segmentReady = false;
      if (this.segmenter.busy) return;
    }
    this.end.advance();
  }

  /** What is left of a frame that was being cut is of no use to whoever comes next. */
  abandon(): void {
    if (!this.segmenter.busy && !this.segmentReady) return;
    this.segmenter.abandon();
    this.segmentReady = false;
    this.counters.receivedClaims++;
    this.end.advance();
  }

  private pick(): Frame | null {
    for (let i = 0; i < UNWANTED_LIMIT; i++) {
      const frame = this.end.peek();
      if (frame === null) return null;
      if (!this.isWanted(frame)) {
        this.end.advance();
        continue;
      }
      if (takesJoined(this.offloads, frame.gsoType)) {
        settleChecksum(frame, this.offloads);
        if (!this.offloads.checksum) frame.flags = 0;
        else if (frame.needsChecksum) frame.flags = NET_HDR_F_NEEDS_CSUM;
        else frame.flags &= NET_HDR_F_DATA_VALID;
        return frame;
      }
      if (this.segmenter.begin(frame)) return frame;
      this.counters.receivedClaims++;
      this.end.advance();
    }
    this.gaveUp = true;
    return null;
  }

  private isWanted(frame: Frame): boolean {
    if (!this.filter.accepts(frame)) {
      this.counters.receivedUnwanted++;
      return false;
    }
    if (frame.length > this.longest && !isJoined(frame)) {
      this.counters.receivedNoFit++;
      return false;
    }
    return true;
  }
}
