/** What differs between two looks at the machine. Pure. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import type { EventBody } from '@airlock/core/event.ts';
import { fingerprintOf, matchFingerprint } from '@airlock/policy/grant.ts';

export type Change = Extract<EventBody, { kind: 'device-added' | 'device-removed' | 'device-changed' }>;

/**
 * Events in words, in the order of the later inventory, removals first. A device whose ids changed in its place is
 * removed and added. `before` undefined: nothing is known, so nothing changed.
 */
export function changesBetween(before: Inventory | undefined, after: Inventory): Change[] {
  if (before === undefined) return [];
  const old = new Map(before.devices.map((device) => [device.id, device]));
  const there = new Set(after.devices.map(({ id }) => id));
  const changes: Change[] = before.devices
    .filter(({ id }) => !there.has(id))
    .map((device) => ({ kind: 'device-removed', device: device.id, what: describe(device) }));
  for (const device of after.devices) {
    const was = old.get(device.id);
    if (was === undefined) {
      changes.push({ kind: 'device-added', device: device.id, what: describe(device) });
      continue;
    }
    const other = matchFingerprint(fingerprintOf(was), device);
    if (other.matches === false) {
      changes.push({
        kind: 'device-removed',
        device: device.id,
        what: `another device stands in its place: ${other.differs.join(', ')}`,
      });
      changes.push({ kind: 'device-added', device: device.id, what: describe(device) });
      continue;
    }
    const what = differences(was, device);
    if (what.length > 0) changes.push({ kind: 'device-changed', device: device.id, what: what.join('; ') });
  }
  return changes;
}

function differences(was: Device, is: Device): string[] {
  const what: string[] = [];
  const wasDrivers = drivers(was);
  const isDrivers = drivers(is);
  for (const [name, driver] of isDrivers) {
    const then = wasDrivers.get(name) ?? null;
    if (then !== driver) what.push(`${name}: driver ${then ?? 'none'} -> ${driver ?? 'none'}`);
  }
  for (const [name, driver] of wasDrivers) {
    if (!isDrivers.has(name) && driver !== null) what.push(`${name}: driver ${driver} -> none`);
  }
  const thenFeatures = was.features?.negotiated;
  const nowFeatures = is.features?.negotiated;
  if (thenFeatures !== undefined && nowFeatures !== undefined) {
    const gained = nowFeatures.filter((name) => !thenFeatures.includes(name));
    const gone = thenFeatures.filter((name) => !nowFeatures.includes(name));
    if (gained.length > 0) what.push(`negotiated ${gained.join(', ')}`);
    if (gone.length > 0) what.push(`no longer negotiated ${gone.join(', ')}`);
  }
  if (is.status !== was.status && is.status !== undefined) {
    const trouble = [
      ...((is.status & 0x40) !== 0 ? ['NEEDS_RESET'] : []),
      ...((is.status & 0x80) !== 0 ? ['FAILED'] : []),
    ];
    if (trouble.length > 0) what.push(`status 0x${is.status.toString(16)}: ${trouble.join(', ')}`);
  }
  if ((was.sriov?.enabled ?? 0) !== (is.sriov?.enabled ?? 0)) {
    what.push(`virtual functions ${was.sriov?.enabled ?? 0} -> ${is.sriov?.enabled ?? 0}`);
  }
  const faults = is.faults.filter(({ attribute }) => !was.faults.some((fault) => fault.attribute === attribute));
  for (const fault of faults.slice(0, 4)) what.push(`${fault.attribute}: ${fault.message}`);
  return what;
}

function drivers(device: Device): Map<string, string | null> {
  return new Map(device.nodes.map((node) => [node.name, node.driver]));
}

/** `virtio net 1af4:1041 rev 1, driver virtio_net` */
export function describe(device: Device): string {
  const hex = (value: number) => value.toString(16).padStart(4, '0');
  const parts = [
    ...(device.bus === device.type ? [] : [device.bus]),
    ...(device.type === null ? [] : [device.type]),
    ...(device.vendor !== undefined && device.device !== undefined
      ? [`${hex(device.vendor)}:${hex(device.device)}`]
      : []),
    ...(typeof device.revision === 'number' ? [`rev ${device.revision}`] : []),
    ...(typeof device.serial === 'string' ? [`serial ${device.serial}`] : []),
  ];
  const driver = device.nodes.at(-1)?.driver ?? null;
  return `${parts.join(' ')}, ${driver === null ? 'no driver' : `driver ${driver}`}`;
}
