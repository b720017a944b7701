/** What programs know devices by: entries of /sys/class, joined to the device below which their links lead. */
import { isDeviceName, printable, resolveLink } from './attribute.ts';
import { folderOf } from './bus.ts';
import type { Files } from './files.ts';
import { mapBounded } from './map-bounded.ts';

/** Classes, and which of their names are worth a look. The first three are all that plans and policies ask for. */
const CLASSES: readonly { readonly name: string; readonly only?: RegExp }[] = [
  { name: 'block' },
  { name: 'net' },
  { name: 'nvme', only: /^nvme\d+$/ },
  { name: 'tty', only: /^(ttyS|ttyAMA|ttyUSB|ttyACM|hvc)\d+$/ },
  { name: 'virtio-ports' },
  { name: 'input', only: /^input\d+$/ },
  { name: 'drm', only: /^card\d+$/ },
  { name: 'sound', only: /^card\d+$/ },
  { name: 'scsi_host' },
  { name: 'tpm' },
  { name: 'vhost-vdpa' },
];

export interface Interface {
  /** `block/vda` */
  readonly name: string;
  /** Its place in the device tree. */
  readonly path: string;
}

const INTERFACES_LIMIT = 40_000;

/** Interfaces by name, whole disks only (no partitions). `full` adds those that only people ask for. */
export async function readInterfaces(files: Files, full: boolean): Promise<readonly Interface[]> {
  const found = await Promise.all(
    CLASSES.slice(0, full ? CLASSES.length : 3).map(async ({ name: kind, only }) => {
      const folder = `/sys/class/${kind}`;
      const names = await files.list(folder);
      if (!names.ok) return [];
      const wanted = names.value.filter((name) => isDeviceName(name) && (only?.test(name) ?? true));
      const links = await mapBounded(wanted.slice(0, INTERFACES_LIMIT), 16, async (name) => {
        const target = await files.link(`${folder}/${name}`);
        const path = target.ok ? resolveLink(folder, target.value) : undefined;
        return path?.startsWith('/sys/devices/') ? [{ name: `${kind}/${name}`, path }] : [];
      });
      const all = links.flat();
      if (kind !== 'block') return all;
      // A partition lies below its disk, which is in this list too.
      const disks = new Set(all.map(({ path }) => path));
      return all.filter(({ path }) => !disks.has(folderOf(path)));
    }),
  );
  return found.flat().map(({ name, path }) => ({ name: printable(name), path }));
}
