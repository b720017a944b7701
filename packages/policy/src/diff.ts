/** What a change of policy does to recorded machines: every device whose level or rule would be another one. */
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { levelRank } from '@airlock/core/level.ts';
import type { CompiledPolicy } from './compile.ts';
import { decide } from './decide.ts';

export interface Difference {
  readonly inventory: string;
  readonly device: string;
  /** What it is, for readers: `virtio net`. */
  readonly what: string;
  readonly before: Decision;
  readonly after: Decision;
  /** `same-level`: another rule or reason gives the level that it had. */
  readonly change: 'gains' | 'loses' | 'same-level';
}

export interface RecordedMachine {
  readonly name: string;
  readonly inventory: Inventory;
  readonly claims?: Claims;
}

/** In the order of the machines and of their devices. */
export function diffPolicies(
  before: CompiledPolicy,
  after: CompiledPolicy,
  machines: readonly RecordedMachine[],
): Difference[] {
  return machines.flatMap(({ name, inventory, claims = {} }) => {
    const old = decide(before, inventory, claims);
    const now = decide(after, inventory, claims);
    return inventory.devices.flatMap((device, index): Difference[] => {
      const a = old[index];
      const b = now[index];
      if (a === undefined || b === undefined || isSame(a, b)) return [];
      const step = levelRank(b.level) - levelRank(a.level);
      const change = step > 0 ? 'gains' : step < 0 ? 'loses' : 'same-level';
      const what = `${device.bus}${device.type === null ? '' : ` ${device.type}`}`;
      return [{ inventory: name, device: device.id, what, before: a, after: b, change }];
    });
  });
}

/** Lines and files of a rule may move without a difference to any device. */
function isSame(a: Decision, b: Decision): boolean {
  return (
    a.level === b.level &&
    a.reason === b.reason &&
    a.rule?.id === b.rule?.id &&
    a.pending.join() === b.pending.join() &&
    a.grantable === b.grantable &&
    JSON.stringify([a.drivers, a.features, a.protect]) === JSON.stringify([b.drivers, b.features, b.protect])
  );
}
