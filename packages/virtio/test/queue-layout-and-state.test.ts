/** Sizes, alignment, placement, saved positions and reset of virtqueues. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { queueLayout } from '@airlock/virtio/ring/layout.ts';
import { PackedDevice } from '@airlock/virtio/ring/packed-device.ts';
import { BROKEN, DONE, MALFORMED, NONE } from '@airlock/virtio/ring/queue.ts';
import { SplitDevice } from '@airlock/virtio/ring/split-device.ts';
import {
  allFeatures,
  BASE,
  bothEnds,
  describeFeatures,
  guardedMemory,
  must,
  PACKED,
  PLAIN,
  placeRings,
} from './support/both-ends.ts';

function code(result: { ok: boolean; error?: { code: string } }): string {
  return result.ok ? 'ok' : (result.error?.code ?? '');
}

test('§2.7: sizes and alignments of a split ring; the size is a power of two up to 32768', () => {
  assert.deepEqual(must(queueLayout(256, false)), {
    descriptors: { size: 4096, alignment: 16 },
    driver: { size: 518, alignment: 2 },
    device: { size: 2054, alignment: 4 },
  });
  assert.equal(queueLayout(32768, false).ok, true);
  for (const size of [0, -1, 3, 65536, 1.5, Number.NaN]) {
    assert.equal(code(queueLayout(size, false)), 'queue-size-invalid');
  }
});

test('§2.8.10.1: sizes and alignments of a packed ring; any size up to 32768', () => {
  assert.deepEqual(must(queueLayout(3, true)), {
    descriptors: { size: 48, alignment: 16 },
    driver: { size: 4, alignment: 4 },
    device: { size: 4, alignment: 4 },
  });
  for (const size of [0, 32769, 2.5]) assert.equal(code(queueLayout(size, true)), 'queue-size-invalid');
});

test('§2.7.1, §2.8.11: a part that is misaligned, outside, across a seam or not to be written is refused', () => {
  const { space, region } = guardedMemory(8192);
  for (const features of [PLAIN, PACKED]) {
    const { addresses } = placeRings(4);
    const make = (change: object, where: AddressSpace = space) =>
      code(createDeviceQueue(where, where, { size: 4, features, addresses: { ...addresses, ...change } }));
    assert.equal(make({}), 'ok');
    assert.equal(make({ descriptors: BASE + 8 }), 'queue-part-misaligned');
    assert.equal(make({ driver: BASE + 1 }), 'queue-part-misaligned');
    assert.equal(make({ device: BASE + 2 }), 'queue-part-misaligned');
    assert.equal(make({ device: Number.NaN }), 'queue-part-misaligned');
    assert.equal(make({ descriptors: BASE + 8192 }), 'queue-part-outside-memory');
    assert.equal(make({ descriptors: BASE + 8192 - 48 }), 'queue-part-outside-memory');
    assert.equal(make({ device: 0 }), 'queue-part-outside-memory');
    assert.equal(make({ descriptors: 2 ** 53 }), 'queue-part-misaligned');
    const readOnly = new AddressSpace();
    must(readOnly.map({ start: BASE, size: 8192, region, offset: 0, access: 1 }));
    assert.equal(make({}, readOnly), 'queue-part-outside-memory');
    assert.equal(make({}, new AddressSpace({ missing: true })), 'translation-missing');
  }
});

test('memory that is not aligned behind an aligned address is refused, not read across', () => {
  const region = must(makeRegion('odd', new ArrayBuffer(8193), 1));
  const space = new AddressSpace();
  must(space.map({ start: BASE, size: 8192, region, offset: 0, access: 3 }));
  const { addresses } = placeRings(4);
  assert.equal(code(createDriverQueue(space, { size: 4, features: PLAIN, addresses })), 'queue-part-misaligned');
});

test('the indirect area must hold every table, and the chain limit be a number of descriptors', () => {
  const { space } = guardedMemory(4096);
  const { addresses } = placeRings(4);
  const features = { ...PLAIN, indirect: true };
  for (const indirect of [
    { address: BASE + 1024, limit: 1000 },
    { address: BASE + 4096 - 64, limit: 2 },
    { address: BASE + 1024, limit: 0 },
    { address: BASE + 1024, limit: 1.5 },
    { address: BASE + 1028, limit: 2 },
    { address: 0, limit: 2 },
  ]) {
    assert.equal(code(createDriverQueue(space, { size: 4, features, addresses, indirect })), 'indirect-area-invalid');
  }
  for (const chainLimit of [0, -1, 1.5, 65537, Number.NaN]) {
    const made = createDeviceQueue(space, space, { size: 4, features, addresses, chainLimit });
    assert.equal(code(made), 'chain-limit-invalid');
  }
});

test('§2.6.1: both sides begin anew after a reset, with another life of the same memory', () => {
  for (const features of allFeatures()) {
    const { driver, device, layout } = bothEnds(4, features);
    const chain = new Chain(8);
    for (let life = 0; life < 3; life++) {
      for (let i = 0; i < 3; i++) {
        driver.writable(BASE + layout.data, 8);
        assert.equal(driver.submit(i), DONE, describeFeatures(features));
      }
      driver.publish();
      assert.equal(device.take(chain), DONE);
      assert.equal(device.take(chain), DONE);
      device.give(chain.id, 8);
      if (life === 1) device.publish();
      assert.equal(driver.reset().length, 3);
      device.reset();
      assert.equal(device.take(chain), NONE);
      assert.equal(driver.complete(), NONE);
      assert.deepEqual([driver.free, driver.inFlight, device.inFlight], [4, 0, 0]);
    }
  }
});

test('a device goes on where an earlier one stood', () => {
  for (const features of allFeatures()) {
    const ends = bothEnds(4, features);
    const { driver, memory, layout } = ends;
    let { device } = ends;
    const chain = new Chain(8);
    for (let round = 0; round < 40; round++) {
      driver.writable(BASE + layout.data, 8);
      assert.equal(driver.submit(round), DONE);
      driver.publish();
      assert.equal(device.take(chain), DONE);
      device.give(chain.id, 8);
      device.publish();
      assert.equal(driver.complete(), DONE);
      const position = device.position();
      const { addresses } = layout;
      device = must(createDeviceQueue(memory.space, memory.space, { size: 4, features, addresses }));
      assert.equal(device.restore(position), null);
      assert.deepEqual(device.position(), position);
    }
  }
});

test('a position that does not fit the queue is refused', () => {
  const split = bothEnds(4, PLAIN).device;
  const packed = bothEnds(4, PACKED).device;
  const position = { avail: 0, used: 0, availWrap: true, usedWrap: true };
  for (const change of [{ avail: -1 }, { avail: 65536 }, { used: 1.5 }, { used: Number.NaN }]) {
    assert.equal(split.restore({ ...position, ...change })?.code, 'queue-state-invalid');
  }
  for (const change of [
    { avail: 4 },
    { used: -1 },
    { used: 1 },
    { avail: 1, availWrap: false },
    { avail: Number.NaN },
  ]) {
    assert.equal(packed.restore({ ...position, ...change })?.code, 'queue-state-invalid', JSON.stringify(change));
  }
});

test('split: chains that were in flight when a device died are taken again by their heads', () => {
  const { driver, device, memory, layout } = bothEnds(8, PLAIN);
  for (let i = 0; i < 4; i++) {
    driver.writable(BASE + layout.data + 16 * i, 8);
    driver.submit(i);
  }
  driver.publish();
  const chain = new Chain(8);
  for (let i = 0; i < 3; i++) assert.equal(device.take(chain), DONE);
  device.give(1, 8);
  device.publish();
  const { avail, used } = device.position();

  const { addresses } = layout;
  const again = must(createDeviceQueue(memory.space, memory.space, { size: 8, features: PLAIN, addresses }));
  assert.ok(again instanceof SplitDevice);
  assert.equal(again.restore({ avail, used, availWrap: false, usedWrap: false }), null);
  for (const head of [0, 2]) {
    assert.equal(again.resume(head, chain), DONE);
    assert.equal(chain.id, head);
    again.give(head, 8);
  }
  assert.equal(again.take(chain), DONE);
  assert.equal(chain.id, 3);
  again.give(3, 8);
  again.publish();
  const tokens: number[] = [];
  while (driver.complete() === DONE) tokens.push(driver.token);
  assert.deepEqual(tokens, [1, 0, 2, 3]);
  // The list of heads comes from memory that the driver shares: it is not trusted either.
  const resumed = must(createDeviceQueue(memory.space, memory.space, { size: 8, features: PLAIN, addresses }));
  assert.ok(resumed instanceof SplitDevice);
  for (const head of [8, -1, 70_000]) {
    resumed.reset();
    assert.equal(resumed.resume(head, chain), BROKEN);
    assert.equal(resumed.violation?.code, 'avail-head-out-of-range');
  }
  resumed.reset();
  assert.equal(resumed.resume(0, chain), DONE);
  assert.equal(resumed.resume(0, chain), BROKEN);
  assert.equal(resumed.violation?.code, 'avail-head-in-flight');
});

test('packed: lists that were in flight when a device died are counted again, and no more than fit', () => {
  const { driver, device, memory, layout } = bothEnds(8, PACKED);
  for (let i = 0; i < 3; i++) {
    driver.readable(BASE + layout.data + 64 * i, 8);
    driver.writable(BASE + layout.data + 64 * i + 8, 8);
    driver.submit(i);
  }
  driver.publish();
  const chain = new Chain(8);
  const ids: number[] = [];
  for (let i = 0; i < 2; i++) {
    assert.equal(device.take(chain), DONE);
    ids.push(chain.id);
  }
  const { addresses } = layout;
  const again = must(createDeviceQueue(memory.space, memory.space, { size: 8, features: PACKED, addresses }));
  assert.ok(again instanceof PackedDevice);
  assert.equal(again.restore(device.position()), null);
  const [first = -1, second = -1] = ids;
  for (const [id, count, writable] of [
    [8, 1, 8],
    [-1, 1, 8],
    [0.5, 1, 8],
    [first, 0, 8],
    [first, 5, 8],
    [first, 2, -1],
    [first, 2, Number.NaN],
  ] as const) {
    assert.equal(again.resume(id, count, writable), false);
  }
  assert.equal(again.resume(first, 2, 8), true);
  assert.equal(again.resume(first, 2, 8), false, 'in flight already');
  assert.equal(again.resume(second, 3, 8), false, 'only two places are left');
  assert.equal(again.resume(second, 2, 8), true);
  assert.equal(again.take(chain), DONE);
  for (const id of [second, chain.id, first]) assert.equal(again.give(id, 4), true);
  again.publish();
  const tokens: number[] = [];
  while (driver.complete() === DONE) tokens.push(driver.token);
  assert.deepEqual(tokens, [1, 2, 0]);
  assert.deepEqual([driver.free, driver.violation], [8, null]);
});

test('queues of one device do not know of each other: one is poisoned or reset, the others go on', () => {
  const one = bothEnds(4, PLAIN);
  const two = bothEnds(4, PACKED);
  const chain = new Chain(8);
  one.memory.region.view.setUint16(one.layout.addresses.driver - BASE + 2, 9, true);
  assert.equal(one.device.take(chain), BROKEN);
  two.driver.writable(BASE + two.layout.data, 8);
  two.driver.submit(1);
  two.driver.publish();
  assert.equal(two.device.take(chain), DONE);
});

test('size 1 and size 32768 work', () => {
  for (const features of [PLAIN, PACKED]) {
    for (const size of [1, 32768]) {
      const { driver, device, layout } = bothEnds(size, features);
      const chain = new Chain(8);
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < size; i++) {
          driver.readable(BASE + layout.data, 1);
          assert.equal(driver.submit(i), DONE);
        }
        driver.publish();
        for (let i = 0; i < size; i++) {
          const outcome = device.take(chain);
          assert.notEqual(outcome, MALFORMED, device.refusal?.message);
          assert.equal(outcome, DONE);
          device.give(chain.id, 0);
        }
        device.publish();
        for (let i = 0; i < size; i++) assert.equal(driver.complete(), DONE);
      }
    }
  }
});
