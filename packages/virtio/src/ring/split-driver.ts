/**
 * The driver side of a split virtqueue (VIRTIO 1.3 §2.7) against a device that may write anything anywhere in it.
 *
 * Nothing that the driver depends on is read back from shared memory: free list, chain lengths, tokens and elements are
 * kept here. From the device come only the used index, used elements, and advice on notifications; each is read once.
 *
 * Order of memory: `idx` is stored and loaded with Atomics, which are sequentially consistent. All plain stores to the
 * descriptor table and the available ring come before the store of `idx`; all plain loads of used elements come after
 * the load of the used `idx`; and the store of `idx` comes before the load of the device's advice (§2.7.13.4.1).
 */
import type { Problem } from '@airlock/core/result.ts';
import type { RingErrorCode } from '../errors.ts';
import {
  AVAIL_NO_INTERRUPT,
  DESCRIPTOR_SIZE,
  INDIRECT,
  NEXT,
  type RingArea,
  type RingAreas,
  USED_NO_NOTIFY,
  WRITES,
  zeroRing,
} from './layout.ts';
import {
  BROKEN,
  DONE,
  type DriverQueue,
  type Elements,
  FULL,
  NONE,
  passedEvent,
  REFUSED,
  type RingFeatures,
  ringProblem,
} from './queue.ts';
import { Staging } from './staging.ts';

/** Times an address: its upper 32 bits, and a fraction. A power of two, so the product is exact. */
const HIGH_WORD = 2 ** -32;

/** What a descriptor is to the driver, when it is the head of a chain. */
const IDLE = 0;
const SUBMITTED = 1;
const PUBLISHED = 2;

/** Where things stand in the record of a head, which has RECORD numbers: one line of the cache. */
const STATE = 0;
const LAST = 1;
const DESCRIPTORS = 2;
const ELEMENTS = 3;
const READABLE = 4;
const TABLE = 5;
const PLACE = 6;
const RECORD = 8;

/** Memory for indirect tables: one of `limit` descriptors for each descriptor of the queue. */
export interface IndirectArea {
  readonly area: RingArea;
  /** Address of its first byte as the device knows it. */
  readonly address: number;
  readonly limit: number;
}

export class SplitDriver implements DriverQueue {
  readonly size: number;
  free: number;
  inFlight = 0;
  violation: Problem | null = null;
  refusal: Problem | null = null;
  clamped = 0;
  token = -1;
  written = 0;

  private readonly areas: RingAreas;
  private readonly mask: number;
  private readonly indirect: IndirectArea | null;
  private readonly eventIndex: boolean;
  private readonly inOrder: boolean;
  private readonly strictLength: boolean;
  private readonly table: DataView;
  private readonly tableBase: number;
  private readonly availRing: DataView;
  private readonly availBase: number;
  private readonly availHalves: Uint16Array;
  private readonly usedRing: DataView;
  private readonly usedBase: number;
  private readonly usedHalves: Uint16Array;

  private readonly staging: Staging;
  /** Free descriptors are a list through this; so are the descriptors of a chain, in the order they were taken. */
  private readonly next: Uint16Array;
  private readonly records: Int32Array;
  private readonly writableBytes: Float64Array;
  private readonly tokens: Float64Array;
  /** The private shadow of every element: of descriptor i, or of entry e of head h at h × limit + e. */
  private readonly shadowAddress: Float64Array;
  private readonly shadowLength: Uint32Array;
  /** Heads by available index. */
  private readonly order: Uint16Array;

  private freeHead = 0;
  private availIndex = 0;
  private publishedIndex = 0;
  private notifiedIndex = 0;
  /** The used index as it was read last, and how far completions have been taken. */
  private seenIndex = 0;
  private usedIndex = 0;
  /** IN_ORDER: completions that follow from a used element already read. */
  private batchLeft = 0;
  private batchWritten = 0;
  private lastHead = 0;

