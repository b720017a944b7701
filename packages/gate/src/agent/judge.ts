/**
 * The policy's word on an inventory, in both phases at once, grants and the external engine included. Kept apart from
 * the loop because an engine answers in its own time and the loop asks for decisions as plain values.
 */
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import { type Inventory, isBound } from '@airlock/core/device.ts';
import type { CompiledPolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import type { ExternalEngine } from '@airlock/policy/external/engine.ts';
import type { Grant } from '@airlock/policy/grant.ts';

export interface Judgement {
  readonly 'before-bind': readonly Decision[];
  readonly 'after-bind': readonly Decision[];
  /** For each device the phase that it is in: bound devices are judged by what binding showed. */
  readonly seen: readonly Decision[];
}

/** `proven`: claims of devices that were asked; they stand before those that the judge was made with. */
export type Judge = (inventory: Inventory, grants: readonly Grant[], proven?: Claims) => Promise<Judgement>;

/** `engine` may only narrow, and sees what the grants made of the rules' decisions. */
export function judgeBy(policy: CompiledPolicy, given: Claims, engine: ExternalEngine | null): Judge {
  return async (inventory, grants, proven) => {
    const claims = proven === undefined ? given : { ...given, ...proven };
    const inPhase = async (phase: 'before-bind' | 'after-bind'): Promise<readonly Decision[]> => {
      const decided = decide(policy, inventory, claims, { phase, grants });
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
