import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Iotlb } from '@airlock/virtio/memory/iotlb.ts';
import { makeRegion, NOWHERE, READ, READ_WRITE, type Region, WRITE } from '@airlock/virtio/memory/region.ts';
import { AddressSpace, DENIED, identitySpace, MISSING, OUTSIDE } from '@airlock/virtio/memory/space.ts';
import { addMemory, guestMemory, removeMemory } from '@airlock/virtio/memory/vhost-user-table.ts';
import fc from 'fast-check';
import { must } from './support/both-ends.ts';

function region(length: number, name = 'ram'): Region {
  return must(makeRegion(name, new ArrayBuffer(length)));
}

function code(result: { ok: boolean; error?: { code: string } }): string {
  return result.ok ? 'ok' : (result.error?.code ?? '');
}

test('a region lies within its buffer', () => {
  const buffer = new ArrayBuffer(64);
  for (const [offset, length] of [
    [-1, 8],
    [0, 0],
    [0, 65],
    [60, 5],
    [64, 1],
    [0.5, 8],
    [0, Number.NaN],
    [2 ** 53, 2 ** 53],
  ] as const) {
    assert.equal(code(makeRegion('r', buffer, offset, length)), 'region-invalid');
  }
  assert.equal(must(makeRegion('r', buffer, 60, 4)).bytes.length, 4);
});

test('identity: an address is an offset, and nothing is beyond the region', () => {
  const ram = region(4096);
  const space = must(identitySpace(ram));
  assert.equal(space.translate(0, READ), 4096);
  assert.equal(space.translate(4095, READ_WRITE), 1);
  assert.deepEqual([space.region, space.offset], [ram, 4095]);
  for (const address of [4096, 2 ** 53, 2 ** 64, Number.POSITIVE_INFINITY]) {
    assert.equal(space.translate(address, READ), OUTSIDE);
  }
  assert.equal(must(identitySpace(ram, READ)).translate(0, WRITE), DENIED);
});

test('a mapping that is empty, wraps, is no whole number or leaves its region is refused', () => {
  const ram = region(4096);
  const space = new AddressSpace();
  const good = { start: 0x1000, size: 4096, region: ram, offset: 0, access: 3 };
  for (const change of [
    { size: 0 },
    { size: -1 },
    { size: 4097 },
    { offset: 1 },
    { offset: -1 },
    { start: -1 },
    { start: 2 ** 53 - 4095 },
    { start: 0.5 },
    { start: Number.NaN },
    { access: 0 },
    { access: 4 },
  ]) {
    assert.equal(code(space.map({ ...good, ...change })), 'mapping-invalid', JSON.stringify(change));
  }
  assert.equal(space.size, 0);
  assert.equal(code(space.map({ ...good, start: 2 ** 53 - 4096 })), 'ok');
  assert.equal(space.translate(2 ** 53 - 1, READ), 1);
});

test('mappings do not overlap, and there are no more than the limit', () => {
  const ram = region(4096);
  const space = new AddressSpace({ limit: 2 });
  const map = (start: number, size: number) => code(space.map({ start, size, region: ram, offset: 0, access: 3 }));
  assert.equal(map(100, 100), 'ok');
  for (const [start, size] of [
    [100, 100],
    [199, 1],
    [50, 51],
    [0, 4096],
    [120, 10],
  ] as const) {
    assert.equal(map(start, size), 'mapping-overlaps');
  }
  assert.equal(map(200, 100), 'ok', 'beside it, but not one piece: the bytes do not go on');
  assert.equal(map(1000, 1), 'mapping-limit');
  assert.equal(space.translate(150, READ), 50);
});

