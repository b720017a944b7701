/**
 * Attestation results for other software: EAR claims (draft-ietf-rats-ear) with AR4SI trustworthiness vectors
 * (draft-ietf-rats-ar4si). What was not checked is absent from a vector, never zero or false.
 */

import { toBase64Url } from './bytes.ts';
import type { CheckId } from './catalogue.ts';
import type { Appraisal, Check, Claim, Report } from './check.ts';

export const EAR_PROFILE = 'tag:github.com,2023:veraison/ear';
/** Ours, for what EAR has no claims for. */
const PRIVATE = 'airlock';

export const TRUST_CLAIMS = [
  'instance-identity',
  'configuration',
  'executables',
  'hardware',
  'runtime-opaque',
] as const;
export type TrustClaim = (typeof TRUST_CLAIMS)[number];
export type EarStatus = 'none' | 'affirming' | 'warning' | 'contraindicated';

/** AR4SI §2.3: 2 to 31 affirm, 32 to 95 warn, 96 to 127 contraindicate. */
const AFFIRMING = 2;
const APPROVED_BOOT = 3;
const WARNING = 32;
const CONTRAINDICATED = 96;
const CRYPTO_FAILED = 99;

export interface Submodule {
  readonly 'ear.status': EarStatus;
  readonly 'ear.trustworthiness-vector': Readonly<Partial<Record<TrustClaim, number>>>;
  readonly 'ear.appraisal-policy-id': string;
  readonly [PRIVATE]: {
    readonly kind: string;
    readonly title: string;
    /** Those that did not pass: id, status, expected, found. */
    readonly checks: readonly Pick<Check, 'id' | 'status' | 'subject' | 'expected' | 'found'>[];
    /** Only of evidence that is accepted. */
    readonly claims?: { readonly [name: string]: Claim };
  };
}

export interface EarClaims {
  readonly eat_profile: string;
  /** Seconds since 1970: when the result was made. */
  readonly iat: number;
  readonly 'ear.verifier-id': { readonly developer: string; readonly build: string };
  /** The verifier’s nonce, base64url; there when one was checked. */
  readonly eat_nonce?: string;
  readonly submods: Readonly<Record<string, Submodule>>;
  readonly [PRIVATE]: { readonly verdict: Report['verdict']; readonly asOf: string };
}

export interface EarOptions {
  /** Milliseconds since 1970. */
  readonly issuedAt: number;
  readonly build: string;
  readonly nonce?: Uint8Array;
  /** Names the expectations that the evidence was held against. */
  readonly policy?: string;
}

/** Plain JSON: sign it with `signEar`. Submodules are named by kind and number. */
export function earClaims(report: Report, { issuedAt, build, nonce, policy }: EarOptions): EarClaims {
  const submods: Record<string, Submodule> = {};
  const counts = new Map<string, number>();
  for (const appraisal of report.appraisals) {
    const count = counts.get(appraisal.kind) ?? 0;
    counts.set(appraisal.kind, count + 1);
    submods[count === 0 ? appraisal.kind : `${appraisal.kind}-${count}`] = submoduleOf(appraisal, policy ?? 'airlock');
  }
  // Who reads the statuses alone must not take a report for good that something unreadable rejects.
  const told = Object.values(submods).some((one) => one['ear.status'] === 'contraindicated');
  if (report.verdict === 'rejected' && !told) submods['unread'] = unreadSubmodule(report, policy ?? 'airlock');
  return {
    eat_profile: EAR_PROFILE,
    iat: Math.floor(issuedAt / 1000),
    'ear.verifier-id': { developer: 'Airlock', build },
    ...(nonce === undefined ? {} : { eat_nonce: toBase64Url(nonce) }),
    submods,
    [PRIVATE]: { verdict: report.verdict, asOf: report.asOf },
  };
}

function unreadSubmodule({ problems }: Report, policy: string): Submodule {
  return {
    'ear.status': 'contraindicated',
    'ear.trustworthiness-vector': {},
    'ear.appraisal-policy-id': policy,
    [PRIVATE]: {
      kind: 'unread',
      title: problems.map(({ file, problem }) => `${file}: ${problem.code}`).join(', '),
      checks: [],
    },
  };
}

