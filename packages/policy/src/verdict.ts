/**
 * The answer of a policy for one device, without explanations: the hot path. docs/policy.md, "How a device is decided",
 * says in words what this file does.
 */
import type { Claim } from '@airlock/core/claim.ts';
import type { ReasonCode } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import {
  type IdentityTier,
  isConnected,
  LEVEL_CEILING,
  levelRank,
  lowerLevel,
  type TrustLevel,
  tierRank,
} from '@airlock/core/level.ts';
import { LINUX_ALWAYS_ACCEPTS } from '@airlock/core/virtio.ts';
import type { CompiledPolicy, CompiledRule } from './compile.ts';
import { AFTER_BIND, isVirtio, NEVER_KNOWN, NO, tierOf, YES } from './facts.ts';
import type { PlatformForbid, Rule } from './policy.ts';

export type Phase = 'before-bind' | 'after-bind';

export interface Verdict {
  readonly level: TrustLevel;
  readonly rule: CompiledRule | null;
  readonly reason: ReasonCode;
  readonly tier: IdentityTier;
  /** Facts that binding shows and that could still change this; then the level is provisional, at most `limited`. */
  readonly pending: readonly string[];
  /** For `bus-forbidden`. */
  readonly forbid?: PlatformForbid;
  /** For `feature-forbidden` and `feature-missing`. */
  readonly feature?: string;
  /** For `tier-ceiling`: the level that the policy says. */
  readonly wanted?: TrustLevel;
  /** False where the rule's `require` does not hold. */
  readonly met?: false;
}

const NOTHING: readonly string[] = [];
const NEGOTIATED: readonly string[] = ['features.negotiated'];
const UNMET = { met: false } as const;
const alwaysAccepted = new Set(LINUX_ALWAYS_ACCEPTS);

/** Total and pure: an answer for every device and every claim. The platform's requirements are `decide`'s to check. */
export function verdictFor(
  policy: CompiledPolicy,
  device: Device,
  claim?: Claim,
  phase: Phase = 'before-bind',
): Verdict {
  const tier = tierOf(device, claim);
  for (const { name, test } of policy.forbids) {
    if (test(device)) {
      return { level: 'disconnected', rule: null, reason: 'bus-forbidden', tier, pending: NOTHING, forbid: name };
    }
  }
  const before = phase === 'before-bind';
  /** Facts that could still make a higher rule disconnect the device. */
  let doubts: string[] | undefined;
  for (const rule of policy.rules) {
    const answer = rule.match(device, tier);
    if (answer === NO) continue;
    if (answer === YES) {
      const verdict = judge(rule, device, tier, claim, before);
      return doubts === undefined ? verdict : doubted(verdict, doubts);
    }
    const verdict = judge(rule, device, tier, claim, before);
    if (isConnected(verdict.level)) {
      // Unknown facts never connect: look first where looking helps, else the rule is not met.
      if (!before || (answer & NEVER_KNOWN) !== 0) continue;
      return doubted(verdict, [...(doubts ?? NOTHING), ...unknownFields(rule, device, tier)]);
    }
    // A rule that disconnects is not skipped for what is unknown.
    if (!before || (answer & AFTER_BIND) === 0) {
      const unknown: Verdict = { ...verdict, reason: 'fact-unknown' };
      return unknown;
    }
    doubts = [...(doubts ?? NOTHING), ...unknownFields(rule, device, tier)];
  }
  const verdict = byDefault(policy, tier);
  return doubts === undefined ? verdict : doubted(verdict, doubts);
}

/** Looking at a device needs no more than `limited`. What is disconnected anyway has nothing left to wait for. */
function doubted(verdict: Verdict, doubts: readonly string[]): Verdict {
  if (!isConnected(verdict.level)) return verdict;
  const pending = [...new Set([...doubts, ...verdict.pending])];
  return { ...verdict, level: lowerLevel(verdict.level, 'limited'), pending };
}

function unknownFields(rule: CompiledRule, device: Device, tier: IdentityTier): string[] {
  // An offered feature shows itself by being negotiated.
  return rule.conditions
    .filter((condition) => condition.test(device, tier) === AFTER_BIND)
    .map((condition) => (condition.field === 'features.offered' ? 'features.negotiated' : condition.field));
}