/** One byte at a time: what a map of bytes to (offset, access) would say. */
test('map and unmap are what a table of single addresses would be', () => {
  const ram = region(64, 'a');
  const other = region(64, 'b');
  const step = fc.record({
    map: fc.boolean(),
    start: fc.nat(80),
    size: fc.integer({ min: 1, max: 24 }),
    offset: fc.nat(64),
    access: fc.integer({ min: 1, max: 3 }),
    second: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const space = new AddressSpace({ limit: 64 });
      const model = new Map<number, { region: Region; offset: number; access: number }>();
      for (const { map, start, size, offset, access, second } of steps) {
        const target = second ? other : ram;
        if (!map) {
          assert.equal(space.unmap(start, size).ok, true);
          for (let i = 0; i < size; i++) model.delete(start + i);
          continue;
        }
        const free = Array.from({ length: size }, (_, i) => start + i).every((address) => !model.has(address));
        const fits = offset + size <= 64;
        assert.equal(space.map({ start, size, region: target, offset, access }).ok, free && fits);
        if (!free || !fits) continue;
        for (let i = 0; i < size; i++) model.set(start + i, { region: target, offset: offset + i, access });
      }
      for (let address = 0; address < 110; address++) {
        const expected = model.get(address);
        for (const access of [READ, WRITE, READ_WRITE]) {
          const run = space.translate(address, access);
          if (expected === undefined) assert.equal(run, OUTSIDE);
          else if ((expected.access & access) !== access) assert.equal(run, DENIED);
          else {
            assert.ok(run > 0);
            assert.deepEqual([space.region, space.offset], [expected.region, expected.offset]);
            for (let i = 1; i < run; i++) {
              const next = model.get(address + i);
              assert.deepEqual(next, { ...expected, offset: expected.offset + i }, 'a run is one piece');
            }
          }
        }
      }
    }),
    { numRuns: 300 },
  );
});

test('a cleared space holds no region that could be read by mistake', () => {
  const space = must(identitySpace(region(16)));
  assert.equal(space.translate(0, READ), 16);
  space.clear();
  assert.equal(space.translate(0, READ), OUTSIDE);
  assert.equal(space.region, NOWHERE);
});

test('vhost-user memory table: guest and user addresses lead to the same bytes', () => {
  const low = region(8192, 'low');
  const high = region(4096, 'high');
  const memory = must(
    guestMemory([
      { guestAddress: 0, userAddress: 0x7f00_0000_0000, size: 4096, offset: 4096, region: low },
      { guestAddress: 0x1_0000_0000, userAddress: 0x7f00_0010_0000, size: 4096, offset: 0, region: high },
    ]),
  );
  assert.equal(memory.guest.translate(16, READ), 4080);
  assert.deepEqual([memory.guest.region, memory.guest.offset], [low, 4112]);
  assert.equal(memory.user.translate(0x7f00_0010_0008, WRITE), 4088);
  assert.deepEqual([memory.user.region, memory.user.offset], [high, 8]);
  assert.equal(memory.guest.translate(4096, READ), OUTSIDE);
});

test('vhost-user memory table: a wrong entry leaves nothing behind', () => {
  const ram = region(8192);
  const entry = { guestAddress: 0, userAddress: 0x1000, size: 4096, offset: 0, region: ram };
  assert.equal(code(guestMemory([])), 'memory-table-invalid');
  assert.equal(code(guestMemory(Array.from({ length: 510 }, () => entry))), 'memory-table-invalid');
  assert.equal(code(guestMemory([entry, entry])), 'memory-table-invalid');
  assert.equal(code(guestMemory([{ ...entry, size: 8193 }])), 'memory-table-invalid');
  assert.equal(code(guestMemory([{ ...entry, guestAddress: 2 ** 53 }])), 'memory-table-invalid');
  const memory = must(guestMemory([entry]));
  // The guest address is free, the user address is not: both stay as they were.
  assert.equal(code(addMemory(memory, { ...entry, guestAddress: 0x10000 })), 'memory-table-invalid');
  assert.equal(memory.guest.translate(0x10000, READ), OUTSIDE);
  assert.equal(code(removeMemory(memory, entry)), 'ok');
  assert.deepEqual([memory.guest.size, memory.user.size], [0, 0]);
});

test('IOTLB: a miss is reported once asked for, an update answers it, an invalidation takes it back', () => {
  const ram = region(8192);
  const memory = must(guestMemory([{ guestAddress: 0, userAddress: 0x1000, size: 8192, offset: 0, region: ram }]));
  const iotlb = new Iotlb(memory.user);
  const { space } = iotlb;
  assert.equal(space.translate(0xffff_f000, WRITE), MISSING);
  assert.deepEqual([space.missAddress, space.missAccess], [0xffff_f000, WRITE]);
  assert.equal(space.translate(2 ** 53, WRITE), OUTSIDE, 'nothing can be mapped there, so nobody is asked');
  must(iotlb.update({ address: 0xffff_f000, size: 4096, userAddress: 0x2000, access: READ }));
  assert.equal(space.translate(0xffff_f010, READ), 4080);
  assert.deepEqual([space.region, space.offset], [ram, 4112]);
  assert.equal(space.translate(0xffff_f010, WRITE), DENIED);
  must(iotlb.update({ address: 0xffff_f000, size: 4096, userAddress: 0x2000, access: READ_WRITE }));
  assert.equal(space.translate(0xffff_f010, WRITE), 4080, 'an update replaces what was there');
  iotlb.invalidate(0xffff_f800, 16);
  assert.equal(space.translate(0xffff_f800, READ), MISSING);
  assert.equal(space.translate(0xffff_f7ff, READ), 1);
  assert.equal(space.translate(0xffff_f810, READ), 0x7f0);
  iotlb.invalidate(0, Number.POSITIVE_INFINITY);
  assert.equal(space.size, 0);
});

