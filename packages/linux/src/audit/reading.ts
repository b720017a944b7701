/**
 * What was seen of the machine, once, as plain values: the only thing that checks look at.
 *
 * Absence is a fact only where the file system that would hold the file is mounted there: a container that covers
 * /sys/firmware with a tmpfs has not been seen to lack anything below it.
 */
import type { Inventory } from '@airlock/core/device.ts';
import type { Problem } from '@airlock/core/result.ts';

/** One attempt to read. Text is ASCII (other bytes as `\xNN`), without the trailing newline. */
export type Reading =
  | { readonly state: 'read'; readonly text: string }
  | { readonly state: 'absent' }
  | { readonly state: 'failed'; readonly code: string };

export type Listing =
  | { readonly state: 'listed'; readonly names: readonly string[]; readonly truncated: boolean }
  | { readonly state: 'absent' }
  | { readonly state: 'failed'; readonly code: string };

/** A plain JSON value: it can be saved on one machine and judged on another. */
export interface Observations {
  readonly version: 1;
  readonly files: Readonly<Record<string, Reading>>;
  readonly lists: Readonly<Record<string, Listing>>;
  /** Symbolic links by path, as they are written. */
  readonly links: Readonly<Record<string, Reading>>;
  /** The kernel's log from boot on, or why it is not here. */
  readonly kernelLog: Reading;
  readonly inventory: Inventory | null;
  readonly inventoryProblem: Problem | null;
}

/** Why something could not be checked: where we looked, and what came back. */
export interface Unknown {
  readonly state: 'unknown';
  readonly path: string;
  readonly because: string;
}

/** A reading of which absence is certain, or `unknown`. */
export type Fact =
  | { readonly state: 'read'; readonly path: string; readonly text: string }
  | { readonly state: 'absent'; readonly path: string }
  | Unknown;

export type Names =
  | { readonly state: 'listed'; readonly path: string; readonly names: readonly string[] }
  | { readonly state: 'absent'; readonly path: string }
  | Unknown;

export interface Mount {
  /** `8:1` */
  readonly device: string;
  readonly at: string;
  readonly type: string;
  readonly source: string;
}

const MOUNTS_LIMIT = 4096;
export const MOUNTINFO = '/proc/self/mountinfo';

/** Folders that only a file system of this type fills; the longest that holds a path counts. */
const KERNEL_FOLDERS: readonly (readonly [string, string])[] = [
  ['/sys/kernel/debug', 'debugfs'],
  ['/sys/kernel/security', 'securityfs'],
  ['/sys/kernel/config', 'configfs'],
  ['/sys', 'sysfs'],
  ['/proc', 'proc'],
];

/** Parses /proc/self/mountinfo; later mounts hide earlier ones at the same place. Lines that do not parse are left out. */
export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n', MOUNTS_LIMIT)) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    const [, , device, , at] = fields;
    const [type, source] = dash === -1 ? [] : fields.slice(dash + 1);
    if (device === undefined || at === undefined || type === undefined || source === undefined) continue;
    if (!/^\d{1,10}:\d{1,10}$/.test(device) || !at.startsWith('/')) continue;
    mounts.push({ device, at: unescapeOctal(at), type, source: unescapeOctal(source) });
  }
  return mounts;
}

/** `\040` as the kernel writes a blank in mountinfo and swaps. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8) & 0x7f));
}

export function within(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`);
}

/** The mount whose files are seen at `path`. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let best: Mount | undefined;
  for (const mount of mounts) {
    if (within(mount.at, path) && (best === undefined || mount.at.length >= best.at.length)) best = mount;
  }
  return best;
}

export function mountsOf(observations: Observations): Mount[] | Unknown {
  const reading = observations.files[MOUNTINFO];
  if (reading?.state !== 'read') return unknownReading(MOUNTINFO, reading);
  const mounts = parsedMounts(reading.text);
  return mounts.length > 0
    ? mounts
    : { state: 'unknown', path: MOUNTINFO, because: 'not what the kernel writes there' };
}

/** Parsed once for a text: nearly every check asks. */
let lastMounts: { readonly text: string; readonly mounts: Mount[] } = { text: '', mounts: [] };
function parsedMounts(text: string): Mount[] {
  if (lastMounts.text !== text) lastMounts = { text, mounts: parseMounts(text) };
  return lastMounts.mounts;
}

export function fact(observations: Observations, path: string): Fact {
  const reading = observations.files[path];
  if (reading?.state === 'read') return { state: 'read', path, text: reading.text };
  return reading?.state === 'absent' ? absence(observations, path) : unknownReading(path, reading);
}

export function names(observations: Observations, path: string): Names {
  const listing = observations.lists[path];
  if (listing?.state === 'listed') return { state: 'listed', path, names: listing.names };
  return listing?.state === 'absent' ? absence(observations, path) : unknownReading(path, listing);
}

export function linkOf(observations: Observations, path: string): string | undefined {
  const reading = observations.links[path];
  return reading?.state === 'read' ? reading.text : undefined;
}

function absence(observations: Observations, path: string): { state: 'absent'; path: string } | Unknown {
  const expected = KERNEL_FOLDERS.find(([folder]) => within(folder, path));
  if (expected === undefined) return { state: 'absent', path };
  const mounts = mountsOf(observations);
  if (!Array.isArray(mounts)) return { state: 'unknown', path, because: `not there, and ${MOUNTINFO} is not readable` };
  const [folder, type] = expected;
  const mount = mountOf(mounts, path);
  if (mount?.type === type) return { state: 'absent', path };
  return {
    state: 'unknown',
    path,
    because: within(folder, mount?.at ?? '/')
      ? `${mount?.at} is covered by ${mount?.type}`
      : `${type} is not mounted on ${folder}`,
  };
}

const REASONS: Readonly<Record<string, string>> = {
  'file-denied': 'needs root',
  'file-timeout': 'no answer in time',
  'file-too-large': 'longer than it can be; not used',
  'file-not-regular': 'not a regular file; not opened',
  'not-asked': 'not looked at',
};

function unknownReading(path: string, reading: Reading | Listing | undefined): Unknown {
  const code = reading?.state === 'failed' ? reading.code : reading === undefined ? 'not-asked' : 'file-missing';
  return { state: 'unknown', path, because: REASONS[code] ?? (code === 'file-missing' ? 'not there' : code) };
}

/** The kernel's log, with the name that evidence gives it. */
export function kernelLog(observations: Observations): Fact {
  const reading = observations.kernelLog;
  return reading.state === 'read'
    ? { state: 'read', path: KERNEL_LOG, text: reading.text }
    : unknownReading(KERNEL_LOG, reading);
}
export const KERNEL_LOG = 'kernel log';

/** Does the log still hold the beginning of the boot? Only then does a missing line mean anything. */
export function logIsWhole(text: string): boolean {
  return /\bLinux version \d/.test(text.slice(0, 4096));
}
