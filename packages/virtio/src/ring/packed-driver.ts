/**
 * The driver side of a packed virtqueue (VIRTIO 1.3 §2.8) against a device that may write anything anywhere in it.
 *
 * The ring is memory that both sides write, so nothing in it is trusted after it was written: lists, ids, tokens and
 * elements are kept here. From the device come only the flags, id and length of used descriptors, and advice on
 * notifications; each is read once.
 *
 * Order of memory: the flags of the first descriptor of a batch are stored with Atomics after everything else of it
 * (§2.8.21.1.1 asks for a barrier there); flags of used descriptors are loaded with Atomics before id and length; and
 * the store of flags comes before the load of the device's advice (§2.8.21.3.1).
 */
import type { Problem } from '@airlock/core/result.ts';
import type { RingErrorCode } from '../errors.ts';
import {
  AVAIL,
  DESCRIPTOR_SIZE,
  EVENTS_DESCRIPTOR,
  EVENTS_DISABLE,
  EVENTS_ENABLE,
  INDIRECT,
  NEXT,
  type RingAreas,
  tableLength,
  USED,
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
  REFUSED,
  type RingFeatures,
  ringProblem,
} from './queue.ts';
import type { IndirectArea } from './split-driver.ts';
import { Staging } from './staging.ts';
import { passedDescriptor } from './suppression.ts';

/** Times an address: its upper 32 bits, and a fraction. A power of two, so the product is exact. */
const HIGH_WORD = 2 ** -32;

const IDLE = 0;
const SUBMITTED = 1;
const PUBLISHED = 2;

/** Where things stand in the record of a buffer, which has RECORD numbers: one line of the cache. */
const STATE = 0;
const LAST = 1;
const DESCRIPTORS = 2;
const ELEMENTS = 3;
const READABLE = 4;
const TABLE = 5;
const PLACE = 6;
const RECORD = 8;

export class PackedDriver implements DriverQueue {
  readonly size: number;
  free: number;
  inFlight = 0;
  violation: Problem | null = null;
  refusal: Problem | null = null;
  clamped = 0;
  token = -1;
  written = 0;

  private readonly areas: RingAreas;
  /** The size need not be a power of two; private tables are, so that an index can be masked. */
  private readonly mask: number;
  private readonly indirect: IndirectArea | null;
  private readonly eventIndex: boolean;
  private readonly inOrder: boolean;
  private readonly strictLength: boolean;
  private readonly ring: DataView;
  private readonly base: number;
  private readonly halves: Uint16Array;
  private readonly driverEvent: Uint32Array;
  private readonly deviceEvent: Uint32Array;

  private readonly staging: Staging;
  /**
   * Free buffer ids are a list through this. A list of descriptors takes as many ids as it has descriptors, so that each
   * element has a place of its own to be remembered at (places of the ring are used again while a list that stood there
   * is still in flight); the first is the one that the device gets to see.
   */
  private readonly next: Uint16Array;
  private freeHead = 0;
  // By buffer id.
  private readonly records: Int32Array;
  private readonly writableBytes: Float64Array;
  private readonly tokens: Float64Array;
  /** The private shadow of every element: of the descriptor with id i at i × limit, of entry e of its table at + e. */
  private readonly shadowAddress: Float64Array;
  private readonly shadowLength: Uint32Array;
  /** Ids in the order in which they were submitted. */
  private readonly order: Uint16Array;
  private submitted = 0;
  private published = 0;
  private completed = 0;

  private availAt = 0;
  private availWrap = 1;
  private usedAt = 0;
  private usedWrap = 1;
  /** Flags of the first descriptor that the device has not been shown, and its place; -1 for none. */
  private heldAt = -1;
  private heldFlags = 0;
  /** Descriptors published since the device was last asked whether it wants to know. */
  private unnotified = 0;
  private pending = 0;
  private batchLeft = 0;
  private batchWritten = 0;
  private lastId = 0;