  /** Zeroes the ring. With `strictLength` a used length above the writable bytes poisons the queue instead of being cut. */
  constructor(areas: RingAreas, features: RingFeatures, indirect: IndirectArea | null, strictLength: boolean) {
    const { size, descriptors, driver, device } = areas;
    this.areas = areas;
    this.size = size;
    this.free = size;
    this.mask = size - 1;
    this.indirect = features.indirect ? indirect : null;
    this.eventIndex = features.eventIndex;
    this.inOrder = features.inOrder;
    this.strictLength = strictLength;
    this.table = descriptors.view;
    this.tableBase = descriptors.base;
    this.availRing = driver.view;
    this.availBase = driver.base;
    this.availHalves = driver.halves;
    this.usedRing = device.view;
    this.usedBase = device.base;
    this.usedHalves = device.halves;
    this.staging = new Staging(size);
    this.next = new Uint16Array(size);
    this.records = new Int32Array(RECORD * size);
    this.writableBytes = new Float64Array(size);
    this.tokens = new Float64Array(size);
    const shadow = size * Math.max(1, this.indirect?.limit ?? 1);
    this.shadowAddress = new Float64Array(shadow);
    this.shadowLength = new Uint32Array(shadow);
    this.order = new Uint16Array(size);
    this.reset();
  }

  readable(address: number, length: number): void {
    this.staging.add(address, length, false);
  }

  writable(address: number, length: number): void {
    this.staging.add(address, length, true);
  }

  submit(token: number): number {
    const { staging } = this;
    if (this.violation !== null) {
      staging.clear();
      return BROKEN;
    }
    const problem = staging.problem();
    if (problem !== null) {
      this.refusal = problem;
      staging.clear();
      return REFUSED;
    }
    const { count } = staging;
    const indirect = count > 1 && this.indirect !== null && count <= this.indirect.limit ? this.indirect : null;
    const needed = indirect === null ? count : 1;
    if (needed > this.free) {
      staging.clear();
      return FULL;
    }
    const head = this.freeHead;
    let tail = head;
    if (indirect !== null) this.placeIndirect(indirect, head);
    else tail = this.placeDirect(head, count);
    this.freeHead = this.next[tail] as number;
    this.free -= needed;
    const record = head * RECORD;
    const { records } = this;
    records[record + STATE] = SUBMITTED;
    records[record + LAST] = tail;
    records[record + DESCRIPTORS] = needed;
    records[record + ELEMENTS] = count;
    records[record + READABLE] = staging.readablePieces;
    this.writableBytes[head] = staging.writableBytes;
    this.tokens[head] = token;
    const slot = this.availIndex & this.mask;
    this.order[slot] = head;
    records[record + PLACE] = this.availIndex;
    this.availRing.setUint16(this.availBase + 4 + 2 * slot, head, true);
    this.availIndex = (this.availIndex + 1) & 0xffff;
    staging.clear();
    return DONE;
  }

  /** Writes a chain into the table from `head` on; returns its last descriptor. */
  private placeDirect(head: number, count: number): number {
    const { table, tableBase, next, shadowAddress, shadowLength } = this;
    const { addresses, lengths, readablePieces } = this.staging;
    const shadowStep = this.indirect === null ? 1 : this.indirect.limit;
    let index = head;
    let tail = head;
    for (let i = 0; i < count; i++) {
      const address = addresses[i] as number;
      const length = lengths[i] as number;
      const after = next[index] as number;
      const at = tableBase + index * DESCRIPTOR_SIZE;
      const flags = (i < readablePieces ? 0 : WRITES) | (i + 1 < count ? NEXT : 0);
      table.setUint32(at, address >>> 0, true);
      table.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
      table.setUint32(at + 8, length, true);
      table.setUint32(at + 12, (flags | (i + 1 < count ? after << 16 : 0)) >>> 0, true);
      shadowAddress[index * shadowStep] = address;
      shadowLength[index * shadowStep] = length;
      tail = index;
      index = after;
    }
    this.records[head * RECORD + TABLE] = 0;
    return tail;
  }

