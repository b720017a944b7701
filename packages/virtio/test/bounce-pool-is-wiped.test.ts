import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BouncePool, NO_SLICE } from '@airlock/virtio/memory/bounce-pool.ts';
import fc from 'fast-check';
import { guardedMemory, must } from './support/both-ends.ts';

const CLASSES = [
  { size: 4096, count: 2 },
  { size: 64, count: 3 },
];

function pool() {
  const memory = guardedMemory(4096 * 2 + 64 * 3);
  memory.region.bytes.fill(0xee);
  return { memory, pool: must(BouncePool.create(memory.region, 0x10000, CLASSES)) };
}

test('the pool is wiped when it is made, and a slice when it is given back, all of it', () => {
  const { memory, pool: one } = pool();
  assert.ok(memory.region.bytes.every((byte) => byte === 0));
  const slice = one.take(50);
  assert.equal(one.sizeOf(slice), 64);
  assert.equal(one.copyIn(slice, Uint8Array.of(1, 2, 3)), 3);
  memory.region.bytes[one.offsetOf(slice) + 63] = 7; // the device may write where it was not asked to
  must(one.give(slice));
  assert.ok(memory.region.bytes.every((byte) => byte === 0));
  memory.checkGuards();
});

test('the smallest class that has a slice is used, then a larger one, then none', () => {
  const { pool: one } = pool();
  const sizes = Array.from({ length: 6 }, () => one.take(60)).map((slice) =>
    slice === NO_SLICE ? 0 : one.sizeOf(slice),
  );
  assert.deepEqual(sizes, [64, 64, 64, 4096, 4096, 0]);
  assert.equal(one.take(1), NO_SLICE);
  assert.equal(pool().pool.take(4097), NO_SLICE);
});

test('copies never leave the slice', () => {
  const { memory, pool: one } = pool();
  const slice = one.take(64);
  assert.equal(one.copyIn(slice, new Uint8Array(5000).fill(9)), 64);
  assert.equal(memory.region.bytes.filter((byte) => byte === 9).length, 64);
  const target = new Uint8Array(10);
  assert.equal(one.copyOut(slice, target, 0xffffffff), 10);
  assert.equal(one.copyOut(slice, new Uint8Array(5000), 0xffffffff), 64);
  assert.equal(one.copyOut(slice, target, Number.NaN), 0);
  assert.equal(one.copyOut(slice, target, -1), 0);
});

test('a slice is given back once; one that is not taken is not touched', () => {
  const { pool: one } = pool();
  const slice = one.take(1);
  must(one.give(slice));
  for (const wrong of [slice, 99, -1, 0.5, Number.NaN]) {
    const result = one.give(wrong);
    assert.equal(result.ok ? '' : result.error.code, 'bounce-slice-invalid');
    assert.equal(one.copyIn(wrong, Uint8Array.of(1)), 0);
    assert.equal(one.copyOut(wrong, new Uint8Array(1), 1), 0);
  }
});

test('classes that do not fit are refused', () => {
  const { region } = guardedMemory(4096);
  for (const classes of [
    [],
    [{ size: 4096, count: 2 }],
    [{ size: 0, count: 1 }],
    [{ size: 15, count: 1 }],
    [{ size: 16, count: 0 }],
    [{ size: 16, count: 2 ** 30 }],
    [{ size: Number.NaN, count: 1 }],
  ]) {
    const result = BouncePool.create(region, 0, classes);
    assert.equal(result.ok ? '' : result.error.code, 'bounce-pool-invalid', JSON.stringify(classes));
  }
  for (const address of [-16, 8, 2 ** 53 - 16, Number.NaN]) {
    assert.equal(BouncePool.create(region, address, [{ size: 4096, count: 1 }]).ok, false);
  }
});

test('no two taken slices share a byte, whatever the order of taking and giving', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 60 }), (steps) => {
      const { pool: one } = pool();
      const taken: number[] = [];
      for (const step of steps) {
        if (step % 3 === 0 && taken.length > 0) must(one.give(taken.splice(step % taken.length, 1)[0] ?? -1));
        else {
          const slice = one.take(step % 4100);
          if (slice !== NO_SLICE) taken.push(slice);
        }
        const ranges = taken
          .map((slice) => [one.offsetOf(slice), one.offsetOf(slice) + one.sizeOf(slice)] as const)
          .sort((a, b) => a[0] - b[0]);
        ranges.forEach(([start], i) => {
          if (i > 0) assert.ok((ranges[i - 1]?.[1] ?? 0) <= start);
        });
        assert.equal(one.free(), 5 - taken.length);
      }
    }),
    { numRuns: 200 },
  );
});
