/** Is what was recorded of a TDISP interface what it should be, and does its report fit the function? */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { type Appraisal, type Checklist, createChecklist, verdictOf } from '@airlock/evidence/check.ts';
import type { BoundInterface } from '@airlock/evidence/machine/binding.ts';
import { checkConfigHeld, checkInterfaceReport, type FunctionLayout } from '../tdisp/check-report.ts';
import { functionText } from '../tdisp/interface.ts';
import type { InterfaceRecord } from '../tdisp/record.ts';
import { decodeInterfaceReport, type InterfaceReport } from '../tdisp/report.ts';

export interface AppraiseInterface {
  /** SHA-384 of the chain of the evidence beside it. */
  readonly chainDigest: Uint8Array;
  /** The function's address as whoever judges knows it, `0000:01:00.0`; null where nobody knows. */
  readonly function: string | null;
  /** Out of the facts of the record; null where there are none. */
  readonly layout: FunctionLayout | null;
  /** What a machine shows of it beside the record. */
  readonly shown?: BoundInterface;
  /**
   * Is somebody to be let in because of it? Then the report must be compared, and hold every page of the BARs: registers
   * outside of it are the host's, which could have the device reach any memory. Else what is missing is told.
   */
  readonly compare: boolean;
  readonly allowed?: ReadonlySet<string>;
}

/** Of kind `tdisp-interface`; that it is accepted says nothing about who locked it, and for whom. */
export function appraiseInterface(record: InterfaceRecord, given: AppraiseInterface): Appraisal {
  const list = createChecklist(given.allowed);
  const { by, tsm, found, reached, left, lock, problem } = record;
  list.check('tdisp.answer', problem === null, {
    expected: 'an answer to every request',
    found:
      problem === null ? `all of them${by === 'tsm' ? `, to ${tsm}` : ''}` : `${problem.message} [${problem.code}]`,
  });
  const sameChain = record.chainDigest !== null && sameBytes(record.chainDigest, given.chainDigest);
  list.check('tdisp.session', sameChain, {
    expected: `the chain ${hex(given.chainDigest).slice(0, 16)}…`,
    found:
      record.chainDigest === null ? 'of an unknown key' : sameChain ? 'the same' : hex(record.chainDigest).slice(0, 16),
  });
  if (given.shown !== undefined) checkShown(list, record, given.shown);
  checkFunction(list, record, given);
  checkStates(list, record);
  if (lock !== null && lock.nonces.length > 1) checkNonces(list, lock.nonces);
  if (by === 'requester' && lock !== null)
    list.check('tdisp.stopped', left === 'CONFIG_UNLOCKED', {
      expected: 'CONFIG_UNLOCKED at the end',
      found: left ?? 'not known: it did not answer any more',
    });
  const report = checkReport(list, record);
  if (report !== null) compare(list, record, report, given);
  return {
    kind: 'tdisp-interface',
    title:
      `TDISP interface ${record.functionId === null ? (record.facts?.function ?? '') : functionText(record.functionId)}, ${reached ?? 'state not known'}`.replace(
        '  ',
        ' ',
      ),
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: claimsOf(record, report, { found, reached, left }),
  };
}

function checkShown(list: Checklist, { left, lock, report }: InterfaceRecord, shown: BoundInterface): void {
  const nonce = lock?.nonces.at(-1) ?? null;
  const wrong = [
    ...(shown.state === left ? [] : [`the state: ${shown.state}, recorded is ${left ?? 'none'}`]),
    ...(sameOrNone(shown.lockNonce, nonce) ? [] : ['the lock nonce']),
    ...(sameOrNone(shown.report, report) ? [] : ['the report']),
  ];
  list.check('tdisp.record', wrong.length === 0, {
    expected: 'the recorded state, nonce and report',
    found: wrong.length === 0 ? 'the same' : `another one: ${wrong.join(', ')}`,
  });
}

function sameOrNone(a: Uint8Array | null, b: Uint8Array | null): boolean {
  return a === null || b === null ? a === b : sameBytes(a, b);
}

