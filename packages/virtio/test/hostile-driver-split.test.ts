/** A driver that lies in a split ring (VIRTIO 1.3 §2.7): each rule, and the code that names it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue } from '@airlock/virtio/ring/create.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED, NONE, UNTRANSLATED } from '@airlock/virtio/ring/queue.ts';
import { BASE, type GuardedMemory, guardedMemory, must, PLAIN, placeRings } from './support/both-ends.ts';

const SIZE = 4;
const layout = placeRings(SIZE);
const DATA = BASE + layout.data;
const TABLE = layout.indirect.address;

interface Victim {
  readonly memory: GuardedMemory;
  readonly queue: DeviceQueue;
  readonly chain: Chain;
}

function victim(
  options: { indirect?: boolean; chainLimit?: number; space?: AddressSpace; bytesLimit?: number } = {},
): Victim {
  const memory = guardedMemory(layout.data + 8192);
  const features = { ...PLAIN, indirect: options.indirect ?? false };
  const { addresses } = layout;
  const chainLimit = options.chainLimit ?? SIZE;
  const buffers = options.space ?? memory.space;
  const queue = must(createDeviceQueue(memory.space, buffers, { size: SIZE, features, addresses, chainLimit }));
  return { memory, queue, chain: new Chain(16, options.bytesLimit) };
}

type Descriptor = readonly [address: number | readonly [number, number], length: number, flags: number, next: number];

function write({ memory }: Victim, base: number, ...descriptors: Descriptor[]): void {
  const { view } = memory.region;
  descriptors.forEach(([address, length, flags, next], i) => {
    const at = base - BASE + 16 * i;
    const [low, high] = typeof address === 'number' ? [address >>> 0, Math.floor(address / 2 ** 32)] : address;
    view.setUint32(at, low, true);
    view.setUint32(at + 4, high, true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
  });
}

function offer({ memory }: Victim, index: number, ...heads: number[]): void {
  const { view } = memory.region;
  const at = layout.addresses.driver - BASE;
  heads.forEach((head, i) => {
    view.setUint16(at + 4 + 2 * i, head, true);
  });
  view.setUint16(at + 2, index, true);
}

/** The chain goes back with length 0, the code says why, and the queue goes on. */
function assertMalformed(one: Victim, code: string): void {
  assert.equal(one.queue.take(one.chain), MALFORMED);
  assert.equal(one.queue.refusal?.code, code);
  assert.equal(one.queue.inFlight, 0);
  one.queue.publish();
  const { view } = one.memory.region;
  const used = layout.addresses.device - BASE;
  assert.deepEqual([view.getUint16(used + 2, true), view.getUint32(used + 8, true)], [1, 0]);
  // The next chain is served.
  write(one, BASE + 16 * 3, [DATA, 8, 0, 0]);
  offer(one, 2, 0, 3);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.equal(one.queue.violation, null);
  one.memory.checkGuards();
}

function assertPoisoned(one: Victim, code: string): void {
  assert.equal(one.queue.take(one.chain), BROKEN);
  assert.equal(one.queue.violation?.code, code);
  assert.equal(one.queue.take(one.chain), BROKEN);
  assert.equal(one.queue.requestNotifications(), false);
  one.memory.checkGuards();
  one.queue.reset();
  assert.equal(one.queue.violation, null);
}

test('§2.7.6: an available index further than the queue has room', () => {
  for (const index of [SIZE + 1, 0x8000, 0xffff]) {
    const one = victim();
    offer(one, index, 0, 1, 2, 3);
    assertPoisoned(one, 'avail-index-jump');
  }
});

test('§2.7.6: chains in flight count: no more than the queue size can be out', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 0, 0], [DATA, 8, 0, 0], [DATA, 8, 0, 0], [DATA, 8, 0, 0]);
  offer(one, 4, 0, 1, 2, 3);
  for (let i = 0; i < 4; i++) assert.equal(one.queue.take(one.chain), DONE);
  offer(one, 5, 0, 1, 2, 3);
  assertPoisoned(one, 'avail-index-jump');
});

test('§2.7.6: what was given back and not published is not the driver’s yet', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 0, 0], [DATA, 8, 0, 0], [DATA, 8, 0, 0], [DATA, 8, 0, 0]);
  offer(one, 4, 0, 1, 2, 3);
  for (let i = 0; i < 4; i++) {
    assert.equal(one.queue.take(one.chain), DONE);
    one.queue.give(one.chain.id, 0);
  }
  offer(one, 5, 0, 1, 2, 3);
  assertPoisoned(one, 'avail-index-jump');
});

test('§2.7.6: a head beyond the queue size', () => {
  for (const head of [SIZE, 0xffff]) {
    const one = victim();
    offer(one, 1, head);
    assertPoisoned(one, 'avail-head-out-of-range');
  }
});