  /** Zeroes the ring. With `strictLength` a used length above the writable bytes poisons the queue instead of being cut. */
  constructor(areas: RingAreas, features: RingFeatures, indirect: IndirectArea | null, strictLength: boolean) {
    const { size, descriptors, driver, device } = areas;
    const length = tableLength(size);
    this.areas = areas;
    this.size = size;
    this.free = size;
    this.mask = length - 1;
    this.indirect = features.indirect ? indirect : null;
    this.eventIndex = features.eventIndex;
    this.inOrder = features.inOrder;
    this.strictLength = strictLength;
    this.ring = descriptors.view;
    this.base = descriptors.base;
    this.halves = descriptors.halves;
    this.driverEvent = driver.words;
    this.deviceEvent = device.words;
    this.staging = new Staging(size);
    this.next = new Uint16Array(length);
    this.records = new Int32Array(RECORD * length);
    this.writableBytes = new Float64Array(length);
    this.tokens = new Float64Array(length);
    const shadow = length * Math.max(1, this.indirect?.limit ?? 1);
    this.shadowAddress = new Float64Array(shadow);
    this.shadowLength = new Uint32Array(shadow);
    this.order = new Uint16Array(length);
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
    // There is an id for every descriptor, so there is one here.
    const id = this.freeHead;
    let tail = id;
    if (indirect !== null) this.placeIndirect(indirect, id);
    else tail = this.placeDirect(id, count);
    this.freeHead = this.next[tail] as number;
    const record = id * RECORD;
    const { records } = this;
    records[record + STATE] = SUBMITTED;
    records[record + LAST] = tail;
    this.free -= needed;
    this.pending += needed;
    records[record + DESCRIPTORS] = needed;
    records[record + ELEMENTS] = count;
    records[record + READABLE] = staging.readablePieces;
    this.writableBytes[id] = staging.writableBytes;
    this.tokens[id] = token;
    this.order[this.submitted & this.mask] = id;
    records[record + PLACE] = this.submitted;
    this.submitted = (this.submitted + 1) >>> 0;
    staging.clear();
    return DONE;
  }

  /** Writes a list into the ring; returns the last of the ids that it takes. */
  private placeDirect(id: number, count: number): number {
    const { ring, base, next, shadowAddress, shadowLength } = this;
    const { addresses, lengths, readablePieces } = this.staging;
    const shadowStep = this.indirect === null ? 1 : this.indirect.limit;
    let element = id;
    let tail = id;
    for (let i = 0; i < count; i++) {
      const place = this.availAt;
      const at = base + place * DESCRIPTOR_SIZE;
      const address = addresses[i] as number;
      const length = lengths[i] as number;
      shadowAddress[element * shadowStep] = address;
      shadowLength[element * shadowStep] = length;
      tail = element;
      element = next[element] as number;
      ring.setUint32(at, address >>> 0, true);
      ring.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
      ring.setUint32(at + 8, length, true);
      // The id counts in the last descriptor of a list only; standing in all of them it tells nothing more.
      ring.setUint16(at + 12, id, true);
      this.mark(place, at, (i < readablePieces ? 0 : WRITES) | (i + 1 < count ? NEXT : 0));
    }
    this.records[id * RECORD + TABLE] = 0;
    return tail;
  }

  private placeIndirect(indirect: IndirectArea, id: number): void {
    const { staging } = this;
    const { view } = indirect.area;
    const first = id * indirect.limit;
    const { count } = staging;
    for (let i = 0; i < count; i++) {
      const address = staging.addresses[i] as number;
      const length = staging.lengths[i] as number;
      const at = indirect.area.base + (first + i) * DESCRIPTOR_SIZE;
      view.setUint32(at, address >>> 0, true);
      view.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
      view.setUint32(at + 8, length, true);
      // §2.8.7: no other flag means anything in a table, nor does the id.
      view.setUint32(at + 12, i < staging.readablePieces ? 0 : WRITES << 16, true);
      this.shadowAddress[first + i] = address;
      this.shadowLength[first + i] = length;
    }
    this.records[id * RECORD + TABLE] = 1;
    const address = indirect.address + first * DESCRIPTOR_SIZE;
    const place = this.availAt;
    const at = this.base + place * DESCRIPTOR_SIZE;
    this.ring.setUint32(at, address >>> 0, true);
    this.ring.setUint32(at + 4, (address * HIGH_WORD) >>> 0, true);
    this.ring.setUint32(at + 8, count * DESCRIPTOR_SIZE, true);
    this.ring.setUint16(at + 12, id, true);
    this.mark(place, at, INDIRECT);
  }

