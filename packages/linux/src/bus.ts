/** The devices of one kernel bus, by name, with the place in the device tree that each link leads to. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { isDeviceName, parseLinkName, printable, resolveLink } from './attribute.ts';
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
  return ok(await mapBounded(wanted, 16, (name) => locate(files, bus, folder, name)));
}

async function locate(files: Files, bus: string, folder: string, name: string): Promise<BusEntry> {
  if (!isDeviceName(name)) return { bus, name: printable(name), path: `${folder}/${printable(name)}`, strange: true };
  const here = `${folder}/${name}`;
  const target = await files.link(here);
  const path = target.ok ? resolveLink(folder, target.value) : undefined;
  const trusted = path?.startsWith('/sys/devices/') && parseLinkName(path) === name && /^[\x21-\x7e]+$/.test(path);
  return { bus, name, path: path !== undefined && trusted ? path : here };
}

/** `/a/b` of `/a/b/c`; '' of `/a`. */
export function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
