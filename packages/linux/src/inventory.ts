/** The inventory: every device of this machine that policies speak of, as one plain value. */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { featureName } from '@airlock/core/virtio.ts';
import { parseLine, parseSerial, printable } from './attribute.ts';
import { type BusEntry, folderOf, listBus } from './bus.ts';
import { type DeviceReader, deviceReader, type Patience } from './device-reader.ts';
import type { Files } from './files.ts';
import { type Interface, readInterfaces } from './interfaces.ts';
import { readKernelFacts } from './kernel-facts.ts';
import { mapBounded } from './map-bounded.ts';
import { type Draft, readPciFunction } from './pci.ts';
import { hasLegacyPorts, platformType, pnpType, readPlatformDevice } from './platform.ts';
import { isUsbDevice, readUsbDevice, usbDeviceOf } from './usb.ts';
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
  const [kernel, interfaces, boot, noGroups, noTsm, pci, usb, vdpa, platform, pnp] = await Promise.all([
    readKernelFacts(files),
    readInterfaces(files, full),
    options.bootDevices ?? readBootDevices(files),
    isEmpty(files, '/sys/kernel/iommu_groups'),
    isEmpty(files, '/sys/class/tsm'),
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
  const context = { full, groups: !noGroups, tsm: !noTsm, groupType: rememberGroupTypes(files) };

  const functions = await mapBounded(pci.value, WIDTH, async (entry): Promise<Item> => {
    const reader = open(entry.path);
    return { draft: await readPciFunction(reader, entry, context), reader };
  });
  const platforms = await mapBounded(
    [...platform.value, ...pnp.value],
    WIDTH,
    async (entry): Promise<readonly Item[]> => {
      const reader = open(entry.path);
      const type = entry.bus === 'pnp' ? await reader.value('id', pnpType) : platformType(entry.name);
      if (type === null || (type === undefined && !carriers.has(entry.name))) return [];
      if (entry.name === 'serial8250' && !(await hasLegacyPorts(files, entry.path))) return [];
      return [{ draft: await readPlatformDevice(reader, entry, type ?? 'virtio-mmio'), reader }];
    },
  );
  const vdpas = await mapBounded(vdpa.value, WIDTH, async (entry): Promise<Item> => {
    const reader = open(entry.path);
    return { draft: await readVdpaDevice(reader, entry), reader };
  });
  const inner = usb.value.filter((entry) => !isUsbDevice(entry.name));
  const usbs = await mapBounded(usb.value, WIDTH, async (entry): Promise<readonly Item[]> => {
    if (!isUsbDevice(entry.name)) return [];
    const reader = open(entry.path);
    const own = inner.filter((each) => usbDeviceOf(each.name) === entry.name);
    const parts = own.map((each) => ({ entry: each, reader: part(each, reader) }));
    return [{ draft: await readUsbDevice(reader, entry, parts), reader }];
  });
  const items: Item[] = [...functions, ...platforms.flat(), ...usbs.flat(), ...vdpas];

  const byPath = new Map(items.map((item) => [item.draft.path, item]));
  const joined = await mapBounded(virtio.value, WIDTH, async (entry): Promise<readonly [string, Item]> => {
    const folder = folderOf(entry.path);
    const carrier = byPath.get(folder) ?? (await orphan(entry, folder, open));
    await joinVirtio(part(entry, carrier.reader), entry, carrier.draft, full);
    return [entry.path, carrier];
  });
  for (const [path, item] of joined) {
    if (!items.includes(item)) items.push(item);
    byPath.set(path, item);
  }

  const asked = options.probe ?? false;
  if (asked !== false) {
    const chosen = asked === true ? functions : functions.filter(({ draft }) => asked.includes(draft.id));
    await mapBounded(chosen, WIDTH, (item) => probe(files, item, full ? 4 : 2));
  }

  const ownInterfaces = new Map<Item, Interface[]>();
  for (const each of interfaces) {
    const owner = above(byPath, each.path);
    if (owner !== undefined) ownInterfaces.set(owner, [...(ownInterfaces.get(owner) ?? []), each]);
  }
  await mapBounded(items, WIDTH, async (item) => {
    const own = ownInterfaces.get(item) ?? [];
    item.draft.interfaces = [...own.map(({ name }) => name), ...(full ? await readMountTag(item) : [])];
    await readSerial(item, own);
    const parent = above(byPath, folderOf(item.draft.path));
    if (parent !== undefined) item.draft.parent = parent.draft.id;
  });
  return ok({ version: 1, kernel, devices: finish(items, boot, full) });
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

async function readVdpaDevice(reader: DeviceReader, entry: BusEntry): Promise<Draft> {
  if (entry.strange) reader.fault('.', 'name-malformed', `${entry.name} is no device name; the device was not read`);
  return {
    id: `vdpa:${entry.name}`,
    bus: 'vdpa',
    transport: 'vdpa',
    location: entry.name,
    path: entry.path,
    nodes: [{ bus: 'vdpa', name: entry.name, driver: entry.strange ? null : await reader.driver() }],
    type: null,
    subsystem: null,
    class: null,
    revision: null,
    sriov: null,
    interfaces: [],
    faults: reader.faults,
  };
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

const RANK: readonly string[] = ['pci', 'ccw', 'virtio', 'platform', 'usb', 'vdpa'];

/** Sorted, each id once: two devices that pass for one must not share a decision. */
function finish(items: readonly Item[], boot: readonly string[] | undefined, full: boolean): Device[] {
  const known = boot === undefined ? undefined : new Set(boot);
  const seen = new Map<string, number>();
  const keyed = items.map(({ draft }) => ({ draft, key: orderKey(draft) }));
  return keyed
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(({ draft }): Device => {
      const times = (seen.get(draft.id) ?? 0) + 1;
      seen.set(draft.id, times);
      if (times > 1) draft.id = `${draft.id}#${times}`;
      if (known !== undefined) draft.origin = known.has(draft.id) ? 'boot' : 'hotplug';
      return full ? inOrder(draft) : draft;
    });
}

const KEYS: readonly (keyof Device)[] = [
  'id',
  'bus',
  'transport',
  'type',
  'virtioId',
  'vendor',
  'device',
  'subsystem',
  'class',
  'revision',
  'serial',
  'modalias',
  'location',
  'path',
  'parent',
  'origin',
  'nodes',
  'sriov',
  'features',
  'status',
  'iommu',
  'link',
  'doe',
  'tsm',
  'interfaces',
  'faults',
];

/** The same device with its keys in one order, however its reads came back: inventories can be compared as text. */
function inOrder(draft: Draft): Device {
  const facts: Record<string, unknown> = {};
  for (const key of KEYS) if (draft[key] !== undefined) facts[key] = draft[key];
  const device: unknown = facts;
  return device as Device;
}

/** Numbers in a name count as numbers: `1-10` comes after `1-9`. PCI addresses have as many digits each. */
function orderKey(draft: Draft): string {
  const rank = RANK.indexOf(draft.id.slice(0, draft.id.indexOf(':')));
  return rank === 0
    ? `0${draft.location}`
    : `${rank}${draft.location.replace(/\d+/g, (digits) => digits.padStart(10, '0'))}`;
}