  /** Marks a descriptor available, but for the first of a batch, which `publish` marks; steps to the next place. */
  private mark(place: number, at: number, flags: number): void {
    const marked = flags | (this.availWrap === 1 ? AVAIL : USED);
    if (this.heldAt < 0) {
      this.heldAt = place;
      this.heldFlags = marked;
    } else {
      this.ring.setUint16(at + 14, marked, true);
    }
    if (place + 1 === this.size) {
      this.availAt = 0;
      this.availWrap ^= 1;
    } else {
      this.availAt = place + 1;
    }
  }

  publish(): void {
    if (this.heldAt < 0) return;
    while (this.published !== this.submitted) {
      this.records[(this.order[this.published & this.mask] as number) * RECORD + STATE] = PUBLISHED;
      this.published = (this.published + 1) >>> 0;
      this.inFlight++;
    }
    this.unnotified += this.pending;
    this.pending = 0;
    Atomics.store(this.halves, this.heldAt * 8 + 7, this.heldFlags);
    this.heldAt = -1;
  }

  shouldNotify(): boolean {
    const moved = this.unnotified;
    if (moved === 0) return false;
    this.unnotified = 0;
    const event = Atomics.load(this.deviceEvent, 0);
    const kind = (event >>> 16) & 3;
    if (kind === EVENTS_DESCRIPTOR && this.eventIndex) {
      return passedDescriptor(event & 0xffff, this.availAt, this.availWrap, moved, this.size);
    }
    return kind !== EVENTS_DISABLE;
  }

  complete(): number {
    if (this.violation !== null) return BROKEN;
    if (this.batchLeft > 0) return this.completeBatched();
    if (this.inFlight === 0) return NONE;
    const flags = Atomics.load(this.halves, this.usedAt * 8 + 7);
    const used = (flags >>> 15) & 1;
    if (used !== this.usedWrap || ((flags >>> 7) & 1) !== used) return NONE;
    const at = this.base + this.usedAt * DESCRIPTOR_SIZE;
    const id = this.ring.getUint16(at + 12, true);
    // §2.8.4 says that the length counts only with the WRITE flag, but QEMU sets none, and Linux does not look for it.
    const written = this.ring.getUint32(at + 8, true);
    if (id >= this.size) return this.poison('used-id-out-of-range', `id ${id}, queue size ${this.size}`);
    const buffer = id & this.mask;
    if (this.records[buffer * RECORD + STATE] !== PUBLISHED) return this.poison('used-id-not-in-flight', `id ${id}`);
    if (this.inOrder) {
      const behind = ((this.records[buffer * RECORD + PLACE] as number) - this.completed) >>> 0;
      if (behind >= this.inFlight) return this.poison('used-out-of-order', `id ${id}`);
      if (behind > 0) {
        this.batchLeft = behind + 1;
        this.batchWritten = written;
        return this.completeBatched();
      }
    }
    return this.finish(buffer, written);
  }

  /** §2.8.8: all but the last of a batch count as used completely. */
  private completeBatched(): number {
    const id = this.order[this.completed & this.mask] as number;
    this.batchLeft--;
    return this.finish(id, this.batchLeft === 0 ? this.batchWritten : (this.writableBytes[id] as number));
  }