function byDefault(policy: CompiledPolicy, tier: IdentityTier): Verdict {
  const wanted = policy.policy.default;
  const level = lowerLevel(wanted, LEVEL_CEILING[tier]);
  if (level === wanted) return { level, rule: null, reason: 'default', tier, pending: NOTHING };
  return { level, rule: null, reason: 'tier-ceiling', tier, pending: NOTHING, wanted };
}

/** What a rule says of a device that matches it (or may). */
function judge(
  rule: CompiledRule,
  device: Device,
  tier: IdentityTier,
  claim: Claim | undefined,
  before: boolean,
): Verdict {
  const met = rule.simple || meets(rule.rule.require, tier, claimFor(device, claim));
  const stated = met ? rule.rule : rule.rule.otherwise;
  if (stated === undefined) {
    return { level: 'disconnected', rule, reason: 'requirement-failed', tier, pending: NOTHING, met: false };
  }
  const level = lowerLevel(stated.level, LEVEL_CEILING[tier]);
  const verdict: Verdict =
    level !== stated.level
      ? { level, rule, reason: 'tier-ceiling', tier, pending: NOTHING, wanted: stated.level, ...(met ? {} : UNMET) }
      : met
        ? { level, rule, reason: 'rule-matched', tier, pending: NOTHING }
        : { level, rule, reason: 'otherwise', tier, pending: NOTHING, met: false };
  const features = rule.rule.features;
  if (features === undefined || !isConnected(level)) return verdict;
  return judgeFeatures(features, device, before, verdict);
}

/**
 * The negotiated features decide. Before they are known, those offered can only deny early: what Linux always accepts
 * and the rule forbids, what the rule requires and the device does not have. The host may offer something else when the
 * driver comes, so the verdict stays provisional until they are seen.
 */
function judgeFeatures(
  features: NonNullable<Rule['features']>,
  device: Device,
  before: boolean,
  good: Verdict,
): Verdict {
  const denied = (reason: ReasonCode, feature?: string): Verdict => ({
    level: 'disconnected',
    rule: good.rule,
    reason,
    tier: good.tier,
    pending: NOTHING,
    ...(feature === undefined ? {} : { feature }),
  });
  if (!isVirtio(device)) {
    const [missing] = features.require;
    return missing === undefined ? good : denied('feature-missing', missing);
  }
  const negotiated = device.features?.negotiated;
  if (negotiated !== undefined) {
    for (const name of features.forbid) if (negotiated.includes(name)) return denied('feature-forbidden', name);
    for (const name of features.require) if (!negotiated.includes(name)) return denied('feature-missing', name);
    return good;
  }
  if (!before) return denied('fact-unknown');
  const offered = device.features?.offered;
  if (offered !== undefined) {
    for (const name of features.forbid) {
      if (alwaysAccepted.has(name) && offered.includes(name)) return denied('feature-forbidden', name);
    }
    for (const name of features.require) if (!offered.includes(name)) return denied('feature-missing', name);
  }
  return { ...good, level: lowerLevel(good.level, 'limited'), pending: NEGOTIATED };
}

/** Only a claim that is about this very device says anything of it. */
export function claimFor(device: Device, claim: Claim | undefined): Claim | undefined {
  return claim?.device === device.id ? claim : undefined;
}

function meets(wanted: Rule['require'], tier: IdentityTier, claim: Claim | undefined): boolean {
  if (wanted === undefined) return true;
  if (wanted.identity !== undefined && tierRank(tier) < tierRank(wanted.identity)) return false;
  if (wanted.roots !== undefined && !wanted.roots.some((name) => claim?.roots?.includes(name))) return false;
  return wanted.measurements === undefined || wanted.measurements.some((name) => claim?.measurements?.includes(name));
}

/** How far an operator may raise what this verdict decided. */
export function grantableBy(policy: CompiledPolicy, verdict: Verdict): TrustLevel {
  switch (verdict.reason) {
    case 'rule-matched':
    case 'otherwise':
    case 'requirement-failed':
    case 'default':
    case 'tier-ceiling': {
      const stated = verdict.rule?.rule.grant ?? policy.policy.defaultGrant;
      const level = lowerLevel(stated, LEVEL_CEILING[verdict.tier]);
      return levelRank(level) > levelRank(verdict.level) ? level : verdict.level;
    }
    default:
      // What the platform section, a feature or an unknown fact forbids is not an operator's to allow.
      return 'disconnected';
  }
}
