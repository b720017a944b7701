import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createChecklist } from '@airlock/evidence/check.ts';
import fc from 'fast-check';
import {
  checkConfigHeld,
  checkInterfaceReport,
  type FunctionLayout,
  type Placement,
} from '../src/tdisp/check-report.ts';
import { LOCK_FLAG, type MmioRange } from '../src/tdisp/messages.ts';
import type { InterfaceReport } from '../src/tdisp/report.ts';

const layout: FunctionLayout = {
  bars: [
    { index: 0, start: 0xfe00_0000n, size: 0x4000n },
    { index: 4, start: 0x38_0000_0000n, size: 0x8000n },
  ],
  msix: { control: 0x0040, entries: 65, table: { bar: 4, offset: 0x2000 }, pba: { bar: 4, offset: 0x3000 } },
  lnrControl: 0,
  tphControl: 1,
  pasid: false,
  ats: true,
  pageRequests: false,
};

const OFFSET = 0x1000_0000_0000n;
const range = (bar: number, from: number, pages: number, attributes = 0): MmioRange => ({
  firstPage: ((layout.bars.find(({ index }) => index === bar)?.start ?? 0n) + OFFSET) / 4096n + BigInt(from),
  pages,
  attributes,
  rangeId: bar,
});

const honest: InterfaceReport = {
  info: 0b1011,
  msixControl: 0x0040,
  lnrControl: 0,
  tphControl: 1,
  ranges: [range(0, 0, 4), range(4, 0, 2), range(4, 2, 1, 1), range(4, 3, 1, 2), range(4, 4, 4)],
  deviceSpecific: new Uint8Array(),
};

const placements: readonly Placement[] = [{ kind: 'addresses', offset: OFFSET }, { kind: 'by-bar' }];
const FLAGS = LOCK_FLAG.noFirmwareUpdate | LOCK_FLAG.lockMsix;

function failed(report: InterfaceReport, placement: Placement, lockFlags: number | null = FLAGS): string[] {
  const list = createChecklist();
  checkInterfaceReport(list, { report, layout, placement, lockFlags });
  return list.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
}

test('an honest report, by address and by BAR, and with a lock of somebody else', () => {
  for (const placement of placements) {
    assert.deepEqual(failed(honest, placement), []);
    assert.deepEqual(failed(honest, placement, null), []);
  }
});

const without = (at: number): readonly MmioRange[] => honest.ranges.filter((_, i) => i !== at);

const lies: readonly {
  readonly what: string;
  readonly report: Partial<InterfaceReport>;
  readonly fails: readonly string[];
  readonly by?: Placement['kind'];
}[] = [
  {
    what: 'a range that goes on after its BAR',
    report: { ranges: [...without(4), range(4, 4, 5)] },
    fails: ['tdisp.ranges'],
  },
  {
    what: 'a range before its BAR',
    report: { ranges: [...without(0), range(0, -1, 4)] },
    fails: ['tdisp.ranges'],
    by: 'addresses',
  },
  {
    what: 'a range in no BAR at all',
    report: { ranges: [...honest.ranges, { ...range(0, 0x100, 1), rangeId: 2 }] },
    fails: ['tdisp.ranges'],
  },
  { what: 'a range without pages', report: { ranges: [...honest.ranges, range(0, 0, 0)] }, fails: ['tdisp.ranges'] },
  {
    what: 'a range at the end of the address space',
    report: { ranges: [...honest.ranges, { ...range(0, 0, 2), firstPage: (1n << 52n) - 1n }] },
    fails: ['tdisp.ranges'],
  },
  {
    what: 'a range that wraps around',
    report: { ranges: [...honest.ranges, { ...range(0, 0, 2), firstPage: (1n << 64n) - 1n }] },
    fails: ['tdisp.ranges'],
  },
  {
    what: 'a range of four billion pages',
    report: { ranges: [...without(0), range(0, 0, 0xffff_ffff)] },
    fails: ['tdisp.ranges', 'tdisp.overlap'],
  },
  {
    what: 'two ranges with the same pages',
    report: { ranges: [...honest.ranges, range(0, 1, 1)] },
    fails: ['tdisp.overlap'],
  },
  { what: 'the same range twice', report: { ranges: [...honest.ranges, range(0, 0, 4)] }, fails: ['tdisp.overlap'] },
  {
    what: 'a MSI-X table that is not marked',
    report: { ranges: honest.ranges.map((one) => ({ ...one, attributes: one.attributes & ~1 })) },
    fails: ['tdisp.msix'],
  },
  {
    what: 'a MSI-X PBA that is not marked',
    report: { ranges: honest.ranges.map((one) => ({ ...one, attributes: one.attributes & ~2 })) },
    fails: ['tdisp.msix'],
  },
  { what: 'a mark where no table is', report: { ranges: [range(0, 0, 4, 1), ...without(0)] }, fails: ['tdisp.msix'] },
  { what: 'a table that is not reported', report: { ranges: without(2) }, fails: ['tdisp.msix'] },
  { what: 'another number of vectors', report: { msixControl: 0x0041 }, fails: ['tdisp.msix'] },
  { what: 'no vectors although they are locked', report: { msixControl: 0 }, fails: ['tdisp.msix'] },
  { what: 'TPH control that is not the function’s', report: { tphControl: 0 }, fails: ['tdisp.registers'] },
  { what: 'LNR control without the capability', report: { lnrControl: 1 }, fails: ['tdisp.registers'] },
  { what: 'PASID without the capability', report: { info: 0b1111 }, fails: ['tdisp.features'] },
  { what: 'page requests without the capability', report: { info: 0b11011 }, fails: ['tdisp.features'] },
  { what: 'firmware that can be changed', report: { info: 0b1010 }, fails: ['tdisp.no-update'] },
];

