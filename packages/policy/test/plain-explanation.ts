/** What src/explanation.ts says, put together in the plainest way: the fast one must say the same, byte for byte. */
import type { Claim, Claims } from '@airlock/core/claim.ts';
import type { Decision, DecisionChange, DecisionInput, Protection } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, isConnected, LEVEL_CEILING, levelRank, lowerLevel, tierRank } from '@airlock/core/level.ts';
import type { CompiledPolicy, CompiledRule, Verdict } from '../src/compile.ts';
import { isVirtio, NO, YES } from '../src/facts.ts';
import { platformInputs } from '../src/platform.ts';
import type { Rule } from '../src/policy.ts';
import { claimFor, type Phase, verdictFor } from '../src/verdict.ts';

const INPUT_LIMIT = 24;
const CHANGE_LIMIT = 3;
const KIND: ReadonlySet<string> = new Set(['type', 'bus', 'transport', 'class']);

/** The facts that the verdict rests on: of the rule that decided, or for the default what ruled out each rule. */
function inputsFor(
  policy: CompiledPolicy,
  verdict: Verdict,
  device: Device,
  claim: Claim | undefined,
  platform: readonly DecisionInput[],
): readonly DecisionInput[] {
  if (verdict.reason === 'platform-requirement-failed') return platform;
  if (verdict.forbid !== undefined) return [forbiddenInput(verdict.forbid, device)];
  const inputs: DecisionInput[] = [];
  if (verdict.rule === null) {
    for (const rule of policy.rules) {
      if (inputs.length >= INPUT_LIMIT) break;
      const failed = rule.conditions.find((condition) => condition.test(device, verdict.tier) !== YES);
      if (failed === undefined) continue;
      inputs.push({
        ...conditionInput(failed, device, verdict),
        wanted: `${failed.wanted} (${rule.rule.id})`,
      });
    }
  } else {
    for (const condition of verdict.rule.conditions) inputs.push(conditionInput(condition, device, verdict));
    inputs.push(...requirementInputs(verdict.rule.rule, device, verdict, claim));
  }
  if (verdict.reason === 'tier-ceiling') inputs.push(ceilingInput(verdict));
  return [...inputs, ...platform];
}

function conditionInput(
  condition: CompiledRule['conditions'][number],
  device: Device,
  verdict: Verdict,
): DecisionInput {
  const answer = condition.test(device, verdict.tier);
  return {
    field: condition.field,
    value: condition.value(device, verdict.tier),
    wanted: condition.wanted,
    holds: answer === YES ? true : answer === NO ? false : 'unknown',
  };
}

function forbiddenInput(name: string, device: Device): DecisionInput {
  const field =
    name === 'hotplug'
      ? 'hotplugged'
      : name === 'usb'
        ? 'bus'
        : name === 'sriov-virtual'
          ? 'function'
          : name === 'virtio-legacy'
            ? 'device'
            : 'transport';
  const value =
    field === 'hotplugged'
      ? (device.origin ?? 'not known, counts as true')
      : field === 'bus'
        ? device.bus
        : field === 'function'
          ? device.sriov?.role
          : field === 'device'
            ? `0x${(device.device ?? 0).toString(16)}`
            : (device.transport ?? device.bus);
  return { field, value, wanted: `not ${name} (platform forbid)`, holds: false };
}

function ceilingInput(verdict: Verdict): DecisionInput {
  const enough = IDENTITY_TIERS.find(
    (tier) => levelRank(LEVEL_CEILING[tier]) >= levelRank(verdict.wanted ?? verdict.level),
  );
  return {
    field: 'identity',
    value: verdict.tier,
    wanted: `>=${enough ?? 'bound'} for level ${verdict.wanted ?? verdict.level}`,
    holds: false,
  };
}