function checkFunction(list: Checklist, { facts }: InterfaceRecord, given: AppraiseInterface): void {
  const expected = given.function;
  const recorded = facts?.function ?? null;
  const detail = { expected: expected ?? 'address of the function', found: recorded ?? 'no address was recorded' };
  if (expected === null || (facts === null && !given.compare)) {
    list.unchecked('tdisp.function', detail);
    return;
  }
  list.check('tdisp.function', recorded === expected, detail);
}

function checkStates(list: Checklist, { by, lock, found, reached }: InterfaceRecord): void {
  const shown = found ?? 'not known';
  if (by === 'requester' && lock === null) {
    const detail = { expected: 'a state that says what it is used for', found: shown };
    if (found === 'ERROR') list.check('tdisp.state', false, { ...detail, expected: 'no violation of the lock' });
    else list.note('tdisp.state', detail);
    return;
  }
  const held = reached === 'CONFIG_LOCKED' || reached === 'RUN';
  list.check('tdisp.state', held, {
    expected: 'CONFIG_LOCKED or RUN',
    found: reached === null ? 'not known' : `${found === null ? '' : `${found}, then `}${reached}`,
  });
}

function checkNonces(list: Checklist, nonces: readonly Uint8Array[]): void {
  const same = nonces.some((one, i) => nonces.slice(i + 1).some((other) => sameBytes(one, other)));
  const empty = nonces.some((one) => one.every((byte) => byte === 0));
  list.check('tdisp.nonce', !same && !empty, {
    expected: `${nonces.length} nonces for ${nonces.length} locks`,
    found: same ? 'the same nonce again' : empty ? 'zeros' : 'as many',
  });
}

/** Null where there is none, or none that can be read. */
function checkReport(list: Checklist, { report, reached, problem }: InterfaceRecord): InterfaceReport | null {
  if (report === null) {
    const locked = reached === 'CONFIG_LOCKED' || reached === 'RUN';
    const detail = { expected: 'the report of the interface', found: locked ? 'none' : 'none: it is not locked' };
    if (locked && problem === null) list.check('tdisp.report', false, detail);
    else list.note('tdisp.report', detail);
    return null;
  }
  const read = decodeInterfaceReport(report);
  list.check('tdisp.report', read.ok, {
    expected: 'a report in the form of the standard',
    found: read.ok ? `${report.length} bytes, ${read.value.ranges.length} ranges` : read.error.message,
  });
  return read.ok ? read.value : null;
}

function compare(
  list: Checklist,
  { facts, lock }: InterfaceRecord,
  report: InterfaceReport,
  { layout, compare: must }: AppraiseInterface,
): void {
  if (layout === null || facts === null) {
    const detail = {
      expected: 'description of the function',
      found: 'nothing that the report could be compared with',
      hint: 'of a device behind a socket --facts DIR says what the function looks like',
    };
    if (must) list.check('tdisp.ranges', false, detail);
    else list.unchecked('tdisp.ranges', detail);
    return;
  }
  // A hypervisor gives the BARs of a function other addresses than those that the device decodes.
  const offset = lock?.offset ?? null;
  const placement =
    facts.virtual || offset === null ? ({ kind: 'by-bar' } as const) : ({ kind: 'addresses', offset } as const);
  checkInterfaceReport(list, { report, layout, placement, lockFlags: lock?.flags ?? null, whole: must });
  checkConfigHeld(list, facts.before, facts.config);
}

function claimsOf(
  { by, tsm, functionId, facts }: InterfaceRecord,
  report: InterfaceReport | null,
  states: Pick<InterfaceRecord, 'found' | 'reached' | 'left'>,
): Appraisal['claims'] {
  return {
    'recorded-by': by === 'tsm' ? `the kernel’s TSM ${tsm}` : 'a session of whoever saved this',
    interface: functionId === null ? null : functionText(functionId),
    states: { ...states },
    function: facts?.function ?? null,
    bars:
      facts?.bars.map(
        ({ index, start, size }) => `BAR ${index} at 0x${start.toString(16)}, 0x${size.toString(16)} bytes`,
      ) ?? null,
    ranges:
      report?.ranges.map(
        ({ firstPage, pages, attributes, rangeId }) =>
          `range ${rangeId}: page 0x${firstPage.toString(16)}, ${pages} pages, attributes 0x${attributes.toString(16)}`,
      ) ?? null,
  };
}
