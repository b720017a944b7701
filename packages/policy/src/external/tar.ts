/**
 * Tar archives (POSIX.1-1988 ustar, and GNU's where it does not differ) as bundles need them: regular files with plain
 * names, nothing else. Every archive that two readers could understand differently is refused.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';

const BLOCK = 512;

export interface TarLimits {
  readonly files: number;
  readonly fileBytes: number;
}

/**
 * Path (without a leading `/` or `./`) → content, views into `bytes`. Codes: `bundle-malformed`, `bundle-too-large`,
 * `bundle-entry-forbidden`.
 */
export function readTar(bytes: Uint8Array, limits: TarLimits): Result<Map<string, Uint8Array>> {
  if (bytes.length % BLOCK !== 0) return fail('bundle-malformed', 'the archive ends within a block');
  const files = new Map<string, Uint8Array>();
  let entries = 0;
  let at = 0;
  for (;;) {
    const header = bytes.subarray(at, at + BLOCK);
    if (header.length < BLOCK) return fail('bundle-malformed', 'the archive ends without its end mark');
    if (isZero(header)) return isZero(bytes.subarray(at)) && bytes.length - at >= 2 * BLOCK ? ok(files) : noEnd();
    if (++entries > limits.files) return fail('bundle-too-large', `the archive has more than ${limits.files} entries`);
    const entry = readHeader(header);
    if (!entry.ok) return entry;
    const { path, size, folder } = entry.value;
    at += BLOCK;
    if (size > limits.fileBytes) {
      return fail('bundle-too-large', `${path} has ${size} bytes; at most ${limits.fileBytes} are read`);
    }
    const padded = Math.ceil(size / BLOCK) * BLOCK;
    if (at + padded > bytes.length) return fail('bundle-malformed', `the archive ends within ${path}`);
    if (!folder) {
      if (files.has(path)) return fail('bundle-entry-forbidden', `${path} stands in the archive twice`);
      files.set(path, bytes.subarray(at, at + size));
    }
    at += padded;
  }
}

function noEnd(): Result<never> {
  return fail('bundle-malformed', 'the end mark of the archive is cut off or followed by something');
}

interface Entry {
  readonly path: string;
  readonly size: number;
  readonly folder: boolean;
}

function readHeader(header: Uint8Array): Result<Entry> {
  const checksum = readOctal(header, 148, 8);
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (header[i] ?? 0);
  if (checksum !== sum) return fail('bundle-malformed', 'the checksum of an archive header is wrong');
  const magic = readText(header, 257, 6, true);
  if (magic !== 'ustar' && magic !== 'ustar ') return fail('bundle-malformed', 'an archive header is not ustar');
  const name = readText(header, 0, 100);
  // GNU archives keep other things where ustar has the front part of a long name.
  const prefix = magic === 'ustar' ? readText(header, 345, 155) : '';
  const size = readOctal(header, 124, 12);
  if (name === undefined || prefix === undefined) {
    return fail('bundle-entry-forbidden', 'the name of an archive entry is not plain ASCII');
  }
  if (size === undefined) return fail('bundle-malformed', 'the size of an archive entry is not an octal number');
  const type = header[156] ?? 0;
  const folder = type === 0x35; // '5'
  const path = plainPath(prefix === '' ? name : `${prefix}/${name}`, folder);
  if (path === undefined) return fail('bundle-entry-forbidden', `an archive entry is named ${JSON.stringify(name)}`);
  if (type !== 0 && type !== 0x30 && !folder) {
    return fail('bundle-entry-forbidden', `${path} is not a regular file (type ${JSON.stringify(typeText(type))})`, {
      hint: 'bundles as `opa build` writes them hold regular files only',
    });
  }
  if (folder && size !== 0) return fail('bundle-malformed', `the folder ${path} has a size`);
  return ok({ path, size, folder });
}

function typeText(type: number): string {
  return type > 0x20 && type < 0x7f ? String.fromCharCode(type) : `\\x${type.toString(16)}`;
}

/** Below the archive's own root, or `undefined`. `opa build` writes a leading slash, `tar -C` a leading `./`. */
function plainPath(path: string, folder: boolean): string | undefined {
  let plain = path.startsWith('/') ? path.slice(1) : path.startsWith('./') ? path.slice(2) : path;
  if (folder && plain.endsWith('/')) plain = plain.slice(0, -1);
  if (folder && (plain === '' || plain === '.')) return '.';
  if (plain.includes('\\')) return undefined;
  return plain.split('/').every((part) => part !== '' && part !== '.' && part !== '..') ? plain : undefined;
}

/** Printable ASCII up to the first NUL; after it only NULs, unless `loose`. */
function readText(header: Uint8Array, offset: number, length: number, loose = false): string | undefined {
  let text = '';
  let ended = false;
  for (let i = offset; i < offset + length; i++) {
    const byte = header[i] ?? 0;
    if (byte === 0) ended = true;
    else if (ended && !loose) return undefined;
    else if (byte < 0x20 || byte > 0x7e) return undefined;
    else if (!ended) text += String.fromCharCode(byte);
  }
  return text;
}

/** Octal digits, spaces before, NUL or space after. GNU's base 256 is for files that no bundle holds. */
function readOctal(header: Uint8Array, offset: number, length: number): number | undefined {
  const text = String.fromCharCode(...header.subarray(offset, offset + length));
  const digits = /^ *([0-7]+)[\0 ]*$/.exec(text)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
