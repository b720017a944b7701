/**
 * cpio archives in the "newc" format, as the kernel's initramfs takes them (Documentation/driver-api/early-userspace/
 * buffer-format.rst): strict, bounded, and the same bytes for the same entries.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export interface CpioEntry {
  /** Relative, without a leading slash: `airlock/gate`. */
  readonly path: string;
  /** Type and permissions, as stat(2) gives them: 0o100755 */
  readonly mode: number;
  readonly data: Uint8Array;
  /** For devices. */
  readonly device?: { readonly major: number; readonly minor: number };
  /** Names of one file share it; 0 when the archive does not say. */
  readonly inode: number;
  readonly links: number;
}

export interface CpioArchive {
  readonly entries: readonly CpioEntry[];
  /** Where the trailer's padding ends. */
  readonly end: number;
}

export const FILE_TYPE = 0o170000;
export const FILE_REGULAR = 0o100000;
export const FILE_FOLDER = 0o040000;
export const FILE_LINK = 0o120000;
export const FILE_CHARACTER = 0o020000;

const HEADER = 110;
const TRAILER = 'TRAILER!!!';
/** PATH_MAX of the kernel, with the end byte. */
const NAME_LIMIT = 4096;
const ENTRY_LIMIT = 200_000;
const FIELDS = 13;

const hexDigit = (byte: number): number => {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
};

/** Eight hexadecimal digits; -1 for anything else. */
function field(bytes: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 0; i < 8; i++) {
    const digit = hexDigit(bytes[at + i] ?? 0);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/** Does an archive begin here? */
export function isCpio(bytes: Uint8Array, at = 0): boolean {
  const magic = [0x30, 0x37, 0x30, 0x37, 0x30];
  const last = bytes[at + 5];
  return magic.every((byte, i) => bytes[at + i] === byte) && (last === 0x31 || last === 0x32);
}

/**
 * One archive from `start` to its trailer. `data` of the entries are views of `bytes`. Codes: `cpio-malformed` (with
 * the offset), `cpio-too-large`.
 */
export function readCpio(bytes: Uint8Array, start = 0): Result<CpioArchive> {
  const entries: CpioEntry[] = [];
  const wrong = (at: number, what: string) => fail('cpio-malformed', `at byte ${at}: ${what}`);
  for (let at = start; ; ) {
    if (entries.length > ENTRY_LIMIT) return fail('cpio-too-large', `more than ${ENTRY_LIMIT} entries`);
    if (at + HEADER > bytes.length) return wrong(at, 'the archive ends without its trailer');
    if (!isCpio(bytes, at)) return wrong(at, 'no header of the newc format');
    const fields: number[] = [];
    for (let i = 0; i < FIELDS; i++) fields.push(field(bytes, at + 6 + i * 8));
    if (fields.includes(-1)) return wrong(at, 'a field is not eight hexadecimal digits');
    const [inode = 0, mode = 0, , , links = 0, , size = 0, , , major = 0, minor = 0, nameSize = 0] = fields;
    if (nameSize < 2 || nameSize > NAME_LIMIT) return wrong(at, `a name of ${nameSize} bytes`);
    const nameEnd = at + HEADER + nameSize;
    if (nameEnd > bytes.length) return wrong(at, 'the name goes beyond the end');
    if (bytes[nameEnd - 1] !== 0) return wrong(at, 'the name has no end');
    const raw = bytes.subarray(at + HEADER, nameEnd - 1);
    if (raw.includes(0)) return wrong(at, 'a zero byte within the name');
    const dataAt = align(nameEnd - start) + start;
    const dataEnd = dataAt + size;
    if (dataEnd > bytes.length) return wrong(at, `${size} bytes of data go beyond the end`);
    const name = latin(raw);
    at = align(dataEnd - start) + start;
    if (name === TRAILER) return ok({ entries, end: Math.min(at, bytes.length) });
    const path = plainPath(name);
    if (path === undefined) return wrong(dataAt, `the name ${JSON.stringify(name.slice(0, 80))} leads out of the root`);
    if (path === '') continue;
    entries.push({
      path,
      mode,
      data: bytes.subarray(dataAt, dataEnd),
      inode,
      links,
      ...(major !== 0 || minor !== 0 ? { device: { major, minor } } : {}),
    });
  }
}

/** `./a//b` is `a/b`; undefined for a way through `..`. */
function plainPath(name: string): string | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  return parts.includes('..') ? undefined : parts.join('/');
}

/** Names are bytes; each becomes one character, and back. */
function latin(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function align(at: number): number {
  return (at + 3) & ~3;
}

export interface NewEntry {
  readonly path: string;
  readonly mode: number;
  readonly data?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

export const folder = (path: string, mode = 0o755): NewEntry => ({ path, mode: FILE_FOLDER | mode });
export const file = (path: string, data: Uint8Array, mode = 0o644): NewEntry => ({
  path,
  mode: FILE_REGULAR | mode,
  data,
});
export const link = (path: string, target: string): NewEntry => ({
  path,
  mode: FILE_LINK | 0o777,
  data: Uint8Array.from(target, (character) => character.charCodeAt(0)),
});

/**
 * An archive of these entries in this order: owner root, time 0, inodes counted from 1, padded to 512 bytes. The same
 * entries give the same bytes. Codes: `cpio-too-large`, `cpio-malformed` (a name that cannot be written).
 */
export function writeCpio(entries: readonly NewEntry[]): Result<Uint8Array> {
  const parts: Uint8Array[] = [];
  let total = 0;
  const put = (bytes: Uint8Array) => {
    parts.push(bytes);
    total += bytes.length;
    const pad = align(total) - total;
    if (pad > 0) {
      parts.push(new Uint8Array(pad));
      total += pad;
    }
  };
  const all: NewEntry[] = [...entries, { path: TRAILER, mode: 0 }];
  for (const [i, entry] of all.entries()) {
    const last = i === all.length - 1;
    const data = entry.data ?? new Uint8Array(0);
    const name = Uint8Array.from(entry.path, (character) => character.charCodeAt(0) & 0xff);
    if (
      !last &&
      (plainPath(entry.path) !== entry.path || entry.path === '' || entry.path === TRAILER || name.includes(0))
    ) {
      return fail('cpio-malformed', `${JSON.stringify(entry.path)} is no name for an archive`);
    }
    if (name.length + 1 > NAME_LIMIT || data.length >= 2 ** 32) return fail('cpio-too-large', entry.path);
    const folderLinks = (entry.mode & FILE_TYPE) === FILE_FOLDER ? 2 : 1;
    const numbers = [
      last ? 0 : i + 1,
      entry.mode,
      0,
      0,
      last ? 1 : folderLinks,
      0,
      data.length,
      0,
      0,
      entry.device?.major ?? 0,
      entry.device?.minor ?? 0,
      name.length + 1,
      0,
    ];
    const header = `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`;
    const head = new Uint8Array(HEADER + name.length + 1);
    for (let k = 0; k < HEADER; k++) head[k] = header.charCodeAt(k);
    head.set(name, HEADER);
    put(head);
    if (data.length > 0) put(data);
  }
  const bytes = new Uint8Array(Math.ceil(total / 512) * 512);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return ok(bytes);
}
