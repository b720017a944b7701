/** A policy made ready to decide: matches as closures, verdicts made in advance, rules that cannot match left out. */
import type { ReasonCode, RuleReference } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, type IdentityTier, LEVEL_CEILING, lowerLevel, type TrustLevel } from '@airlock/core/level.ts';
import { type Condition, conditionsOf } from './condition.ts';
import { mayBeVirtio, NO, YES } from './facts.ts';
import { isForbidden } from './platform.ts';
import type { PlatformForbid, Policy, Rule } from './policy.ts';

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

export interface CompiledRule {
  readonly rule: Rule;
  readonly reference: RuleReference;
  readonly conditions: readonly Condition[];
  /** `NO`, `YES`, or the bits `AFTER_BIND` and `NEVER_KNOWN`. */
  readonly match: (device: Device, tier: IdentityTier) => number;
  /** What the rule says to a tier (by rank) when `require` holds, and when it does not; features aside. */
  readonly met: readonly Verdict[];
  readonly unmet: readonly Verdict[];
  /** Its place in the policy, from 0. */
  readonly index: number;
  /** The conditions that do not say what kind of device it is. */
  readonly particulars: readonly Condition[];
  /** Its level as a tier (by rank) carries it. */
  readonly levels: readonly TrustLevel[];
  /** For each condition what it wants and who, for the default: `net (nic-a)`. */
  readonly wants: readonly string[];
  /** `rule nic-a says limited` */
  readonly says: string;
}

export interface CompiledPolicy {
  readonly policy: Policy;
  readonly rules: readonly CompiledRule[];
  /** The rules, in order, without some that this device surely does not match. */
  readonly rulesFor: (device: Device) => readonly CompiledRule[];
  /** The rules, in order, that are for this kind of device: of their match, type, bus, transport and class hold. */
  readonly kinOf: (device: Device) => readonly CompiledRule[];
  /** By rank of the tier. */
  readonly byDefault: readonly Verdict[];
  /** `no rule matches; the default is disconnected` */
  readonly defaultSays: string;
  readonly forbids: readonly { readonly name: PlatformForbid; readonly test: (device: Device) => boolean }[];
}

export const NOTHING_PENDING: readonly string[] = [];

export function compilePolicy(policy: Policy): CompiledPolicy {
  const rules = policy.rules.map(compileRule);
  return {
    policy,
    rules,
    rulesFor: selector(rules),
    kinOf: kinship(rules),
    byDefault: IDENTITY_TIERS.map((tier) => capped(policy.default, null, 'default', tier)),
    defaultSays: `no rule matches; the default is ${policy.default}`,
    forbids: policy.platform.forbid.map(({ name }) => ({ name, test: (device) => isForbidden(name, device) })),
  };
}

function compileRule(rule: Rule, index: number): CompiledRule {
  const conditions = conditionsOf(rule.match);
  const met: Verdict[] = [];
  const unmet: Verdict[] = [];
  const compiled: CompiledRule = {
    rule,
    reference: { id: rule.id, file: rule.at.file, line: rule.at.line },
    conditions,
    match: allOf(conditions.map((condition) => condition.test)),
    met,
    unmet,
    index,
    particulars: conditions.filter((condition) => !condition.kind),
    levels: IDENTITY_TIERS.map((tier) => lowerLevel(rule.level, LEVEL_CEILING[tier])),
    wants: conditions.map((condition) => `${condition.wanted} (${rule.id})`),
    says: `rule ${rule.id} says ${rule.level}`,
  };
  for (const tier of IDENTITY_TIERS) {
    met.push(capped(rule.level, compiled, 'rule-matched', tier));
    unmet.push(
      rule.otherwise === undefined
        ? { ...capped('disconnected', compiled, 'requirement-failed', tier), met: false }
        : { ...capped(rule.otherwise.level, compiled, 'otherwise', tier), met: false },
    );
  }
  return compiled;
}

/** The level that a policy states, lowered to what the tier carries. */
function capped(stated: TrustLevel, rule: CompiledRule | null, reason: ReasonCode, tier: IdentityTier): Verdict {
  const level = lowerLevel(stated, LEVEL_CEILING[tier]);
  return level === stated
    ? { level, rule, reason, tier, pending: NOTHING_PENDING }
    : { level, rule, reason: 'tier-ceiling', tier, pending: NOTHING_PENDING, wanted: stated };
}

/** Selections that are kept; a machine shows a few dozen kinds of devices. */
const SELECTION_LIMIT = 256;

/**
 * Leaves out rules whose bus, VIRTIO type or vendor is another one than the device's. Only what is known of the device
 * counts, and only rules that are sure not to match go; the selection is remembered by these three facts.
 */
function selector(rules: readonly CompiledRule[]): CompiledPolicy['rulesFor'] {
  const byBus = new Map<string, Map<number, readonly CompiledRule[]>>();
  let kept = 0;
  return (device) => {
    const { bus, virtioId, vendor } = device;
    // Its bus and type are not what they seem.
    if (bus === 'pci' && mayBeVirtio(device)) return rules;
    const key = virtioId !== undefined ? -2 - virtioId : (vendor ?? -1);
    let selections = byBus.get(bus);
    const known = selections?.get(key);
    if (known !== undefined) return known;
    if (kept >= SELECTION_LIMIT) return rules;
    const selection = rules.filter(({ rule: { match } }) => {
      if (match.bus !== undefined && !match.bus.includes(bus)) return false;
      if (virtioId !== undefined) return match.type === undefined || match.type.some((one) => one.virtio === virtioId);
      return vendor === undefined || match.vendor === undefined || match.vendor.includes(vendor);
    });
    if (selections === undefined) {
      selections = new Map();
      byBus.set(bus, selections);
    }
    selections.set(key, selection);
    kept++;
    return selection;
  };
}

interface Kin extends Pick<Device, 'bus' | 'transport' | 'virtioId' | 'class'> {
  readonly rules: readonly CompiledRule[];
}

/** Whether a condition on the kind holds follows from five facts alone; the selection is remembered by them. */
function kinship(rules: readonly CompiledRule[]): CompiledPolicy['kinOf'] {
  const byType = new Map<string | null, Kin[]>();
  let kept = 0;
  return (device) => {
    const { type, bus, transport, virtioId } = device;
    const known = byType.get(type);
    if (known !== undefined) {
      for (const kin of known) {
        if (kin.class !== device.class || kin.virtioId !== virtioId) continue;
        if (kin.bus === bus && kin.transport === transport) return kin.rules;
      }
    }
    // No condition on the kind asks for the tier.
    const isMet = (one: Condition) => !one.kind || one.test(device, 'location') === YES;
    const selection = rules.filter(({ conditions }) => conditions.every(isMet));
    if (kept >= SELECTION_LIMIT) return selection;
    const kin = { class: device.class, virtioId, bus, transport, rules: selection } as Kin;
    if (known === undefined) byType.set(type, [kin]);
    else known.push(kin);
    kept++;
    return selection;
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
