/** Where a machine, as it is seen, says otherwise than a decision about it. Pure. */
import type { Decision } from '@airlock/core/decision.ts';
import { type Device, isBound } from '@airlock/core/device.ts';
import { isConnected } from '@airlock/core/level.ts';
import { canonicalFeature } from '@airlock/core/virtio.ts';
import { allows } from '../plan.ts';

export interface Breach {
  readonly violation: 'driver-violation' | 'feature-violation';
  readonly words: string;
}

/** In words, one for each way; empty when the device keeps to the decision. One that is not bound yet does. */
export function contradictions(device: Device, decision: Decision): string[] {
  return breaches(device, decision).map(({ words }) => words);
}

/** The same, with what each is called. */
export function breaches(device: Device, decision: Decision): Breach[] {
  if (!isConnected(decision.level)) return stillDriven(device);
  if (!isBound(device)) return [];
  const wrong: Breach[] = [];
  const driver = device.nodes.at(-1)?.driver;
  if (device.bus !== 'usb' && driver && !allows(decision, driver)) {
    wrong.push({
      violation: 'driver-violation',
      words: `bound to ${driver}, but the rule names only ${(decision.drivers ?? []).join(', ')}`,
    });
  }
  const feature = (words: string) => wrong.push({ violation: 'feature-violation', words });
  const negotiated = device.features?.negotiated;
  if (negotiated !== undefined && decision.features !== undefined) {
    const names = new Set(negotiated.map(canonicalFeature));
    const forbidden = decision.features.forbid.filter((name) => names.has(canonicalFeature(name)));
    const missing = decision.features.require.filter((name) => !names.has(canonicalFeature(name)));
    if (forbidden.length > 0) feature(`negotiated ${forbidden.join(', ')}, which the rule forbids`);
    if (missing.length > 0) feature(`did not negotiate ${missing.join(', ')}, which the rule requires`);
  }
  return wrong;
}

/** A USB device keeps the generic driver `usb` when it is not authorized; what it loses are its interfaces' drivers. */
function stillDriven(device: Device): Breach[] {
  const nodes = device.bus === 'usb' ? device.nodes.slice(1) : device.nodes;
  const drivers = nodes.flatMap(({ name, driver }) => (driver === null ? [] : [`${name} is bound to ${driver}`]));
  return drivers.length === 0
    ? []
    : [{ violation: 'driver-violation', words: `${drivers.join(', ')}, but it is to be disconnected` }];
}
