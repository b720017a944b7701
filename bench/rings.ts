/**
 * Descriptors a second through a virtqueue, driver and device side in one thread over the same memory, a null device:
 * requests of three descriptors as virtio-blk makes them, 32 at a time. The peers are rings without any of the checks,
 * written here as plainly as the standard allows: what is beside them is what hardening costs. No peer in C, since this
 * repository holds none; bench/ of the transport compares whole back-ends with those.
 */
import type { Result } from '@airlock/core/result.ts';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { identitySpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { type DeviceQueue, DONE, type DriverQueue, type RingFeatures } from '@airlock/virtio/ring/queue.ts';
import type { Bench, Side } from './side-by-side.ts';

const SIZE = 256;
const DEPTH = 32;
const DESCRIPTORS = 3;
const TABLES = 0x4000;
const TABLE_LIMIT = 4;
const DATA = 0x10000;
const SLOT = 8192;
const RAM = DATA + DEPTH * SLOT;
const addresses = { descriptors: 0, driver: 0x1000, device: 0x1800 };

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

/** Lengths of one request's elements: header, data, status. */
const HEADER = 16;
const BYTES = 4096;
const STATUS = 1;

interface RingSide extends Side {
  /** Sum of tokens and written bytes of one run: the same for every ring that does the same. */
  check(): number;
}

function hardened(name: string, features: RingFeatures): RingSide {
  const region = must(makeRegion('ram', new ArrayBuffer(RAM)));
  const space = must(identitySpace(region));
  const indirect = { address: TABLES, limit: TABLE_LIMIT };
  const driver = must(createDriverQueue(space, { size: SIZE, features, addresses, indirect }));
  const device = must(createDeviceQueue(space, space, { size: SIZE, features, addresses }));
  const chain = new Chain(SIZE);
  return {
    name,
    check: () => exchange(driver, device, chain),
    run(times) {
      for (let i = 0; i < times; i++) exchange(driver, device, chain);
    },
  };
}

function exchange(driver: DriverQueue, device: DeviceQueue, chain: Chain): number {
  for (let i = 0; i < DEPTH; i++) {
    const at = DATA + i * SLOT;
    driver.readable(at, HEADER);
    driver.writable(at + HEADER, BYTES);
    driver.writable(at + HEADER + BYTES, STATUS);
    if (driver.submit(i) !== DONE) throw new Error('the ring is full');
  }
  driver.publish();
  driver.shouldNotify();
  while (device.take(chain) === DONE) device.give(chain.id, chain.writableBytes);
  device.publish();
  device.shouldNotify();
  let sum = 0;
  while (driver.complete() === DONE) sum += driver.token + driver.written;
  return sum;
}

/** What both bare rings have in common: a request of three elements, and a place for the device to put what it found. */
abstract class BareRing {
  readonly view = must(makeRegion('ram', new ArrayBuffer(RAM))).view;
  readonly halves = new Uint16Array(this.view.buffer);
  readonly tokens = new Float64Array(SIZE);
  readonly addresses = new Float64Array(SIZE);
  readonly lengths = new Uint32Array(SIZE);
  pieces = 0;
  token = 0;
  written = 0;

  abstract submit(address: number, token: number): void;
  abstract publish(): void;
  /** The id of the next chain, its pieces in `addresses` and `lengths`, its writable bytes in `written`; or -1. */
  abstract take(): number;
  abstract give(id: number, written: number): void;
  abstract show(): void;
  abstract complete(): boolean;
}

/** A split ring between two sides that trust each other, and everything that they read. */
class BareSplit extends BareRing {
  private readonly next = new Uint16Array(SIZE).map((_, i) => i + 1);
  private readonly last = new Uint16Array(SIZE);
  private free = 0;
  private available = 0;
  private taken = 0;
  private end = 0;
  private used = 0;
  private seen = 0;
  private done = 0;

  private put(index: number, address: number, length: number, flags: number): number {
    const { view } = this;
    const at = index * 16;
    const next = this.next[index] as number;
    view.setUint32(at, address >>> 0, true);
    view.setUint32(at + 4, (address * 2 ** -32) >>> 0, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, flags | (next << 16), true);
    return next;
  }

  submit(address: number, token: number): void {
    const head = this.free;
    const second = this.put(head, address, HEADER, 1);
    const third = this.put(second, address + HEADER, BYTES, 3);
    this.free = this.put(third, address + HEADER + BYTES, STATUS, 2);
    this.last[head] = third;
    this.tokens[head] = token;
    this.view.setUint16(addresses.driver + 4 + 2 * (this.available++ & (SIZE - 1)), head, true);
  }

  publish(): void {
    Atomics.store(this.halves, (addresses.driver + 2) >>> 1, this.available);
  }

  take(): number {
    if (this.taken === this.end) {
      this.end = Atomics.load(this.halves, (addresses.driver + 2) >>> 1);
      if (this.taken === this.end) return -1;
    }
    const { view } = this;
    const head = view.getUint16(addresses.driver + 4 + 2 * (this.taken & (SIZE - 1)), true);
    this.taken = (this.taken + 1) & 0xffff;
    let written = 0;
    let count = 0;
    for (let index = head; ; ) {
      const at = index * 16;
      const length = view.getUint32(at + 8, true);
      const tail = view.getUint32(at + 12, true);
      this.addresses[count] = view.getUint32(at, true) + view.getUint32(at + 4, true) * 4294967296;
      this.lengths[count++] = length;
      if ((tail & 2) !== 0) written += length;
      if ((tail & 1) === 0) break;
      index = tail >>> 16;
    }
    this.pieces = count;
    this.written = written;
    return head;
  }

  give(id: number, written: number): void {
    const at = addresses.device + 4 + 8 * (this.used++ & (SIZE - 1));
    this.view.setUint32(at, id, true);
    this.view.setUint32(at + 4, written, true);
  }

  show(): void {
    Atomics.store(this.halves, (addresses.device + 2) >>> 1, this.used);
  }

  complete(): boolean {
    if (this.seen === this.done) {
      this.done = Atomics.load(this.halves, (addresses.device + 2) >>> 1);
      if (this.seen === this.done) return false;
    }
    const at = addresses.device + 4 + 8 * (this.seen & (SIZE - 1));
    this.seen = (this.seen + 1) & 0xffff;
    const head = this.view.getUint32(at, true);
    this.token = this.tokens[head] as number;
    this.written = this.view.getUint32(at + 4, true);
    this.next[this.last[head] as number] = this.free;
    this.free = head;
    return true;
  }
}

/** A packed ring, likewise. */
class BarePacked extends BareRing {
  private readonly counts = new Uint16Array(SIZE);
  private nextId = 0;
  private place = 0;
  private wrap = 1;
  private takenAt = 0;
  private takenWrap = 1;
  private usedAt = 0;
  private usedWrap = 1;
  private seenAt = 0;
  private seenWrap = 1;
  private held = -1;
  private heldFlags = 0;

  private put(address: number, length: number, id: number, flags: number): void {
    const { view } = this;
    const at = this.place * 16;
    view.setUint32(at, address >>> 0, true);
    view.setUint32(at + 4, (address * 2 ** -32) >>> 0, true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, id, true);
    this.mark(at, flags | (this.wrap === 1 ? 0x80 : 0x8000));
    if (++this.place === SIZE) {
      this.place = 0;
      this.wrap ^= 1;
    }
  }

  private mark(at: number, flags: number): void {
    if (this.held < 0) {
      this.held = at;
      this.heldFlags = flags;
    } else this.view.setUint16(at + 14, flags, true);
  }

  submit(address: number, token: number): void {
    const id = this.nextId++ & (SIZE - 1);
    this.put(address, HEADER, id, 1);
    this.put(address + HEADER, BYTES, id, 3);
    this.put(address + HEADER + BYTES, STATUS, id, 2);
    this.counts[id] = DESCRIPTORS;
    this.tokens[id] = token;
  }

  publish(): void {
    if (this.held < 0) return;
    Atomics.store(this.halves, (this.held + 14) >>> 1, this.heldFlags);
    this.held = -1;
  }

  take(): number {
    const { view } = this;
    let flags = Atomics.load(this.halves, this.takenAt * 8 + 7);
    if (((flags >>> 7) & 1) !== this.takenWrap || ((flags >>> 15) & 1) === this.takenWrap) return -1;
    let written = 0;
    for (let count = 0; ; ) {
      const at = this.takenAt * 16;
      const length = view.getUint32(at + 8, true);
      this.addresses[count] = view.getUint32(at, true) + view.getUint32(at + 4, true) * 4294967296;
      this.lengths[count++] = length;
      if ((flags & 2) !== 0) written += length;
      if (++this.takenAt === SIZE) {
        this.takenAt = 0;
        this.takenWrap ^= 1;
      }
      if ((flags & 1) === 0) {
        this.pieces = count;
        this.written = written;
        return view.getUint16(at + 12, true);
      }
      flags = view.getUint16(this.takenAt * 16 + 14, true);
    }
  }

  give(id: number, written: number): void {
    const at = this.usedAt * 16;
    this.view.setUint32(at + 8, written, true);
    this.view.setUint16(at + 12, id, true);
    this.mark(at, this.usedWrap === 1 ? 0x8082 : 2);
    this.usedAt += this.counts[id] as number;
    if (this.usedAt >= SIZE) {
      this.usedAt -= SIZE;
      this.usedWrap ^= 1;
    }
  }

  show(): void {
    this.publish();
  }

  complete(): boolean {
    const flags = Atomics.load(this.halves, this.seenAt * 8 + 7);
    if (((flags >>> 7) & 1) !== this.seenWrap || ((flags >>> 15) & 1) !== this.seenWrap) return false;
    const at = this.seenAt * 16;
    const id = this.view.getUint16(at + 12, true);
    this.token = this.tokens[id] as number;
    this.written = this.view.getUint32(at + 8, true);
    this.seenAt += this.counts[id] as number;
    if (this.seenAt >= SIZE) {
      this.seenAt -= SIZE;
      this.seenWrap ^= 1;
    }
    return true;
  }
}

function bare(name: string, ring: BareRing): RingSide {
  const round = (): number => {
    for (let i = 0; i < DEPTH; i++) ring.submit(DATA + i * SLOT, i);
    ring.publish();
    for (let id = ring.take(); id >= 0; id = ring.take()) ring.give(id, ring.written);
    ring.show();
    let sum = 0;
    while (ring.complete()) sum += ring.token + ring.written;
    return sum;
  };
  return {
    name,
    check: round,
    run(times) {
      for (let i = 0; i < times; i++) round();
    },
  };
}

export const bench: Bench = {
  name: 'rings',
  title: `requests of ${DESCRIPTORS} descriptors, ${DEPTH} at a time, driver and device in one thread`,
  unit: 'descriptors',
  show: 'rate',
  async prepare() {
    const plain = { packed: false, indirect: false, eventIndex: true, inOrder: false };
    const ours = [
      hardened('split', plain),
      hardened('split, indirect', { ...plain, indirect: true }),
      hardened('packed', { ...plain, packed: true }),
      hardened('packed, indirect', { ...plain, packed: true, indirect: true }),
    ];
    const peers = [bare('split, no checks', new BareSplit()), bare('packed, no checks', new BarePacked())];
    const expected = (DEPTH * (DEPTH - 1)) / 2 + DEPTH * (BYTES + STATUS);
    for (const side of [...ours, ...peers]) {
      for (let i = 0; i < 100; i++) {
        const got = side.check();
        if (got !== expected) throw new Error(`${side.name}: ${got} instead of ${expected}`);
      }
    }
    return { ours, peers, operations: DEPTH * DESCRIPTORS };
  },
};
