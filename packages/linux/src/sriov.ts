/**
 * SR-IOV: which virtual function is which, from both ends of the links that the kernel makes (`physfn` of the virtual one,
 * `virtfnN` of the physical one). What only one end says is a fault, and no fact: a function is nobody's because it says so.
 */
import type { Device } from '@airlock/core/device.ts';
import { isPciAddress, known, parseDecimal, parseFlag } from './attribute.ts';
import type { DeviceReader } from './device-reader.ts';
import { mapBounded } from './map-bounded.ts';

/** More than one physical function of any machine has; its capability could count to 65535. */
const VIRTUAL_LIMIT = 4096;

/** How many physical functions are asked at a time. */
const WIDTH = 8;

/** What of a device while it is put together is known and made here. */
interface Draft {
  readonly id: string;
  sriov?: Device['sriov'];
}

/** What the function says of itself. */
export async function readSriov(reader: DeviceReader, draft: Draft): Promise<void> {
  const physical = await reader.link('physfn');
  const total = await reader.optional('sriov_totalvfs', parseDecimal);
  if (physical === undefined || total === undefined) return;
  if (physical !== null) {
    draft.sriov = virtualOf(reader, physical);
  } else if (total !== null) {
    const enabled = await reader.value('sriov_numvfs', parseDecimal);
    const autoprobe = await reader.value('sriov_drivers_autoprobe', parseFlag);
    draft.sriov = { role: 'physical', ...known({ enabled, total, autoprobe }) };
    if (enabled !== undefined && enabled > total) {
      reader.fault('sriov_numvfs', 'attribute-contradiction', `${enabled} virtual functions on, of ${total}`);
    }
  } else {
    draft.sriov = null;
  }
}

function virtualOf(reader: DeviceReader, physical: string): NonNullable<Device['sriov']> {
  const sound = isPciAddress(physical);
  if (!sound) reader.fault('physfn', 'attribute-malformed', `links to ${physical}`);
  return { role: 'virtual', ...(sound ? { physical: `pci:${physical}` } : {}) };
}

/** A function with what reads it. */
export interface ReadFunction {
  readonly draft: Draft;
  readonly reader: DeviceReader;
}

/** Joins both ends: virtual functions get their number, or lose a physical function that does not know them. */
export async function joinVirtualFunctions(functions: readonly ReadFunction[]): Promise<void> {
  await readLateLinks(functions);
  const byId = new Map(functions.map((one) => [one.draft.id, one]));
  const claimed = new Set(functions.map(({ draft }) => draft.sriov?.physical));
  const asked = functions.filter(
    ({ draft }) => draft.sriov?.role === 'physical' && (draft.sriov.enabled !== 0 || claimed.has(draft.id)),
  );
  const numbers = new Map(
    await mapBounded(asked, WIDTH, async (one) => [one.draft.id, await readNumbers(one)] as const),
  );
  for (const { draft, reader } of functions) {
    const { sriov } = draft;
    if (sriov?.role !== 'virtual' || sriov.physical === undefined) continue;
    const index = numbers.get(sriov.physical)?.get(draft.id);
    if (index !== undefined) {
      draft.sriov = { ...sriov, index };
      continue;
    }
    const physical = byId.get(sriov.physical);
    const why =
      sriov.physical === draft.id
        ? 'the function itself'
        : physical === undefined
          ? `${sriov.physical}, which is not here`
          : physical.draft.sriov?.role !== 'physical'
            ? `${sriov.physical}, which is no physical function`
            : `${sriov.physical}, which does not count it among its virtual functions`;
    reader.fault('physfn', 'attribute-contradiction', `links to ${why}`);
    draft.sriov = { role: 'virtual' };
  }
}

/**
 * The kernel shows a virtual function a moment before it makes its links: one that is looked at in between has none, as an
 * ordinary function. It holds a read of `sriov_numvfs` until all links are there, so after those reads they are.
 */
async function readLateLinks(functions: readonly ReadFunction[]): Promise<void> {
  if (!functions.some(({ draft: { sriov } }) => sriov?.role === 'physical' && sriov.enabled !== 0)) return;
  const linkless = functions.filter(({ draft }) => draft.sriov === null);
  await mapBounded(linkless, WIDTH, async ({ draft, reader }) => {
    const physical = await reader.link('physfn');
    if (physical === undefined) delete draft.sriov;
    else if (physical !== null) draft.sriov = virtualOf(reader, physical);
  });
}

/** The numbers of a physical function's virtual ones, by id. */
async function readNumbers({ draft, reader }: ReadFunction): Promise<ReadonlyMap<string, number>> {
  const links = (await reader.folder('.')).filter((name) => /^virtfn(0|[1-9]\d{0,4})$/.test(name));
  const numbers = new Map<string, number>();
  for (const name of links.slice(0, VIRTUAL_LIMIT)) {
    const target = await reader.link(name);
    if (typeof target !== 'string') continue;
    const id = `pci:${target}`;
    if (isPciAddress(target) && id !== draft.id && !numbers.has(id)) numbers.set(id, Number(name.slice(6)));
    else reader.fault(name, 'attribute-contradiction', `links to ${target}, which cannot be a virtual function of it`);
  }
  const enabled = draft.sriov?.enabled;
  if (enabled !== undefined && enabled !== links.length) {
    const seen = `${links.length} ${links.length === 1 ? 'link' : 'links'}`;
    reader.fault('sriov_numvfs', 'attribute-contradiction', `${enabled} virtual functions on, and ${seen} to them`);
  }
  return numbers;
}