  private finish(id: number, written: number): number {
    const most = this.writableBytes[id] as number;
    if (written > most) {
      this.clamped++;
      if (this.strictLength) return this.poison('used-length-exceeds-buffer', `${written} of ${most} bytes`);
    }
    this.records[id * RECORD + STATE] = IDLE;
    this.written = written > most ? most : written;
    this.token = this.tokens[id] as number;
    this.lastId = id;
    this.next[this.records[id * RECORD + LAST] as number] = this.freeHead;
    this.freeHead = id;
    const count = this.records[id * RECORD + DESCRIPTORS] as number;
    this.free += count;
    this.inFlight--;
    this.completed = (this.completed + 1) >>> 0;
    const place = this.usedAt + count;
    if (place >= this.size) {
      this.usedAt = place - this.size;
      this.usedWrap ^= 1;
    } else {
      this.usedAt = place;
    }
    return DONE;
  }

  elements(into: Elements): boolean {
    const id = this.lastId;
    const count = this.records[id * RECORD + ELEMENTS] as number;
    if (into.addresses.length < count || into.lengths.length < count) return false;
    const limit = this.indirect?.limit ?? 1;
    const indirect = this.records[id * RECORD + TABLE] === 1;
    let at = id * limit;
    let element = id;
    for (let i = 0; i < count; i++) {
      into.addresses[i] = this.shadowAddress[at] as number;
      into.lengths[i] = this.shadowLength[at] as number;
      element = this.next[element] as number;
      at = indirect ? at + 1 : element * limit;
    }
    into.count = count;
    into.readable = this.records[id * RECORD + READABLE] as number;
    return true;
  }

  suppressNotifications(): void {
    Atomics.store(this.driverEvent, 0, EVENTS_DISABLE << 16);
  }

  requestNotifications(after = 1): boolean {
    let event = EVENTS_ENABLE << 16;
    if (this.eventIndex) {
      // One place per completion at least: waiting for a place that is nearer than it could be costs a notification.
      const wait = Math.max(1, Math.min(after, this.inFlight));
      let place = this.usedAt + wait - 1;
      let wrap = this.usedWrap;
      if (place >= this.size) {
        place -= this.size;
        wrap ^= 1;
      }
      event = (EVENTS_DESCRIPTOR << 16) | (wrap << 15) | place;
    }
    Atomics.store(this.driverEvent, 0, event);
    if (this.violation !== null) return false;
    if (this.batchLeft > 0) return true;
    if (this.inFlight === 0) return false;
    const flags = Atomics.load(this.halves, this.usedAt * 8 + 7);
    const used = (flags >>> 15) & 1;
    return used === this.usedWrap && ((flags >>> 7) & 1) === used;
  }

  notificationOffset(): number {
    // What is held back has not been made available: the next place is then the first one that is held.
    if (this.heldAt < 0) return this.availAt | (this.availWrap << 15);
    return this.heldAt | ((this.heldFlags & AVAIL) !== 0 ? 1 << 15 : 0);
  }

  reset(): number[] {
    const left: { readonly token: number; readonly age: number }[] = [];
    for (let id = 0; id < this.size; id++) {
      if (this.records[id * RECORD + STATE] === IDLE) continue;
      left.push({
        token: this.tokens[id] as number,
        age: (this.submitted - (this.records[id * RECORD + PLACE] as number)) >>> 0,
      });
    }
    zeroRing(this.areas);
    this.staging.clear();
    this.records.fill(0);
    for (let i = 0; i < this.size; i++) this.next[i] = (i + 1) & this.mask;
    this.freeHead = 0;
    this.free = this.size;
    this.inFlight = 0;
    this.violation = null;
    this.refusal = null;
    this.submitted = 0;
    this.published = 0;
    this.completed = 0;
    this.availAt = 0;
    this.availWrap = 1;
    this.usedAt = 0;
    this.usedWrap = 1;
    this.heldAt = -1;
    this.unnotified = 0;
    this.pending = 0;
    this.batchLeft = 0;
    return left.sort((a, b) => b.age - a.age).map(({ token }) => token);
  }

  private poison(code: RingErrorCode, detail: string): number {
    this.violation = ringProblem(code, detail);
    return BROKEN;
  }
}
