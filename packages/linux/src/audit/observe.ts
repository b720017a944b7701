/**
 * Reads everything that the checks look at, once, without writing anything and without needing to be root. What cannot
 * be read is kept as such.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Inventory } from '@airlock/core/device.ts';
import type { Result } from '@airlock/core/result.ts';
import type { Commands } from '../commands.ts';
import { type Files, READ_LIMIT } from '../files.ts';
import type { Listing, Observations, Reading } from './reading.ts';
import { MOUNTINFO } from './reading.ts';
import { BLOCK } from './storage.ts';

export interface ObserveOptions {
  /** Without it the kernel's log is not looked at (a root that is not this machine's). */
  readonly commands?: Commands;
  /** The devices, from `readInventory`. */
  readonly inventory?: Result<Inventory>;
}

/** Names taken of one folder; a machine with more of anything than this shows the first ones. */
const NAMES_LIMIT = 512;
const LARGE = 1_048_576;
/** Enough for the first processor of /proc/cpuinfo. */
const HEAD = 16_384;

const FILES: readonly string[] = [
  '/proc/cmdline',
  '/proc/consoles',
  '/proc/swaps',
  '/proc/sys/kernel/osrelease',
  '/proc/sys/kernel/tainted',
  '/proc/sys/kernel/panic_on_oops',
  '/proc/sys/kernel/modules_disabled',
  '/proc/sys/kernel/modprobe',
  '/proc/sys/kernel/kexec_load_disabled',
  '/proc/sys/kernel/sysrq',
  '/proc/sys/kernel/core_pattern',
  '/proc/sys/fs/suid_dumpable',
  '/sys/kernel/kexec_crash_loaded',
  '/sys/kernel/security/lockdown',
  '/sys/kernel/security/lsm',
  '/sys/kernel/debug/swiotlb/io_tlb_nslabs',
  '/sys/kernel/debug/swiotlb/io_tlb_used',
  '/sys/module/module/parameters/sig_enforce',
  '/sys/module/acpiphp/parameters/disable',
  '/sys/module/kgdboc/parameters/kgdboc',
  '/sys/power/state',
  '/sys/power/disk',
  '/sys/power/resume',
  '/sys/firmware/uv/prot_virt_guest',
  '/sys/firmware/acpi/hotplug/pci_root/enabled',
  '/sys/bus/pci/drivers_autoprobe',
  '/sys/bus/virtio/drivers_autoprobe',
  '/sys/bus/vdpa/drivers_autoprobe',
  '/sys/bus/usb/drivers_autoprobe',
  '/sys/devices/system/clocksource/clocksource0/current_clocksource',
  '/sys/devices/system/clocksource/clocksource0/available_clocksource',
  '/sys/class/misc/hw_random/rng_current',
  '/sys/class/misc/hw_random/rng_available',
  '/sys/class/dmi/id/sys_vendor',
  '/sys/class/dmi/id/product_serial',
  '/run/cloud-init/cloud-id',
  '/etc/inittab',
];

const LARGE_FILES: readonly string[] = [MOUNTINFO, '/proc/modules'];

const LISTS: readonly string[] = [
  '/dev',
  '/dev/disk/by-label',
  '/sys/class/tsm',
  '/sys/kernel/config/tsm/report',
  '/sys/kernel/config/acpi/table',
  '/sys/devices/platform/sev-guest',
  '/sys/devices/platform/arm-cca-dev',
  '/sys/devices/faux/arm-cca-dev',
  '/sys/devices/system/cpu/sev',
  '/sys/devices/virtual/misc/tdx_guest',
  '/sys/bus/auxiliary/devices',
  '/sys/bus/virtio/devices',
  '/sys/bus/virtio/drivers',
  '/sys/bus/pci/drivers',
  '/sys/bus/pci_express/drivers/pciehp',
  '/sys/firmware/acpi/tables',
];

/** Folders of which every entry is read: the folder, how many entries, and the files of each. */
const FAMILIES: readonly { folder: string; entries: RegExp; limit: number; files: readonly string[] }[] = [
  { folder: '/sys/devices/system/cpu/vulnerabilities', entries: /^\w+$/, limit: 64, files: [''] },
  { folder: '/sys/bus/usb/devices', entries: /^usb\d+$/, limit: 32, files: ['/authorized_default'] },
  {
    folder: '/sys/bus/thunderbolt/devices',
    entries: /^domain\d+$/,
    limit: 8,
    files: ['/security', '/iommu_dma_protection'],
  },
  { folder: '/sys/bus/pci/slots', entries: /^[\w-]+$/, limit: 64, files: ['/power'] },
  { folder: '/sys/kernel/iommu_groups', entries: /^\d+$/, limit: 256, files: ['/type'] },
  { folder: '/sys/firmware/qemu_fw_cfg/by_key', entries: /^\d+$/, limit: 256, files: ['/name'] },
  { folder: '/sys/firmware/dmi/entries', entries: /^11-\d+$/, limit: 16, files: ['/raw'] },
];

