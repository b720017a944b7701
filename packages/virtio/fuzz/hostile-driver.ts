/** The device side of a queue against a driver that writes what it likes, when it likes. */
import { MEMORY_ERRORS, RING_ERRORS } from '@airlock/virtio/errors.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue } from '@airlock/virtio/ring/create.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED, NONE, UNTRANSLATED } from '@airlock/virtio/ring/queue.ts';
import { type Random, type Tally, unwrap } from './tally.ts';
import { type WatchedMemory, watchedMemory } from './watched-memory.ts';

const BASE = 0x4000_0000;
const RAM = 32768;
const CHAINS = 24;

/** Runs rounds until `tally.states` has grown by `states`. Throws on the first thing that escapes. */
export function fuzzDevice(packed: boolean, states: number, next: Random, tally: Tally): void {
  const end = tally.states + states;
  while (tally.states < end) round(packed, Math.min(end - tally.states, 400 + next(4000)), next, tally);
}

function round(packed: boolean, states: number, next: Random, tally: Tally): void {
  const size = packed ? 1 + next(24) : 1 << next(5);
  const chainLimit = next(2) === 0 ? size : 1 + next(40);
  const features = { packed, indirect: next(3) > 0, eventIndex: next(2) === 0, inOrder: next(3) === 0 };
  const ram = watchedMemory('ram', RAM);
  const other = watchedMemory('other', 4096);
  const rings = new AddressSpace();
  unwrap(rings.map({ start: BASE, size: RAM, region: ram.region, offset: 0, access: 3 }));
  // What descriptors may reach: all of it, with a stretch that is read-only, one that is write-only, one of another
  // region in the middle, and a hole. With an IOTLB, what is not there is missing.
  const missing = next(4) === 0;
  const buffers = new AddressSpace({ missing });
  const maps: readonly (readonly [number, number, WatchedMemory, number, number])[] = [
    [BASE, 0x4000, ram, 0, 3],
    [BASE + 0x4000, 0x1000, ram, 0x4000, 1],
    [BASE + 0x5000, 0x1000, ram, 0x5000, 2],
    [BASE + 0x6000, 0x100, other, 0x80, 3],
    [BASE + 0x6100, 0xf00, ram, 0x6100, 3],
    [2 ** 53 - 0x100, 0x100, other, 0xe00, 3],
  ];
  for (const [start, bytes, { region }, offset, access] of maps) {
    unwrap(buffers.map({ start, size: bytes, region, offset, access }));
  }
  const driverAt = 16 * size;
  const deviceAt = Math.ceil((driverAt + 6 + 2 * size) / 4) * 4;
  const addresses = {
    descriptors: BASE,
    driver: BASE + driverAt + (packed ? -driverAt % 4 : 0),
    device: BASE + deviceAt,
  };
  const queue = unwrap(createDeviceQueue(rings, buffers, { size, features, addresses, chainLimit }));
  const chains = Array.from(
    { length: CHAINS },
    () => new Chain(next(4) === 0 ? 3 : chainLimit + 4, next(5) === 0 ? 5000 : undefined),
  );
  const held: Chain[] = [];
  const scratch = new Uint8Array(64);
  const raw = ram.raw;

  // A walk reads at most four fields of each descriptor of the table and of an indirect table, twice where the table is
  // checked and copied, and writes a used element.
  const budget = 8 * (size + chainLimit) + 16;
  let availIndex = 0;
  let place = 0;
  let wrap = 1;

  /** An address, mostly one that could be right. */
  const address = (): number => {
    const kind = next(16);
    if (kind < 9) return BASE + next(0x4000);
    if (kind === 9) return BASE + 0x3ff0 + next(0x20);
    if (kind === 10) return BASE + 0x4f00 + next(0x200);
    if (kind === 11) return BASE + 0x5f00 + next(0x300);
    if (kind === 12) return BASE + 0x6000 + next(0x2000);
    if (kind === 13) return 2 ** 53 - next(0x200);
    return -1;
  };
  const writeDescriptor = (at: number, flags: number, more: number): void => {
    const where = address();
    if (where < 0) {
      raw.setUint32(at, next(2) === 0 ? 0xffffffff - next(64) : next(0x7fffffff), true);
      raw.setUint32(at + 4, next(2) === 0 ? 0xffffffff : next(0x7fffffff), true);
    } else {
      raw.setUint32(at, where >>> 0, true);
      raw.setUint32(at + 4, Math.floor(where / 2 ** 32), true);
    }
    const kind = next(24);
    raw.setUint32(
      at + 8,
      kind === 0 ? 0xffffffff - next(4) : kind === 1 ? 0 : kind === 2 ? next(0x3000) : next(200),
      true,
    );
    raw.setUint16(at + 12, packed ? more : more, true);
    raw.setUint16(at + 14, flags, true);
    if (!packed) {
      raw.setUint16(at + 12, flags, true);
      raw.setUint16(at + 14, more, true);
    }
  };
  const table = (): { address: number; length: number } => {
    const at = 0x1000 + next(0x800) * 4;
    const count = 1 + next(next(4) === 0 ? 40 : 6);
    let writable = false;
    for (let i = 0; i < count; i++) {
      if (next(3) === 0) writable = true;
      let flags = (writable ? 2 : 0) | (i + 1 < count ? 1 : 0);
      let more = i + 1;
      if (next(20) === 0) flags = next(0x10000);
      if (next(20) === 0) more = next(64);
      writeDescriptor(at + 16 * i, flags, more);
    }
    let length = 16 * count;
    if (next(16) === 0) length = next(3) === 0 ? 0 : length + next(17) - 8;
    if (next(40) === 0) length = 0xfffffff0;
    return { address: BASE + at + (next(30) === 0 ? 0x4000 : 0), length };
  };
  const makeIndirect = (at: number): void => {
    const { address: where, length } = table();
    raw.setUint32(at, where, true);
    raw.setUint32(at + 4, next(40) === 0 ? 1 : 0, true);
    raw.setUint32(at + 8, length, true);
  };

  const splitChain = (): void => {
    const head = next(size);
    const count = 1 + next(Math.min(size, 6));
    let writable = false;
    for (let i = 0; i < count; i++) {
      const index = (head + i) % size;
      if (next(3) === 0) writable = true;
      let flags = (writable ? 2 : 0) | (i + 1 < count ? 1 : 0);
      let more = (index + 1) % size;
      const kind = next(40);
      if (kind === 0) flags = next(8);
      if (kind === 1) more = next(0x10000);
      if (kind === 2) more = head;
      if (kind === 3) flags |= 1;
      writeDescriptor(16 * index, flags, more);
      if (i + 1 === count && next(3) === 0) {
        makeIndirect(16 * index);
        raw.setUint16(16 * index + 12, 4 | (next(3) === 0 ? 2 : 0) | (next(16) === 0 ? 1 : 0), true);
      }
    }
    raw.setUint16(driverAt + 4 + 2 * (availIndex % size), next(60) === 0 ? next(0x10000) : head, true);
    availIndex = (availIndex + 1) & 0xffff;
    if (next(80) === 0) availIndex = next(0x10000);
    raw.setUint16(driverAt + 2, availIndex, true);
  };
  const packedList = (): void => {
    const count = 1 + next(Math.min(size, 6));
    const first = place;
    let firstFlags = 0;
    let writable = false;
    const id = next(40) === 0 ? next(0x10000) : next(size);
    for (let i = 0; i < count; i++) {
      if (next(3) === 0) writable = true;
      let flags = (writable ? 2 : 0) | (i + 1 < count ? 1 : 0) | (wrap ? 0x80 : 0x8000);
      const kind = next(40);
      if (kind === 0) flags ^= 1 << next(16);
      if (kind === 1) flags |= 1;
      writeDescriptor(16 * place, flags, id);
      if ((count === 1 && next(2) === 0) || next(30) === 0) {
        makeIndirect(16 * place);
        flags |= 4;
        raw.setUint16(16 * place + 14, flags, true);
      }
      if (i === 0) firstFlags = flags;
      place++;
      if (place === size) {
        place = 0;
        wrap ^= 1;
      }
    }
    raw.setUint16(16 * first + 14, firstFlags, true);
    if (next(60) === 0) {
      place = next(size);
      wrap = next(2);
    }
  };
  const noise = (): void => {
    const at = next(8) === 0 ? next(RAM - 4) : next(deviceAt + 6 + 8 * size);
    raw.setUint32(at, next(2) === 0 ? next(8) : next(0x7fffffff) * 2, true);
  };
  /** What a second processor does between two reads of the device. */
  const interfere = (offset: number, width: number): void => {
    if (next(12) !== 0) return;
    if (width === 2) raw.setUint16(offset, next(0x10000), true);
    else raw.setUint32(offset, next(4) === 0 ? 0xffffffff : next(0x7fffffff), true);
  };
  ram.view.afterRead = next(2) === 0 ? interfere : null;
  ram.view.budget = budget;
  other.view.budget = budget;

  for (let i = 0; i < states; i++) {
    tally.states++;
    const kind = next(8);
    if (kind < 5) packed ? packedList() : splitChain();
    else if (kind < 7) noise();
    ram.view.steps = 0;
    other.view.steps = 0;
    const chain = chains[next(CHAINS)] ?? new Chain(1);
    if (!held.includes(chain)) {
      const outcome = queue.take(chain);
      check(outcome, queue, chain, buffers, tally);
      if (outcome === DONE) {
        held.push(chain);
        chain.read(next(8), scratch);
        chain.write(next(8), scratch);
      }
      if (outcome === UNTRANSLATED && next(2) === 0) resolve(buffers, ram);
      if (outcome === BROKEN) {
        if (queue.take(chain) !== BROKEN || queue.give(0, 0)) throw new Error('a poisoned queue went on');
        queue.reset();
        held.length = 0;
        raw.setUint32(driverAt, 0, true);
        for (let at = 0; at < 16 * size; at += 4) raw.setUint32(at, 0, true);
        availIndex = 0;
        place = 0;
        wrap = 1;
      }
    }
    if (held.length > size) throw new Error(`${held.length} chains in flight in a queue of ${size}`);
    if (held.length > 0 && next(3) > 0) {
      const [done] = held.splice(next(held.length), 1);
      if (done === undefined || !queue.give(done.id, next(5000))) throw new Error('a chain could not be given back');
      if (queue.give(done.id, 0)) throw new Error('a chain was given back twice');
    }
    ram.view.steps = 0;
    ram.view.budget = 2 * size + 16 * size;
    if (next(2) === 0) queue.publish();
    ram.view.budget = budget;
    queue.shouldNotify();
    if (next(8) === 0) queue.suppressNotifications();
    if (next(8) === 0) queue.requestNotifications();
    if (next(500) === 0) {
      const problem = queue.restore({
        avail: next(40),
        used: next(40),
        availWrap: next(2) === 0,
        usedWrap: next(2) === 0,
      });
      if (problem !== null && !(problem.code in RING_ERRORS)) throw new Error(`unknown code ${problem.code}`);
      if (problem === null) held.length = 0;
    }
  }
  ram.checkGuards();
  other.checkGuards();
}

