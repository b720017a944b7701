/**
 * `platform.attestation`: what the machine's own evidence must state. It is held by whoever verifies that evidence
 * (`airlock verify --policy`): the gate has none, and a machine cannot vouch for itself.
 */
import type { DecisionInput } from '@airlock/core/decision.ts';
import type { Position } from '@airlock/core/result.ts';

export const ATTESTATION_KINDS = ['amd-sev-snp', 'intel-tdx', 'arm-cca', 'ibm-se', 'tpm-2.0'] as const;
export type AttestationKind = (typeof ATTESTATION_KINDS)[number];
export const AMD_PRODUCTS = ['Milan', 'Genoa', 'Turin'] as const;
export type AmdProduct = (typeof AMD_PRODUCTS)[number];
/** Security versions of AMD's firmware, as certificates and reports name them. */
export const TCB_PARTS = ['fmc', 'bootloader', 'tee', 'snp', 'microcode'] as const;
export type TcbPart = (typeof TCB_PARTS)[number];
export type TcbVersions = Readonly<Partial<Record<TcbPart, number>>>;

export interface Distrust {
  readonly product: AmdProduct;
  /** Only machines with a part below this; absent: all of the product. */
  readonly below?: TcbVersions;
  /** Milliseconds since 1970: evidence that is verified for this date or later is refused. */
  readonly from: number;
  readonly reason: string;
}

export interface PlatformAttestation {
  readonly kinds?: readonly AttestationKind[];
  readonly products?: readonly AmdProduct[];
  readonly minimumTcb?: readonly ({ readonly product: AmdProduct } & TcbVersions)[];
  /** Milliseconds since 1970: the least date of Intel's TCB level. */
  readonly minimumTcbDate?: number;
  readonly distrust?: readonly Distrust[];
  /** Forbidden when not said. */
  readonly debug?: 'forbidden' | 'allowed';
  readonly migration?: 'forbidden' | 'allowed';
  /** The highest number that is accepted: 0 has most rights. */
  readonly vmpl?: number;
  /** Launch digests in hex, small letters: any of them. */
  readonly measurements?: readonly string[];
  readonly at: Position;
}

/** What accepted evidence states; null is not stated by this kind, or not known. */
export interface PlatformClaims {
  readonly kind: string;
  readonly product: string | null;
  readonly tcb: TcbVersions | null;
  /** Milliseconds since 1970. */
  readonly tcbDate: number | null;
  readonly debug: boolean | null;
  readonly migration: boolean | null;
  readonly vmpl: number | null;
  /** Hex, small letters. */
  readonly measurement: string | null;
}

/**
 * One input a requirement that concerns evidence of this kind. What is required and not stated does not hold; `asOf` is the
 * date that the evidence is verified for.
 */
export function attestationInputs(wanted: PlatformAttestation, claims: PlatformClaims, asOf: number): DecisionInput[] {
  const inputs: DecisionInput[] = [];
  const add = (name: string, holds: boolean, value: unknown, words: string): void => {
    inputs.push({ field: `platform.attestation.${name}`, value, wanted: words, holds });
  };
  const { kind, product: stated, tcb } = claims;
  if (wanted.kinds !== undefined)
    add('kinds', (wanted.kinds as readonly string[]).includes(kind), kind, wanted.kinds.join(' or '));
  const amd = kind === 'amd-sev-snp';
  if (amd && wanted.products !== undefined) {
    const fits = stated !== null && (wanted.products as readonly string[]).includes(stated);
    add('products', fits, stated ?? 'not stated', wanted.products.join(' or '));
  }
  for (const { product: whose, ...least } of amd ? (wanted.minimumTcb ?? []) : []) {
    if (stated !== null && stated !== whose) continue;
    const short = tcb === null ? ['not stated'] : below(tcb, least);
    add(
      'minimum-tcb',
      short.length === 0,
      short.length === 0 ? textOf(tcb ?? {}) : short.join(', '),
      `${whose}: ${textOf(least)}`,
    );
  }
  if (kind === 'intel-tdx' && wanted.minimumTcbDate !== undefined) {
    const { tcbDate } = claims;
    const fits = tcbDate !== null && tcbDate >= wanted.minimumTcbDate;
    add(
      'minimum-tcb-date',
      fits,
      tcbDate === null ? 'not known' : dayOf(tcbDate),
      `${dayOf(wanted.minimumTcbDate)} or later`,
    );
  }
  for (const one of amd ? (wanted.distrust ?? []) : []) {
    if (asOf < one.from || (stated !== null && stated !== one.product)) continue;
    // A TCB that is not stated may be below.
    const short = one.below === undefined ? [one.product] : tcb === null ? ['not stated'] : below(tcb, one.below);
    const since = `${one.product}${one.below === undefined ? '' : ` below ${textOf(one.below)}`} is distrusted since ${dayOf(one.from)}: ${one.reason}`;
    add('distrust', short.length === 0, short.length === 0 ? textOf(tcb ?? {}) : short.join(', '), since);
  }
  const switches = [
    ['debug', wanted.debug, claims.debug],
    ['migration', wanted.migration, claims.migration],
  ] as const;
  for (const [name, permitted, on] of switches) {
    if (permitted !== 'allowed' && (amd || kind === 'intel-tdx')) add(name, on === false, on ?? 'not stated', 'off');
  }
  if (amd && wanted.vmpl !== undefined) {
    add(
      'vmpl',
      claims.vmpl !== null && claims.vmpl <= wanted.vmpl,
      claims.vmpl ?? 'not stated',
      `at most ${wanted.vmpl}`,
    );
  }
  if (wanted.measurements !== undefined && kind !== 'tpm-2.0') {
    const fits = claims.measurement !== null && wanted.measurements.includes(claims.measurement);
    add('measurements', fits, claims.measurement ?? 'not stated', `one of ${wanted.measurements.length}`);
  }
  return inputs;
}

/** Parts that are below, in words; one that is not stated counts as 0. */
function below(tcb: TcbVersions, floor: TcbVersions): string[] {
  return TCB_PARTS.flatMap((part) => {
    const [have, want] = [tcb[part] ?? 0, floor[part]];
    return want !== undefined && have < want ? [`${part} ${have} < ${want}`] : [];
  });
}

function textOf(tcb: TcbVersions): string {
  return TCB_PARTS.flatMap((part) => (tcb[part] === undefined ? [] : [`${part} ${tcb[part]}`])).join(', ');
}

function dayOf(moment: number): string {
  return new Date(moment).toISOString().slice(0, 10);
}
