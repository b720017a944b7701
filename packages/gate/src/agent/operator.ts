/**
 * The operator's acts: allow, block, reject, revoke. Each is one piece of work between two turns: look at the device,
 * check that it is the one that is meant, write the grant down, enforce, read back, answer, and leave an event.
 */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { isConnected, levelRank } from '@airlock/core/level.ts';
import type { Enforcement } from '@airlock/core/plan.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Fingerprint, fingerprintOf, matchFingerprint } from '@airlock/policy/grant.ts';
import { applyPlan, type Hands } from '../apply.ts';
import { describe } from './changes.ts';
import type { Conduct } from './conduct.ts';
import type { Answer, Identity, Request, Term } from './control-protocol.ts';
import { formatDuration } from './duration.ts';
import { findDevice } from './find-device.ts';
import { addGrant, GRANTS_LIMIT, type GrantRecord } from './grants.ts';
import { isQuarantine } from './holds.ts';
import type { Keeper } from './keeper.ts';

export interface OperatorParts {
  readonly keeper: Keeper;
  readonly hands: Hands;
  readonly conduct: Conduct;
  readonly note: (event: EventBody) => void;
}

export type OperatorRequest = Extract<Request, { device: string }>;

/** Runs alone: nothing else reads or changes the machine meanwhile. Codes: those of AGENT_ERRORS and readInventory. */
export async function operate(parts: OperatorParts, request: OperatorRequest): Promise<Result<Answer | Identity>> {
  const result = await act(parts, request);
  if (request.verb !== 'identify') {
    const device = result.ok ? result.value.device : request.device;
    const until = result.ok && 'term' in result.value ? showTerm(result.value.term) : null;
    const outcome = !result.ok
      ? `refused: ${result.error.message}`
      : 'result' in result.value
        ? result.value.result
        : 'identified';
    parts.note({ kind: 'operator', verb: request.verb, device, until, result: outcome });
  }
  return result;
}

async function act(parts: OperatorParts, request: OperatorRequest): Promise<Result<Answer | Identity>> {
  const { keeper } = parts;
  const seen = await keeper.look();
  if (!seen.ok) return seen;
  const found = findDevice(seen.value, request.device);
  if (!found.ok) {
    // A grant outlives its device's absence, and can be taken back then.
    const absent = keeper.grants.find(({ device }) => device === request.device);
    const held = keeper.holds.find(({ device }) => device === request.device);
    if (request.verb !== 'revoke' || (absent === undefined && held === undefined)) return found;
    return revokeAbsent(parts, request.device);
  }
  const device = found.value;
  if (request.verb === 'identify') {
    return ok({ device: device.id, what: describe(device), fingerprint: fingerprintOf(device) });
  }
  if (!parts.conduct.enforcing) return fail('agent-only-watches', parts.conduct.whyNot);
  if (request.verb === 'revoke') return revoke(parts, device);
  const changed = request.expect === undefined ? null : differsFrom(request.expect, device);
  if (changed !== null) return changed;

  if (request.verb === 'block') return block(parts, device, request.permanent);
  if (request.verb === 'reject') {
    const children = seen.value.devices.filter(({ parent }) => parent === device.id);
    return children.length > 0
      ? fail('device-has-children', `${device.id} carries ${children.map(({ id }) => id).join(', ')}`, {
          hint: 'reject those first',
        })
      : reject(parts, device);
  }
  const held = keeper.holds.find((one) => one.device === device.id);
  if (held !== undefined && isQuarantine(held)) {
    return fail('device-quarantined', `${device.id} is in quarantine for ${held.violation}: ${held.detail}`, {
      hint: `airlock allow ${device.id} --revoke lifts it; then allow`,
    });
  }
  if (held !== undefined) await keeper.release(device.id);
  const lifted = held === undefined ? [] : [`it had been kept unbound for ${held.violation}: ${held.detail}`];
  // What the policy alone says, without the grant or block that is there. What binding showed earlier counts, although
  // the device is unbound again.
  const alone = await keeper.consider(seen.value, without(keeper, device.id));
  const decision = keeper.refusal(device.id) ?? alone.seen.find((one) => one.device === device.id);
  return decision === undefined
    ? fail('device-unknown', `${device.id}: there is no decision on it`)
    : allow(parts, device, decision, request.term, lifted);
}

function differsFrom(expected: Fingerprint, device: Device): Result<never> | null {
  const { matches, differs } = matchFingerprint(expected, device);
  return matches === false
    ? fail('device-changed', `${device.id} is not the device that was asked for: ${differs.join(', ')}`)
    : null;
}

