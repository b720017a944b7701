/** What of a PCI function a TDISP interface report speaks of: memory BARs, MSI-X, and which capabilities it has. */
import { asciiText, readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import type { FunctionLayout, MemoryBar } from '@airlock/spdm/tdisp/check-report.ts';
import type { FunctionFacts } from '@airlock/spdm/tdisp/record.ts';
import type { Files } from './files.ts';
import { deviceSerialNumber, readHeader, walkCapabilities, walkExtended } from './pci-config.ts';

const MSIX = 0x11;
const EXTENDED = { ats: 0x0f, pri: 0x13, tph: 0x17, pasid: 0x1b, lnr: 0x1c } as const;
/** IORESOURCE_MEM; I/O ports are no part of an interface. */
const MEMORY = 0x200;
const BARS = 6;
const HEADER = 64;
const LINE = /^0x([0-9a-f]{16}) 0x([0-9a-f]{16}) 0x([0-9a-f]{16})$/;

/** Memory BARs out of the `resource` file. Codes: `attribute-malformed`. */
export function parseMemoryBars(text: string): Result<readonly MemoryBar[]> {
  const bars: MemoryBar[] = [];
  for (const [index, line] of text.split('\n').slice(0, BARS).entries()) {
    const match = LINE.exec(line);
    if (match === null) return fail('attribute-malformed', `line ${index + 1} of resource`);
    const [start, end, flags] = match.slice(1).map((part) => BigInt(`0x${part}`)) as [bigint, bigint, bigint];
    if (flags === 0n || (flags & BigInt(MEMORY)) === 0n) continue;
    if (end < start) return fail('attribute-malformed', `line ${index + 1} of resource ends before it begins`);
    bars.push({ index, start, size: end - start + 1n });
  }
  return ok(bars);
}

/** From configuration space alone, and the BARs. */
export function functionLayout(config: Uint8Array, bars: readonly MemoryBar[]): FunctionLayout {
  const extended = walkExtended(config);
  const placeOf = (id: number) => extended.capabilities.find((one) => one.id === id)?.offset;
  const at = walkCapabilities(config).capabilities.find(({ id }) => id === MSIX)?.offset;
  const control = at === undefined ? undefined : readLe(config, at + 2, 2);
  const table = at === undefined ? undefined : readLe(config, at + 4, 4);
  const pba = at === undefined ? undefined : readLe(config, at + 8, 4);
  const pointer = (value: number) => ({ bar: value & 7, offset: (value & ~7) >>> 0 });
  const lnr = placeOf(EXTENDED.lnr);
  const tph = placeOf(EXTENDED.tph);
  return {
    bars,
    msix:
      control === undefined || table === undefined || pba === undefined
        ? null
        : { control, entries: (control & 0x7ff) + 1, table: pointer(table), pba: pointer(pba) },
    lnrControl: lnr === undefined ? 0 : (readLe(config, lnr + 6, 2) ?? 0),
    tphControl: tph === undefined ? 0 : (readLe(config, tph + 8, 4) ?? 0),
    pasid: placeOf(EXTENDED.pasid) !== undefined,
    ats: placeOf(EXTENDED.ats) !== undefined,
    pageRequests: placeOf(EXTENDED.pri) !== undefined,
  };
}

/**
 * What a record of an interface is compared with; `before` is the header of the same moment. `name` is the function's
 * address, null for a folder of unknown origin. Codes: those of `Files`, `attribute-malformed`, `config-too-short`.
 */
export async function readFunctionFacts(
  files: Files,
  folder: string,
  name: string | null,
): Promise<Result<FunctionFacts>> {
  const read = await files.readAt(`${folder}/config`, 0, 4096);
  if (!read.ok) return read;
  const config = read.value;
  if (config.length < HEADER)
    return fail('config-too-short', `${folder}/config shows ${config.length} bytes of a header of ${HEADER}`);
  const resource = await files.read(`${folder}/resource`, 4096);
  if (!resource.ok) return resource;
  const bars = parseMemoryBars(asciiText(resource.value));
  if (!bars.ok) return bars;
  const virtual = await isVirtual(files);
  return ok({ function: name, virtual, before: config.slice(0, HEADER), config, bars: bars.value });
}

/**
 * May a hypervisor stand between this kernel and the device? Only an x86 processor that tells its flags, none of which is
 * `hypervisor`, is believed to be without one: who hides it makes comparisons stricter, not weaker.
 */
async function isVirtual(files: Files): Promise<boolean> {
  const text = await files.readAt('/proc/cpuinfo', 0, 8192);
  if (!text.ok) return true;
  const flags = /^flags\s*:(.*)$/m.exec(asciiText(text.value))?.[1];
  return flags === undefined || flags.split(' ').includes('hypervisor');
}

/** What a certificate can name of the function; `undefined` where nothing answers. */
export function pciIdentity(config: Uint8Array): PciIdentity | undefined {
  const header = readHeader(config);
  if (header === undefined) return undefined;
  const { vendor, device, revision, layout } = header;
  const subsystem =
    layout === 0 ? { vendor: readLe(config, 0x2c, 2) ?? 0, device: readLe(config, 0x2e, 2) ?? 0 } : null;
  const digits = deviceSerialNumber(config, walkExtended(config))?.replaceAll('-', '');
  // All zeros stand for none.
  const serial = digits === undefined || /^0+$/.test(digits) ? null : digits;
  return { vendor, device, class: header.class, revision, subsystem, serial };
}
