/** What a policy's `on` section asks for when a device misbehaves, as things to be done. Pure. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { Outcome, Step } from '@airlock/core/plan.ts';
import { type Action, CARRIED_OUT, NOTICED, type Policy } from '@airlock/policy/policy.ts';
import type { Offence } from './offence.ts';

/** A device that misbehaves again after so many resets within the time is reset no more. */
export const RESETS = 3;
export const RESETS_WITHIN_MS = 600_000;

export interface Response {
  readonly action: Exclude<Action, 'log'>;
  /** From now on it is kept disconnected. */
  readonly hold: boolean;
  /** Done at once, in order, up to the first that does not work. */
  readonly now: readonly Step[];
  /** Done once the device is disconnected. */
  readonly later: readonly Step[];
  /** Why it cannot be done, or not in full. */
  readonly short?: Omit<Outcome, 'property'>;
}

export interface Circumstances {
  /** False: the agent changes nothing. */
  readonly enforcing: boolean;
  readonly whyNot: string;
  /** Resets of this device within RESETS_WITHIN_MS. */
  readonly resets: number;
  /** Devices that would go with this one. */
  readonly carries: readonly string[];
}

/** In the policy's order, each action once. `device` undefined: it has gone already, and is held for when it is back. */
export function respond(
  on: Policy['on'],
  offence: Offence,
  device: Device | undefined,
  circumstances: Circumstances,
): Response[] {
  const actions = [...new Set(on[offence.violation] ?? [])];
  return actions.flatMap((action) => (action === 'log' ? [] : [responseTo(action, device, circumstances)]));
}

function responseTo(action: Response['action'], device: Device | undefined, about: Circumstances): Response {
  const nothing = { action, hold: false, now: [], later: [] };
  if (action === 'revoke-keys') {
    const because = 'this version keeps no keys, so there are none that it could revoke';
    return { ...nothing, short: { status: 'not-enforceable', because } };
  }
  if (!about.enforcing) return { ...nothing, short: { status: 'not-enforceable', because: about.whyNot } };
  switch (action) {
    case 'unbind':
    case 'quarantine':
    case 'halt':
      return { ...nothing, hold: true };
    case 'reset':
      return resetOf(device, about);
    case 'remove':
      return removeOf(device, about);
  }
}

/** A VIRTIO device is reset by its driver's end as well (VIRTIO 1.4 §3.3); only the function's own reset is asked for. */
function resetOf(device: Device | undefined, { resets, carries }: Circumstances): Response {
  const response = { action: 'reset', hold: false, now: [], later: [] } as const;
  if (device === undefined) return { ...response, short: { status: 'failed', because: 'the device has gone' } };
  const instead = (status: 'failed' | 'not-enforceable', because: string): Response => ({
    ...response,
    hold: true,
    short: { status, because: `${because}; it is unbound instead` },
  });
  if (resets >= RESETS) {
    return instead(
      'failed',
      `it was reset ${resets} times in ${RESETS_WITHIN_MS / 60_000} minutes and misbehaves again`,
    );
  }
  const outer = device.nodes[0];
  if (outer?.bus !== 'pci') return instead('not-enforceable', 'only PCI functions can be reset');
  if (carries.length > 0) return instead('failed', `${some(carries)} would be reset with it`);
  const unbind = [...device.nodes].reverse().flatMap((node): Step[] => {
    const { bus, name, driver } = node;
    return driver === null ? [] : [{ kind: 'unbind', device: device.id, bus, node: name, driver }];
  });
  return { ...response, now: [...unbind, { kind: 'reset', device: device.id, node: outer.name }] };
}

function removeOf(device: Device | undefined, { carries }: Circumstances): Response {
  const response = { action: 'remove', hold: true, now: [], later: [] } as const;
  if (device === undefined) return response;
  const outer = device.nodes[0];
  if (outer?.bus !== 'pci') {
    const because = 'only PCI functions can be taken off their bus; it is disconnected instead';
    return { ...response, short: { status: 'not-enforceable', because } };
  }
  if (carries.length > 0) {
    const because = `${some(carries)} would go with it; it is disconnected instead`;
    return { ...response, short: { status: 'failed', because } };
  }
  return { ...response, later: [{ kind: 'remove', device: device.id, node: outer.name }] };
}

/** What sits behind a device and would share its fate. */
export function carriedBy(id: string, inventory: Inventory): string[] {
  return inventory.devices
    .filter(({ parent, sriov }) => parent === id || sriov?.physical === id)
    .map((device) => device.id);
}

function some(ids: readonly string[]): string {
  return ids.length > 3 ? `${ids.slice(0, 3).join(', ')} and ${ids.length - 3} more` : ids.join(', ');
}

/** What of a policy's `on` section nobody carries out: shown with what the kernel leaves open. */
export function unanswered(on: Policy['on']): Outcome[] {
  return Object.entries(on).flatMap(([name, actions]): Outcome[] => {
    const violation = NOTICED.find((known) => known === name);
    const property = `${name} answered with ${actions.join(', ')}`;
    if (violation === undefined) {
      return [{ property, status: 'not-enforceable', because: 'nothing in this version notices it' }];
    }
    const missing = actions.filter((action) => !CARRIED_OUT.includes(action));
    const because = `nothing in this version carries out ${missing.join(', ')}`;
    return missing.length === 0 ? [] : [{ property, status: 'not-enforceable', because }];
  });
}
