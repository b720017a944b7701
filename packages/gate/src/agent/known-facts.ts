/**
 * What a bound device has shown stays known while it stays bound: a serial number that the device is slow to repeat, or
 * an attribute that could not be read this once, is no reason to take a disk from under the machine. What binding shows
 * cannot change without binding again (negotiated features) or would be a lie (the serial number).
 */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, type Inventory, isBound } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';

export interface KnownFacts {
  /** The inventory with what is known already filled in where it could not be read now. Takes note of what could. */
  complete(inventory: Inventory): Inventory;
  /**
   * For a device that was connected before this program started and owes facts since: the decision of then, until the
   * facts have been read once. Only where the policy would connect it, depending on those facts: `provisional` is its
   * decision before binding. Otherwise the decision itself.
   */
  hold(device: Device, decision: Decision, provisional: Decision | undefined): Decision;
  /** The device went away, or is to be judged anew. */
  forget(device: string): void;
}

interface Fact {
  /** Names and drivers of all nodes: another binding, other facts. */
  readonly binding: string;
  readonly serial: string | null | undefined;
  readonly negotiated: readonly string[] | undefined;
}

/** `earlier`: decisions by device that somebody else enforced, from facts that are not known here. */
export function knownFacts(earlier: ReadonlyMap<string, Decision>): KnownFacts {
  const facts = new Map<string, Fact>();
  const held = new Map([...earlier].filter(([, decision]) => isConnected(decision.level)));

  function completeOne(device: Device): Device {
    if (!isBound(device)) {
      facts.delete(device.id);
      held.delete(device.id);
      return device;
    }
    const binding = JSON.stringify(device.nodes);
    const before = facts.get(device.id);
    const same = before?.binding === binding ? before : undefined;
    const serial = device.serial ?? (device.serial === undefined ? same?.serial : null);
    const negotiated = device.features?.negotiated ?? same?.negotiated;
    facts.set(device.id, { binding, serial, negotiated });
    if (!owes(device)) held.delete(device.id);
    return {
      ...device,
      ...(serial === undefined ? {} : { serial }),
      ...(negotiated === undefined ? {} : { features: { ...device.features, negotiated } }),
    };
  }

  return {
    complete: (inventory) => ({ ...inventory, devices: inventory.devices.map(completeOne) }),
    hold(device, decision, provisional) {
      const then = held.get(device.id);
      if (then === undefined || provisional === undefined || isConnected(decision.level)) return decision;
      if (!isConnected(provisional.level) || provisional.pending.length === 0) return decision;
      return { ...then, detail: `${then.detail}; held: what it rests on could not be read again yet` };
    },
    forget(device) {
      facts.delete(device);
      held.delete(device);
    },
  };
}

/** Something that binding shows could not be read, and not because it is not there. */
function owes(device: Device): boolean {
  const unread = device.faults.length > 0;
  return (
    unread && (device.serial === undefined || (device.bus === 'virtio' && device.features?.negotiated === undefined))
  );
}
