/**
 * The policy's word on an inventory, in both phases at once, grants and the external engine included. Kept apart from
 * the loop because an engine answers in its own time and the loop asks for decisions as plain values.
 */
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import type { CompiledPolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import type { ExternalEngine } from '@airlock/policy/external/engine.ts';
import { type Grant, matchFingerprint } from '@airlock/policy/grant.ts';
import { contradictions } from './contradictions.ts';

export interface Judgement {
  readonly 'before-bind': readonly Decision[];
  readonly 'after-bind': readonly Decision[];
  /** For each device the phase that it is in: bound devices are judged by what binding showed. */
  readonly seen: readonly Decision[];
}

export type Judge = (inventory: Inventory, grants: readonly Grant[]) => Promise<Judgement>;

/** `engine` may only narrow, and sees what the grants made of the rules' decisions. */
export function judgeBy(policy: CompiledPolicy, claims: Claims, engine: ExternalEngine | null): Judge {
  return async (inventory, grants) => {
    const inPhase = async (phase: 'before-bind' | 'after-bind'): Promise<readonly Decision[]> => {
      const decided = decide(policy, inventory, claims, { phase, grants }).map((decision, i) =>
        holdToFeatures(decision, inventory.devices[i]),
      );
      return engine === null ? decided : engine.narrow(decided, inventory, claims);
    };
    const before = await inPhase('before-bind');
    const after = await inPhase('after-bind');
    const seen = inventory.devices.flatMap((device, i) => {
      const decision = (isBound(device) ? after : before)[i];
      return decision === undefined ? [] : [decision];
    });
    return { 'before-bind': before, 'after-bind': after, seen };
  };
}

/** A grant raises the level; what the rule forbids and requires of features still holds. */
function holdToFeatures(decision: Decision, device: Device | undefined): Decision {
  if (decision.reason !== 'operator-granted' || device === undefined || !isConnected(decision.level)) return decision;
  const wrong = contradictions(device, decision).filter((words) => words.includes('negotiate'));
  if (wrong.length === 0) return decision;
  return {
    ...decision,
    level: 'disconnected',
    reason: 'feature-forbidden',
    detail: `an operator granted it, but it ${wrong.join('; ')}`,
    pending: [],
  };
}

/** Milliseconds that a bound device may owe the serial number that its grant was made for. */
const SERIAL_PATIENCE = 5000;

/**
 * Leaves out grants whose device has been bound for longer than a driver takes to tell the serial number, and does not
 * tell the one that the grant was made for. `owed` remembers since when, by device; `uptime` in milliseconds.
 */
export function withoutSilent(
  grants: readonly Grant[],
  inventory: Inventory,
  owed: Map<string, number>,
  uptime: number,
): readonly Grant[] {
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  for (const id of owed.keys()) if (!devices.has(id)) owed.delete(id);
  return grants.filter((grant) => {
    const device = devices.get(grant.device);
    if (grant.kind === 'block' || device === undefined) return true;
    const silent = isBound(device) && matchFingerprint(grant.fingerprint, device).unknown.length > 0;
    const since = owed.get(device.id);
    // Once refused it stays refused: unbound, it owes nothing, and would be bound again to owe again.
    if (since !== undefined && uptime - since >= SERIAL_PATIENCE) return false;
    if (!silent) owed.delete(device.id);
    else if (since === undefined) owed.set(device.id, uptime);
    return true;
  });
}
