/** A driver that lies in a packed ring (VIRTIO 1.3 §2.8): each rule, and the code that names it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue } from '@airlock/virtio/ring/create.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED, NONE } from '@airlock/virtio/ring/queue.ts';
import { BASE, type GuardedMemory, guardedMemory, must, PACKED, placeRings } from './support/both-ends.ts';

const SIZE = 5;
const AVAILABLE = 0x80;
const layout = placeRings(SIZE);
const DATA = BASE + layout.data;
const TABLE = layout.indirect.address;

interface Victim {
  readonly memory: GuardedMemory;
  readonly queue: DeviceQueue;
  readonly chain: Chain;
}

function victim(options: { indirect?: boolean; chainLimit?: number; inOrder?: boolean } = {}): Victim {
  const memory = guardedMemory(layout.data + 8192);
  const features = { ...PACKED, indirect: options.indirect ?? false, inOrder: options.inOrder ?? false };
  const { addresses } = layout;
  const chainLimit = options.chainLimit ?? SIZE;
  const queue = must(createDeviceQueue(memory.space, memory.space, { size: SIZE, features, addresses, chainLimit }));
  return { memory, queue, chain: new Chain(16) };
}

type Descriptor = readonly [address: number, length: number, id: number, flags: number];

function write({ memory }: Victim, base: number, ...descriptors: Descriptor[]): void {
  const { view } = memory.region;
  descriptors.forEach(([address, length, id, flags], i) => {
    const at = base - BASE + 16 * i;
    view.setUint32(at, address >>> 0, true);
    view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, id, true);
    view.setUint16(at + 14, flags, true);
  });
}

/** The list of `places` goes back with length 0 under `id`, and the one behind it is served. */
function assertMalformed(one: Victim, code: string, id: number, places: number): void {
  write(one, BASE + 16 * places, [DATA, 8, 4, AVAILABLE]);
  assert.equal(one.queue.take(one.chain), MALFORMED);
  assert.equal(one.queue.refusal?.code, code);
  assert.equal(one.queue.inFlight, 0);
  one.queue.publish();
  const { view } = one.memory.region;
  assert.deepEqual([view.getUint32(8, true), view.getUint16(12, true), view.getUint16(14, true)], [0, id, 0x8080]);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.equal(one.chain.id, 4);
  assert.equal(one.queue.violation, null);
  one.memory.checkGuards();
}

function assertPoisoned(one: Victim, code: string): void {
  assert.equal(one.queue.take(one.chain), BROKEN);
  assert.equal(one.queue.violation?.code, code);
  assert.equal(one.queue.take(one.chain), BROKEN);
  assert.equal(one.queue.give(0, 0), false);
  one.memory.checkGuards();
}

test('§2.8.1: descriptors that are not marked available are not looked at', () => {
  for (const flags of [0, 0x8000, 0x8080, 1, 0xff7f & ~0x80]) {
    const one = victim();
    write(one, BASE, [DATA, 8, 0, flags]);
    assert.equal(one.queue.take(one.chain), NONE);
  }
});

test('§2.8.13: a buffer id beyond the queue size, or in flight', () => {
  for (const id of [SIZE, 7, 8, 0xffff]) {
    const one = victim();
    write(one, BASE, [DATA, 8, id, AVAILABLE]);
    assertPoisoned(one, 'buffer-id-out-of-range');
  }
  const one = victim();
  write(one, BASE, [DATA, 8, 2, AVAILABLE], [DATA, 8, 2, AVAILABLE]);
  assert.equal(one.queue.take(one.chain), DONE);
  assertPoisoned(one, 'buffer-id-in-flight');
});

test('§2.8.17: a list that goes on beyond the ring, alone or behind lists in flight', () => {
  const alone = victim();
  write(alone, BASE, ...Array.from({ length: SIZE }, (): Descriptor => [DATA, 8, 0, AVAILABLE | 1]));
  assertPoisoned(alone, 'list-longer-than-ring');
  const behind = victim();
  write(
    behind,
    BASE,
    [DATA, 8, 0, AVAILABLE],
    ...Array.from({ length: 4 }, (): Descriptor => [DATA, 8, 1, AVAILABLE | 1]),
  );
  assert.equal(behind.queue.take(behind.chain), DONE);
  assertPoisoned(behind, 'list-longer-than-ring');
});

