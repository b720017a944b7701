/**
 * Which devices were there when the gate looked first, and have been since. An id names a place: what a host plugs into
 * it later is another device, whatever it says of itself. sysfs gives each coming of a device an inode number of its
 * own, and never the same twice.
 */
import type { Device, Inventory } from '@airlock/core/device.ts';

/** The inode number of a device's folder in sysfs, as text; undefined where it cannot be told. */
export type InodeOf = (device: Device) => Promise<string | undefined>;

export interface Origins {
  /** The inventory with `hotplug` as the origin of all that came later. Without anything known of the boot, as it is. */
  mark(inventory: Inventory): Promise<Inventory>;
  /** By id: inode numbers of the devices that are still those of the boot, null where it could not be told. */
  readonly boot: ReadonlyMap<string, string | null> | undefined;
}

/** `boot`: what is known of before; `first` where the first inventory to be marked says it; undefined when nothing does. */
export function startOrigins(
  inodeOf: InodeOf,
  boot: ReadonlyMap<string, string | null> | 'first' | undefined,
): Origins {
  let known = boot === 'first' || boot === undefined ? undefined : new Map(boot);
  let first = boot === 'first';
  return {
    get boot() {
      return known;
    },
    async mark(inventory) {
      if (known === undefined && !first) return inventory;
      const inodes = new Map<string, string | undefined>();
      for (const device of inventory.devices) {
        if (first || known?.has(device.id) === true) inodes.set(device.id, await inodeOf(device));
      }
      if (first) known = new Map(inventory.devices.map(({ id }) => [id, inodes.get(id) ?? null]));
      first = false;
      const still = known ?? new Map<string, string | null>();
      for (const [id, then] of still) {
        const now = inodes.get(id);
        // One that is missing and was not told apart by its number may come back as another.
        if (then === null ? !inodes.has(id) : now !== undefined && now !== then) still.delete(id);
        else if (then === null && now !== undefined) still.set(id, now);
      }
      return {
        ...inventory,
        devices: inventory.devices.map((device) => {
          const origin = still.has(device.id) ? 'boot' : 'hotplug';
          return device.origin === origin ? device : { ...device, origin };
        }),
      };
    },
  };
}
