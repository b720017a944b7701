/** PCI functions as the kernel shows them: /sys/bus/pci/devices. Virtio functions get their `virtio` half in virtio.ts. */
import type { Device, PciIds } from '@airlock/core/device.ts';
import { pciTypeName } from '@airlock/core/pci-class.ts';
import { virtioTypeName } from '@airlock/core/virtio.ts';
import { isDoeFeature, isPciAddress, known, parseDecimal, parseHex, parseLine } from './attribute.ts';
import type { BusEntry } from './bus.ts';
import type { DeviceReader } from './device-reader.ts';
import { readSriov } from './sriov.ts';
import { readTsmState } from './tsm.ts';

export const VIRTIO_VENDOR = 0x1af4;

/** A device while it is put together. */
export type Draft = { -readonly [K in keyof Device]: Device[K] };

/**
 * The VIRTIO type that a PCI function states through its ids, before any driver is there (VIRTIO 1.3 §4.1.2.1); the
 * range is what Linux's virtio-pci driver takes. `undefined` for any other function.
 */
export function virtioIdOfPci(
  vendor: number,
  device: number,
  subsystem: PciIds | null | undefined,
): number | undefined {
  if (vendor !== VIRTIO_VENDOR || device < 0x1000 || device > 0x107f) return undefined;
  return device >= 0x1040 ? device - 0x1040 : (subsystem?.device ?? 0);
}

export interface PciContext {
  /** Also what only people ask for. */
  readonly full: boolean;
  /** Does this kernel have IOMMU groups at all? */
  readonly groups: boolean;
  /** Has it a TSM, without which no function shows a TSM state? */
  readonly tsm: boolean;
  /** The type of an IOMMU group; null when it cannot be read. */
  readonly groupType: (group: number) => Promise<string | null>;
}

/** One PCI function, without what lies on the virtio bus. */
export async function readPciFunction(reader: DeviceReader, entry: BusEntry, context: PciContext): Promise<Draft> {
  const draft: Draft = {
    id: `pci:${entry.name}`,
    bus: 'pci',
    transport: null,
    location: entry.name,
    path: entry.path,
    nodes: [],
    type: null,
    interfaces: [],
    faults: reader.faults,
  };
  if (entry.strange || !isPciAddress(entry.name)) {
    reader.fault('.', 'name-malformed', `${entry.name} is no PCI address; the device was not read`);
    draft.nodes = [{ bus: 'pci', name: entry.name, driver: null }];
    return draft;
  }
  // One read after the other: a device that hangs then holds one thread, and QuickJS is slow at Promise.all.
  const ids = await readIds(reader);
  const revision = await reader.value('revision', parseRevision);
  const driver = await reader.driver();
  const { vendor, device, subsystem, class: classCode } = ids;
  draft.nodes = [{ bus: 'pci', name: entry.name, driver }];
  Object.assign(draft, known({ ...ids, revision }));
  if (classCode !== undefined) draft.type = pciTypeName(classCode);
  if (vendor !== undefined && device !== undefined) {
    const virtioId = virtioIdOfPci(vendor, device, subsystem);
    if (virtioId !== undefined) {
      draft.bus = 'virtio';
      draft.transport = 'pci';
      draft.type = null;
      // A transitional function whose subsystem could not be read has a type that we do not know.
      if (virtioId !== 0) {
        draft.virtioId = virtioId;
        draft.type = virtioTypeName(virtioId);
      }
    }
  }
  // A function that does not even tell its ids has gone: that nothing else is there means nothing.
  if (vendor === undefined) return draft;
  await readSriov(reader, draft);
  if (context.groups) await readIommu(reader, draft, context);
  else draft.iommu = null;
  // A kernel that authenticates by itself has no TSM; only people ask what it says.
  const tsm = context.tsm || context.full ? await readTsmState(reader, context.tsm) : undefined;
  if (tsm !== undefined) draft.tsm = tsm;
  if (context.full) await readDetail(reader, draft);
  return draft;
}

const parseRevision = (text: string) => parseHex(text, 2);
const parseId = (text: string) => parseHex(text, 4);

interface Ids {
  readonly vendor?: number | undefined;
  readonly device?: number | undefined;
  readonly subsystem?: PciIds | null | undefined;
  readonly class?: number | undefined;
  readonly modalias?: string | undefined;
}

/**
 * The ids by which the kernel matches drivers. `modalias` has all of them in one read; one by one only where it is not
 * what it should be.
 */
async function readIds(reader: DeviceReader): Promise<Ids> {
  const modalias = await reader.value('modalias', parseModalias);
  const all = modalias === undefined ? undefined : parsePciModalias(modalias);
  if (all !== undefined) return { ...all, modalias };
  const vendor = await reader.value('vendor', parseId, 'needed');
  const device = await reader.value('device', parseId, 'needed');
  const classCode = await reader.value('class', (text) => parseHex(text, 6), 'needed');
  const subVendor = await reader.value('subsystem_vendor', parseId);
  const subDevice = await reader.value('subsystem_device', parseId);
  return { vendor, device, subsystem: subsystemOf(subVendor, subDevice), class: classCode, modalias };
}

/** All zero is how a function says that it has none. */
function subsystemOf(vendor: number | undefined, device: number | undefined): PciIds | null | undefined {
  if (vendor === undefined || device === undefined) return undefined;
  return vendor === 0 && device === 0 ? null : { vendor, device };
}

/** `pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00`; `undefined` for any other text. */
export function parsePciModalias(text: string): Required<Omit<Ids, 'modalias'>> | undefined {
  const parts =
    /^pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv0000([0-9A-F]{4})sd0000([0-9A-F]{4})bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-Fa-f]{2})$/.exec(
      text,
    );
  if (parts === null) return undefined;
  const [vendor = 0, device = 0, subVendor = 0, subDevice = 0, base = 0, sub = 0, programming = 0] = parts
    .slice(1)
    .map((digits) => Number.parseInt(digits, 16));
  return {
    vendor,
    device,
    subsystem: subsystemOf(subVendor, subDevice),
    class: base * 0x10000 + sub * 0x100 + programming,
  };
}

async function readIommu(reader: DeviceReader, draft: Draft, context: PciContext): Promise<void> {
  const name = await reader.link('iommu_group');
  if (name === undefined) return;
  const group = name === null ? null : parseDecimal(name);
  if (group === undefined) reader.fault('iommu_group', 'attribute-malformed', `links to ${name}`);
  else draft.iommu = group === null ? null : { group, type: await context.groupType(group) };
}

async function readDetail(reader: DeviceReader, draft: Draft): Promise<void> {
  const speed = await reader.optional('current_link_speed', (text) => parseLine(text, 32));
  const width = await reader.optional('current_link_width', parseDecimal);
  const features = (await reader.folder('doe_features')).filter(isDoeFeature).slice(0, 256);
  if (features.length > 0) draft.doe = features;
  if (typeof speed !== 'string' && typeof width !== 'number') return;
  // 0 and 255 lanes, and the word Unknown, are what the kernel says where no link is up.
  draft.link = {
    speed: typeof speed === 'string' && /^[\d.]+ GT\/s/.test(speed) ? speed : null,
    width: typeof width === 'number' && width > 0 && width <= 32 ? width : null,
  };
}

/** `pci:v00001AF4d00001042...`: one word of printable characters, as module loading takes it. */
export function parseModalias(text: string): string | undefined {
  const line = parseLine(text, 1024);
  return line !== undefined && /^[a-z0-9_-]+:[\x21-\x7e]*$/i.test(line) && !line.includes('\\x') ? line : undefined;
}