test('§2.8.17: more descriptors than the ring has places', () => {
  const one = victim();
  write(one, BASE, ...[0, 1, 2, 3, 4].map((id): Descriptor => [DATA, 8, id, AVAILABLE]));
  for (let i = 0; i < SIZE; i++) assert.equal(one.queue.take(one.chain), DONE);
  assert.equal(one.queue.take(one.chain), NONE);
  write(one, BASE, [DATA, 8, 0, 0x8000]);
  assertPoisoned(one, 'avail-overrun');
});

test('§2.8.6: a list of which a later descriptor is not available', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 0, AVAILABLE | 1], [DATA, 8, 0, 0x8080]);
  assertPoisoned(one, 'list-partly-available');
});

test('§2.8.17: readable after writable; the list is walked to its end and its id given back', () => {
  const one = victim();
  write(one, BASE, [DATA, 8, 1, AVAILABLE | 3], [DATA, 8, 2, AVAILABLE | 1], [DATA, 8, 3, AVAILABLE]);
  assertMalformed(one, 'readable-after-writable', 3, 3);
});

test('§2.8.13: an address outside of memory', () => {
  const one = victim();
  write(one, BASE, [2 ** 53 + 2 ** 40, 8, 1, AVAILABLE]);
  assertMalformed(one, 'address-outside-memory', 1, 1);
});

test('§2.8.18: a list longer than the device accepts', () => {
  const one = victim({ chainLimit: 2 });
  write(one, BASE, [DATA, 8, 1, AVAILABLE | 1], [DATA, 8, 1, AVAILABLE | 1], [DATA, 8, 1, AVAILABLE]);
  assertMalformed(one, 'chain-too-long', 1, 3);
});

test('§2.8.19: indirect descriptors that may not be', () => {
  const without = victim();
  write(without, BASE, [TABLE, 16, 1, AVAILABLE | 4]);
  assertMalformed(without, 'indirect-not-negotiated', 1, 1);
  const next = victim({ indirect: true });
  write(next, BASE, [TABLE, 16, 1, AVAILABLE | 5], [DATA, 8, 2, AVAILABLE]);
  assertMalformed(next, 'indirect-with-next', 2, 2);
  const second = victim({ indirect: true });
  write(second, BASE, [DATA, 8, 1, AVAILABLE | 1], [TABLE, 16, 2, AVAILABLE | 4]);
  assertMalformed(second, 'indirect-with-next', 2, 2);
  for (const length of [0, 8, 33]) {
    const one = victim({ indirect: true });
    write(one, BASE, [TABLE, length, 1, AVAILABLE | 4]);
    assertMalformed(one, 'indirect-length-invalid', 1, 1);
  }
  const long = victim({ indirect: true });
  write(long, BASE, [TABLE, 16 * (SIZE + 1), 1, AVAILABLE | 4]);
  assertMalformed(long, 'chain-too-long', 1, 1);
});

test('IN_ORDER: a malformed list waits its turn, and is never counted as filled', () => {
  const one = victim({ inOrder: true });
  write(one, BASE, [DATA, 8, 0, AVAILABLE | 2], [0, 8, 1, AVAILABLE | 2], [DATA, 8, 2, AVAILABLE | 2]);
  assert.equal(one.queue.take(one.chain), DONE);
  assert.equal(one.queue.take(one.chain), MALFORMED);
  assert.equal(one.queue.take(one.chain), DONE);
  one.queue.give(2, 8);
  one.queue.publish();
  const { view } = one.memory.region;
  assert.equal(view.getUint16(14, true), AVAILABLE | 2, 'nothing is shown before the first is done');
  one.queue.give(0, 8);
  one.queue.publish();
  const used = [0, 1, 2].map((place) => [view.getUint16(16 * place + 12, true), view.getUint32(16 * place + 8, true)]);
  // The first was filled, so it may be skipped; the malformed one has an element of its own.
  assert.deepEqual(used[0], [1, 0]);
  assert.deepEqual(used[2], [2, 8]);
});
