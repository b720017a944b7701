/** The inventory: every device of this machine that policies speak of, as one plain value. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { featureName } from '@airlock/core/virtio.ts';
import { parseLine, parseSerial, printable } from './attribute.ts';
import { type BusEntry, folderOf, listBus } from './bus.ts';
import { orderDevices } from './device-order.ts';
import { type DeviceReader, deviceReader, type Patience } from './device-reader.ts';
import type { Files } from './files.ts';
import { type Interface, readInterfaces } from './interfaces.ts';
import { readKernelFacts } from './kernel-facts.ts';
import { mapBounded } from './map-bounded.ts';
import { type Draft, readPciFunction } from './pci.ts';
import { findAcpiNode, hasLegacyPorts, platformType, pnpType, readPlatformDevice } from './platform.ts';
import { joinVirtualFunctions } from './sriov.ts';
import { readTsmDevices } from './tsm.ts';
import { isUsbDevice, readUsbDevice, usbDeviceOf } from './usb.ts';
import { readVdpaDevice } from './vdpa.ts';
import { joinVirtio } from './virtio.ts';
import { readOffered } from './virtio-window.ts';

export interface InventoryOptions {
  /** Read offered features of unbound virtio functions, all or those with these ids; writes their configuration space. */
  readonly probe?: boolean | readonly string[];
  /** Ids of devices that were there when the gate looked first; default: /run/airlock/boot-devices.json. */
  readonly bootDevices?: readonly string[];
  /** `decision` reads only what policies and plans need; `full` (the default) everything. */
  readonly detail?: 'decision' | 'full';
}

const BOOT_DEVICES = '/run/airlock/boot-devices.json';

/** How many devices are read at a time. */
const WIDTH = 8;

/** A device while it is put together, with what reads it. */
interface Item {
  readonly draft: Draft;
  readonly reader: DeviceReader;
  /** The path of an inner node that lies elsewhere in the device tree. */
  readonly inner?: string;
}

/**
 * Every device once, in the order of buses and addresses. A device that answers wrongly, slowly or not at all is in it,
 * with its faults and without the facts that it did not give. Fails only where a whole list cannot be had, since a
 * list that is cut short would hide devices: `sysfs-missing`, `bus-unreadable`, `inventory-too-large`.
 */