function requirementInputs(rule: Rule, device: Device, verdict: Verdict, claim: Claim | undefined): DecisionInput[] {
  const inputs: DecisionInput[] = [];
  const mine = claimFor(device, claim);
  if (rule.require?.identity !== undefined) {
    inputs.push({
      field: 'identity',
      value: verdict.tier,
      wanted: `>=${rule.require.identity}`,
      holds: tierRank(verdict.tier) >= tierRank(rule.require.identity),
    });
  }
  for (const key of ['roots', 'measurements'] as const) {
    const names = rule.require?.[key];
    if (names === undefined) continue;
    inputs.push({
      field: key,
      value: mine?.[key] ?? [],
      wanted: names.join(' or '),
      holds: names.some((name) => mine?.[key]?.includes(name)),
    });
  }
  if (rule.features === undefined) return inputs;
  const negotiated = device.features?.negotiated;
  const seen = negotiated ?? device.features?.offered;
  const field = negotiated !== undefined || seen === undefined ? 'features.negotiated' : 'features.offered';
  const state = (good: boolean | undefined): DecisionInput['holds'] =>
    !isVirtio(device) ? good === true : good === undefined ? 'unknown' : good;
  if (rule.features.require.length > 0) {
    const missing = rule.features.require.filter((name) => !seen?.includes(name));
    inputs.push({
      field,
      value: seen === undefined ? undefined : missing.length === 0 ? 'all there' : `without ${missing.join(', ')}`,
      wanted: rule.features.require.join(' and '),
      holds: state(seen === undefined ? undefined : missing.length === 0),
    });
  }
  if (rule.features.forbid.length > 0) {
    const there = rule.features.forbid.filter((name) => seen?.includes(name));
    inputs.push({
      field,
      value: seen === undefined ? undefined : there.length === 0 ? 'none there' : `with ${there.join(', ')}`,
      wanted: `no ${rule.features.forbid.join(', no ')}`,
      holds: isVirtio(device) ? state(seen === undefined ? undefined : there.length === 0) : true,
    });
  }
  return inputs;
}

/**
 * The nearest other answers: what the deciding rule itself still asks for, and rules further up that a fact or two kept
 * from deciding. Rules further down decide nothing while this one matches.
 */
function changesFor(
  policy: CompiledPolicy,
  verdict: Verdict,
  device: Device,
  claim: Claim | undefined,
  missing: DecisionInput | undefined,
): readonly DecisionChange[] {
  if (missing !== undefined) {
    return [
      {
        rule: null,
        level: verdict.level,
        needs: [
          `${missing.field} is ${String(missing.value)}, the policy asks for ${missing.wanted ?? 'more'}; then the rules decide`,
        ],
      },
    ];
  }
  if (verdict.forbid !== undefined) {
    return [
      {
        rule: null,
        level: verdict.level,
        needs: [`the platform section forbids ${verdict.forbid}; else the rules decide`],
      },
    ];
  }
  const changes: DecisionChange[] = [];
  const own = ownChange(verdict, device, claim);
  if (own !== undefined) changes.push(own);
  const others: (DecisionChange & { readonly distance: number })[] = [];
  for (const rule of policy.rules) {
    if (rule === verdict.rule) break;
    const level = lowerLevel(rule.rule.level, LEVEL_CEILING[verdict.tier]);
    if (level === verdict.level) continue;
    const failed = rule.conditions.filter((condition) => condition.test(device, verdict.tier) !== YES);
    // A balloon will not become a network card: rules for other kinds of devices are no neighbours.
    if (failed.length === 0 || failed.length > 2 || failed.some((one) => KIND.has(one.field))) continue;
    const needs = failed.map(
      (one) => `${one.field} is ${show(one.value(device, verdict.tier))}, rule asks for ${one.wanted}`,
    );
    others.push({ rule: rule.reference, level, needs, distance: needs.length });
  }
  others.sort((a, b) => a.distance - b.distance);
  for (const { rule, level, needs } of others.slice(0, CHANGE_LIMIT)) changes.push({ rule, level, needs });
  return changes;
}