  private placeIndirect(indirect: IndirectArea, head: number): void {
    const { shadowAddress, shadowLength, staging } = this;
    const { view } = indirect.area;
    const first = head * indirect.limit;
    const base = indirect.area.base + first * DESCRIPTOR_SIZE;
    const { count } = staging;
    for (let i = 0; i < count; i++) {
      const address = staging.addresses[i] as number;
      const length = staging.lengths[i] as number;
      const at = base + i * DESCRIPTOR_SIZE;
      const more = i + 1 < count;
      const flags = (i < staging.readablePieces ? 0 : WRITES) | (more ? NEXT : 0);
      view.setUint32(at, address >>> 0, true);
      view.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
      view.setUint32(at + 8, length, true);
      view.setUint32(at + 12, (flags | (more ? (i + 1) << 16 : 0)) >>> 0, true);
      shadowAddress[first + i] = address;
      shadowLength[first + i] = length;
    }
    this.records[head * RECORD + TABLE] = 1;
    const address = indirect.address + first * DESCRIPTOR_SIZE;
    const at = this.tableBase + head * DESCRIPTOR_SIZE;
    this.table.setUint32(at, address >>> 0, true);
    this.table.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
    this.table.setUint32(at + 8, count * DESCRIPTOR_SIZE, true);
    this.table.setUint32(at + 12, INDIRECT, true);
  }

  publish(): void {
    let index = this.publishedIndex;
    if (index === this.availIndex) return;
    while (index !== this.availIndex) {
      this.records[(this.order[index & this.mask] as number) * RECORD + STATE] = PUBLISHED;
      index = (index + 1) & 0xffff;
      this.inFlight++;
    }
    this.publishedIndex = index;
    Atomics.store(this.availHalves, 1, index);
  }

  shouldNotify(): boolean {
    const old = this.notifiedIndex;
    const now = this.publishedIndex;
    if (old === now) return false;
    this.notifiedIndex = now;
    if (this.eventIndex) return passedEvent(Atomics.load(this.usedHalves, 2 + 4 * this.size), now, old);
    return (Atomics.load(this.usedHalves, 0) & USED_NO_NOTIFY) === 0;
  }

  complete(): number {
    if (this.violation !== null) return BROKEN;
    if (this.batchLeft > 0) return this.completeBatched();
    if (this.seenIndex === this.usedIndex) {
      const index = Atomics.load(this.usedHalves, 1);
      const ahead = (index - this.usedIndex) & 0xffff;
      if (ahead === 0) return NONE;
      if (ahead > this.inFlight) return this.poison('used-index-jump', `by ${ahead}, ${this.inFlight} in flight`);
      this.seenIndex = index;
    }
    const slot = this.usedBase + 4 + 8 * (this.usedIndex & this.mask);
    const id = this.usedRing.getUint32(slot, true);
    const written = this.usedRing.getUint32(slot + 4, true);
    if (id >= this.size) return this.poison('used-id-out-of-range', `id ${id}, queue size ${this.size}`);
    const head = id & this.mask;
    if (this.records[head * RECORD + STATE] !== PUBLISHED) return this.poison('used-id-not-in-flight', `id ${id}`);
    if (this.inOrder) {
      const behind = ((this.records[head * RECORD + PLACE] as number) - this.usedIndex) & 0xffff;
      if (behind >= ((this.seenIndex - this.usedIndex) & 0xffff)) {
        return this.poison('used-out-of-order', `id ${id} is ${behind} further than what was next`);
      }
      if (behind > 0) {
        this.batchLeft = behind + 1;
        this.batchWritten = written;
        return this.completeBatched();
      }
    }
    return this.finish(head, written);
  }

  /** §2.7.9: all but the last of a batch count as used completely. */
  private completeBatched(): number {
    const head = this.order[this.usedIndex & this.mask] as number;
    this.batchLeft--;
    return this.finish(head, this.batchLeft === 0 ? this.batchWritten : (this.writableBytes[head] as number));
  }