/** Gives the device the translation that it asked for, where there is memory for it. */
function resolve(buffers: AddressSpace, ram: WatchedMemory): void {
  const page = Math.floor(buffers.missAddress / 4096) * 4096;
  buffers.map({ start: page, size: 4096, region: ram.region, offset: 0x7000, access: 3 });
}

function check(outcome: number, queue: DeviceQueue, chain: Chain, buffers: AddressSpace, tally: Tally): void {
  if (outcome === NONE || outcome === UNTRANSLATED) {
    tally.note(outcome === NONE ? 'none' : 'untranslated');
    return;
  }
  if (outcome === BROKEN || outcome === MALFORMED) {
    const problem = outcome === BROKEN ? queue.violation : queue.refusal;
    if (problem === null || !(problem.code in RING_ERRORS || problem.code in MEMORY_ERRORS)) {
      throw new Error(`no known code: ${problem?.code}`);
    }
    tally.note(problem.code);
    return;
  }
  if (outcome !== DONE) throw new Error(`outcome ${outcome}`);
  tally.note('taken');
  let readable = 0;
  let writable = 0;
  for (let i = 0; i < chain.pieces; i++) {
    const offset = chain.offsets[i] ?? -1;
    const length = chain.lengths[i] ?? -1;
    const region = chain.regions[i];
    const wanted = i < chain.readablePieces ? 1 : 2;
    if (i < chain.readablePieces) readable += length;
    else writable += length;
    // An independent look at what the device was given: some mapping must hold all of the piece, with that access.
    const given = buffers
      .mappings()
      .some(
        (map) =>
          map.region === region &&
          (map.access & wanted) !== 0 &&
          offset >= map.offset &&
          length > 0 &&
          offset + length <= map.offset + map.size,
      );
    if (!given)
      throw new Error(`piece ${i}: ${length} bytes at ${offset} of ${region?.name} were not given to the device`);
  }
  if (readable !== chain.readableBytes || writable !== chain.writableBytes) throw new Error('bytes do not add up');
}