function ownChange(verdict: Verdict, device: Device, claim: Claim | undefined): DecisionChange | undefined {
  const rule = verdict.rule;
  if (rule === null) {
    if (verdict.reason !== 'tier-ceiling' || verdict.wanted === undefined) return undefined;
    return { rule: null, level: verdict.wanted, needs: [needOf(ceilingInput(verdict))] };
  }
  if (verdict.level === rule.rule.level) return undefined;
  const needs = requirementInputs(rule.rule, device, verdict, claim)
    .filter((input) => input.holds !== true)
    .map(needOf);
  const ceiling = LEVEL_CEILING[verdict.tier];
  if (levelRank(rule.rule.level) > levelRank(ceiling)) {
    const enough = ceilingInput({ ...verdict, wanted: rule.rule.level });
    const asked = rule.rule.require?.identity;
    const covered =
      asked !== undefined &&
      tierRank(asked) > tierRank(verdict.tier) &&
      levelRank(LEVEL_CEILING[asked]) >= levelRank(rule.rule.level);
    if (!covered) needs.push(needOf(enough));
  }
  for (const condition of rule.conditions) {
    const answer = condition.test(device, verdict.tier);
    if (answer !== YES && answer !== NO) needs.push(`${condition.field} is not known`);
  }
  if (needs.length === 0) return undefined;
  return { rule: rule.reference, level: isConnected(rule.rule.level) ? rule.rule.level : verdict.level, needs };
}

function needOf(input: DecisionInput): string {
  return `${input.field} is ${show(input.value)}, rule asks for ${input.wanted ?? 'more'}`;
}

function show(value: unknown): string {
  if (value === undefined) return 'not known';
  if (value === null) return 'absent';
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(', ');
  return String(value);
}

/** `decide` as it would be written by somebody who has time; without grants. */
export function plainDecide(policy: CompiledPolicy, inventory: Inventory, claims: Claims, phase: Phase): Decision[] {
  const platform = platformInputs(policy.policy, inventory);
  const missing = platform.find((input) => input.holds !== true);
  return inventory.devices.map((device) => {
    const claim = Object.hasOwn(claims, device.id) ? claims[device.id] : undefined;
    const free = verdictFor(policy, device, claim, phase);
    const verdict: Verdict =
      missing === undefined
        ? free
        : { level: 'disconnected', rule: null, reason: 'platform-requirement-failed', tier: free.tier, pending: [] };
    const rule = verdict.rule?.rule;
    const protect = protectionOf(verdict);
    return {
      device: device.id,
      level: verdict.level,
      rule: verdict.rule?.reference ?? null,
      reason: verdict.reason,
      detail:
        missing === undefined
          ? detailOf(verdict)
          : `${missing.field.slice('platform.'.length)} does not hold: ${String(missing.value)}, needed ${missing.wanted ?? ''}`,
      tier: verdict.tier,
      inputs: inputsFor(policy, verdict, device, claim, platform),
      changes: changesFor(policy, verdict, device, claim, missing),
      pending: isConnected(verdict.level) ? verdict.pending : [],
      ...(rule?.drivers === undefined ? {} : { drivers: rule.drivers }),
      ...(rule?.features === undefined ? {} : { features: rule.features }),
      ...(protect === undefined ? {} : { protect }),
      grantable: grantableOf(policy, verdict),
    };
  });
}

function grantableOf(policy: CompiledPolicy, verdict: Verdict): Decision['level'] {
  if (!['rule-matched', 'otherwise', 'requirement-failed', 'default', 'tier-ceiling'].includes(verdict.reason)) {
    return 'disconnected';
  }
  const level = lowerLevel(verdict.rule?.rule.grant ?? policy.policy.defaultGrant, LEVEL_CEILING[verdict.tier]);
  return levelRank(level) > levelRank(verdict.level) ? level : verdict.level;
}

/** What `otherwise` says comes on top of the rule's own: who is trusted less is protected no less. */
function protectionOf(verdict: Verdict): Protection | undefined {
  const rule = verdict.rule?.rule;
  if (rule === undefined) return undefined;
  const lesser = verdict.met === false || verdict.reason === 'otherwise' ? rule.otherwise?.protect : undefined;
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
