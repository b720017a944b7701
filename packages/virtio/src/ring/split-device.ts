/**
 * The device side of a split virtqueue (VIRTIO 1.3 §2.7) against a driver that may write anything anywhere in it, at any
 * time. Every shared field is read once into a local and checked there; walks are bounded by the queue size and by the
 * chain limit; what breaks a rule of the ring poisons the queue, what breaks a rule of one chain gives that chain back
 * with length 0.
 *
 * Order of memory: as in split-driver.ts. The available `idx` is loaded with Atomics before any of what it exposes; the
 * used `idx` is stored with Atomics after all of what it exposes, and before the driver's advice is loaded.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { RingErrorCode } from '../errors.ts';
import { READ } from '../memory/region.ts';
import { type AddressSpace, DENIED, MISSING } from '../memory/space.ts';
import { APPEND_CODES, APPENDED, type Chain, UNTRANSLATED_BUFFER } from './chain.ts';
import { HoldBack } from './hold-back.ts';
import { copyTable } from './indirect-table.ts';
import {
  AVAIL_NO_INTERRUPT,
  DESCRIPTOR_SIZE,
  INDIRECT,
  NEXT,
  type RingAreas,
  USED_NO_NOTIFY,
  WRITES,
} from './layout.ts';
import {
  BROKEN,
  type DevicePosition,
  type DeviceQueue,
  DONE,
  MALFORMED,
  NONE,
  passedEvent,
  type RingFeatures,
  ringProblem,
  UNTRANSLATED,
} from './queue.ts';

export class SplitDevice implements DeviceQueue {
  readonly size: number;
  inFlight = 0;
  violation: Problem | null = null;
  refusal: Problem | null = null;
  malformed = 0;

  private readonly space: AddressSpace;
  private readonly mask: number;
  private readonly chainLimit: number;
  private readonly indirect: boolean;
  private readonly eventIndex: boolean;
  private readonly inOrder: boolean;
  private readonly table: DataView;
  private readonly tableBase: number;
  private readonly availRing: DataView;
  private readonly availBase: number;
  private readonly availHalves: Uint16Array;
  private readonly usedRing: DataView;
  private readonly usedBase: number;
  private readonly usedHalves: Uint16Array;
  private readonly taken: Uint8Array;
  private readonly writableBytes: Float64Array;
  private readonly line: HoldBack;
  /** A private copy of an indirect table that does not lie in one piece. */
  private readonly scratch: DataView;

  private seenIndex = 0;
  /** Keeps `touch` from being optimised away. */
  touched = 0;
  private availIndex = 0;
  private usedIndex = 0;
  private publishedIndex = 0;
  private notifiedIndex = 0;
  /** What the driver was told last about notifications; -1: nothing yet. */
  private advised = -1;

  /** `chainLimit`: the most descriptors of a chain, those of its indirect table counted. */
  constructor(areas: RingAreas, space: AddressSpace, features: RingFeatures, chainLimit: number) {
    const { size, descriptors, driver, device } = areas;
    this.size = size;
    this.mask = size - 1;
    this.space = space;
    this.chainLimit = chainLimit;
    this.indirect = features.indirect;
    this.eventIndex = features.eventIndex;
    this.inOrder = features.inOrder;
    this.table = descriptors.view;
    this.tableBase = descriptors.base;
    this.availRing = driver.view;
    this.availBase = driver.base;
    this.availHalves = driver.halves;
    this.usedRing = device.view;
    this.usedBase = device.base;
    this.usedHalves = device.halves;
    this.taken = new Uint8Array(size);
    this.writableBytes = new Float64Array(size);
    this.line = new HoldBack(size);
    this.scratch = new DataView(new ArrayBuffer(chainLimit * DESCRIPTOR_SIZE));
  }

  take(chain: Chain): number {
    if (this.violation !== null) return BROKEN;
    if (this.seenIndex === this.availIndex) {
      const index = Atomics.load(this.availHalves, 1);
      const ahead = (index - this.availIndex) & 0xffff;
      if (ahead === 0) return NONE;
      // What was given back and not published is still the device's: the driver cannot know of it.
      const held = this.inFlight + ((this.usedIndex - this.publishedIndex) & 0xffff);
      if (ahead + held > this.size) return this.poison('avail-index-jump', `by ${ahead}, ${held} of ${this.size} held`);
      this.seenIndex = index;
      if (ahead > 1) this.touch(ahead < TOUCHED ? ahead : TOUCHED);
    }
    const at = this.availBase + 4 + 2 * (this.availIndex & this.mask);
    const id = this.availRing.getUint16(at, true);
    if (id >= this.size) return this.poison('avail-head-out-of-range', `head ${id}, queue size ${this.size}`);
    const head = id & this.mask;
    if (this.taken[head] !== 0) return this.poison('avail-head-in-flight', `head ${id}`);
    return this.accept(head, chain, 1);
  }

  /**
   * Looks at the descriptors of the next `count` chains, one look behind the other: the driver's processor wrote them, and
   * this way the lines come over all at once instead of one by one. What is seen is not used.
   */
  private touch(count: number): void {
    const { availRing, availBase, availIndex, mask, table, tableBase } = this;
    let seen = 0;
    for (let i = 0; i < count; i++) {
      const head = availRing.getUint16(availBase + 4 + 2 * ((availIndex + i) & mask), true) & mask;
      seen ^= table.getUint8(tableBase + head * DESCRIPTOR_SIZE);
    }
    this.touched = seen;
  }

  /**
   * Takes a chain by its head, which an earlier life of this device had in flight (vhost-user INFLIGHT); the position
   * does not move. Results as `take`.
   */
  resume(head: number, chain: Chain): number {
    if (this.violation !== null) return BROKEN;
    if (!(head >= 0 && head < this.size)) return this.poison('avail-head-out-of-range', `head ${head}`);
    if (this.taken[head & this.mask] !== 0) return this.poison('avail-head-in-flight', `head ${head}`);
    return this.accept(head & this.mask, chain, 0);
  }

  private accept(head: number, chain: Chain, advance: 0 | 1): number {
    const fault = this.walk(head, chain);
    if (fault === UNTRANSLATED_BUFFER) return UNTRANSLATED;
    this.availIndex = (this.availIndex + advance) & 0xffff;
    this.taken[head] = 1;
    this.inFlight++;
    if (this.inOrder) this.line.enter(head);
    if (fault === APPENDED) {
      this.writableBytes[head] = chain.writableBytes;
      return DONE;
    }
    // No count of bytes equals this, so an IN_ORDER batch never skips over it as if it had been filled.
    this.writableBytes[head] = Number.POSITIVE_INFINITY;
    this.malformed++;
    this.give(head, 0);
    return MALFORMED;
  }

  /** Fills `chain` from `head` on. 0, UNTRANSLATED_BUFFER, or another number when `refusal` says what is wrong. */
  private walk(head: number, chain: Chain): number {
    const { table, tableBase, space } = this;
    chain.begin(head);
    let index = head;
    for (let steps = 1; ; steps++) {
      const at = tableBase + index * DESCRIPTOR_SIZE;
      const low = table.getUint32(at, true);
      const high = table.getUint32(at + 4, true);
      const length = table.getUint32(at + 8, true);
      const tail = table.getUint32(at + 12, true);
      if ((tail & INDIRECT) !== 0) {
        if (!this.indirect) return this.refuse('indirect-not-negotiated', `descriptor ${index}`);
        if ((tail & NEXT) !== 0) return this.refuse('indirect-with-next', `descriptor ${index}`);
        return this.walkTable(chain, high * 4294967296 + low, length, steps - 1);
      }
      if (steps > this.chainLimit) return this.refuse('chain-too-long', `more than ${this.chainLimit} descriptors`);
      const fault = chain.append(space, high * 4294967296 + low, length, (tail & WRITES) !== 0);
      if (fault !== APPENDED) return this.refuseBuffer(fault, index);
      if ((tail & NEXT) === 0) return APPENDED;
      const next = tail >>> 16;
      if (next >= this.size) return this.refuse('next-out-of-range', `descriptor ${index}, next ${next}`);
      if (steps === this.size) return this.refuse('chain-loops', `more than ${this.size} descriptors`);
      index = next & this.mask;
    }
  }

  /** §2.7.5.3: the WRITE flag of the descriptor that points at the table means nothing. */
  private walkTable(chain: Chain, address: number, length: number, before: number): number {
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0)
      return this.refuse('indirect-length-invalid', `${length} bytes`);
    const count = length / DESCRIPTOR_SIZE;
    if (count + before > this.chainLimit) return this.refuse('chain-too-long', `a table of ${count} descriptors`);
    const { space } = this;
    const run = space.translate(address, READ);
    if (run <= 0) return this.refuseBuffer(run === MISSING ? 5 : run === DENIED ? 6 : 4, -1);
    let table = space.region.view;
    let base = space.offset;
    if (run < length) {
      const fault = copyTable(space, address, length, this.scratch);
      if (fault !== APPENDED) return this.refuseBuffer(fault, -1);
      table = this.scratch;
      base = 0;
    }
    let index = 0;
    for (let steps = 1; ; steps++) {
      const at = base + index * DESCRIPTOR_SIZE;
      const low = table.getUint32(at, true);
      const high = table.getUint32(at + 4, true);
      const bytes = table.getUint32(at + 8, true);
      const tail = table.getUint32(at + 12, true);
      if ((tail & INDIRECT) !== 0) return this.refuse('indirect-nested', `table entry ${index}`);
      const fault = chain.append(space, high * 4294967296 + low, bytes, (tail & WRITES) !== 0);
      if (fault !== APPENDED) return this.refuseBuffer(fault, index);
      if ((tail & NEXT) === 0) return APPENDED;
      const next = tail >>> 16;
      if (next >= count) return this.refuse('next-out-of-range', `table entry ${index}, next ${next} of ${count}`);
      if (steps === count) return this.refuse('chain-loops', `more than the table's ${count} descriptors`);
      index = next;
    }
  }

  give(id: number, written: number): boolean {
    if (this.violation !== null || this.taken[id] !== 1) return false;
    const most = this.writableBytes[id] as number;
    const bytes = written > most ? most : written;
    if (this.inOrder) {
      this.taken[id] = 2;
      this.line.finish(id, bytes);
      return true;
    }
    this.taken[id] = 0;
    this.inFlight--;
    this.place(id, bytes);
    this.usedIndex = (this.usedIndex + 1) & 0xffff;
    return true;
  }

  /** Writes a used element where the next one goes. */
  private place(id: number, written: number): void {
    const at = this.usedBase + 4 + 8 * (this.usedIndex & this.mask);
    this.usedRing.setUint32(at, id, true);
    this.usedRing.setUint32(at + 4, written, true);
  }

  publish(): void {
    if (this.inOrder) this.placeInOrder();
    if (this.usedIndex === this.publishedIndex) return;
    this.publishedIndex = this.usedIndex;
    Atomics.store(this.usedHalves, 1, this.usedIndex);
  }

  /**
   * §2.7.9: one used element, with the id of the last, for each run of finished chains of which all but the last were
   * filled to the end, since that is what the driver must assume of those that are skipped.
   */
  private placeInOrder(): void {
    const { line } = this;
    while (line.ready()) {
      let last = 0;
      while (line.writtenAt(last) === this.writableBytes[line.idAt(last)] && line.ready(last + 1)) last++;
      this.place(line.idAt(last), line.writtenAt(last));
      for (let i = 0; i <= last; i++) this.taken[line.idAt(i)] = 0;
      line.leave(last + 1);
      this.inFlight -= last + 1;
      this.usedIndex = (this.usedIndex + last + 1) & 0xffff;
    }
  }

  shouldNotify(): boolean {
    const old = this.notifiedIndex;
    const now = this.publishedIndex;
    if (old === now) return false;
    this.notifiedIndex = now;
    if (this.eventIndex) return passedEvent(Atomics.load(this.availHalves, 2 + this.size), now, old);
    return (Atomics.load(this.availHalves, 0) & AVAIL_NO_INTERRUPT) === 0;
  }

  suppressNotifications(): void {
    // With EVENT_IDX the flag must stay 0 (§2.7.10.2); an event half the number space away is as good.
    this.advise(this.eventIndex ? (this.availIndex + 0x8000) & 0xffff : USED_NO_NOTIFY);
  }

  /**
   * What was asked already is not written again: an idle device writes nothing. Drivers are known that free a ring before
   * they reset its device (Linux 6.12's sound driver), and a write then lands in somebody else's page.
   */
  requestNotifications(): boolean {
    this.advise(this.eventIndex ? this.availIndex : 0);
    return this.violation === null && Atomics.load(this.availHalves, 1) !== this.availIndex;
  }

  private advise(value: number): void {
    if (this.advised === value) return;
    this.advised = value;
    Atomics.store(this.usedHalves, this.eventIndex ? 2 + 4 * this.size : 0, value);
  }

  position(): DevicePosition {
    return { avail: this.availIndex, availWrap: false, used: this.usedIndex, usedWrap: false };
  }

  restore(position: DevicePosition): Problem | null {
    const { avail, used } = position;
    if (!isIndex(avail) || !isIndex(used)) return ringProblem('queue-state-invalid', `avail ${avail}, used ${used}`);
    this.reset();
    this.availIndex = avail;
    this.seenIndex = avail;
    this.usedIndex = used;
    this.publishedIndex = used;
    this.notifiedIndex = used;
    return null;
  }

  reset(): void {
    this.taken.fill(0);
    this.line.clear();
    this.inFlight = 0;
    this.violation = null;
    this.refusal = null;
    this.seenIndex = 0;
    this.availIndex = 0;
    this.usedIndex = 0;
    this.publishedIndex = 0;
    this.notifiedIndex = 0;
    this.advised = -1;
  }

  private refuseBuffer(fault: number, index: number): number {
    if (fault === UNTRANSLATED_BUFFER) return fault;
    return this.refuse(
      APPEND_CODES[fault] ?? 'chain-too-large',
      index < 0 ? 'the indirect table' : `descriptor ${index}`,
    );
  }

  private refuse(code: RingErrorCode, detail: string): number {
    this.refusal = ringProblem(code, detail);
    return REFUSED_CHAIN;
  }

  private poison(code: RingErrorCode, detail: string): number {
    this.violation = ringProblem(code, detail);
    return BROKEN;
  }
}

const REFUSED_CHAIN = -1;
/** As many lines as a processor fetches at a time, about. */
const TOUCHED = 16;

function isIndex(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff;
}
