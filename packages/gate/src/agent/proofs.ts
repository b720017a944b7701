/** What a device has proven of who it is, and what asking it once more makes of that. Pure. */
import type { Claim } from '@airlock/core/claim.ts';
import { tierRank } from '@airlock/core/level.ts';
import type { Violation } from '@airlock/policy/policy.ts';

/**
 * How asking a device went. `answered`: what it said was judged, and the claim is the verdict; `silent`: no whole answer
 * came in time; `unasked`: this machine could not ask. The claim of the latter two says in `because` what was wrong.
 */
export const WAYS = ['answered', 'silent', 'unasked'] as const;
export type Way = (typeof WAYS)[number];

export interface Asked {
  readonly way: Way;
  readonly claim: Claim;
}

/** One coming of a device that has proven who it is. */
export interface Proof {
  readonly device: string;
  readonly incarnation: string;
  readonly claim: Claim;
}

/** What is known of one coming of a device that was asked. Times are in milliseconds that only grow. */
export interface Known {
  readonly incarnation: string;
  /** null: it was asked, and proves nothing. */
  readonly claim: Claim | null;
  readonly askedAt: number;
  /** A proof that is not renewed until then is none any more. */
  readonly expires: number;
  /** How often in a row it did not answer, while what was known before still counts. */
  readonly missed: number;
  /** An agent before this one was shown the proof: it keeps what is in use in use until the device has answered anew. */
  readonly inherited: boolean;
}

export interface Breach {
  readonly violation: Extract<Violation, 'attestation-failure' | 'device-timeout'>;
  readonly detail: string;
}

/** A device that does not answer is asked so often before that counts: one late answer is a busy machine. */
export const PATIENCE = 2;

/** What `asked` makes of what was known before. `breach`: it had proven who it is, and does not any more. */
export function learn(
  before: Known | undefined,
  asked: Asked,
  about: {
    readonly incarnation: string;
    readonly now: number;
    readonly expires: number;
    /** Does the policy give less for the second claim than for the first? */
    readonly givesLess: (before: Claim, after: Claim) => boolean;
  },
): { readonly known: Known; readonly breach?: Breach } {
  const { incarnation, now, expires } = about;
  const had = before?.claim ?? null;
  const next = { incarnation, askedAt: now, expires, missed: 0, inherited: false };
  const proven = asked.way === 'answered' && tierRank(asked.claim.tier) >= tierRank('attested') ? asked.claim : null;
  if (proven !== null) {
    const known = { ...next, claim: proven };
    if (had === null || !about.givesLess(had, proven)) return { known };
    const detail = `it proved more before: ${losses(had, proven)}; ${proven.because}`;
    return { known, breach: { violation: 'attestation-failure', detail } };
  }
  const missed = (before?.missed ?? 0) + 1;
  if (asked.way !== 'answered' && missed < PATIENCE) {
    return { known: { ...(before ?? { ...next, claim: null }), askedAt: now, missed } };
  }
  if (had === null) return { known: { ...next, claim: null } };
  const known = { ...next, claim: null };
  const { because } = asked.claim;
  switch (asked.way) {
    case 'answered':
      return {
        known,
        breach: { violation: 'attestation-failure', detail: `it does not prove any more who it is: ${because}` },
      };
    case 'silent':
      return {
        known,
        breach: { violation: 'device-timeout', detail: `it does not say any more who it is: ${because}` },
      };
    case 'unasked':
      // Not its fault; but a proof that cannot be renewed is none.
      return { known };
  }
}

function losses(before: Claim, after: Claim): string {
  const missing = (a: readonly string[] = [], b: readonly string[] = []) => a.filter((one) => !b.includes(one));
  const [roots, sets] = [missing(before.roots, after.roots), missing(before.measurements, after.measurements)];
  const lost = [
    ...(before.tier === after.tier ? [] : [`it was ${before.tier}, is ${after.tier}`]),
    ...(roots.length === 0 ? [] : [`${roots.join(', ')} does not vouch for it now`]),
    ...(sets.length === 0 ? [] : [`its measurements are not as in ${sets.join(', ')} now`]),
    ...(before.spdm === after.spdm ? [] : [`it spoke SPDM ${before.spdm ?? '?'}, speaks ${after.spdm ?? '?'} now`]),
  ];
  return lost.join(', ');
}
