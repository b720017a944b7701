/** A policy's `platform.attestation` against what evidence states, as checks. */
import {
  ATTESTATION_KINDS,
  type AttestationKind,
  attestationInputs,
  type PlatformAttestation,
  type PlatformClaims,
  TCB_PARTS,
} from '@airlock/policy/attestation.ts';
import { type Appraisal, type Claim, createChecklist, verdictOf } from './check.ts';
import { readTime } from './time.ts';

export function isPlatformKind(kind: string): kind is AttestationKind {
  return ATTESTATION_KINDS.some((known) => known === kind);
}

/** The same appraisal with `policy.platform` for every requirement that concerns its kind. */
export function checkPlatform(
  appraisal: Appraisal,
  wanted: PlatformAttestation,
  asOf: number,
  allowed?: ReadonlySet<string>,
): Appraisal {
  if (!isPlatformKind(appraisal.kind)) return appraisal;
  const list = createChecklist(allowed);
  for (const { field, value, wanted: words, holds } of attestationInputs(wanted, claimsOf(appraisal), asOf)) {
    list.check('policy.platform', holds === true, {
      subject: field.replace('platform.attestation.', ''),
      expected: words ?? '',
      found: String(value),
    });
  }
  const checks = [...appraisal.checks, ...list.checks];
  const { kind, title } = appraisal;
  return {
    ...{ kind, title, checks, verdict: verdictOf(checks) },
    get claims() {
      return appraisal.claims;
    },
  };
}

/** Ids of checks that the policy waives: a guest under debug, one that may move. */
export function waivedBy(wanted: PlatformAttestation): string[] {
  return [
    ...(wanted.debug === 'allowed' ? ['snp.policy.debug', 'tdx.debug'] : []),
    ...(wanted.migration === 'allowed' ? ['snp.policy.migration'] : []),
  ];
}

function claimsOf({ kind, claims }: Appraisal): PlatformClaims {
  const policy = recordOf(claims['policy']);
  const attributes = recordOf(claims['attributes']);
  const tcb = recordOf(claims['tcb']);
  const reported = recordOf(tcb?.['reported']);
  const amd = kind === 'amd-sev-snp';
  const product = claims['product'];
  const date = tcb?.['date'];
  const vmpl = claims['vmpl'];
  return {
    kind,
    product: typeof product === 'string' ? product : null,
    tcb: amd && reported !== null ? versionsOf(reported) : null,
    tcbDate: kind === 'intel-tdx' && typeof date === 'string' ? (readTime(date) ?? null) : null,
    debug: flagOf(amd ? policy?.['debug-allowed'] : attributes?.['debug']),
    migration: flagOf(amd ? policy?.['migration-agent-allowed'] : attributes?.['migratable']),
    vmpl: typeof vmpl === 'number' ? vmpl : null,
    measurement: textOf(claims['measurement']) ?? textOf(claims['mrtd']),
  };
}

function recordOf(claim: Claim | undefined): Readonly<Record<string, Claim>> | null {
  return typeof claim === 'object' && claim !== null && !Array.isArray(claim)
    ? (claim as Readonly<Record<string, Claim>>)
    : null;
}

function versionsOf(claim: Readonly<Record<string, Claim>>): PlatformClaims['tcb'] {
  return Object.fromEntries(
    TCB_PARTS.flatMap((part) => {
      const value = claim[part];
      return typeof value === 'number' ? [[part, value]] : [];
    }),
  );
}

function flagOf(claim: Claim | undefined): boolean | null {
  return typeof claim === 'boolean' ? claim : null;
}

function textOf(claim: Claim | undefined): string | null {
  return typeof claim === 'string' ? claim : null;
}
