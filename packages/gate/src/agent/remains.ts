/** What is left to do once the machine was made as decided, or only looked at. Pure. */
import type { Outcome } from '@airlock/core/plan.ts';
import type { Enforced } from '../enforce.ts';
import { contradictions } from './contradictions.ts';

/** What could not be made so, as text to be compared; `null` where somebody undid what was done. */
export function remains({ enforcements, machine, inventory }: Enforced): string | null {
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  const undoneBehindUs = enforcements.some(({ decision }) => {
    const device = devices.get(decision.device);
    return device !== undefined && contradictions(device, decision).length > 0;
  });
  if (undoneBehindUs) return null;
  const of = (outcomes: readonly Outcome[]) =>
    outcomes.flatMap(({ property, status }) => (status === 'failed' ? [property] : []));
  return JSON.stringify([of(machine), ...enforcements.map((one) => [one.decision.device, ...of(one.outcomes)])]);
}

/** Everything that can be made so is so. */
export function settled({ enforcements, machine, inventory }: Enforced): boolean {
  const devices = new Map(inventory.devices.map((device) => [device.id, device]));
  return (
    machine.every(({ status }) => status !== 'failed') &&
    enforcements.every(({ decision, status }) => {
      const device = devices.get(decision.device);
      return status !== 'failed' && (device === undefined || contradictions(device, decision).length === 0);
    })
  );
}
