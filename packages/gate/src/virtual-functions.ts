/** SR-IOV: what is left open between a virtual function and the physical one that it stands on. Pure. */
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { levelRank } from '@airlock/core/level.ts';
import type { Outcome } from '@airlock/core/plan.ts';

/**
 * One outcome for each virtual function that is let in further than its physical one. Each is decided by itself, and
 * rightly so; but who has the physical function resets the virtual one, takes it away and says what it may reach.
 */
export function virtualFunctionOutcomes(inventory: Inventory, decisions: readonly Decision[]): Outcome[] {
  const byDevice = new Map(decisions.map((decision) => [decision.device, decision]));
  return inventory.devices.flatMap(({ id, path, sriov }): Outcome[] => {
    const own = byDevice.get(id);
    if (sriov?.role !== 'virtual' || own === undefined) return [];
    const physical = sriov.physical === undefined ? undefined : byDevice.get(sriov.physical);
    if (physical !== undefined && levelRank(physical.level) >= levelRank(own.level)) return [];
    if (own.level === 'disconnected') return [];
    const below = physical === undefined ? 'which nobody has decided on' : `which is ${physical.level}`;
    return [
      {
        property: `${id} stands on a physical function that is trusted as far`,
        status: 'not-enforceable',
        evidence: { path: `${path}/physfn`, value: sriov.physical ?? '(unknown)' },
        because:
          `it is ${own.level} by its own rule; its physical function is ${sriov.physical ?? 'one that cannot be told'}, ` +
          `${below}, and can reset it, take it away or change what it reaches`,
      },
    ];
  });
}
