/**
 * The interface report against the function as configuration space and the kernel show it: what the host arranged must be
 * what the device locked. As named checks; pages are 4 KiB.
 */
import type { Checklist } from '@airlock/evidence/check.ts';
import { LOCK_FLAG, type MmioRange } from './messages.ts';
import { INTERFACE_INFO, type InterfaceReport, RANGE_ATTRIBUTE } from './report.ts';

const PAGE = 4096n;
const ADDRESS_PAGES = 1n << 52n;

export interface MemoryBar {
  readonly index: number;
  readonly start: bigint;
  readonly size: bigint;
}

/** What of a function the report speaks of. */
export interface FunctionLayout {
  readonly bars: readonly MemoryBar[];
  readonly msix: {
    readonly control: number;
    readonly entries: number;
    readonly table: { readonly bar: number; readonly offset: number };
    readonly pba: { readonly bar: number; readonly offset: number };
  } | null;
  /** Control registers; 0 where the function has no such capability. */
  readonly lnrControl: number;
  readonly tphControl: number;
  readonly pasid: boolean;
  readonly ats: boolean;
  readonly pageRequests: boolean;
}

/**
 * How a range is found in the function. `addresses`: the lock was ours, its reporting offset is known and BARs are what the
 * device decodes. `by-bar`: the TSM chose the offset; RANGE_ID is the number of the BAR, whose first range is its start.
 */
export type Placement = { readonly kind: 'addresses'; readonly offset: bigint } | { readonly kind: 'by-bar' };

export interface ReportInput {
  readonly report: InterfaceReport;
  readonly layout: FunctionLayout;
  readonly placement: Placement;
  /** FLAGS of the lock; null where somebody else locked and the flags are not known. */
  readonly lockFlags: number | null;
  /** Must every page of the BARs be in the report? Else it is told which are not. */
  readonly whole?: boolean;
}

/** A range within its BAR, in pages; null: in none. */
interface Placed {
  readonly range: MmioRange;
  readonly bar: MemoryBar | null;
  readonly from: bigint;
  readonly to: bigint;
}

const pagesOf = (size: bigint) => (size + PAGE - 1n) / PAGE;

function rangeText({ firstPage, pages, rangeId }: MmioRange): string {
  return `range ${rangeId} (page 0x${firstPage.toString(16)}, ${pages} page${pages === 1 ? '' : 's'})`;
}

function place(range: MmioRange, { report, layout, placement }: ReportInput): Placed {
  const pages = BigInt(range.pages);
  const nowhere: Placed = { range, bar: null, from: 0n, to: 0n };
  if (pages === 0n || range.firstPage + pages > ADDRESS_PAGES) return nowhere;
  if (placement.kind === 'addresses') {
    const address = BigInt.asUintN(64, range.firstPage * PAGE - placement.offset);
    const end = address + pages * PAGE;
    const bar = layout.bars.find(({ start, size }) => start <= address && end <= start + pagesOf(size) * PAGE);
    if (bar === undefined || (address - bar.start) % PAGE !== 0n) return nowhere;
    const from = (address - bar.start) / PAGE;
    return { range, bar, from, to: from + pages };
  }
  const bar = layout.bars.find(({ index }) => index === range.rangeId);
  if (bar === undefined) return nowhere;
  const base = report.ranges
    .filter(({ rangeId }) => rangeId === range.rangeId)
    .reduce((lowest, { firstPage }) => (firstPage < lowest ? firstPage : lowest), range.firstPage);
  const from = range.firstPage - base;
  return from + pages <= pagesOf(bar.size) ? { range, bar, from, to: from + pages } : nowhere;
}

/** Adds `tdisp.*` checks. */
export function checkInterfaceReport(list: Checklist, input: ReportInput): void {
  const placed = input.report.ranges.map((range) => place(range, input));
  checkRanges(list, placed, input);
  checkOverlap(list, input.report.ranges);
  checkCoverage(list, placed, input.layout, input.whole === true);
  checkNonTee(list, input.report.ranges);
  checkMsix(list, placed, input);
  checkRegisters(list, input);
  checkFeatures(list, input);
}

