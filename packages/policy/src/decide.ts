/** Decisions with their reasons, for every device of an inventory. Pure and total: the same values give the same answer. */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import type { Decision, Protection } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { isConnected, LEVEL_CEILING } from '@airlock/core/level.ts';
import type { CompiledPolicy, Verdict } from './compile.ts';
import { changesFor, inputsFor } from './explanation.ts';
import type { Grant } from './grant.ts';
import { applyGrants } from './granted.ts';
import { platformInputs } from './platform.ts';
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
  const grants = new Map<string, Grant[]>();
  for (const grant of options.grants ?? []) {
    const list = grants.get(grant.device);
    if (list === undefined) grants.set(grant.device, [grant]);
    else list.push(grant);
  }

  return inventory.devices.map((device) => {
    const claim = Object.hasOwn(claims, device.id) ? claims[device.id] : undefined;
    const free = verdictFor(policy, device, claim, phase);
    const verdict: Verdict =
      missing === undefined
        ? free
        : { level: 'disconnected', rule: null, reason: 'platform-requirement-failed', tier: free.tier, pending: [] };
    const grantable = grantableBy(policy, verdict);
    const own = grants.get(device.id);
    const granted =
      own === undefined
        ? { ...verdict, grantable, detail: undefined }
        : applyGrants(device, verdict, grantable, own, phase, detailOf);
    const rule = verdict.rule?.rule;
    const protect = protectionOf(verdict, granted.reason);
    const because =
      missing === undefined || granted.reason !== 'platform-requirement-failed'
        ? (granted.detail ?? detailOf(verdict))
        : `${missing.field.slice('platform.'.length)} does not hold: ${String(missing.value)}, needed ${missing.wanted ?? ''}`;
    return {
      device: device.id,
      level: granted.level,
      rule: verdict.rule?.reference ?? null,
      reason: granted.reason,
      detail: because,
      tier: verdict.tier,
      inputs: inputsFor(policy, verdict, device, claim, platform),
      changes: changesFor(policy, verdict, device, claim, missing),
      pending: isConnected(granted.level) ? granted.pending : [],
      ...(rule?.drivers === undefined ? {} : { drivers: rule.drivers }),
      ...(rule?.features === undefined ? {} : { features: rule.features }),
      ...(protect === undefined ? {} : { protect }),
      grantable: granted.grantable,
    };
  });
}

/** What `otherwise` says comes on top of the rule's own: who is trusted less is protected no less. */
function protectionOf(verdict: Verdict, reason: Decision['reason']): Protection | undefined {
  const rule = verdict.rule?.rule;
  if (rule === undefined) return undefined;
  const lesser = verdict.met === false || reason === 'otherwise' ? rule.otherwise?.protect : undefined;
  if (rule.protect === undefined && lesser === undefined) return undefined;
  return { ...rule.protect, ...lesser };
}

function detailOf(verdict: Verdict): string {
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

/** The claim that `decide` would use for a device. */
export function claimOf(claims: Claims, device: Device): Claim | undefined {
  return Object.hasOwn(claims, device.id) ? claims[device.id] : undefined;
}