/** Where a login on a terminal is switched on. */
const GETTY_FOLDERS: readonly string[] = [
  '/etc/systemd/system/getty.target.wants',
  '/run/systemd/generator/getty.target.wants',
  '/etc/systemd/system/multi-user.target.wants',
];

/** Never fails; what was not readable is in the result. At most a few thousand small reads. */
export async function observe(files: Files, options: ObserveOptions = {}): Promise<Observations> {
  const seen: Record<string, Reading> = {};
  const lists: Record<string, Listing> = {};
  const links: Record<string, Reading> = {};

  const read = async (path: string, limit = READ_LIMIT): Promise<string | undefined> => {
    const bytes = await files.read(path, limit);
    const reading = bytes.ok ? textReading(bytes.value) : failed(bytes.error.code);
    seen[path] = reading;
    return reading.state === 'read' ? reading.text : undefined;
  };
  const list = async (path: string, limit = NAMES_LIMIT): Promise<readonly string[]> => {
    const all = await files.list(path);
    if (!all.ok) {
      lists[path] = all.error.code === 'file-missing' ? { state: 'absent' } : { state: 'failed', code: all.error.code };
      return [];
    }
    const names = all.value.filter(isName).slice(0, limit);
    lists[path] = { state: 'listed', names, truncated: names.length < all.value.length };
    return names;
  };
  const link = async (path: string): Promise<void> => {
    const target = await files.link(path);
    links[path] = target.ok ? { state: 'read', text: target.value } : failed(target.error.code);
  };

  const cpuinfo = await files.readAt('/proc/cpuinfo', 0, HEAD);
  seen['/proc/cpuinfo'] = cpuinfo.ok ? textReading(cpuinfo.value) : failed(cpuinfo.error.code);
  for (const path of FILES) await read(path);
  for (const path of LARGE_FILES) await read(path, LARGE);
  for (const path of LISTS) await list(path);

  for (const family of FAMILIES) {
    const entries = (await list(family.folder)).filter((name) => family.entries.test(name)).slice(0, family.limit);
    for (const entry of entries) {
      for (const file of family.files) await read(`${family.folder}/${entry}${file}`);
    }
  }

  for (const device of await list(BLOCK)) {
    const at = `${BLOCK}/${device}`;
    await link(at);
    await list(`${at}/slaves`, 64);
    for (const file of ['dev', 'partition', 'dm/uuid', 'dm/name', 'loop/backing_file', 'integrity/tag_size']) {
      await read(`${at}/${file}`);
    }
    if (/^zram\d+$/.test(device)) await read(`${at}/backing_dev`);
  }
  for (const pool of (await list('/sys/fs/btrfs')).filter((name) => /^[0-9a-f-]{36}$/.test(name)).slice(0, 64)) {
    await list(`/sys/fs/btrfs/${pool}/devices`, 64);
  }

  for (const folder of GETTY_FOLDERS) await list(folder);
  for (const folder of ['/etc/systemd/system', '/run/systemd/system']) {
    const dropIns = (await list(folder))
      .filter((name) => /^(serial-getty|console-getty|getty)@?[\w-]*\.service\.d$/.test(name))
      .slice(0, 16);
    for (const dropIn of dropIns) {
      const names = (await list(`${folder}/${dropIn}`)).filter((name) => name.endsWith('.conf')).slice(0, 16);
      for (const name of names) await read(`${folder}/${dropIn}/${name}`);
    }
  }

  const release = seen['/proc/sys/kernel/osrelease'];
  if (release?.state === 'read' && /^[\w.+~-]{1,128}$/.test(release.text)) {
    await read(`/lib/modules/${release.text}/modules.builtin`, LARGE);
    if ((await read(`/boot/config-${release.text}`, LARGE)) === undefined) {
      await read(`/lib/modules/${release.text}/config`, LARGE);
    }
  }

  return {
    version: 1,
    files: seen,
    lists,
    links,
    kernelLog: await readKernelLog(options.commands),
    inventory: options.inventory?.ok === true ? options.inventory.value : null,
    inventoryProblem: options.inventory?.ok === false ? options.inventory.error : null,
  };
}

/** A name that the kernel can give: no slash, no NUL, not the folder itself. */
function isName(name: string): boolean {
  return name !== '.' && name !== '..' && name.length <= 255 && !/[/\0]/.test(name);
}

function textReading(bytes: Uint8Array): Reading {
  return { state: 'read', text: asciiText(bytes).replace(/\n$/, '') };
}

function failed(code: string): Reading {
  return code === 'file-missing' ? { state: 'absent' } : { state: 'failed', code };
}

/** dmesg reads the ring buffer where the kernel lets it: root, or kernel.dmesg_restrict=0. */
async function readKernelLog(commands: Commands | undefined): Promise<Reading> {
  if (commands === undefined) return { state: 'failed', code: 'not-asked' };
  const outcome = await commands.run(['dmesg'], { timeout: 700 });
  if (!outcome.ok) return { state: 'failed', code: outcome.error.code };
  if (outcome.value.status !== 0) return { state: 'failed', code: 'file-denied' };
  return { state: 'read', text: outcome.value.stdout.replace(/[^\x20-\x7e\n]/g, '?').trimEnd() };
}