  private finish(head: number, written: number): number {
    const most = this.writableBytes[head] as number;
    if (written > most) {
      this.clamped++;
      if (this.strictLength) return this.poison('used-length-exceeds-buffer', `${written} of ${most} bytes`);
    }
    this.records[head * RECORD + STATE] = IDLE;
    this.written = written > most ? most : written;
    this.token = this.tokens[head] as number;
    this.lastHead = head;
    // IN_ORDER: descriptors are used in the order of the table (§2.7.5), and they become free in that order too, so the
    // list is the table itself and is never changed.
    if (!this.inOrder) {
      this.next[this.records[head * RECORD + LAST] as number] = this.freeHead;
      this.freeHead = head;
    }
    this.free += this.records[head * RECORD + DESCRIPTORS] as number;
    this.inFlight--;
    this.usedIndex = (this.usedIndex + 1) & 0xffff;
    return DONE;
  }

  elements(into: Elements): boolean {
    const head = this.lastHead;
    const count = this.records[head * RECORD + ELEMENTS] as number;
    if (into.addresses.length < count || into.lengths.length < count) return false;
    const limit = this.indirect?.limit ?? 1;
    const indirect = this.records[head * RECORD + TABLE] === 1;
    let at = head * limit;
    let descriptor = head;
    for (let i = 0; i < count; i++) {
      into.addresses[i] = this.shadowAddress[at] as number;
      into.lengths[i] = this.shadowLength[at] as number;
      descriptor = this.next[descriptor] as number;
      at = indirect ? at + 1 : descriptor * limit;
    }
    into.count = count;
    into.readable = this.records[head * RECORD + READABLE] as number;
    return true;
  }

  suppressNotifications(): void {
    // With EVENT_IDX the flag must stay 0 (§2.7.7.1); an event half the number space away is as good.
    if (this.eventIndex) Atomics.store(this.availHalves, 2 + this.size, (this.usedIndex + 0x8000) & 0xffff);
    else Atomics.store(this.availHalves, 0, AVAIL_NO_INTERRUPT);
  }

  requestNotifications(after = 1): boolean {
    const wait = this.eventIndex ? Math.max(1, Math.min(after, this.inFlight)) : 1;
    if (this.eventIndex) Atomics.store(this.availHalves, 2 + this.size, (this.usedIndex + wait - 1) & 0xffff);
    else Atomics.store(this.availHalves, 0, 0);
    if (this.violation !== null) return false;
    return this.batchLeft > 0 || ((Atomics.load(this.usedHalves, 1) - this.usedIndex) & 0xffff) >= wait;
  }

  notificationOffset(): number {
    return this.publishedIndex;
  }

  reset(): number[] {
    const left: { readonly token: number; readonly place: number }[] = [];
    for (let head = 0; head < this.size; head++) {
      if (this.records[head * RECORD + STATE] === IDLE) continue;
      const place = ((this.records[head * RECORD + PLACE] as number) - this.availIndex) & 0xffff;
      left.push({ token: this.tokens[head] as number, place });
    }
    zeroRing(this.areas);
    this.staging.clear();
    this.records.fill(0);
    for (let i = 0; i < this.size; i++) this.next[i] = (i + 1) & this.mask;
    this.free = this.size;
    this.inFlight = 0;
    this.violation = null;
    this.refusal = null;
    this.freeHead = 0;
    this.availIndex = 0;
    this.publishedIndex = 0;
    this.notifiedIndex = 0;
    this.seenIndex = 0;
    this.usedIndex = 0;
    this.batchLeft = 0;
    return left.sort((a, b) => a.place - b.place).map(({ token }) => token);
  }

  private poison(code: RingErrorCode, detail: string): number {
    this.violation = ringProblem(code, detail);
    return BROKEN;
  }
}
