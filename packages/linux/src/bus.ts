/** The devices of one kernel bus, by name, with the place in the device tree that each link leads to. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { isDeviceName, printable, resolveLink } from './attribute.ts';
import type { Files } from './files.ts';
import { mapBounded } from './map-bounded.ts';

/** More than this on one bus is no machine that we know of; the inventory is given up rather than cut short. */
export const DEVICES_LIMIT = 20_000;

export interface BusEntry {
  readonly bus: string;
  readonly name: string;
  /** Below /sys/devices where the link says so, else below /sys/bus. */
  readonly path: string;
  /** The name is none that the kernel gives; such an entry is shown but never read. */
  readonly strange?: true;
}

/**
 * Entries of /sys/bus/BUS/devices whose names `accept` takes, in the order of their names; none when the bus does not
 * exist. Codes: `bus-unreadable`, `inventory-too-large`.
 */
export async function listBus(
  files: Files,
  bus: string,
  accept: (name: string) => boolean = () => true,
): Promise<Result<readonly BusEntry[]>> {
  const folder = `/sys/bus/${bus}/devices`;
  const names = await files.list(folder);
  if (!names.ok) {
    return names.error.code === 'file-missing' ? ok([]) : fail('bus-unreadable', printable(names.error.message));
  }
  const wanted = names.value.filter(accept);
  if (wanted.length > DEVICES_LIMIT) {
    return fail('inventory-too-large', `${folder}: ${wanted.length} devices, at most ${DEVICES_LIMIT} are read`);
  }
  return ok(await mapBounded(wanted, 16, (name) => locateDevice(files, bus, name)));
}

/** Where a device of a bus lies, by its name there. */
export async function locateDevice(files: Files, bus: string, name: string): Promise<BusEntry> {
  const folder = `/sys/bus/${bus}/devices`;
  if (!isDeviceName(name)) return { bus, name: printable(name), path: `${folder}/${printable(name)}`, strange: true };
  const here = `${folder}/${name}`;
  const target = await files.link(here);
  const path = target.ok ? devicePath(folder, target.value) : undefined;
  return { bus, name, path: path?.endsWith(`/${name}`) === true ? path : here };
}

/** Where a device's link leads, when that is below /sys/devices and safe to print. */
function devicePath(folder: string, target: string): string | undefined {
  // What the kernel writes: `../../../devices/...`, nothing to resolve behind it.
  const plain = target.startsWith('../../../devices/') && !target.includes('/.', 9) && !target.includes('//');
  const path = plain ? `/sys${target.slice(8)}` : resolveLink(folder, target);
  return path?.startsWith('/sys/devices/') === true && /^[\x21-\x7e]+$/.test(path) ? path : undefined;
}

/** `/a/b` of `/a/b/c`; '' of `/a`. */
export function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
