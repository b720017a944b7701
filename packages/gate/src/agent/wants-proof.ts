/** What a policy has to do with proofs of who a device is. Pure. */
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { type IdentityTier, levelRank, tierRank } from '@airlock/core/level.ts';
import type { CompiledPolicy } from '@airlock/policy/compile.ts';
import { NO } from '@airlock/policy/facts.ts';
import type { Rule } from '@airlock/policy/policy.ts';
import { verdictFor } from '@airlock/policy/verdict.ts';

/** Could a rule for this device turn on a proof? One more is asked rather than one less. */
export function wantsProof(policy: CompiledPolicy, device: Device): boolean {
  return policy.rulesFor(device).some((rule) => turnsOnProof(rule.rule) && rule.match(device, 'attested') !== NO);
}

function turnsOnProof({ require, match }: Rule): boolean {
  const high = (tier: IdentityTier): boolean => tierRank(tier) >= tierRank('attested');
  if (require?.identity !== undefined && high(require.identity)) return true;
  if (require?.roots !== undefined || require?.measurements !== undefined || require?.spdm !== undefined) return true;
  return match.identity?.some(({ tier, orAbove }) => orAbove || high(tier)) === true;
}

/** Does it get less with the second claim than with the first: a lower level, or what a rule says `otherwise`? */
export function givesLess(policy: CompiledPolicy, device: Device, before: Claim, after: Claim): boolean {
  const [then, now] = [before, after].map((claim) => verdictFor(policy, device, claim));
  if (then === undefined || now === undefined) return true;
  return levelRank(now.level) < levelRank(then.level) || (now.met === false && then.met !== false);
}
