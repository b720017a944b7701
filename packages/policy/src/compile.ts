/** A policy made ready to decide: every match is a list of closures, every level a number. */
import type { RuleReference } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { type IdentityTier, isConnected } from '@airlock/core/level.ts';
import { type Condition, conditionsOf } from './condition.ts';
import { NO, YES } from './facts.ts';
import { isForbidden } from './platform.ts';
import type { PlatformForbid, Policy, Rule } from './policy.ts';

export interface CompiledRule {
  readonly rule: Rule;
  readonly reference: RuleReference;
  readonly conditions: readonly Condition[];
  /** `NO`, `YES`, or the bits `AFTER_BIND` and `NEVER_KNOWN`. */
  readonly match: (device: Device, tier: IdentityTier) => number;
  /** Nothing but the match and the tier's ceiling decides. */
  readonly simple: boolean;
  readonly connects: boolean;
}

export interface CompiledPolicy {
  readonly policy: Policy;
  readonly rules: readonly CompiledRule[];
  readonly forbids: readonly { readonly name: PlatformForbid; readonly test: (device: Device) => boolean }[];
}

export function compilePolicy(policy: Policy): CompiledPolicy {
  return {
    policy,
    rules: policy.rules.map(compileRule),
    forbids: policy.platform.forbid.map(({ name }) => ({ name, test: (device) => isForbidden(name, device) })),
  };
}

function compileRule(rule: Rule): CompiledRule {
  const conditions = conditionsOf(rule.match);
  return {
    rule,
    reference: { id: rule.id, file: rule.at.file, line: rule.at.line },
    conditions,
    match: allOf(conditions.map((condition) => condition.test)),
    simple: rule.require === undefined && rule.features === undefined,
    connects: isConnected(rule.level),
  };
}

/** `NO` as soon as one condition is not met; else `YES`, or the bits of what is unknown. */
function allOf(tests: readonly Condition['test'][]): CompiledRule['match'] {
  const [first, second] = tests;
  if (first === undefined) return () => YES;
  if (second === undefined) return first;
  return (device, tier) => {
    let unknown = 0;
    for (const test of tests) {
      const one = test(device, tier);
      if (one === NO) return NO;
      if (one !== YES) unknown |= one;
    }
    return unknown === 0 ? YES : unknown;
  };
}
