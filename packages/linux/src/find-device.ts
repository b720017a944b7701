/** From what a person calls a device to the device. */
import type { Device } from '@airlock/core/device.ts';
import { nearest } from '@airlock/core/nearest.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { printable } from './attribute.ts';

/**
 * The one device with this id, location (`0000:00:03.0`, or `00:03.0` in domain 0), kernel node (`virtio1`), path, or
 * interface (`block/vda`, `vda`, `9p/TAG`); an id wins over the rest. Codes: `device-unknown`, `device-ambiguous`.
 */
export function findDevice(devices: readonly Device[], word: string): Result<Device> {
  const exact = devices.find(({ id }) => id === word);
  if (exact !== undefined) return ok(exact);
  const names = devices.map((device) => ({ device, names: namesOf(device) }));
  const found = names.filter((entry) => entry.names.includes(word)).map(({ device }) => device);
  const [first] = found;
  if (first !== undefined && found.length === 1) return ok(first);
  const shown = printable(word.slice(0, 80));
  if (found.length > 1) {
    const ids = found.slice(0, 5).map(({ id }) => id);
    return fail('device-ambiguous', `"${shown}" is ${found.length} devices`, { hint: `one of ${ids.join(', ')}` });
  }
  const near = nearest(
    word,
    names.flatMap((entry) => entry.names),
  );
  return fail('device-unknown', `there is no device "${shown}"`, {
    hint: near === undefined ? 'airlock list shows them' : `did you mean ${near}?`,
  });
}

function namesOf(device: Device): readonly string[] {
  const short = device.location.startsWith('0000:') ? [device.location.slice(5)] : [];
  // The tag of a 9p share is the host's own word: alone it could pass for another device's name, or make that ambiguous.
  const last = device.interfaces.flatMap((name) => (name.startsWith('9p/') ? [] : [name.slice(name.indexOf('/') + 1)]));
  return [
    ...new Set([
      device.id,
      device.location,
      ...short,
      ...device.nodes.map(({ name }) => name),
      device.path,
      ...device.interfaces,
      ...last,
    ]),
  ];
}
