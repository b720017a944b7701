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
import { type CompiledPolicy, type CompiledRule, NOTHING_PENDING, type Verdict } from './compile.ts';
import { AFTER_BIND, isVirtio, mayBeVirtio, NEVER_KNOWN, NO, tierOf, YES } from './facts.ts';
import { type Rule, SPDM_VERSIONS, type SpdmVersion } from './policy.ts';

export type Phase = 'before-bind' | 'after-bind';

const NEGOTIATED: readonly string[] = ['features.negotiated'];
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
      return {
        level: 'disconnected',
        rule: null,
        reason: 'bus-forbidden',
        tier,
        pending: NOTHING_PENDING,
        forbid: name,
      };
    }
  }
  const before = phase === 'before-bind';
  /** Facts that could still make a higher rule disconnect the device. */
  let doubts: string[] | undefined;
  for (const rule of policy.rulesFor(device)) {
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
      return doubted(verdict, [...(doubts ?? NOTHING_PENDING), ...unknownFields(rule, device, tier)]);
    }
    // A rule that disconnects is not skipped for what is unknown.
    if (!before || (answer & AFTER_BIND) === 0) {
      const unknown: Verdict = { ...verdict, reason: 'fact-unknown' };
      return unknown;
    }
    doubts = [...(doubts ?? NOTHING_PENDING), ...unknownFields(rule, device, tier)];
  }
  const verdict = policy.byDefault[tierRank(tier)] ?? NEVER;
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

/** Ranks of tiers are in range; this stands for the table cell that is not there. */
const NEVER: Verdict = {
  level: 'disconnected',
  rule: null,
  reason: 'default',
  tier: 'location',
  pending: NOTHING_PENDING,
};

/** What a rule says of a device that matches it (or may). */
function judge(
  rule: CompiledRule,
  device: Device,
  tier: IdentityTier,
  claim: Claim | undefined,
  before: boolean,
): Verdict {
  const { require, features } = rule.rule;
  const met = require === undefined || meets(require, tier, claimFor(device, claim));
  const verdict = (met ? rule.met : rule.unmet)[tierRank(tier)] ?? NEVER;
  if (features === undefined || !isConnected(verdict.level)) return verdict;
  return judgeFeatures(features, device, before, verdict);
}

/**
 * The negotiated features decide. Before they are known, those offered can only deny early: what Linux always accepts
 * and the rule forbids, what the rule requires and the device does not have. The host may offer something else when the
 * driver comes, so the verdict stays provisional until they are seen.
 */
export function judgeFeatures(
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
    pending: NOTHING_PENDING,
    ...(feature === undefined ? {} : { feature }),
  });
  if (!isVirtio(device)) {
    if (mayBeVirtio(device)) return denied('fact-unknown');
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

function meets(wanted: NonNullable<Rule['require']>, tier: IdentityTier, claim: Claim | undefined): boolean {
  if (wanted.identity !== undefined && tierRank(tier) < tierRank(wanted.identity)) return false;
  if (wanted.roots !== undefined && !wanted.roots.some((name) => claim?.roots?.includes(name))) return false;
  if (wanted.spdm !== undefined && !speaksAtLeast(claim, wanted.spdm)) return false;
  return wanted.measurements === undefined || wanted.measurements.some((name) => claim?.measurements?.includes(name));
}

/** A version that is not known here is none that a rule asked for. */
export function speaksAtLeast(claim: Claim | undefined, least: SpdmVersion): boolean {
  const found = (SPDM_VERSIONS as readonly (string | undefined)[]).indexOf(claim?.spdm ?? '');
  return found >= SPDM_VERSIONS.indexOf(least);
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
      if (stated === 'disconnected') return verdict.level;
      const level = lowerLevel(stated, LEVEL_CEILING[verdict.tier]);
      return levelRank(level) > levelRank(verdict.level) ? level : verdict.level;
    }
    default:
      // What the platform section, a feature or an unknown fact forbids is not an operator's to allow.
      return 'disconnected';
  }
}