test('§2.7.6: a head that is in flight', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 0, 0]);
  offer(one, 2, 0, 0);
  assert.equal(one.queue.take(one.chain), DONE);
  assertPoisoned(one, 'avail-head-in-flight');
});

test('§2.7.5: next out of the table', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 1, SIZE]);
  offer(one, 1, 0);
  assertMalformed(one, 'next-out-of-range');
});

test('§2.7.5.2: a chain that loops', () => {
  const toItself = victim();
  write(toItself, BASE, [DATA, 8, 1, 0]);
  offer(toItself, 1, 0);
  assertMalformed(toItself, 'chain-loops');
  const round = victim();
  write(round, BASE, [DATA, 8, 1, 1], [DATA, 8, 1, 2], [DATA, 8, 1, 3], [DATA, 8, 1, 0]);
  offer(round, 1, 0);
  assertMalformed(round, 'chain-loops');
});

test('§2.7.4.1: a chain longer than the device accepts', () => {
  const one = victim({ chainLimit: 2 });
  write(one, BASE, [DATA, 8, 1, 1], [DATA, 8, 1, 2], [DATA, 8, 0, 0]);
  offer(one, 1, 0);
  assertMalformed(one, 'chain-too-long');
});

test('§2.7.5.2: more bytes than the device accepts', () => {
  const small = victim({ bytesLimit: 100 });
  write(small, BASE, [DATA, 60, 1, 1], [DATA, 41, 2, 0]);
  offer(small, 1, 0);
  assertMalformed(small, 'chain-too-large');
});

test('§2.7.4.2: readable after writable', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 3, 1], [DATA, 8, 0, 0]);
  offer(one, 1, 0);
  assertMalformed(one, 'readable-after-writable');
});

test('§2.7.5: an address outside, at the edge, across the end, and near 2^64', () => {
  const end = BASE + layout.data + 8192;
  const wrong: readonly (readonly [Descriptor[0], number])[] = [
    [0, 8],
    [end, 1],
    [end - 7, 8],
    [BASE - 1, 2],
    [[0xffffffff, 0xffffffff], 1],
    [[0xfffffff8, 0xffffffff], 16],
    [[0, 0x200000], 8],
    [[BASE >>> 0, 0x80000001], 8],
    [DATA, 0xffffffff],
  ];
  for (const [address, length] of wrong) {
    const one = victim();
    write(one, BASE, [address, length, 2, 0]);
    offer(one, 1, 0);
    assertMalformed(one, 'address-outside-memory');
  }
  const edge = victim();
  write(edge, BASE, [end - 8, 8, 2, 0]);
  offer(edge, 1, 0);
  assert.equal(edge.queue.take(edge.chain), DONE);
});

test('a buffer of no bytes adds nothing and hides nothing', () => {
  const one = victim();
  write(one, BASE, [[0xffffffff, 0xffffffff], 0, 1, 1], [DATA, 8, 2, 0]);
  offer(one, 1, 0);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.deepEqual([one.chain.pieces, one.chain.readableBytes, one.chain.writableBytes], [1, 0, 8]);
});

test('§6, ACCESS_PLATFORM: what is mapped for reading is not written, and the other way round', () => {
  const memory = guardedMemory(8192);
  const space = new AddressSpace();
  must(space.map({ start: DATA, size: 64, region: memory.region, offset: 0, access: 1 }));
  must(space.map({ start: DATA + 64, size: 64, region: memory.region, offset: 64, access: 2 }));
  for (const [address, flags] of [
    [DATA, 2],
    [DATA + 64, 0],
    [DATA + 60, 2],
  ] as const) {
    const one = victim({ space });
    write(one, BASE, [address, 8, flags, 0]);
    offer(one, 1, 0);
    assert.equal(one.queue.take(one.chain), MALFORMED);
    assert.equal(one.queue.refusal?.code, 'access-denied');
  }
});