export async function readInventory(files: Files, options: InventoryOptions = {}): Promise<Result<Inventory>> {
  const full = options.detail !== 'decision';
  const buses = await files.list('/sys/bus');
  if (!buses.ok) {
    return buses.error.code === 'file-missing'
      ? fail('sysfs-missing', '/sys/bus is not there', { hint: 'mount -t sysfs sysfs /sys' })
      : fail('bus-unreadable', printable(buses.error.message));
  }
  const list = async (bus: string, accept?: (name: string) => boolean): Promise<Result<readonly BusEntry[]>> =>
    buses.value.includes(bus) ? listBus(files, bus, accept) : ok([]);
  const virtio = await list('virtio');
  if (!virtio.ok) return virtio;
  const carriers = new Set(virtio.value.map((entry) => folderOf(entry.path)).map((path) => nameOf(path)));
  const [kernel, interfaces, boot, noGroups, tsms, pci, usb, vdpa, platform, pnp] = await Promise.all([
    readKernelFacts(files),
    readInterfaces(files, full),
    options.bootDevices ?? readBootDevices(files),
    isEmpty(files, '/sys/kernel/iommu_groups'),
    readTsmDevices(files),
    list('pci'),
    list('usb'),
    list('vdpa'),
    list('platform', (name) => platformType(name) !== undefined || carriers.has(name)),
    list('pnp'),
  ]);
  if (!pci.ok) return pci;
  if (!usb.ok) return usb;
  if (!vdpa.ok) return vdpa;
  if (!platform.ok) return platform;
  if (!pnp.ok) return pnp;

  const patience: Patience = { hung: 0 };
  const open = (path: string) => deviceReader(files, path, patience);
  const part = (entry: BusEntry, outer: DeviceReader) =>
    deviceReader(files, entry.path, patience, { prefix: `${entry.name}/`, faults: outer.faults });
  const context = { full, groups: !noGroups, tsm: tsms.length > 0, groupType: rememberGroupTypes(files) };

  const functions = await mapBounded(pci.value, WIDTH, async (entry): Promise<Item> => {
    const reader = open(entry.path);
    return { draft: await readPciFunction(reader, entry, context), reader };
  });
  await joinVirtualFunctions(functions);
  const platforms = await mapBounded(
    [...platform.value, ...pnp.value],
    WIDTH,
    async (entry): Promise<readonly Item[]> => {
      const reader = open(entry.path);
      const told = entry.bus === 'pnp' && !entry.strange ? await reader.value('id', pnpType) : platformType(entry.name);
      const type = told ?? (carriers.has(entry.name) ? 'virtio-mmio' : null);
      // One that could not be read may be anything: it is shown.
      if (type === null && !entry.strange && reader.faults.length === 0) return [];
      if (entry.name === 'serial8250' && !(await hasLegacyPorts(files, entry.path))) return [];
      const draft = await readPlatformDevice(reader, entry, type);
      const acpi = await findAcpiNode(files, reader, entry);
      if (acpi === undefined) return [{ draft, reader }];
      draft.nodes = [...draft.nodes, { bus: 'acpi', name: acpi.name, driver: await part(acpi, reader).driver() }];
      return [{ draft, reader, inner: acpi.path }];
    },
  );
  const vdpas = await mapBounded(vdpa.value, WIDTH, async (entry): Promise<Item> => {
    const reader = open(entry.path);
    return { draft: await readVdpaDevice(reader, entry), reader };
  });
  const inner = new Map<string, BusEntry[]>();
  for (const entry of usb.value) if (!isUsbDevice(entry.name)) append(inner, usbDeviceOf(entry.name), entry);
  const usbs = await mapBounded(usb.value, WIDTH, async (entry): Promise<readonly Item[]> => {
    if (!isUsbDevice(entry.name)) return [];
    const reader = open(entry.path);
    const parts = (inner.get(entry.name) ?? []).map((each) => ({ entry: each, reader: part(each, reader) }));
    return [{ draft: await readUsbDevice(reader, entry, parts), reader }];
  });
  const carriersFound: readonly Item[] = [...functions, ...platforms.flat(), ...usbs.flat(), ...vdpas];

  const byPath = new Map(carriersFound.map((item) => [item.draft.path, item]));
  for (const item of carriersFound) if (item.inner !== undefined) byPath.set(item.inner, item);
  const joined = await mapBounded(virtio.value, WIDTH, async (entry): Promise<readonly [string, Item]> => {
    const folder = folderOf(entry.path);
    const carrier = byPath.get(folder) ?? (await orphan(entry, folder, open));
    await joinVirtio(part(entry, carrier.reader), entry, carrier.draft, full);
    return [entry.path, carrier];
  });
  const all = new Set([...carriersFound, ...joined.map(([, item]) => item)]);
  for (const [path, item] of joined) byPath.set(path, item);

  const asked = options.probe ?? false;
  if (asked !== false) {
    const chosen = asked === true ? functions : functions.filter(({ draft }) => asked.includes(draft.id));
    await mapBounded(chosen, WIDTH, (item) => probe(files, item, full ? 4 : 2));
  }

  const ownInterfaces = new Map<Item, Interface[]>();
  for (const each of interfaces) {
    const owner = above(byPath, each.path);
    if (owner !== undefined) append(ownInterfaces, owner, each);
  }
  const items = [...all];
  await mapBounded(items, WIDTH, async (item) => {
    const own = ownInterfaces.get(item) ?? [];
    item.draft.interfaces = [...own.map(({ name }) => name), ...(full ? await readMountTag(item) : [])];
    await readSerial(item, own);
    const parent = above(byPath, folderOf(item.draft.path));
    if (parent !== undefined) item.draft.parent = parent.draft.id;
  });
  return ok({
    version: 1,
    kernel,
    ...(tsms.length === 0 ? {} : { tsms }),
    devices: orderDevices(
      items.map(({ draft }) => draft),
      boot,
      full,
    ),
  });
}

/** Adds what an unbound virtio function offers. Nothing is written to a function that has a driver, or may have one. */
async function probe(files: Files, { draft, reader }: Item, words: 2 | 4): Promise<void> {
  if (draft.bus !== 'virtio' || draft.nodes.some(({ driver }) => driver !== null)) return;
  const offered = await readOffered(files, `${draft.path}/config`, words);
  if (offered.ok) {
    draft.features = { ...draft.features, offered: offered.value.bits.map((bit) => featureName(draft.type, bit)) };
  } else {
    reader.fault('config', offered.error.code, offered.error.message);
  }
}

