/**
 * The device side of a packed virtqueue (VIRTIO 1.3 §2.8) against a driver that may write anything anywhere in it, at any
 * time. As in split-device.ts: every shared field is read once, walks are bounded by the places that the driver can own,
 * what breaks a rule of the ring poisons the queue, what breaks a rule of one list gives that list back with length 0.
 * In a packed ring a list must be walked to its end even when it is wrong, since its end is where the next one begins.
 *
 * Order of memory: flags of the next head are loaded with Atomics before anything else of its list; the flags of the
 * first used descriptor of a batch are stored with Atomics after everything else of the batch, and before the driver's
 * advice is loaded.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { RingErrorCode } from '../errors.ts';
import { READ } from '../memory/region.ts';
import { type AddressSpace, DENIED, MISSING } from '../memory/space.ts';
import { APPEND_CODES, APPENDED, type Chain, UNTRANSLATED_BUFFER } from './chain.ts';
import { HoldBack } from './hold-back.ts';
import { copyTable } from './indirect-table.ts';
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
} from './layout.ts';
import {
  BROKEN,
  type DevicePosition,
  type DeviceQueue,
  DONE,
  MALFORMED,
  NONE,
  type RingFeatures,
  ringProblem,
  UNTRANSLATED,
} from './queue.ts';
import { passedDescriptor } from './suppression.ts';

export class PackedDevice implements DeviceQueue {
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
  private readonly ring: DataView;
  private readonly base: number;
  private readonly halves: Uint16Array;
  private readonly driverEvent: Uint32Array;
  private readonly deviceEvent: Uint32Array;
  private readonly scratch: DataView;
  // By buffer id.
  private readonly taken: Uint8Array;
  private readonly descriptorsOf: Uint16Array;
  private readonly writableBytes: Float64Array;
  private readonly line: HoldBack;

  private availAt = 0;
  private availWrap = 1;
  private usedAt = 0;
  private usedWrap = 1;
  /** Places between `usedAt` and `availAt`: descriptors that were taken and not given back. */
  private held = 0;
  /** The first used descriptor that the driver has not been shown, and its flags; -1 for none. */
  private heldAt = -1;
  private heldFlags = 0;
  private pending = 0;
  private unnotified = 0;
  /** What the driver was told last about notifications; -1: nothing yet. */
  private advised = -1;
  /** Of the list walked last: id and number of descriptors. */
  private listId = 0;
  private listCount = 0;

  /** `chainLimit`: the most descriptors of a list, or of its indirect table. */
  constructor(areas: RingAreas, space: AddressSpace, features: RingFeatures, chainLimit: number) {
    const { size, descriptors, driver, device } = areas;
    const length = tableLength(size);
    this.size = size;
    this.mask = length - 1;
    this.space = space;
    this.chainLimit = chainLimit;
    this.indirect = features.indirect;
    this.eventIndex = features.eventIndex;
    this.inOrder = features.inOrder;
    this.ring = descriptors.view;
    this.base = descriptors.base;
    this.halves = descriptors.halves;
    this.driverEvent = driver.words;
    this.deviceEvent = device.words;
    this.scratch = new DataView(new ArrayBuffer(chainLimit * DESCRIPTOR_SIZE));
    this.taken = new Uint8Array(length);
    this.descriptorsOf = new Uint16Array(length);
    this.writableBytes = new Float64Array(length);
    this.line = new HoldBack(length);
  }

  take(chain: Chain): number {
    if (this.violation !== null) return BROKEN;
    const flags = Atomics.load(this.halves, this.availAt * 8 + 7);
    if (!this.isAvailable(flags, this.availWrap)) return NONE;
    // Places that were given back and not published are still the device's.
    if (this.held + this.pending >= this.size)
      return this.poison('avail-overrun', `all ${this.size} places are in use`);
    const fault = this.walk(flags, chain);
    if (this.violation !== null) return BROKEN;
    if (fault === UNTRANSLATED_BUFFER) return UNTRANSLATED;
    const count = this.listCount;
    if (this.listId >= this.size) return this.poison('buffer-id-out-of-range', `id ${this.listId}`);
    const id = this.listId & this.mask;
    if (this.taken[id] !== 0) return this.poison('buffer-id-in-flight', `id ${id}`);
    chain.id = id;
    this.taken[id] = 1;
    this.descriptorsOf[id] = count;
    this.inFlight++;
    this.held += count;
    const place = this.availAt + count;
    if (place >= this.size) {
      this.availAt = place - this.size;
      this.availWrap ^= 1;
    } else {
      this.availAt = place;
    }
    if (this.inOrder) this.line.enter(id);
    if (fault === APPENDED) {
      this.writableBytes[id] = chain.writableBytes;
      return DONE;
    }
    // No count of bytes equals this, so an IN_ORDER batch never skips over it as if it had been filled.
    this.writableBytes[id] = Number.POSITIVE_INFINITY;
    this.malformed++;
    this.give(id, 0);
    return MALFORMED;
  }

  /**
   * Counts a list as in flight that an earlier life of this device had taken (vhost-user INFLIGHT keeps a copy of its
   * descriptors, since the ring no longer does); the position does not move. `count` places, `writable` bytes. False when
   * the id is not to be had, or the places between used and available position do not hold that many.
   */
  resume(id: number, count: number, writable: number): boolean {
    if (this.violation !== null || this.taken[id] !== 0 || id >= this.size) return false;
    if (!Number.isInteger(count) || count < 1 || count > this.held - this.claimed() || !(writable >= 0)) return false;
    this.taken[id] = 1;
    this.descriptorsOf[id] = count;
    this.writableBytes[id] = writable;
    this.inFlight++;
    if (this.inOrder) this.line.enter(id);
    return true;
  }

  /** Places of the lists that are in flight. */
  private claimed(): number {
    let places = 0;
    for (let id = 0; id < this.size; id++) if (this.taken[id] !== 0) places += this.descriptorsOf[id] as number;
    return places;
  }

  private isAvailable(flags: number, wrap: number): boolean {
    return ((flags >>> 7) & 1) === wrap && ((flags >>> 15) & 1) !== wrap;
  }

  /**
   * Fills `chain` from the list at `availAt`; sets `listId` and `listCount`. 0, UNTRANSLATED_BUFFER, or another number
   * when `refusal` says what is wrong with the list. Poisons the queue when the list has no end that can be known.
   */
  private walk(headFlags: number, chain: Chain): number {
    const { ring, base, size } = this;
    const room = size - this.held - this.pending;
    chain.begin(0);
    let place = this.availAt;
    let wrap = this.availWrap;
    let flags = headFlags;
    let fault = APPENDED;
    for (let count = 1; ; count++) {
      const at = base + place * DESCRIPTOR_SIZE;
      const low = ring.getUint32(at, true);
      const high = ring.getUint32(at + 4, true);
      const length = ring.getUint32(at + 8, true);
      let id = 0;
      if (count === 1) {
        id = ring.getUint16(at + 12, true);
      } else {
        const tail = ring.getUint32(at + 12, true);
        id = tail & 0xffff;
        flags = tail >>> 16;
        if (!this.isAvailable(flags, wrap)) return this.poison('list-partly-available', `place ${place}`);
      }
      // After the first fault nothing more is looked at but where the list ends.
      if (fault === APPENDED) fault = this.look(chain, low, high, length, flags, count);
      if ((flags & NEXT) === 0) {
        this.listId = id;
        this.listCount = count;
        return fault;
      }
      if (count === room) return this.poison('list-longer-than-ring', `more than ${room} descriptors`);
      place++;
      if (place === size) {
        place = 0;
        wrap ^= 1;
      }
    }
  }

  private look(chain: Chain, low: number, high: number, length: number, flags: number, count: number): number {
    const address = high * 4294967296 + low;
    if ((flags & INDIRECT) !== 0) {
      if (!this.indirect) return this.refuse('indirect-not-negotiated', `descriptor ${count} of the list`);
      if (count > 1 || (flags & NEXT) !== 0)
        return this.refuse('indirect-with-next', `descriptor ${count} of the list`);
      return this.walkTable(chain, address, length);
    }
    if (count > this.chainLimit) return this.refuse('chain-too-long', `more than ${this.chainLimit} descriptors`);
    const fault = chain.append(this.space, address, length, (flags & WRITES) !== 0);
    return fault === APPENDED ? fault : this.refuseBuffer(fault, count);
  }

  /** §2.8.7: the table's descriptors follow each other; of their flags only WRITE counts. */
  private walkTable(chain: Chain, address: number, length: number): number {
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0)
      return this.refuse('indirect-length-invalid', `${length} bytes`);
    const count = length / DESCRIPTOR_SIZE;
    if (count > this.chainLimit) return this.refuse('chain-too-long', `a table of ${count} descriptors`);
    const { space } = this;
    const run = space.translate(address, READ);
    if (run <= 0) return this.refuseBuffer(run === MISSING ? 5 : run === DENIED ? 6 : 4, 0);
    let table = space.region.view;
    let base = space.offset;
    if (run < length) {
      const fault = copyTable(space, address, length, this.scratch);
      if (fault !== APPENDED) return this.refuseBuffer(fault, 0);
      table = this.scratch;
      base = 0;
    }
    for (let i = 0; i < count; i++) {
      const at = base + i * DESCRIPTOR_SIZE;
      const low = table.getUint32(at, true);
      const high = table.getUint32(at + 4, true);
      const bytes = table.getUint32(at + 8, true);
      const flags = table.getUint16(at + 14, true);
      const fault = chain.append(space, high * 4294967296 + low, bytes, (flags & WRITES) !== 0);
      if (fault !== APPENDED) return this.refuseBuffer(fault, i + 1);
    }
    return APPENDED;
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
    this.place(id, bytes, this.descriptorsOf[id] as number);
    return true;
  }

  /** Writes a used descriptor over the first of `count` places, and steps over them. */
  private place(id: number, written: number, count: number): void {
    const at = this.base + this.usedAt * DESCRIPTOR_SIZE;
    const flags = (this.usedWrap === 1 ? AVAIL | USED : 0) | (written > 0 ? WRITES : 0);
    this.ring.setUint32(at + 8, written, true);
    this.ring.setUint16(at + 12, id, true);
    if (this.heldAt < 0) {
      this.heldAt = this.usedAt;
      this.heldFlags = flags;
    } else {
      this.ring.setUint16(at + 14, flags, true);
    }
    this.held -= count;
    this.pending += count;
    const place = this.usedAt + count;
    if (place >= this.size) {
      this.usedAt = place - this.size;
      this.usedWrap ^= 1;
    } else {
      this.usedAt = place;
    }
  }

  publish(): void {
    if (this.inOrder) this.placeInOrder();
    if (this.heldAt < 0) return;
    this.unnotified += this.pending;
    this.pending = 0;
    Atomics.store(this.halves, this.heldAt * 8 + 7, this.heldFlags);
    this.heldAt = -1;
  }

  /** §2.8.8: as in the split ring, one used descriptor for a run of lists that were filled to the end. */
  private placeInOrder(): void {
    const { line } = this;
    while (line.ready()) {
      let last = 0;
      let count = this.descriptorsOf[line.idAt(0)] as number;
      while (line.writtenAt(last) === this.writableBytes[line.idAt(last)] && line.ready(last + 1)) {
        last++;
        count += this.descriptorsOf[line.idAt(last)] as number;
      }
      this.place(line.idAt(last), line.writtenAt(last), count);
      for (let i = 0; i <= last; i++) this.taken[line.idAt(i)] = 0;
      line.leave(last + 1);
      this.inFlight -= last + 1;
    }
  }

  shouldNotify(): boolean {
    const moved = this.unnotified;
    if (moved === 0) return false;
    this.unnotified = 0;
    const event = Atomics.load(this.driverEvent, 0);
    const kind = (event >>> 16) & 3;
    if (kind === EVENTS_DESCRIPTOR && this.eventIndex) {
      return passedDescriptor(event & 0xffff, this.usedAt, this.usedWrap, moved, this.size);
    }
    return kind !== EVENTS_DISABLE;
  }

  suppressNotifications(): void {
    this.advise(EVENTS_DISABLE << 16);
  }

  /** As with a split ring: what was asked already is not written again. */
  requestNotifications(): boolean {
    const event = this.eventIndex ? (EVENTS_DESCRIPTOR << 16) | (this.availWrap << 15) | this.availAt : EVENTS_ENABLE;
    this.advise(event);
    if (this.violation !== null) return false;
    return this.isAvailable(Atomics.load(this.halves, this.availAt * 8 + 7), this.availWrap);
  }

  private advise(event: number): void {
    if (this.advised === event) return;
    this.advised = event;
    Atomics.store(this.deviceEvent, 0, event);
  }

  position(): DevicePosition {
    return {
      avail: this.availAt,
      availWrap: this.availWrap === 1,
      used: this.usedAt,
      usedWrap: this.usedWrap === 1,
    };
  }

  restore(position: DevicePosition): Problem | null {
    const { avail, used, availWrap, usedWrap } = position;
    const places = avail - used + (availWrap === usedWrap ? 0 : this.size);
    const whole = Number.isInteger(avail) && Number.isInteger(used);
    if (
      !whole ||
      avail < 0 ||
      used < 0 ||
      avail >= this.size ||
      used >= this.size ||
      places < 0 ||
      places > this.size
    ) {
      return ringProblem('queue-state-invalid', `avail ${avail}, used ${used}, queue size ${this.size}`);
    }
    this.reset();
    this.availAt = avail;
    this.availWrap = availWrap ? 1 : 0;
    this.usedAt = used;
    this.usedWrap = usedWrap ? 1 : 0;
    this.held = places;
    return null;
  }

  reset(): void {
    this.taken.fill(0);
    this.line.clear();
    this.inFlight = 0;
    this.violation = null;
    this.refusal = null;
    this.availAt = 0;
    this.availWrap = 1;
    this.usedAt = 0;
    this.usedWrap = 1;
    this.held = 0;
    this.heldAt = -1;
    this.pending = 0;
    this.unnotified = 0;
    this.advised = -1;
  }

  private refuseBuffer(fault: number, number: number): number {
    if (fault === UNTRANSLATED_BUFFER) return fault;
    return this.refuse(
      APPEND_CODES[fault] ?? 'chain-too-large',
      number === 0 ? 'the indirect table' : `element ${number}`,
    );
  }

  private refuse(code: RingErrorCode, detail: string): number {
    this.refusal = ringProblem(code, detail);
    return REFUSED_LIST;
  }

  private poison(code: RingErrorCode, detail: string): number {
    this.violation = ringProblem(code, detail);
    return BROKEN;
  }
}

const REFUSED_LIST = -1;
