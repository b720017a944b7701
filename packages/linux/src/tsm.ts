/**
 * The kernel's TEE security managers: /sys/class/tsm and `tsm/` of PCI functions (sysfs-class-tsm, sysfs-bus-pci, Linux
 * 6.19), with the guest's side that no released kernel has (`tsm/lock`, `tsm/unlock`, `tsm/accept`, `pci_mode`). Which of
 * these are there is found out; what stands in them is parsed strictly, and two that cannot both be true are a fault.
 */
import { asciiText } from '@airlock/core/bytes.ts';
import type { Device, TsmDevice } from '@airlock/core/device.ts';
import { isPciAddress, known, parseFlag, parseLine } from './attribute.ts';
import type { DeviceReader } from './device-reader.ts';
import type { Files } from './files.ts';

export const TSM_CLASS = '/sys/class/tsm';
const TSM_LIMIT = 64;
const MODES = ['link', 'devsec', 'none'] as const;

/** `tsm0`; what else stands in `connect`, `bound` and `lock` is the empty line. */
export function isTsmName(text: string): boolean {
  return /^tsm\d{1,9}$/.test(text);
}

/** Name or null for the empty line; `undefined` for anything else. */
export function parseTsmName(text: string): string | null | undefined {
  const line = parseLine(text, 16);
  if (line === undefined) return undefined;
  return line === '' ? null : isTsmName(line) ? line : undefined;
}

/**
 * `authenticated` has two meanings: the name of the connected TSM (6.19), or 1 and 0 of a kernel that authenticates by
 * itself (CMA-SPDM, not merged).
 */
function parseAuthenticated(text: string): string | null | undefined {
  return /^[01]\n?$/.test(text) ? text.slice(0, 1) : parseTsmName(text);
}

/** The TSMs of this machine, in the order of their names; none where the kernel has none, or none that it shows. */
export async function readTsmDevices(files: Files): Promise<readonly TsmDevice[]> {
  const listed = await files.list(TSM_CLASS);
  if (!listed.ok) return [];
  const found: TsmDevice[] = [];
  for (const name of listed.value.filter(isTsmName).slice(0, TSM_LIMIT)) {
    const text = await files.read(`${TSM_CLASS}/${name}/pci_mode`, 32);
    const word = text.ok ? parseLine(asciiText(text.value), 16) : undefined;
    const mode = MODES.find((one) => one === word);
    found.push({ name, ...(mode === undefined ? {} : { mode }) });
  }
  return found;
}

/**
 * `undefined` where the function has none of it. `tsms`: does this machine have a TSM at all? Of two values that cannot
 * both be true, read again once in case that they changed in between, neither is believed.
 */
export async function readTsmState(reader: DeviceReader, tsms: boolean): Promise<Device['tsm'] | undefined> {
  const parts = tsms ? await reader.folder('tsm') : [];
  for (let attempt = 0; ; attempt++) {
    const state = await readState(reader, parts);
    if (parts.length === 0 && state.authenticated === undefined) return undefined;
    const wrong = contradiction(state);
    if (wrong === undefined) return state;
    if (attempt === 0) continue;
    reader.fault('tsm', 'attribute-contradiction', wrong);
    return {};
  }
}

type TsmState = NonNullable<Device['tsm']>;

async function readState(reader: DeviceReader, parts: readonly string[]): Promise<TsmState> {
  const name = async (part: string) =>
    parts.includes(part) ? await reader.value(`tsm/${part}`, parseTsmName) : undefined;
  return known({
    connected: await name('connect'),
    bound: await name('bound'),
    locked: await name('lock'),
    accepted: parts.includes('accept') ? await reader.value('tsm/accept', parseFlag) : undefined,
    authenticated: await reader.value('authenticated', parseAuthenticated),
    dsm: parts.includes('dsm') ? await reader.value('tsm/dsm', parseDsm) : undefined,
  });
}

function parseDsm(text: string): string | undefined {
  const line = parseLine(text, 32);
  return line !== undefined && isPciAddress(line) ? `pci:${line}` : undefined;
}

function contradiction({ connected, bound, locked, accepted, authenticated }: TsmState): string | undefined {
  if (accepted === true && locked === null) return 'accepted, and locked by no TSM';
  if (typeof bound === 'string' && connected === null) return `bound to ${bound}, and connected to no TSM`;
  if (typeof bound === 'string' && typeof connected === 'string' && bound !== connected)
    return `bound to ${bound}, and connected to ${connected}`;
  const alias = authenticated !== undefined && authenticated !== '0' && authenticated !== '1';
  if (alias && connected !== undefined && authenticated !== connected)
    return `authenticated by ${authenticated ?? 'none'}, and connected to ${connected ?? 'none'}`;
  return undefined;
}