/** Is the folder empty or not there? Not so when it cannot be read. */
async function isEmpty(files: Files, folder: string): Promise<boolean> {
  const names = await files.list(folder);
  return names.ok ? names.value.length === 0 : names.error.code === 'file-missing';
}

/** The device on whose part of the tree a path lies. */
function above(byPath: ReadonlyMap<string, Item>, path: string): Item | undefined {
  for (let at = path; at !== ''; at = folderOf(at)) {
    const item = byPath.get(at);
    if (item !== undefined) return item;
  }
  return undefined;
}

function append<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** A virtio device whose carrier is on none of the buses read above: s390 channel I/O, or something unheard of. */
async function orphan(entry: BusEntry, folder: string, open: (path: string) => DeviceReader): Promise<Item> {
  const ccw = /^[0-9a-f]\.[0-9a-f]\.[0-9a-f]{4}$/.test(nameOf(folder));
  const path = ccw ? folder : entry.path;
  const reader = open(path);
  const draft: Draft = {
    id: ccw ? `ccw:${nameOf(folder)}` : `virtio:${entry.name}`,
    bus: 'virtio',
    transport: ccw ? 'ccw' : null,
    location: nameOf(path),
    path,
    nodes: ccw ? [{ bus: 'ccw', name: nameOf(folder), driver: await reader.driver() }] : [],
    type: null,
    interfaces: [],
    faults: reader.faults,
  };
  return { draft, reader };
}

/**
 * The serial number, where this kind of device has one: a virtio disk tells it through its driver (VIRTIO 1.3 §5.2.6,
 * GET_ID: the device answers), an NVMe controller has told it to its driver. USB has it from its descriptor.
 */
async function readSerial(item: Item, interfaces: readonly Interface[]): Promise<void> {
  const { draft, reader } = item;
  if (draft.serial !== undefined || draft.bus === 'usb') return;
  const kind =
    draft.bus === 'pci' ? (draft.type === 'nvme' ? 'nvme/' : null) : draft.type === 'block' ? 'block/' : null;
  if (kind === null) {
    if (draft.type !== null) draft.serial = null;
    return;
  }
  const teller = interfaces.find(({ name, path }) => name.startsWith(kind) && path.startsWith(`${draft.path}/`));
  if (teller === undefined) return;
  const serial = await reader.value(`${teller.path.slice(draft.path.length + 1)}/serial`, parseSerial);
  if (serial !== undefined) draft.serial = serial;
}

/** `9p/TAG` of a 9p share with a driver: what `mount -t 9p TAG` knows it by. */
async function readMountTag({ draft, reader }: Item): Promise<readonly string[]> {
  const inner = draft.nodes[draft.nodes.length - 1];
  if (draft.type !== '9p' || inner === undefined || inner.bus !== 'virtio' || inner.driver === null) return [];
  const tag = await reader.value(`${inner.name}/mount_tag`, parseSerial);
  return typeof tag === 'string' ? [`9p/${tag}`] : [];
}

/** The type of an IOMMU group, read once a group. */
function rememberGroupTypes(files: Files): (group: number) => Promise<string | null> {
  const types = new Map<number, Promise<string | null>>();
  return (group) => {
    let type = types.get(group);
    if (type === undefined) {
      type = files.read(`/sys/kernel/iommu_groups/${group}/type`, 64).then((bytes) => {
        const line = bytes.ok ? parseLine(asciiText(bytes.value), 32) : undefined;
        return line !== undefined && /^[A-Za-z-]+$/.test(line) ? line : null;
      });
      types.set(group, type);
    }
    return type;
  };
}

/** What the gate found when it looked first; `undefined` when no gate ran, or its file is not what it writes. */
async function readBootDevices(files: Files): Promise<readonly string[] | undefined> {
  const bytes = await files.read(BOOT_DEVICES, 4_194_304);
  if (!bytes.ok) return undefined;
  try {
    const value: unknown = JSON.parse(asciiText(bytes.value));
    return Array.isArray(value) && value.every((id) => typeof id === 'string') ? value : undefined;
  } catch {
    return undefined;
  }
}
