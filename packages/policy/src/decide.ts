/** Decisions with their reasons, for every device of an inventory. Pure and total: the same values give the same answer. */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import type { Decision, DecisionInput, Protection } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { isConnected, LEVEL_CEILING, type TrustLevel } from '@airlock/core/level.ts';
import { type CompiledPolicy, NOTHING_PENDING, type Verdict } from './compile.ts';
import { changesFor, inputsFor } from './explanation.ts';
import type { Grant } from './grant.ts';
import { applyGrants } from './granted.ts';
import { platformInputs } from './platform.ts';
import type { Rule } from './policy.ts';
import { grantableBy, type Phase, verdictFor } from './verdict.ts';

export interface DecideOptions {
  /** `before-bind` when not given: what binding would show may still come. After it, what is unknown is held against. */
  readonly phase?: Phase;
  /** Those that have ended are left out by the caller, who has the clock. */
  readonly grants?: readonly Grant[];
}

/** One decision for each device, in the inventory's order. docs/policy.md, "How a device is decided". */
export function decide(
  policy: CompiledPolicy,
  inventory: Inventory,
  claims: Claims,
  options: DecideOptions = {},
): Decision[] {
  const phase = options.phase ?? 'before-bind';
  const platform = platformInputs(policy.policy, inventory);
  const missing = platform.find((input) => input.holds !== true);
  const grants = options.grants === undefined || options.grants.length === 0 ? undefined : byDevice(options.grants);
  const decisions: Decision[] = [];
  for (const device of inventory.devices) {
    const claim = claimOf(claims, device);
    const free = verdictFor(policy, device, claim, phase);
    const verdict = missing === undefined ? free : platformFailed(free.tier);
    const mine = grants?.get(device.id);
    const grantable = grantableBy(policy, verdict);
    const granted =
      mine === undefined ? undefined : applyGrants(device, verdict, grantable, mine, phase, (one) => say(policy, one));
    const level = granted?.level ?? verdict.level;
    const reason = granted?.reason ?? verdict.reason;
    const pending = granted?.pending ?? verdict.pending;
    const rule = verdict.rule;
    const decision: Decided = {
      device: device.id,
      level,
      rule: rule === null ? null : rule.reference,
      reason,
      detail:
        missing !== undefined && reason === 'platform-requirement-failed'
          ? sayMissing(missing)
          : (granted?.detail ?? say(policy, verdict)),
      tier: verdict.tier,
      inputs: inputsFor(policy, verdict, device, claim, platform),
      changes: changesFor(policy, verdict, device, claim, missing),
      pending: isConnected(level) ? pending : NOTHING_PENDING,
    };
    if (rule !== null) {
      const { drivers, features } = rule.rule;
      if (drivers !== undefined) decision.drivers = drivers;
      if (features !== undefined) decision.features = features;
      const protect = protectionOf(rule.rule, verdict.met === false || reason === 'otherwise');
      if (protect !== undefined) decision.protect = protect;
    }
    decision.grantable = granted?.grantable ?? grantable;
    decisions.push(decision as Decision);
  }
  return decisions;
}

/** While it is put together; what a rule may add comes before `grantable`. */
type Decided = { -readonly [K in keyof Decision as K extends 'grantable' ? never : K]: Decision[K] } & {
  grantable?: TrustLevel;
};

function byDevice(list: readonly Grant[]): Map<string, Grant[]> {
  const grants = new Map<string, Grant[]>();
  for (const grant of list) {
    const mine = grants.get(grant.device);
    if (mine === undefined) grants.set(grant.device, [grant]);
    else mine.push(grant);
  }
  return grants;
}

function platformFailed(tier: Verdict['tier']): Verdict {
  return { level: 'disconnected', rule: null, reason: 'platform-requirement-failed', tier, pending: NOTHING_PENDING };
}

/** What `otherwise` says comes on top of the rule's own: who is trusted less is protected no less. */
function protectionOf(rule: Rule, less: boolean): Protection | undefined {
  const lesser = less ? rule.otherwise?.protect : undefined;
  if (rule.protect === undefined && lesser === undefined) return undefined;
  return { ...rule.protect, ...lesser };
}

function sayMissing(input: DecisionInput): string {
  return `${input.field.slice('platform.'.length)} does not hold: ${String(input.value)}, needed ${input.wanted ?? ''}`;
}

/** The verdict in words. */
function say(policy: CompiledPolicy, verdict: Verdict): string {
  if (verdict.pending.length === 0) {
    if (verdict.reason === 'rule-matched' && verdict.rule !== null) return verdict.rule.says;
    if (verdict.reason === 'default') return policy.defaultSays;
  }
  const rule = verdict.rule?.rule;
  const named = rule === undefined ? 'the default' : `rule ${rule.id}`;
  const waits = verdict.pending.length === 0 ? '' : `; provisional until ${verdict.pending.join(', ')} can be seen`;
  switch (verdict.reason) {
    case 'rule-matched':
      return `${named} says ${rule?.level ?? verdict.level}${waits}`;
    case 'otherwise':
      return `${named} asks for more than the device shows; its otherwise says ${verdict.level}${waits}`;
    case 'requirement-failed':
      return `${named} asks for more than the device shows, and says nothing otherwise`;
    case 'default':
      return `no rule matches; the default is ${verdict.level}${waits}`;
    case 'tier-ceiling':
      return `${named} says ${verdict.wanted ?? 'more'}, identity ${verdict.tier} carries ${LEVEL_CEILING[verdict.tier]} at most${waits}`;
    case 'feature-forbidden':
      return `${named} forbids ${verdict.feature ?? 'a feature'}, and the device would run with it`;
    case 'feature-missing':
      return `${named} requires ${verdict.feature ?? 'a feature'}, and the device does not have it`;
    case 'fact-unknown':
      return `${named} asks for facts that cannot be seen; what is unknown counts against the device`;
    case 'bus-forbidden':
      return `the platform section forbids ${verdict.forbid ?? 'it'}`;
    default:
      return verdict.reason;
  }
}

/** The claim that `decide` uses for a device. */
export function claimOf(claims: Claims, device: Device): Claim | undefined {
  return Object.hasOwn(claims, device.id) ? claims[device.id] : undefined;
}