test('IOTLB: what the memory table does not hold, wraps or permits nothing is refused whole', () => {
  const ram = region(8192);
  const memory = must(guestMemory([{ guestAddress: 0, userAddress: 0x1000, size: 8192, offset: 0, region: ram }]));
  const iotlb = new Iotlb(memory.user);
  const good = { address: 0x10000, size: 4096, userAddress: 0x1000, access: READ_WRITE };
  must(iotlb.update(good));
  for (const change of [
    { access: 0 },
    { access: 4 },
    { size: 0 },
    { size: 8193 },
    { userAddress: 0xfff },
    { userAddress: 0x2001 },
    { address: 2 ** 53 - 4095 },
    { address: -1 },
    { userAddress: 2 ** 53 },
    { size: Number.POSITIVE_INFINITY },
  ]) {
    assert.equal(code(iotlb.update({ ...good, ...change })), 'iotlb-update-invalid', JSON.stringify(change));
    assert.equal(iotlb.space.translate(0x10000, WRITE), 4096);
  }
});

test('IOTLB: a flood of updates stays within its limit and never fails a right one', () => {
  const ram = region(8192);
  const memory = must(guestMemory([{ guestAddress: 0, userAddress: 0, size: 8192, offset: 0, region: ram }]));
  const iotlb = new Iotlb(memory.user, 8);
  for (let i = 0; i < 1000; i++) {
    must(iotlb.update({ address: i * 8192, size: 16, userAddress: (i * 16) % 8192, access: READ }));
    assert.ok(iotlb.space.size <= 8);
    assert.equal(iotlb.space.translate(i * 8192, READ), 16);
  }
  // Splitting a mapping needs one more: with none left, more is forgotten than was asked, never less.
  const full = new Iotlb(memory.user, 1);
  must(full.update({ address: 0, size: 4096, userAddress: 0, access: READ }));
  full.invalidate(16, 16);
  assert.equal(full.space.translate(16, READ), MISSING);
});

test('IOTLB: pages that lie beside each other become one mapping', () => {
  const ram = region(16384);
  const memory = must(guestMemory([{ guestAddress: 0, userAddress: 0, size: 16384, offset: 0, region: ram }]));
  const iotlb = new Iotlb(memory.user);
  for (const page of [0, 2, 3, 1]) {
    must(iotlb.update({ address: page * 4096, size: 4096, userAddress: page * 4096, access: READ_WRITE }));
  }
  assert.equal(iotlb.space.size, 1);
  assert.equal(iotlb.space.translate(0, READ), 16384);
});

test('thousands of mappings in any order, added and taken out, translate as a plain list of them does', () => {
  const regions = [region(1 << 20, 'a'), region(1 << 20, 'b')];
  const space = new AddressSpace({ limit: 4096 });
  const list = new Map<number, Region>();
  let seed = 12345;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let i = 0; i < 20_000; i++) {
    const start = random(3000) * 8192;
    const chosen = regions[random(2)] as Region;
    if (list.has(start)) {
      must(space.unmap(start, 4096));
      list.delete(start);
    } else {
      must(space.map({ start, size: 4096, region: chosen, offset: (start * 3) % 4096, access: READ }));
      list.set(start, chosen);
    }
    const probe = random(3000) * 8192 + random(8192);
    const expected = list.get(probe - (probe % 8192));
    const inside = probe % 8192 < 4096 && expected !== undefined;
    assert.equal(space.translate(probe, READ), inside ? 4096 - (probe % 8192) : OUTSIDE);
    if (inside) assert.equal(space.region, expected);
  }
  assert.equal(space.size, list.size);
});
