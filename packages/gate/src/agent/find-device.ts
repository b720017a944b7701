/** Which device an operator means. Pure. */
import type { Device, Inventory } from '@airlock/core/device.ts';
import { nearest } from '@airlock/core/nearest.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';

/**
 * By id (`pci:0000:00:03.0`), by any of its names (`0000:00:03.0`, `virtio1`, `eth0`, `net/eth0`), or by a PCI address
 * without its domain (`00:03.0`). Never by a part of a name: who allows a device must not get its neighbour. Codes:
 * `device-unknown`, `device-ambiguous`.
 */
export function findDevice(inventory: Inventory, name: string): Result<Device> {
  const exact = inventory.devices.find(({ id }) => id === name);
  if (exact !== undefined) return ok(exact);
  const matching = inventory.devices.filter((device) => namesOf(device).includes(name));
  const [only] = matching;
  if (only !== undefined && matching.length === 1) return ok(only);
  if (matching.length > 1) {
    return fail('device-ambiguous', `${name} may be ${matching.map(({ id }) => id).join(' or ')}`, {
      hint: 'give the id',
    });
  }
  const near = nearest(
    name,
    inventory.devices.flatMap((device) => [device.id, ...namesOf(device)]),
  );
  return fail('device-unknown', `no device ${name} here`, {
    hint: near === undefined ? 'airlock list shows them' : `did you mean ${near}?`,
  });
}

function namesOf(device: Device): string[] {
  const names = [device.location, ...device.nodes.map((node) => node.name)];
  if (device.location.startsWith('0000:')) names.push(device.location.slice(5));
  for (const known of device.interfaces) {
    names.push(known);
    // The tag of a 9p share is the host's own word: alone it could pass for another device, or make that ambiguous.
    if (!known.startsWith('9p/')) names.push(known.slice(known.indexOf('/') + 1));
  }
  return names;
}