function checkRanges(list: Checklist, placed: readonly Placed[], { layout }: ReportInput): void {
  const lost = placed.filter(({ bar }) => bar === null);
  // A report of nothing would fit every function.
  const empty = placed.length === 0 && layout.bars.length > 0;
  list.check('tdisp.ranges', lost.length === 0 && !empty, {
    expected: `within ${layout.bars.map(({ index, size }) => `BAR ${index} (${pagesOf(size)} pages)`).join(', ') || 'no BAR at all'}`,
    found:
      lost.length === 0
        ? empty
          ? 'no range at all'
          : `${placed.length} ranges, each within one`
        : lost.map(({ range }) => rangeText(range)).join(', '),
  });
}

/** In the order of their pages, each ends before the next begins. */
function checkOverlap(list: Checklist, ranges: readonly MmioRange[]): void {
  const filled = ranges.filter(({ pages }) => pages > 0);
  const sorted = filled.sort((a, b) => (a.firstPage < b.firstPage ? -1 : a.firstPage > b.firstPage ? 1 : 0));
  const at = sorted.findIndex((range, i) => {
    const next = sorted[i + 1];
    return next !== undefined && range.firstPage + BigInt(range.pages) > next.firstPage;
  });
  const [first, second] = [sorted[at], sorted[at + 1]];
  list.check('tdisp.overlap', at === -1, {
    expected: 'no page in two ranges',
    found: first === undefined || second === undefined ? 'none' : `${rangeText(first)} and ${rangeText(second)}`,
  });
}

function checkCoverage(list: Checklist, placed: readonly Placed[], layout: FunctionLayout, whole: boolean): void {
  const open = layout.bars.flatMap((bar) => {
    const inside = placed.filter((one) => one.bar === bar).sort((a, b) => (a.from < b.from ? -1 : 1));
    let covered = 0n;
    let reached = 0n;
    for (const { from, to } of inside) {
      const start = from > reached ? from : reached;
      if (to > start) covered += to - start;
      if (to > reached) reached = to;
    }
    const missing = pagesOf(bar.size) - covered;
    return missing > 0n ? [`${missing} of ${pagesOf(bar.size)} pages of BAR ${bar.index}`] : [];
  });
  const detail = {
    expected: 'every page of every memory BAR',
    found: open.length === 0 ? 'every page' : `not ${open.join(', ')}`,
  };
  if (open.length === 0 || whole) list.check('tdisp.coverage', open.length === 0, detail);
  else list.note('tdisp.coverage', detail);
}

/** Devices have such registers for a reason; who drives them has to know which they are. */
function checkNonTee(list: Checklist, ranges: readonly MmioRange[]): void {
  const open = ranges.filter(({ attributes }) => (attributes & RANGE_ATTRIBUTE.nonTee) !== 0);
  const detail = {
    expected: 'no range that the host can access too',
    found: open.length === 0 ? 'none' : open.map(rangeText).join(', '),
  };
  if (open.length === 0) list.check('tdisp.non-tee', true, detail);
  else list.note('tdisp.non-tee', detail);
}

const TABLE_SIZE = 0x7ff;

