/**
 * Platform devices that a confidential VM cares about: serial ports, the i8042 keyboard controller, fw_cfg, TPMs and
 * virtio-mmio. They lie on the kernel's platform and pnp buses; the rest of those buses is furniture.
 */
import { known, parseDecimal } from './attribute.ts';
import { type BusEntry, locateDevice } from './bus.ts';
import type { DeviceReader } from './device-reader.ts';
import type { Files } from './files.ts';
import { type Draft, parseModalias } from './pci.ts';

const BY_NAME: readonly (readonly [RegExp, string])[] = [
  [/^i8042$/, 'i8042'],
  [/^serial8250$/, 'serial'],
  [/^ARMH0011:/, 'serial'],
  [/^QEMU0002:|\.fw-cfg$/, 'fw-cfg'],
  [/^MSFT0101:|^tpm_(tis|crb)|\.tpm(_tis)?$/, 'tpm'],
  [/^LNRO0005:|^virtio-mmio\.\d+$|\.virtio(_mmio)?$/, 'virtio-mmio'],
];

/** Ids of PNP devices (`id`, one a line). */
const BY_PNP_ID: readonly (readonly [RegExp, string])[] = [
  [/^PNP050[0-9a-f]$/i, 'serial'],
  [/^PNP0C31$/i, 'tpm'],
];

/** The word for a device of the platform bus by its name, or `undefined` for what is left out. */
export function platformType(name: string): string | undefined {
  return BY_NAME.find(([pattern]) => pattern.test(name))?.[1];
}

/** The word for the text of a PNP device's `id` attribute; null for what is left out. */
export function pnpType(text: string): string | null {
  if (text.length > 1024) return null;
  const ids = text.split('\n');
  return BY_PNP_ID.find(([pattern]) => ids.some((id) => pattern.test(id)))?.[1] ?? null;
}

/** One platform or pnp device of the given type; `virtio-mmio` becomes a virtio device without a type as yet. */
export async function readPlatformDevice(reader: DeviceReader, entry: BusEntry, type: string | null): Promise<Draft> {
  if (entry.strange) reader.fault('.', 'name-malformed', `${entry.name} is no device name; the device was not read`);
  const [driver, modalias] = await Promise.all([reader.driver(), reader.value('modalias', parseModalias)]);
  const mmio = type === 'virtio-mmio';
  return {
    id: `platform:${entry.name}`,
    bus: mmio ? 'virtio' : 'platform',
    transport: mmio ? 'mmio' : null,
    location: entry.name,
    path: entry.path,
    nodes: [{ bus: entry.bus, name: entry.name, driver }],
    type: mmio ? null : type,
    subsystem: null,
    class: null,
    revision: null,
    sriov: null,
    iommu: null,
    ...(mmio ? {} : { serial: null }),
    ...known({ modalias }),
    interfaces: [],
    faults: reader.faults,
  };
}

/**
 * The ACPI node of a platform device, where a driver of the ACPI bus has it: older kernels (6.1) drive a TPM through that one
 * (`tpm_crb`), and its platform device stays without a driver.
 */
export async function findAcpiNode(files: Files, reader: DeviceReader, entry: BusEntry): Promise<BusEntry | undefined> {
  if (entry.bus !== 'platform' || entry.strange || !entry.name.includes(':')) return undefined;
  const driver = await files.link(`/sys/bus/acpi/devices/${entry.name}/driver`);
  if (!driver.ok && driver.error.code !== 'file-missing') reader.fault('acpi', driver.error.code, driver.error.message);
  return driver.ok ? locateDevice(files, 'acpi', entry.name) : undefined;
}

/**
 * `serial8250` stands for the ports that no firmware table named, and exists where there is none. True when one of the
 * ttyS below it has a UART (`type` is not 0), or when that cannot be told.
 */
export async function hasLegacyPorts(files: Files, path: string): Promise<boolean> {
  const ports = await files.list('/sys/class/tty');
  if (!ports.ok) return true;
  for (const port of ports.value.filter((name) => /^ttyS\d{1,3}$/.test(name)).slice(0, 64)) {
    const target = await files.link(`/sys/class/tty/${port}`);
    if (!target.ok || !target.value.includes(`${path.slice(path.lastIndexOf('/'))}/`)) continue;
    const type = await files.read(`/sys/class/tty/${port}/type`, 32);
    const code = type.ok ? parseDecimal(String.fromCharCode(...type.value)) : undefined;
    if (code !== 0) return true;
  }
  return false;
}
