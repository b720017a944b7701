/** A split queue that writes down what is in flight. vhost-user "Inflight I/O tracking", QueueRegionSplit. */
import type { Problem } from '@airlock/core/result.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DevicePosition, DONE, MALFORMED, UNTRANSLATED } from '@airlock/virtio/ring/queue.ts';
import type { SplitDevice } from '@airlock/virtio/ring/split-device.ts';
import {
  COUNT_AT,
  INFLIGHT_VERSION,
  type InflightPart,
  readCounter,
  SPLIT_ENTRY,
  SPLIT_HEADER,
  type TrackedQueue,
  VERSION_AT,
  writeCounter,
} from './inflight-area.ts';
import { ReturnBatch } from './return-batch.ts';

const LAST_BATCH_HEAD = 12;
const USED_INDEX = 14;
/** Of an entry. */
const INFLIGHT = 0;
const NEXT = 6;
const COUNTER = 8;

interface Found {
  /** Heads in the order in which they were taken. */
  readonly heads: readonly number[];
  readonly counter: number;
}

/**
 * What an earlier life left in flight, given the ring's used index: a batch that was shown to the driver just before the
 * end is taken off first. A part that is empty or of another queue size is made new.
 */
function recover({ view, base }: InflightPart, size: number, usedIndex: number): Found {
  const entry = (head: number): number => base + SPLIT_HEADER + head * SPLIT_ENTRY;
  if (view.getUint16(base + VERSION_AT, true) !== INFLIGHT_VERSION || view.getUint16(base + COUNT_AT, true) !== size) {
    new Uint8Array(view.buffer, view.byteOffset + base, SPLIT_HEADER + size * SPLIT_ENTRY).fill(0);
    view.setUint16(base + VERSION_AT, INFLIGHT_VERSION, true);
    view.setUint16(base + COUNT_AT, size, true);
  }
  const shown = (usedIndex - view.getUint16(base + USED_INDEX, true)) & 0xffff;
  let head = view.getUint16(base + LAST_BATCH_HEAD, true);
  for (let i = 0; i < Math.min(shown, size) && head < size; i++) {
    view.setUint8(entry(head) + INFLIGHT, 0);
    head = view.getUint16(entry(head) + NEXT, true);
  }
  view.setUint16(base + USED_INDEX, usedIndex, true);
  const found: { readonly head: number; readonly counter: number }[] = [];
  for (let i = 0; i < size; i++) {
    if (view.getUint8(entry(i) + INFLIGHT) === 1)
      found.push({ head: i, counter: readCounter(view, entry(i) + COUNTER) });
  }
  found.sort((a, b) => a.counter - b.counter);
  const last = found.at(-1)?.counter ?? 0;
  return { heads: found.map((one) => one.head), counter: last < Number.MAX_SAFE_INTEGER / 2 ? last + 1 : 0 };
}

export class SplitInflight implements TrackedQueue {
  readonly size: number;
  private readonly inner: SplitDevice;
  private readonly part: InflightPart;
  /** Heads that an earlier life had taken, and how many of them were handed out again. */
  private readonly heads: readonly number[];
  private resumed = 0;
  private counter: number;
  private usedIndex: number;
  /** Given back and not yet shown to the driver. */
  private readonly batch: ReturnBatch;

  private constructor(inner: SplitDevice, part: InflightPart, inOrder: boolean, found: Found, usedIndex: number) {
    this.inner = inner;
    this.size = inner.size;
    this.part = part;
    this.heads = found.heads;
    this.counter = found.counter;
    this.usedIndex = usedIndex;
    this.batch = new ReturnBatch(inner.size, inOrder);
  }

  /**
   * Continues where the part says that an earlier life ended; `usedIndex` is the ring's. The queue's own position is set
   * from it: everything in flight was taken. Problem code: `queue-state-invalid`.
   */
  static start(inner: SplitDevice, part: InflightPart, inOrder: boolean, usedIndex: number): SplitInflight | Problem {
    const found = recover(part, inner.size, usedIndex);
    const avail = (usedIndex + found.heads.length) & 0xffff;
    const wrong = inner.restore({ avail, availWrap: false, used: usedIndex, usedWrap: false });
    return wrong ?? new SplitInflight(inner, part, inOrder, found, usedIndex);
  }

  get resuming(): number {
    return this.heads.length - this.resumed;
  }

  get inFlight(): number {
    return this.inner.inFlight;
  }

  get violation(): Problem | null {
    return this.inner.violation;
  }

  get refusal(): Problem | null {
    return this.inner.refusal;
  }

  get malformed(): number {
    return this.inner.malformed;
  }

  take(chain: Chain): number {
    if (this.resumed < this.heads.length) return this.resume(chain);
    const outcome = this.inner.take(chain);
    if (outcome !== DONE && outcome !== MALFORMED) return outcome;
    // A malformed one is taken, too, until the driver has seen it come back: where the next life begins depends on it.
    this.enter(chain.id);
    if (outcome === MALFORMED) this.batch.leave(chain.id);
    return outcome;
  }

  private resume(chain: Chain): number {
    const head = this.heads[this.resumed] as number;
    const outcome = this.inner.resume(head, chain);
    if (outcome === UNTRANSLATED || outcome === BROKEN) return outcome;
    this.resumed++;
    this.batch.enter(head);
    if (outcome === MALFORMED) this.batch.leave(head);
    return outcome;
  }

  private enter(head: number): void {
    const { view, base } = this.part;
    const at = base + SPLIT_HEADER + head * SPLIT_ENTRY;
    writeCounter(view, at + COUNTER, this.counter++);
    view.setUint8(at + INFLIGHT, 1);
    this.batch.enter(head);
  }

  give(id: number, written: number): boolean {
    if (!this.inner.give(id, written)) return false;
    this.batch.leave(id);
    return true;
  }

  publish(): void {
    const { ids } = this.batch;
    const count = this.batch.close();
    if (count === 0) {
      this.inner.publish();
      return;
    }
    const { view, base } = this.part;
    const entries = base + SPLIT_HEADER;
    // The list must stand before the driver sees the batch: whoever comes after a crash takes it off by that.
    let previous = view.getUint16(base + LAST_BATCH_HEAD, true);
    for (let i = 0; i < count; i++) {
      const head = ids[i] as number;
      view.setUint16(entries + head * SPLIT_ENTRY + NEXT, previous, true);
      previous = head;
    }
    view.setUint16(base + LAST_BATCH_HEAD, previous, true);
    this.inner.publish();
    for (let i = 0; i < count; i++) view.setUint8(entries + (ids[i] as number) * SPLIT_ENTRY + INFLIGHT, 0);
    this.usedIndex = (this.usedIndex + count) & 0xffff;
    view.setUint16(base + USED_INDEX, this.usedIndex, true);
    this.batch.count = 0;
  }

  shouldNotify(): boolean {
    return this.inner.shouldNotify();
  }

  suppressNotifications(): void {
    this.inner.suppressNotifications();
  }

  requestNotifications(): boolean {
    const there = this.inner.requestNotifications();
    return there || (this.resuming > 0 && this.inner.violation === null);
  }

  position(): DevicePosition {
    return this.inner.position();
  }

  restore(position: DevicePosition): Problem | null {
    return this.inner.restore(position);
  }

  reset(): void {
    this.inner.reset();
    this.resumed = this.heads.length;
    this.batch.clear();
  }
}
