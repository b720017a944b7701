/** Why a verdict is what it is, and what would have changed it: the slow part of a decision, made for people. */
import type { Claim } from '@airlock/core/claim.ts';
import type { DecisionChange, DecisionInput } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import { IDENTITY_TIERS, isConnected, LEVEL_CEILING, levelRank, tierRank } from '@airlock/core/level.ts';
import type { CompiledPolicy, CompiledRule, Verdict } from './compile.ts';
import type { Condition } from './condition.ts';
import { isVirtio, NO, YES } from './facts.ts';
import type { Rule } from './policy.ts';
import { claimFor, speaksAtLeast } from './verdict.ts';

const INPUT_LIMIT = 24;
const CHANGE_LIMIT = 3;

/** The facts that the verdict rests on: of the rule that decided, or for the default what ruled out each rule. */
export function inputsFor(
  policy: CompiledPolicy,
  verdict: Verdict,
  device: Device,
  claim: Claim | undefined,
  platform: readonly DecisionInput[],
): readonly DecisionInput[] {
  if (verdict.reason === 'platform-requirement-failed') return platform;
  if (verdict.forbid !== undefined) return [forbiddenInput(verdict.forbid, device)];
  const inputs: DecisionInput[] = [];
  const { rule, tier } = verdict;
  if (rule === null) addRuledOut(inputs, policy.rules, device, tier);
  else {
    for (const condition of rule.conditions) {
      inputs.push({
        field: condition.field,
        value: condition.value(device, tier),
        wanted: condition.wanted,
        holds: held(condition.test(device, tier)),
      });
    }
    if (rule.rule.require !== undefined || rule.rule.features !== undefined) {
      inputs.push(...requirementInputs(rule.rule, device, verdict, claim));
    }
  }
  if (verdict.reason === 'tier-ceiling') inputs.push(ceilingInput(verdict));
  for (const input of platform) inputs.push(input);
  return inputs;
}

/** Of each rule the first condition that is not met. */
function addRuledOut(
  inputs: DecisionInput[],
  rules: readonly CompiledRule[],
  device: Device,
  tier: Verdict['tier'],
): void {
  for (const { conditions, wants } of rules) {
    if (inputs.length >= INPUT_LIMIT) return;
    for (let i = 0; i < conditions.length; i++) {
      const condition = conditions[i];
      if (condition === undefined) break;
      const answer = condition.test(device, tier);
      if (answer === YES) continue;
      inputs.push({
        field: condition.field,
        value: condition.value(device, tier),
        wanted: wants[i] ?? condition.wanted,
        holds: held(answer),
      });
      break;
    }
  }
}

function held(answer: number): DecisionInput['holds'] {
  return answer === YES ? true : answer === NO ? false : 'unknown';
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
  const least = rule.require?.spdm;
  if (least !== undefined) {
    const holds = speaksAtLeast(mine, least);
    inputs.push({ field: 'spdm', value: mine?.spdm, wanted: `>=${least}`, holds });
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
export function changesFor(
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
  addNeighbours(changes, policy, verdict, device);
  return changes;
}

/**
 * The rules above that one fact, then those that two facts kept from deciding. A balloon will not become a network card:
 * rules for other kinds of devices are no neighbours.
 */
function addNeighbours(changes: DecisionChange[], policy: CompiledPolicy, verdict: Verdict, device: Device): void {
  const { tier } = verdict;
  const rank = tierRank(tier);
  const end = verdict.rule?.index ?? policy.rules.length;
  let room = CHANGE_LIMIT;
  let further: DecisionChange[] | undefined;
  for (const rule of policy.kinOf(device)) {
    if (rule.index >= end || room === 0) break;
    const level = rule.levels[rank] ?? 'disconnected';
    if (level === verdict.level) continue;
    let first: Condition | undefined;
    let second: Condition | undefined;
    let far = false;
    for (const condition of rule.particulars) {
      if (condition.test(device, tier) === YES) continue;
      if (first === undefined) first = condition;
      else if (second === undefined) second = condition;
      else {
        far = true;
        break;
      }
    }
    if (first === undefined || far) continue;
    const one = needFor(first, device, tier);
    if (second === undefined) {
      changes.push({ rule: rule.reference, level, needs: [one] });
      room--;
    } else if (further === undefined || further.length < CHANGE_LIMIT) {
      further ??= [];
      further.push({ rule: rule.reference, level, needs: [one, needFor(second, device, tier)] });
    }
  }
  if (further === undefined) return;
  for (const change of further) {
    if (room === 0) break;
    changes.push(change);
    room--;
  }
}

function needFor(condition: Condition, device: Device, tier: Verdict['tier']): string {
  return condition.before + show(condition.value(device, tier)) + condition.after;
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

export function show(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value === undefined) return 'not known';
  if (value === null) return 'absent';
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(', ');
  return String(value);
}