function checkMsix(list: Checklist, placed: readonly Placed[], { report, layout, lockFlags }: ReportInput): void {
  const { msix } = layout;
  const wrong: string[] = [];
  const locked = lockFlags === null ? report.msixControl !== 0 : (lockFlags & LOCK_FLAG.lockMsix) !== 0;
  if (msix === null || !locked) {
    if (report.msixControl !== 0)
      wrong.push(`MSI-X control 0x${report.msixControl.toString(16)} without a locked table`);
    for (const { range } of placed)
      if ((range.attributes & (RANGE_ATTRIBUTE.msixTable | RANGE_ATTRIBUTE.msixPba)) !== 0)
        wrong.push(`${rangeText(range)} is marked as MSI-X`);
  } else {
    if ((report.msixControl & TABLE_SIZE) !== (msix.control & TABLE_SIZE))
      wrong.push(`${(report.msixControl & TABLE_SIZE) + 1} vectors, the function has ${msix.entries}`);
    const structures = [
      { name: 'MSI-X table', bit: RANGE_ATTRIBUTE.msixTable, place: msix.table, size: msix.entries * 16 },
      { name: 'MSI-X PBA', bit: RANGE_ATTRIBUTE.msixPba, place: msix.pba, size: Math.ceil(msix.entries / 64) * 8 },
    ];
    for (const { name, bit, place: at, size } of structures) {
      const first = BigInt(at.offset) / PAGE;
      const last = (BigInt(at.offset + size) - 1n) / PAGE;
      for (let page = first; page <= last; page++) {
        const holder = placed.find(({ bar, from, to }) => bar?.index === at.bar && from <= page && page < to);
        if (holder === undefined || (holder.range.attributes & bit) === 0)
          wrong.push(`page ${page} of BAR ${at.bar} with the ${name} is not marked`);
      }
      for (const { range, bar, from, to } of placed)
        if ((range.attributes & bit) !== 0 && !(bar?.index === at.bar && from <= last && first < to))
          wrong.push(`${rangeText(range)} is marked as ${name}`);
    }
  }
  list.check('tdisp.msix', wrong.length === 0, {
    expected: msix === null ? 'no MSI-X' : locked ? `${msix.entries} vectors, table and PBA marked` : 'nothing marked',
    found: wrong.length === 0 ? 'as expected' : wrong.slice(0, 8).join('; '),
  });
}

function checkRegisters(list: Checklist, { report, layout }: ReportInput): void {
  const text = (lnr: number, tph: number) => `LNR 0x${lnr.toString(16)}, TPH 0x${tph.toString(16)}`;
  list.check('tdisp.registers', report.lnrControl === layout.lnrControl && report.tphControl === layout.tphControl, {
    expected: text(layout.lnrControl, layout.tphControl),
    found: text(report.lnrControl, report.tphControl),
  });
}

function checkFeatures(list: Checklist, { report, layout, lockFlags }: ReportInput): void {
  const claims = [
    { name: 'DMA with PASID', bit: INTERFACE_INFO.dmaWithPasid, has: layout.pasid },
    { name: 'ATS', bit: INTERFACE_INFO.ats, has: layout.ats },
    { name: 'page requests', bit: INTERFACE_INFO.prs, has: layout.pageRequests },
  ];
  const wrong = claims.filter(({ bit, has }) => (report.info & bit) !== 0 && !has).map(({ name }) => name);
  list.check('tdisp.features', wrong.length === 0, {
    expected: `at most ${
      claims
        .filter(({ has }) => has)
        .map(({ name }) => name)
        .join(', ') || 'none'
    }`,
    found: wrong.length === 0 ? 'as expected' : `${wrong.join(', ')} without the capability`,
  });
  const held = (report.info & INTERFACE_INFO.noUpdateAfterLock) !== 0;
  const asked = lockFlags === null || (lockFlags & LOCK_FLAG.noFirmwareUpdate) !== 0;
  const detail = {
    expected: 'no firmware update while locked',
    found: held
      ? 'as expected'
      : asked
        ? 'updates are possible'
        : 'updates are possible, and the lock did not forbid them',
  };
  list.check('tdisp.no-update', held, detail);
}

/** Parts of the header that the lock holds: not status, cache line size, latency, BIST and the interrupt line. */
const HELD: readonly (readonly [name: string, from: number, to: number])[] = [
  ['vendor and device', 0x00, 0x04],
  ['command', 0x04, 0x06],
  ['revision and class', 0x08, 0x0c],
  ['header type', 0x0e, 0x0f],
  ['base addresses', 0x10, 0x28],
  ['subsystem', 0x2c, 0x30],
  ['expansion ROM', 0x30, 0x34],
  ['capabilities', 0x34, 0x35],
];

/** Adds `tdisp.config`: configuration space before the lock and after it, 64 bytes at least of each. */
export function checkConfigHeld(list: Checklist, before: Uint8Array, after: Uint8Array): void {
  const changed = HELD.filter(([, from, to]) => {
    for (let at = from; at < to; at++) if (before[at] === undefined || before[at] !== after[at]) return true;
    return false;
  }).map(([name]) => name);
  list.check('tdisp.config', changed.length === 0, {
    expected: 'the same header as before',
    found: changed.length === 0 ? 'the same' : `changed: ${changed.join(', ')}`,
  });
}