async function allow(
  parts: OperatorParts,
  device: Device,
  decision: Decision,
  term: Term,
  lifted: readonly string[],
): Promise<Result<Answer>> {
  const { keeper } = parts;
  const before = keeper.grants.find((grant) => grant.device === device.id);
  if (isConnected(decision.level)) {
    if (before === undefined) {
      if (lifted.length > 0) await turnFor(keeper, device);
      return answer(parts, device, 'already-allowed', null, [...lifted, because(decision)]);
    }
    await keeper.setGrants(without(keeper, device.id), device.id);
    await turnFor(keeper, device);
    return answer(parts, device, 'already-allowed', null, [
      ...lifted,
      before.kind === 'block' ? 'the block is lifted' : 'the grant was not needed and is taken back',
      because(decision),
    ]);
  }
  if (levelRank(decision.grantable) <= levelRank(decision.level)) return refuse(device, decision);
  if (before === undefined && keeper.grants.length >= GRANTS_LIMIT / 2) {
    return fail('grants-too-many', `there are ${keeper.grants.length} grants`, { hint: 'airlock allow DEV --revoke' });
  }
  const uptime = keeper.state.uptime;
  if (term.kind === 'timed' && uptime === null) {
    return fail('clock-unreadable', 'the time since boot cannot be read, so no grant can end in time');
  }
  const incarnation = await keeper.incarnation(device);
  const grant: GrantRecord = {
    device: device.id,
    fingerprint: fingerprintOf(device),
    level: decision.grantable,
    kind: term.kind,
    made: uptime ?? 0,
    ...(term.kind === 'timed' ? { until: (uptime ?? 0) + term.lasts } : {}),
    ...(term.kind === 'permanent' ? { kept: true } : {}),
    ...(incarnation === undefined || term.kind !== 'once' ? {} : { incarnation }),
  };
  const all = addGrant(keeper.grants, grant);
  const notes = [...lifted];
  const previous = keeper.grants;
  const written = await keeper.setGrants(all, device.id);
  if (written.kept !== null && term.kind === 'permanent') {
    await keeper.setGrants(previous, device.id);
    return fail('grant-not-kept', `not granted: ${written.kept.message}`, {
      hint: 'a permanent grant must be written to /var/lib/airlock; --for and --once need only /run',
    });
  }
  if (written.run !== null) notes.push(`it will not survive a restart of the agent: ${written.run.message}`);
  await turnFor(keeper, device);
  return answer(parts, device, 'allowed', term, notes);
}

/** Which rule stands in the way, and what it would need. */
function refuse(device: Device, decision: Decision): Result<never> {
  const where = decision.rule === null ? null : `${decision.rule.id} (${decision.rule.file}:${decision.rule.line})`;
  switch (decision.reason) {
    case 'rule-matched':
    case 'otherwise':
    case 'requirement-failed':
    case 'default':
    case 'tier-ceiling':
      return fail(
        'grant-exceeds-policy',
        where === null
          ? `no rule matches ${device.id} and the policy lets an operator raise such devices to ${decision.grantable} at most`
          : `rule ${where} lets an operator raise ${device.id} to ${decision.grantable} at most`,
        {
          hint:
            where === null
              ? 'it would need "default-grant: limited" in the policy, or a rule for the device with "grant: limited"'
              : 'it would need "grant: limited" in that rule',
        },
      );
    default:
      return fail('grant-exceeds-policy', `no operator may let ${device.id} in: ${decision.detail}`, {
        hint: where === null ? 'only a change of the policy can' : `decided by rule ${where}`,
      });
  }
}

async function block(parts: OperatorParts, device: Device, permanent: boolean): Promise<Result<Answer>> {
  const put = await putBlock(parts, device, permanent);
  if (!put.ok) return put;
  const notes = put.value;
  await turnFor(parts.keeper, device);
  return answer(parts, device, 'blocked', permanent ? { kind: 'permanent' } : null, notes);
}

/** A block is made whatever else fails: what could not be written down holds in memory. Grants leave room for it. */
async function putBlock({ keeper }: OperatorParts, device: Device, permanent: boolean): Promise<Result<string[]>> {
  const others = without(keeper, device.id);
  if (others.length >= GRANTS_LIMIT) return fail('grants-too-many', `there are ${others.length} grants and blocks`);
  const before = keeper.grants.find((grant) => grant.device === device.id);
  const kept = permanent || (before?.kind === 'block' && before.kept === true);
  const grant: GrantRecord = {
    device: device.id,
    fingerprint: fingerprintOf(device),
    level: 'disconnected',
    kind: 'block',
    made: keeper.state.uptime ?? 0,
    ...(kept ? { kept: true } : {}),
  };
  const written = await keeper.setGrants([...others, grant], device.id);
  const problem = kept ? written.kept : written.run;
  const beyond = kept ? 'a reboot' : 'a restart of the agent';
  return ok(problem === null ? [] : [`it holds now but will not survive ${beyond}: ${problem.message}`]);
}

