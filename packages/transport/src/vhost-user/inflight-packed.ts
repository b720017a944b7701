/** A packed queue that writes down what is in flight. vhost-user "Inflight I/O tracking", QueueRegionPacked. */
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import { READ } from '@airlock/virtio/memory/region.ts';
import { type AddressSpace, DENIED, MISSING } from '@airlock/virtio/memory/space.ts';
import { APPEND_CODES, APPENDED, type Chain, UNTRANSLATED_BUFFER } from '@airlock/virtio/ring/chain.ts';
import { copyTable } from '@airlock/virtio/ring/indirect-table.ts';
import { DESCRIPTOR_SIZE, INDIRECT, type RingArea, WRITES } from '@airlock/virtio/ring/layout.ts';
import type { PackedDevice } from '@airlock/virtio/ring/packed-device.ts';
import {
  BROKEN,
  type DevicePosition,
  DONE,
  MALFORMED,
  type RingFeatures,
  ringProblem,
  UNTRANSLATED,
} from '@airlock/virtio/ring/queue.ts';
import { type InflightPart, PACKED_ENTRY, PACKED_HEADER, type TrackedQueue, writeCounter } from './inflight-area.ts';
import {
  ADDRESS,
  COUNTER,
  commit,
  FLAGS,
  type Found,
  FREE_HEAD,
  ID,
  INFLIGHT,
  LAST,
  LENGTH,
  type Left,
  NEXT,
  NO_ENTRY,
  NUM,
  OLD_FREE_HEAD,
  recover,
  USED_AT,
  USED_WRAP,
} from './inflight-packed-record.ts';
import { ReturnBatch } from './return-batch.ts';

export class PackedInflight implements TrackedQueue {
  readonly size: number;
  private readonly inner: PackedDevice;
  private readonly part: InflightPart;
  private readonly ring: RingArea;
  private readonly space: AddressSpace;
  private readonly features: RingFeatures;
  private readonly scratch: DataView;
  private readonly left: readonly Left[];
  private resumed = 0;
  private counter: number;
  /**
   * The driver has sent a malformed list. The queue gives such a list back within `take`, before it is written down, and
   * may write over it then unless everything before it was shown: so from the second on, that is done first.
   */
  private careful = false;
  private ownRefusal: Problem | null = null;
  private ownViolation: Problem | null = null;
  private readonly next: Uint16Array;
  private freeHead: number;
  private used: number;
  private usedWrap: boolean;
  /** By buffer id: first and last entry, and how many. */
  private readonly firstOf: Uint16Array;
  private readonly lastOf: Uint16Array;
  private readonly countOf: Uint16Array;
  private readonly batch: ReturnBatch;

  private constructor(
    inner: PackedDevice,
    part: InflightPart,
    ring: RingArea,
    space: AddressSpace,
    features: RingFeatures,
    chainLimit: number,
    found: Found,
  ) {
    this.inner = inner;
    this.size = inner.size;
    this.part = part;
    this.ring = ring;
    this.space = space;
    this.features = features;
    this.scratch = new DataView(new ArrayBuffer(chainLimit * DESCRIPTOR_SIZE));
    this.left = found.left;
    const last = found.left.at(-1)?.counter ?? 0;
    this.counter = last < Number.MAX_SAFE_INTEGER / 2 ? last + 1 : 0;
    this.next = found.next;
    this.freeHead = found.freeHead;
    this.used = found.position.used;
    this.usedWrap = found.position.usedWrap;
    this.firstOf = new Uint16Array(inner.size);
    this.lastOf = new Uint16Array(inner.size);
    this.countOf = new Uint16Array(inner.size);
    this.batch = new ReturnBatch(inner.size, features.inOrder);
  }

  /**
   * Continues where the part says that an earlier life ended; a part that was never used begins at `position`. `ring` is
   * the descriptor ring, `space` what descriptors translate through. Codes: `vhost-user-inflight-invalid`,
   * `queue-state-invalid`.
   */
  static start(
    inner: PackedDevice,
    part: InflightPart,
    ring: RingArea,
    space: AddressSpace,
    features: RingFeatures,
    chainLimit: number,
    position: DevicePosition,
  ): Result<PackedInflight> {
    const found = recover(part, inner.size, ring, position);
    if (!found.ok) return found;
    const wrong = inner.restore(found.value.position);
    if (wrong !== null) return { ok: false, error: wrong };
    return ok(new PackedInflight(inner, part, ring, space, features, chainLimit, found.value));
  }

  get resuming(): number {
    return this.left.length - this.resumed;
  }

  get inFlight(): number {
    return this.inner.inFlight;
  }

  get violation(): Problem | null {
    return this.ownViolation ?? this.inner.violation;
  }

  get refusal(): Problem | null {
    return this.ownRefusal ?? this.inner.refusal;
  }

  get malformed(): number {
    return this.inner.malformed;
  }

  take(chain: Chain): number {
    if (this.ownViolation !== null) return BROKEN;
    const waiting = this.left[this.resumed];
    if (waiting !== undefined) return this.resume(waiting, chain);
    if (this.careful && this.batch.count > 0) this.publish();
    const before = this.inner.position();
    const outcome = this.inner.take(chain);
    if (outcome !== DONE && outcome !== MALFORMED) return outcome;
    this.ownRefusal = null;
    const after = this.inner.position();
    const count = after.avail - before.avail + (after.availWrap === before.availWrap ? 0 : this.size);
    this.enter(chain.id, before.avail, count);
    if (outcome === MALFORMED) {
      this.batch.leave(chain.id);
      this.careful = true;
    }
    return outcome;
  }