for (const { what, report, fails, by } of lies) {
  test(`a report with ${what} is rejected, for that reason`, () => {
    for (const placement of placements)
      if (by === undefined || by === placement.kind)
        assert.deepEqual(failed({ ...honest, ...report }, placement), fails, placement.kind);
  });
}

test('an address that is off by less than a page, or a wrong offset, puts every range elsewhere', () => {
  assert.deepEqual(failed(honest, { kind: 'addresses', offset: OFFSET + 8n }), ['tdisp.ranges', 'tdisp.msix']);
  assert.deepEqual(failed(honest, { kind: 'addresses', offset: 0n }), ['tdisp.ranges', 'tdisp.msix']);
});

test('a report without a range fits no function that has memory', () => {
  const empty = { ...honest, msixControl: 0, ranges: [] };
  for (const placement of placements) assert.deepEqual(failed(empty, placement, null), ['tdisp.ranges']);
  const list = createChecklist();
  const bare: FunctionLayout = { ...layout, bars: [], msix: null };
  checkInterfaceReport(list, { report: empty, layout: bare, placement: { kind: 'by-bar' }, lockFlags: null });
  assert.deepEqual(
    list.checks.filter(({ status }) => status === 'failed'),
    [],
  );
});

test('without a locked table nothing is marked and there is no control', () => {
  const open = { ...honest, msixControl: 0, ranges: honest.ranges.map((one) => ({ ...one, attributes: 0 })) };
  for (const placement of placements) {
    assert.deepEqual(failed(open, placement, LOCK_FLAG.noFirmwareUpdate), []);
    assert.deepEqual(failed(honest, placement, LOCK_FLAG.noFirmwareUpdate), ['tdisp.msix']);
  }
});

test('pages that are left out, and pages that the host can use too, are told', () => {
  const list = createChecklist();
  const ranges = [range(0, 0, 1, 4), ...honest.ranges.slice(1)];
  checkInterfaceReport(list, {
    report: { ...honest, ranges },
    layout,
    placement: { kind: 'by-bar' },
    lockFlags: FLAGS,
  });
  const noted = list.checks.filter(({ status }) => status === 'noted');
  assert.deepEqual(noted.map(({ id }) => id).sort(), ['tdisp.coverage', 'tdisp.non-tee']);
  assert.match(noted.find(({ id }) => id === 'tdisp.coverage')?.found ?? '', /3 of 4 pages of BAR 0/);
});

test('any ranges: what passes lies within the BARs and shares no page', () => {
  const drawn = fc.record({
    firstPage: fc.oneof(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.nat(20).map((one) => (layout.bars[0]?.start ?? 0n) / 4096n + OFFSET / 4096n - 4n + BigInt(one)),
    ),
    pages: fc.oneof(fc.nat(6), fc.nat(0xffff_ffff)),
    attributes: fc.nat(15),
    rangeId: fc.nat(7),
  });
  fc.assert(
    fc.property(fc.array(drawn, { maxLength: 5 }), (ranges) => {
      const found = failed({ ...honest, ranges }, { kind: 'addresses', offset: OFFSET });
      if (found.includes('tdisp.ranges') || found.includes('tdisp.overlap')) return;
      const pages = ranges.flatMap(({ firstPage, pages: count }) =>
        Array.from({ length: count }, (_, i) => firstPage + BigInt(i)),
      );
      assert.equal(new Set(pages).size, pages.length);
      for (const page of pages) {
        const address = page * 4096n - OFFSET;
        assert.ok(layout.bars.some(({ start, size }) => start <= address && address < start + size));
      }
    }),
    { numRuns: 1000 },
  );
});

test('what the lock holds of the configuration, and what it leaves free', () => {
  const before = new Uint8Array(256).fill(5);
  const held = (at: number) => {
    const after = before.slice();
    after[at] = 6;
    const list = createChecklist();
    checkConfigHeld(list, before, after);
    return list.checks[0]?.status === 'passed';
  };
  for (const at of [0, 2, 4, 8, 11, 14, 16, 39, 44, 48]) assert.equal(held(at), false, `${at}`);
  for (const at of [6, 7, 12, 13, 15, 60]) assert.equal(held(at), true, `${at}`);
  const list = createChecklist();
  checkConfigHeld(list, new Uint8Array(), new Uint8Array());
  assert.equal(list.checks[0]?.status, 'failed');
});
