/** What one value of evidence is expected to be, and whether it is. */
import { fromHex } from './bytes.ts';
import type { Appraisal, Claim } from './check.ts';
import type { BootEvent } from './tpm/boot-events.ts';

export const REFERENCE_KINDS = ['amd-sev-snp', 'intel-tdx', 'arm-cca', 'tpm-2.0', 'ibm-se'] as const;
export type ReferenceKind = (typeof REFERENCE_KINDS)[number];

/** Any of a field's is right. Bytes are in hex. */
export type Expected =
  | { readonly is: 'bytes'; readonly value: string; readonly mask: string | null }
  | { readonly is: 'number'; readonly value: number; readonly least: boolean }
  /** Eight bytes, each a part's number: at least means each of them. */
  | { readonly is: 'tcb'; readonly value: string; readonly least: boolean }
  | { readonly is: 'text'; readonly value: string }
  | { readonly is: 'bit'; readonly value: boolean };

/** A part of a platform's firmware; what is null is not asked for. */
export interface ExpectedComponent {
  readonly type: string | null;
  readonly version: string | null;
  readonly signer: string | null;
  /** Any of these, in hex. */
  readonly measurements: readonly string[];
}

export interface ReferenceSet {
  /** For people: `guest 1.2`. */
  readonly name: string;
  readonly kind: ReferenceKind;
  /**
   * Of evidence that speaks of several things (a CCA platform and its realm) the one that this set is about: evidence must
   * have all values of one set for each of them.
   */
  readonly part: string;
  readonly fields: ReadonlyMap<string, readonly Expected[]>;
  /** Of each of these the evidence must have one, all of it. */
  readonly choices?: readonly (readonly ReadonlyMap<string, readonly Expected[]>[])[];
  /** What the evidence must state for the set to be about it at all, in hex: an implementation, an instance. */
  readonly conditions?: ReadonlyMap<string, string>;
  /** Every component that the evidence lists must be one of these. */
  readonly components?: readonly ExpectedComponent[];
  /** Values that the set asks for and nothing here can compare: it is then right for nothing. */
  readonly open?: readonly string[];
  /** Of a PCR's value (`pcr9`) the events that make it: they say what differs, and decide nothing. */
  readonly events?: ReadonlyMap<string, readonly BootEvent[]>;
}

export function bytesExpected(value: string, mask: string | null = null): Expected {
  return { is: 'bytes', value, mask };
}

/** `ab12…`, `ab12… under mask ff00…`, `at least 3`. */
export function expectedText(expected: Expected): string {
  switch (expected.is) {
    case 'bytes':
      return expected.mask === null ? expected.value : `${expected.value} under mask ${expected.mask}`;
    case 'number':
    case 'tcb':
      return expected.least ? `at least ${expected.value}` : String(expected.value);
    case 'bit':
      return expected.value ? 'set' : 'clear';
    case 'text':
      return expected.value;
  }
}

export function isAsExpected(expected: Expected, found: Claim): boolean {
  switch (expected.is) {
    case 'number':
      return typeof found === 'number' && (expected.least ? found >= expected.value : found === expected.value);
    case 'bit':
      return found === expected.value;
    case 'text':
      return found === expected.value;
    case 'tcb':
      return typeof found === 'string' && isTcb(found, expected.value, expected.least);
    case 'bytes':
      return typeof found === 'string' && isMasked(found, expected.value, expected.mask);
  }
}

/** Part by part: a higher number of one does not make up for a lower one of another. */
function isTcb(found: string, wanted: string, least: boolean): boolean {
  const [own, asked] = [fromHex(found), fromHex(wanted)];
  if (own === undefined || asked === undefined || own.length !== 8 || asked.length !== 8) return false;
  return own.every((part, i) => (least ? part >= (asked[i] ?? 256) : part === asked[i]));
}

function isMasked(found: string, wanted: string, mask: string | null): boolean {
  if (mask === null) return found === wanted;
  const [own, asked, bits] = [fromHex(found), fromHex(wanted), fromHex(mask)];
  if (own === undefined || asked === undefined || bits === undefined) return false;
  if (own.length !== asked.length || bits.length !== asked.length) return false;
  return own.every((byte, i) => ((byte ^ (asked[i] ?? 0)) & (bits[i] ?? 0xff)) === 0);
}

const NUMBERED = /^(rtmr|rem|pcr)(\d+)$/;
const LISTS: Readonly<Record<string, string>> = { rtmr: 'rtmr', rem: 'extensible-measurements', pcr: 'pcrs' };
/** Fields that are a part of a claim: the way to it. */
const WAYS: ReadonlyMap<string, readonly string[]> = new Map([
  ['tcb-reported', ['tcb-bytes', 'reported']],
  ['tcb-current', ['tcb-bytes', 'current']],
  ['tcb-committed', ['tcb-bytes', 'committed']],
  ['tcb-launch', ['tcb-bytes', 'launch']],
  ['firmware-current', ['firmware', 'current']],
  ['firmware-committed', ['firmware', 'committed']],
  ['minimum-abi', ['policy', 'minimum-abi']],
]);
const BIT = /^(policy|platform)-bit-(\d+)$/;

/** A claim by the name that sets use; null where the evidence does not state it. */
export function stated(claims: Appraisal['claims'], field: string): Claim {
  const numbered = NUMBERED.exec(field);
  const bit = BIT.exec(field);
  if (bit !== null) {
    const raw = within(claims, [bit[1] ?? '', 'raw']);
    return typeof raw === 'string' && /^0x[0-9a-f]+$/.test(raw)
      ? ((BigInt(raw) >> BigInt(bit[2] ?? 0)) & 1n) === 1n
      : null;
  }
  if (numbered === null) return within(claims, WAYS.get(field) ?? [field]);
  const [, name = '', number = ''] = numbered;
  const list = claims[LISTS[name] ?? ''];
  if (Array.isArray(list)) return (list as readonly Claim[])[Number(number)] ?? null;
  return within(claims, [LISTS[name] ?? '', number]);
}

function within(claims: Appraisal['claims'], way: readonly string[]): Claim {
  let found: Claim | undefined = claims;
  for (const name of way) {
    const map: Readonly<Record<string, Claim>> | null =
      typeof found === 'object' && found !== null && !Array.isArray(found)
        ? (found as Readonly<Record<string, Claim>>)
        : null;
    found = map !== null && Object.hasOwn(map, name) ? map[name] : undefined;
  }
  return found ?? null;
}