test('a buffer over two mappings becomes two pieces; more pieces than the device accepts are refused', () => {
  const memory = guardedMemory(8192);
  const space = new AddressSpace();
  for (let i = 0; i < 20; i++) {
    must(space.map({ start: DATA + 8 * i, size: 8, region: memory.region, offset: 4096 - 16 * i, access: 3 }));
  }
  const two = victim({ space });
  write(two, BASE, [DATA + 4, 8, 2, 0]);
  offer(two, 1, 0);
  assert.equal(two.queue.take(two.chain), DONE);
  assert.deepEqual([two.chain.pieces, two.chain.offsets[0], two.chain.offsets[1]], [2, 4100, 4080]);
  two.chain.write(0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  assert.deepEqual([...memory.region.bytes.subarray(4100, 4104)], [1, 2, 3, 4]);
  assert.deepEqual([...memory.region.bytes.subarray(4080, 4084)], [5, 6, 7, 8]);

  const many = victim({ space });
  write(many, BASE, [DATA, 160, 2, 0]);
  offer(many, 1, 0);
  assert.equal(many.queue.take(many.chain), MALFORMED);
  assert.equal(many.queue.refusal?.code, 'chain-too-fragmented');
});

test('an address without a translation consumes nothing; the same chain is taken when it is there', () => {
  const memory = guardedMemory(8192);
  const space = new AddressSpace({ missing: true });
  const one = victim({ space });
  write(one, BASE, [DATA, 8, 2, 0]);
  offer(one, 1, 0);
  assert.equal(one.queue.take(one.chain), UNTRANSLATED);
  assert.deepEqual([space.missAddress, space.missAccess], [DATA, 2]);
  assert.equal(one.queue.take(one.chain), UNTRANSLATED);
  must(space.map({ start: DATA, size: 4096, region: memory.region, offset: 0, access: 3 }));
  assert.equal(one.queue.take(one.chain), DONE);
});

test('§2.7.5.3.1: indirect without INDIRECT_DESC', () => {
  const one = victim();
  write(one, BASE, [TABLE, 16, 4, 0]);
  offer(one, 1, 0);
  assertMalformed(one, 'indirect-not-negotiated');
});

test('§2.7.5.3.1: indirect together with NEXT', () => {
  const one = victim({ indirect: true });
  write(one, BASE, [TABLE, 16, 5, 1]);
  offer(one, 1, 0);
  assertMalformed(one, 'indirect-with-next');
});

test('§2.7.5.3: an indirect table of no length, of a length that is no multiple of 16, or too long', () => {
  for (const [length, code] of [
    [0, 'indirect-length-invalid'],
    [15, 'indirect-length-invalid'],
    [17, 'indirect-length-invalid'],
    [16 * 5, 'chain-too-long'],
    [0xfffffff0, 'chain-too-long'],
  ] as const) {
    const one = victim({ indirect: true });
    write(one, BASE, [TABLE, length, 4, 0]);
    offer(one, 1, 0);
    assertMalformed(one, code);
  }
});

test('§2.7.5.3.1: an indirect descriptor within a table; a table that loops or leads out of itself', () => {
  for (const [entry, code] of [
    [[TABLE, 16, 4, 0], 'indirect-nested'],
    [[DATA, 8, 1, 0], 'chain-loops'],
    [[DATA, 8, 1, 2], 'next-out-of-range'],
    [[DATA, 8, 1, 0xffff], 'next-out-of-range'],
  ] as const) {
    const one = victim({ indirect: true });
    write(one, BASE, [TABLE, 32, 4, 0]);
    write(one, TABLE, entry, [DATA, 8, 0, 0]);
    offer(one, 1, 0);
    assertMalformed(one, code);
  }
});

test('an indirect table outside of memory, across its end, or write-only', () => {
  const end = BASE + layout.data + 8192;
  for (const address of [end, end - 16, 0]) {
    const one = victim({ indirect: true });
    write(one, BASE, [address, 32, 4, 0]);
    offer(one, 1, 0);
    assertMalformed(one, 'address-outside-memory');
  }
});

test('an indirect table over two mappings is read whole, entries that straddle too', () => {
  const memory = guardedMemory(8192);
  const space = new AddressSpace();
  must(space.map({ start: 0x10000, size: 0x18, region: memory.region, offset: 0x100, access: 1 }));
  must(space.map({ start: 0x10018, size: 0x1000, region: memory.region, offset: 0x800, access: 1 }));
  must(space.map({ start: DATA, size: 64, region: memory.region, offset: 0, access: 3 }));
  const one = victim({ indirect: true, space });
  write(one, BASE, [0x10000, 32, 4, 0]);
  write({ ...one, memory }, BASE + 0x100, [DATA, 8, 1, 1]);
  const second = new DataView(new ArrayBuffer(16));
  second.setUint32(0, DATA % 2 ** 32, true);
  second.setUint32(4, Math.floor(DATA / 2 ** 32), true);
  second.setUint32(8, 5, true);
  second.setUint16(12, 2, true);
  for (let i = 0; i < 16; i++) memory.region.bytes[i < 8 ? 0x110 + i : 0x800 + i - 8] = second.getUint8(i);
  offer(one, 1, 0);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.deepEqual([one.chain.readableBytes, one.chain.writableBytes], [8, 5]);
});

test('a chain is given back once, and only one that is in flight', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 2, 0]);
  offer(one, 1, 0);
  assert.equal(one.queue.give(0, 0), false);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.equal(one.queue.give(1, 0), false);
  assert.equal(one.queue.give(-1, 0), false);
  assert.equal(one.queue.give(70_000, 0), false);
  assert.equal(one.queue.give(0, 9), true);
  assert.equal(one.queue.give(0, 9), false);
  one.queue.publish();
  const { view } = one.memory.region;
  assert.equal(view.getUint32(layout.addresses.device - BASE + 8, true), 8, 'never more than there was room for');
  assert.equal(one.queue.take(one.chain), NONE);
});