  /** Writes a list down: all of it, then that it is in flight, then that its entries are not free. */
  private enter(id: number, place: number, count: number): void {
    const { view, base } = this.part;
    const entries = base + PACKED_HEADER;
    const first = this.freeHead;
    let at = first;
    let last = first;
    for (let i = 0; i < count && at !== NO_ENTRY; i++) {
      const from = this.ring.base + ((place + i) % this.size) * DESCRIPTOR_SIZE;
      const to = entries + at * PACKED_ENTRY;
      view.setUint32(to + ADDRESS, this.ring.view.getUint32(from, true), true);
      view.setUint32(to + ADDRESS + 4, this.ring.view.getUint32(from + 4, true), true);
      view.setUint32(to + LENGTH, this.ring.view.getUint32(from + 8, true), true);
      // The id that the queue has seen, not what stands in the ring by now.
      view.setUint16(to + ID, id, true);
      view.setUint16(to + FLAGS, this.ring.view.getUint16(from + 14, true), true);
      last = at;
      at = this.next[at] as number;
    }
    const head = entries + first * PACKED_ENTRY;
    view.setUint16(head + NUM, count, true);
    view.setUint16(head + LAST, last, true);
    writeCounter(view, head + COUNTER, this.counter++);
    view.setUint8(head + INFLIGHT, 1);
    this.freeHead = at;
    view.setUint16(base + FREE_HEAD, at, true);
    view.setUint16(base + OLD_FREE_HEAD, at, true);
    this.firstOf[id] = first;
    this.lastOf[id] = last;
    this.countOf[id] = count;
    this.batch.enter(id);
  }

  private resume(left: Left, chain: Chain): number {
    const fault = this.fill(left, chain);
    if (fault === UNTRANSLATED_BUFFER) return UNTRANSLATED;
    const count = left.descriptors.length;
    if (!this.inner.resume(left.id, count, fault === APPENDED ? chain.writableBytes : 0)) {
      this.ownViolation = ringProblem(
        'queue-state-invalid',
        `list ${left.id} of ${count} does not fit what was in flight`,
      );
      return BROKEN;
    }
    this.resumed++;
    const { id } = left;
    this.firstOf[id] = left.entry;
    this.countOf[id] = count;
    let last = left.entry;
    for (let i = 1; i < count; i++) last = this.next[last] as number;
    this.lastOf[id] = last;
    this.batch.enter(id);
    if (fault === APPENDED) return DONE;
    this.ownRefusal = ringProblem(APPEND_CODES[fault] ?? 'indirect-length-invalid', `list ${id} of an earlier life`);
    this.inner.give(id, 0);
    this.batch.leave(id);
    return MALFORMED;
  }

  /** Returns as `Chain.append`, or -1 for what an indirect table must not be. */
  private fill({ id, descriptors }: Left, chain: Chain): number {
    chain.begin(id);
    for (const { address, length, flags } of descriptors) {
      if ((flags & INDIRECT) === 0) {
        const fault = chain.append(this.space, address, length, (flags & WRITES) !== 0);
        if (fault !== APPENDED) return fault;
        continue;
      }
      const count = length / DESCRIPTOR_SIZE;
      const fits = count >= 1 && count * DESCRIPTOR_SIZE <= this.scratch.byteLength && Number.isInteger(count);
      if (!this.features.indirect || descriptors.length > 1 || !fits) return -1;
      const run = this.space.translate(address, READ);
      if (run <= 0) return run === MISSING ? UNTRANSLATED_BUFFER : run === DENIED ? 6 : 4;
      const copied = copyTable(this.space, address, length, this.scratch);
      if (copied !== APPENDED) return copied;
      for (let i = 0; i < count; i++) {
        const at = i * DESCRIPTOR_SIZE;
        const to = this.scratch.getUint32(at + 4, true) * 2 ** 32 + this.scratch.getUint32(at, true);
        const writable = (this.scratch.getUint16(at + 14, true) & WRITES) !== 0;
        const fault = chain.append(this.space, to, this.scratch.getUint32(at + 8, true), writable);
        if (fault !== APPENDED) return fault;
      }
    }
    return APPENDED;
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
    const entries = base + PACKED_HEADER;
    for (let i = 0; i < count; i++) {
      const id = ids[i] as number;
      const last = this.lastOf[id] as number;
      this.next[last] = this.freeHead;
      view.setUint16(entries + last * PACKED_ENTRY + NEXT, this.freeHead, true);
      this.freeHead = this.firstOf[id] as number;
      this.used += this.countOf[id] as number;
      if (this.used >= this.size) {
        this.used -= this.size;
        this.usedWrap = !this.usedWrap;
      }
    }
    view.setUint16(base + FREE_HEAD, this.freeHead, true);
    view.setUint8(base + USED_WRAP, this.usedWrap ? 1 : 0);
    view.setUint16(base + USED_AT, this.used, true);
    this.inner.publish();
    for (let i = 0; i < count; i++) {
      view.setUint8(entries + (this.firstOf[ids[i] as number] as number) * PACKED_ENTRY + INFLIGHT, 0);
    }
    commit(this.part);
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
    return there || (this.resuming > 0 && this.violation === null);
  }

  position(): DevicePosition {
    return this.inner.position();
  }

  restore(position: DevicePosition): Problem | null {
    return this.inner.restore(position);
  }

  reset(): void {
    this.inner.reset();
    this.resumed = this.left.length;
    this.batch.clear();
  }
}