function submoduleOf(appraisal: Appraisal, policy: string): Submodule {
  const vector = vectorOf(appraisal);
  const good = appraisal.verdict === 'accepted';
  const open = appraisal.checks.filter(({ status }) => status !== 'passed');
  const worst = Math.max(0, ...Object.values(vector));
  const tier: EarStatus =
    worst >= CONTRAINDICATED ? 'contraindicated' : worst >= WARNING ? 'warning' : worst > 0 ? 'affirming' : 'none';
  return {
    // Rejected evidence never passes for less, whatever the vector says.
    'ear.status': good ? tier : 'contraindicated',
    'ear.trustworthiness-vector': vector,
    'ear.appraisal-policy-id': policy,
    [PRIVATE]: {
      kind: appraisal.kind,
      title: appraisal.title,
      checks: open.map(({ id, status, subject, expected, found }) => ({
        ...{ id, status, expected, found },
        ...(subject === undefined ? {} : { subject }),
      })),
      ...(good ? { claims: appraisal.claims } : {}),
    },
  };
}

/** What a failed check says of; those without a line are of the evidence's own soundness. */
const OF: readonly { readonly claim: TrustClaim; readonly ids: RegExp }[] = [
  {
    claim: 'executables',
    ids: /^(launch\.|nvidia\.(reference|rim|measurement|fwid)|measurement\.|reference\.|tdx\.event-log|tpm\.(event-log|pcrs))/,
  },
  {
    claim: 'configuration',
    ids: /^(snp\.(policy|vmpl|bits)|tdx\.(debug|attributes)|cca\.lifecycle|se\.(?!host-key)|tdisp\.)/,
  },
  { claim: 'hardware', ids: /^(snp\.tcb|tdx\.tcb|tdx\.module|tdx\.qe-identity|tdx\.collateral|se\.host-key)/ },
];
const DEBUG: readonly CheckId[] = ['snp.policy.debug', 'tdx.debug'];
const LAUNCHED: readonly CheckId[] = ['launch.measurement', 'nvidia.measurement'];

/** AR4SI claims of one appraisal. */
export function vectorOf({ kind, checks }: Appraisal): Partial<Record<TrustClaim, number>> {
  const vector: Partial<Record<TrustClaim, number>> = {};
  const raise = (claim: TrustClaim, value: number): void => {
    vector[claim] = Math.max(vector[claim] ?? 0, value);
  };
  for (const { id, status } of checks) {
    const claim = OF.find(({ ids }) => ids.test(id))?.claim;
    if (status === 'failed' && claim === undefined) {
      raise('instance-identity', CRYPTO_FAILED);
      raise('hardware', CRYPTO_FAILED);
    } else if (status === 'failed' && claim !== undefined) raise(claim, CONTRAINDICATED);
    else if (status === 'allowed' && claim !== undefined) raise(claim, WARNING);
    if (DEBUG.includes(id) && status !== 'unchecked') {
      raise('runtime-opaque', status === 'passed' ? AFFIRMING : CONTRAINDICATED);
    }
    if (LAUNCHED.includes(id) && status === 'passed') raise('executables', APPROVED_BOOT);
    if (claim !== undefined && claim !== 'executables' && status === 'passed') raise(claim, AFFIRMING);
  }
  // An interface’s record says how a device is set up, and not who it is.
  const sound = kind !== 'tdisp-interface' && checks.some(({ status }) => status === 'passed');
  if (sound && vector['instance-identity'] === undefined) vector['instance-identity'] = AFFIRMING;
  if (sound && vector.hardware === undefined && kind !== 'tpm-2.0') vector.hardware = AFFIRMING;
  // A secured CCA platform debugs no realm; the others have a check of their own above.
  if (checks.some(({ id, status }) => id === 'cca.lifecycle' && status === 'passed'))
    raise('runtime-opaque', AFFIRMING);
  return vector;
}
