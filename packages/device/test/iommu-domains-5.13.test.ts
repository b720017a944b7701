import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DOMAINS_LIMIT, iommuModel } from '@airlock/device/iommu/device.ts';
import { Domain } from '@airlock/device/iommu/domain.ts';
import fc from 'fast-check';
import { driveModel, words } from './support/model-driver.ts';

const [OK, INVAL, RANGE, NOENT, NOMEM] = [0, 4, 5, 6, 8];
const PAGE = 4096;

function unit() {
  const model = iommuModel();
  const one = driveModel(model, { memory: 64 << 20 });
  const ask = (values: readonly number[], room = 4) => one.ask(0, words(values), room)?.bytes.at(-4);
  return {
    ...{ model, one, ask },
    attach: (domain: number, endpoint: number, flags = 0) => ask([1, domain, endpoint, flags, 0]),
    detach: (domain: number, endpoint: number) => ask([2, domain, endpoint, 0, 0]),
    map: (domain: number, start: number, end: number, physical: number, flags = 3) =>
      ask([3, domain, start, 0, end, 0, physical, 0, flags]),
    unmap: (domain: number, start: number, end: number) => ask([4, domain, start, 0, end, 0, 0]),
  };
}

test('an endpoint is attached, pages are mapped, looked up and unmapped', () => {
  const { model, attach, map, unmap, one } = unit();
  assert.equal(attach(1, 8), OK);
  assert.equal(map(1, 0x10000, 0x10fff, 0x5000), OK);
  const look = (text: string) => JSON.stringify(model.commands?.['translate']?.(text));
  assert.equal(look('8 0x10123'), '{"ok":true,"value":{"physical":"0x5123","flags":3}}');
  assert.equal(look('8 0x11000'), '{"ok":true,"value":null}');
  assert.equal(unmap(1, 0, 0xffff_ffff), OK);
  assert.equal(look('8 0x10123'), '{"ok":true,"value":null}');
  assert.equal(one.facts()['mappings'], 0);
});

test('mappings do not overlap, are whole pages, do not wrap, and are not cut in two', () => {
  const { attach, map, unmap } = unit();
  assert.equal(map(1, 0, PAGE - 1, 0), NOENT);
  attach(1, 8);
  assert.equal(map(1, PAGE, 3 * PAGE - 1, 0), OK);
  assert.equal(map(1, 2 * PAGE, 3 * PAGE - 1, 0), INVAL);
  assert.equal(map(1, 0, PAGE, 0), RANGE);
  assert.equal(map(1, 5, PAGE - 1, 0), RANGE);
  assert.equal(map(1, 8 * PAGE, 7 * PAGE - 1, 0), INVAL);
  assert.equal(map(1, 8 * PAGE, 9 * PAGE - 1, 0, 0), INVAL);
  assert.equal(map(1, 8 * PAGE, 9 * PAGE - 1, 0, 0x80), INVAL);
  assert.equal(unmap(1, PAGE, 2 * PAGE - 1), RANGE);
  assert.equal(unmap(2, 0, PAGE - 1), NOENT);
  assert.equal(unmap(1, PAGE, 3 * PAGE - 1), OK);
});

test('a domain goes with its last endpoint; an endpoint is in one; what bypasses maps nothing', () => {
  const { attach, detach, map, one } = unit();
  attach(1, 8);
  attach(1, 9);
  map(1, 0, PAGE - 1, 0);
  assert.equal(attach(2, 8), OK);
  assert.equal(one.facts()['mappings'], 1);
  assert.equal(detach(2, 9), INVAL);
  assert.equal(detach(1, 9), OK);
  assert.equal(detach(1, 9), NOENT);
  assert.deepEqual([one.facts()['mappings'], one.facts()['domains']], [0, 1]);
  assert.equal(attach(3, 9, 1), OK);
  assert.equal(map(3, 0, PAGE - 1, 0), INVAL);
  assert.equal(attach(3, 8, 0), INVAL);
  assert.equal(attach(4, 8, 6), INVAL);
  // The same again keeps it.
  assert.equal(attach(2, 8), OK);
  assert.equal(one.facts()['domains'], 2);
});

test('domains are bounded; a probe says where messages go and fits its room; what is unknown is told', () => {
  const { attach, ask, one } = unit();
  for (let i = 0; i < DOMAINS_LIMIT; i++) assert.equal(attach(i, i), OK);
  assert.equal(attach(DOMAINS_LIMIT, DOMAINS_LIMIT), NOMEM);
  const probe = one.ask(0, words([5, 8, ...new Array(16).fill(0)]), 516);
  assert.deepEqual([probe?.view.getUint16(0, true), probe?.view.getUint32(8, true)], [1, 0xfee0_0000]);
  assert.equal(ask([5, 8], 100), INVAL);
  assert.equal(ask([99, 0]), 2);
  assert.equal(one.ask(0, new Uint8Array(2), 4)?.bytes[0], INVAL);
  assert.equal(one.ask(0, words([1, 1, 1, 0, 0]), 3)?.written, 0);
  assert.equal(one.device.writeConfig(36, Uint8Array.of(0)), true);
  assert.equal(one.device.writeConfig(36, Uint8Array.of(2)), false);
  assert.equal(one.device.writeConfig(0, Uint8Array.of(1)), false);
});

test('a domain is what a list of pages is, whatever comes in whatever order', () => {
  const step = fc.record({ maps: fc.boolean(), first: fc.nat(30), count: fc.integer({ min: 1, max: 6 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const domain = new Domain(false);
      const ranges: { first: number; last: number }[] = [];
      for (const { maps, first, count } of steps) {
        const last = first + count - 1;
        const hit = ranges.filter((one) => one.first <= last && one.last >= first);
        const [start, end] = [BigInt(first), BigInt(last)];
        if (maps) {
          assert.equal(domain.map({ start, end, physical: 100n + start, flags: 1 }), hit.length === 0);
          if (hit.length === 0) ranges.push({ first, last });
        } else {
          const cut = hit.some((one) => one.first < first || one.last > last);
          assert.equal(domain.unmap(start, end), cut ? null : hit.length);
          if (!cut) for (const one of hit) ranges.splice(ranges.indexOf(one), 1);
        }
        for (let page = 0; page < 40; page++) {
          const there = ranges.some((one) => one.first <= page && one.last >= page);
          assert.equal(domain.translate(BigInt(page))?.physical, there ? 100n + BigInt(page) : undefined);
        }
      }
    }),
    { numRuns: 100 },
  );
});
