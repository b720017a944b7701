/** What a device did against its decision, by the name that a policy's `on` section gives it. Pure. */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, isBound } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import { UNKNOWN_DRIVER } from '@airlock/linux/device-reader.ts';
import type { Violation } from '@airlock/policy/policy.ts';
import { breaches, contradictions } from './contradictions.ts';

export interface Offence {
  readonly device: string;
  readonly violation: Violation;
  /** In words, the device's own text made safe to print. */
  readonly detail: string;
  /** The rule that decided on the device, or ''. */
  readonly rule: string;
}

/**
 * How a device, as it is seen, goes against `decision`, given the decision before that one. A device that is as the
 * earlier decision wanted it (a grant ended, an operator blocked it) does nothing wrong.
 */
export function offencesOf(device: Device, decision: Decision, was: Decision | undefined): Offence[] {
  const now = contradictions(device, decision);
  if (now.length === 0) return [];
  const rule = decision.rule?.id ?? '';
  const offence = (violation: Violation, detail: string): Offence => ({ device: device.id, violation, detail, rule });
  if (was !== undefined && isConnected(was.level)) {
    const found = breaches(device, was);
    if (found.length > 0) return found.map(({ violation, words }) => offence(violation, words));
    // Nothing that it was let in for has changed, but how it is judged.
    if (decision.reason !== 'feature-forbidden' && decision.reason !== 'feature-missing') return [];
  }
  const features = decision.reason === 'feature-forbidden' || decision.reason === 'feature-missing';
  if (features && !isConnected(decision.level)) {
    return [offence('feature-violation', `${decision.detail}; ${now.join('; ')}`)];
  }
  return breaches(device, decision).map(({ violation, words }) => offence(violation, words));
}

/** A driver link that could not be read says nothing about a driver: told, but nothing is done to a device for it. */
export function isCertain(device: Device): boolean {
  return device.nodes.every(({ driver }) => driver !== UNKNOWN_DRIVER);
}

/** VIRTIO 1.4 §2.1: DEVICE_NEEDS_RESET is the device's word, FAILED the driver's. */
const NEEDS_RESET = 0x40;
const FAILED = 0x80;

/** In words; undefined while the device is well or no driver is bound. */
export function statusTrouble(status: number): string | undefined {
  const names = [
    ...((status & NEEDS_RESET) !== 0 ? ['NEEDS_RESET'] : []),
    ...((status & FAILED) !== 0 ? ['FAILED'] : []),
  ];
  return names.length === 0 ? undefined : `VIRTIO status 0x${status.toString(16)}: ${names.join(', ')}`;
}

export function needsReset(device: Device): string | undefined {
  return device.status === undefined || !isBound(device) ? undefined : statusTrouble(device.status);
}

/** What identifies a device and cannot change while it stands where it is. */
const LASTING = ['vendor', 'device', 'class', 'revision', 'serial'] as const;

/** `revision was 1, is 2`; empty when nothing that is known in both differs. */
export function identityChanges(was: Device, is: Device): string[] {
  const show = (value: string | number) =>
    typeof value === 'number' ? `0x${value.toString(16)}` : JSON.stringify(value);
  const changes = LASTING.flatMap((field) => {
    const then = was[field];
    const now = is[field];
    const known = then !== undefined && then !== null && now !== undefined && now !== null;
    return known && then !== now ? [`${field} was ${show(then)}, is ${show(now)}`] : [];
  });
  const then = was.subsystem;
  const now = is.subsystem;
  if (then && now && (then.vendor !== now.vendor || then.device !== now.device)) {
    changes.push(`subsystem was ${show(then.vendor)}:${show(then.device)}, is ${show(now.vendor)}:${show(now.device)}`);
  }
  return changes;
}

/** A read that the device holds. Reads that were never begun because others were held are nobody's fault. */
export function heldReads(device: Device): string[] {
  return device.faults
    .filter(({ code, message }) => code === 'file-timeout' && !message.includes('not read, too many reads'))
    .map(({ attribute }) => attribute);
}