async function reject(parts: OperatorParts, device: Device): Promise<Result<Answer>> {
  const { keeper, hands } = parts;
  // The block keeps it out when a rescan finds it again.
  const put = await putBlock(parts, device, false);
  if (!put.ok) return put;
  const notes = put.value;
  await turnFor(keeper, device);
  const outer = device.nodes[0];
  if (outer?.bus !== 'pci') {
    notes.push(
      `only PCI functions can be taken off their bus; it is ${device.bus === 'usb' ? 'not authorized' : 'unbound'} and blocked`,
    );
    return answer(parts, device, 'blocked', null, notes);
  }
  // Once more, right before it goes: what stands there now must still be what was asked for.
  const seen = await keeper.look();
  if (!seen.ok) return seen;
  const there = seen.value.devices.find(({ id }) => id === device.id);
  const changed = there === undefined ? null : differsFrom(fingerprintOf(device), there);
  if (changed !== null) return changed;
  const [removed] = await applyPlan(
    { version: 1, steps: [{ kind: 'remove', device: device.id, node: outer.name }] },
    hands,
  );
  if (removed !== undefined) parts.note({ kind: 'step', step: removed.step, outcome: removed.outcome });
  await turnFor(keeper, device);
  if (removed?.outcome.status !== 'enforced') {
    return fail('device-stays', `${device.id}: ${removed?.outcome.because ?? 'the kernel kept it'}`, {
      hint: 'it is unbound and blocked',
    });
  }
  return ok({
    device: device.id,
    what: describe(device),
    result: 'rejected',
    term: null,
    decision: null,
    enforcement: null,
    notes: [...notes, 'a rescan may find it again; it stays blocked until airlock allow'],
  });
}

async function revoke(parts: OperatorParts, device: Device): Promise<Result<Answer>> {
  const { keeper } = parts;
  const grant = keeper.grants.find((one) => one.device === device.id);
  const held = await keeper.release(device.id);
  if (grant === undefined && held === undefined) {
    return fail('grant-missing', `there is neither a grant, a block nor a quarantine for ${device.id}`);
  }
  const notes = held === undefined ? [] : [`the quarantine for ${held.violation} is lifted: ${held.detail}`];
  if (grant?.kind === 'block' && held !== undefined) {
    // Whoever lifts one thing does not open the other unseen.
    notes.push('the block stays; --revoke once more lifts it');
  } else if (grant !== undefined) {
    await keeper.setGrants(without(keeper, device.id), device.id);
    notes.push(grant.kind === 'block' ? 'the block is lifted' : 'the grant is taken back');
  }
  await turnFor(keeper, device);
  return answer(parts, device, 'revoked', null, notes);
}

async function revokeAbsent({ keeper, conduct }: OperatorParts, device: string): Promise<Result<Answer>> {
  if (!conduct.enforcing) return fail('agent-only-watches', conduct.whyNot);
  const held = await keeper.release(device);
  await keeper.setGrants(without(keeper, device), device);
  return ok({
    device,
    what: 'not there now',
    result: 'revoked',
    term: null,
    decision: null,
    enforcement: null,
    notes: held === undefined ? [] : [`the quarantine for ${held.violation} is lifted: ${held.detail}`],
  });
}

function without(keeper: Keeper, id: string): GrantRecord[] {
  return keeper.grants.filter(({ device }) => device !== id);
}

function turnFor(keeper: Keeper, device: Device): Promise<void> {
  return keeper.turn({ removed: new Set(), reasons: [`operator: ${device.id}`], count: 1 }, true);
}

/** With what was read back. `allowed` that does not hold, and a block under which the device is still driven, say so. */
function answer(
  { keeper }: OperatorParts,
  device: Device,
  wanted: Answer['result'],
  term: Term | null,
  notes: readonly string[],
): Result<Answer> {
  const enforcement = keeper.state.enforcements.find(({ decision }) => decision.device === device.id) ?? null;
  return ok({
    device: device.id,
    what: describe(keeper.state.inventory?.devices.find(({ id }) => id === device.id) ?? device),
    result: holds(enforcement, wanted) ? wanted : 'not-enforced',
    term,
    decision: enforcement?.decision ?? null,
    enforcement,
    notes,
  });
}

function holds(enforcement: Enforcement | null, wanted: Answer['result']): boolean {
  if (enforcement === null) return false;
  const connected = isConnected(enforcement.decision.level);
  const bound = enforcement.outcomes.every(({ status }) => status !== 'failed');
  if (wanted === 'allowed' || wanted === 'already-allowed') return connected && bound;
  if (wanted === 'blocked') return !connected && enforcement.outcomes[0]?.status === 'enforced' && bound;
  return bound;
}

function because(decision: Decision): string {
  return decision.rule === null
    ? `allowed by the policy's default`
    : `allowed by rule ${decision.rule.id} (${decision.rule.file}:${decision.rule.line})`;
}

export function showTerm(term: Term | null): string | null {
  if (term === null) return null;
  if (term.kind === 'timed') return `for ${formatDuration(term.lasts)}`;
  return term.kind === 'once' ? 'until the device goes away' : 'without an end';
}
