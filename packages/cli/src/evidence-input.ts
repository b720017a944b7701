/** Files that verbs about evidence are given: their bytes, folders of collateral. */
import { lstat, open, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { fail, formatProblem, ok, type Result } from '@airlock/core/result.ts';
import {
  type CollateralEntry,
  gatherCollateral,
  isCollateralBundle,
  readCollateralBundle,
} from '@airlock/evidence/collateral-bundle.ts';
import { isCorim, readCorim } from '@airlock/evidence/corim/corim.ts';
import type { Found } from '@airlock/evidence/item.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { FILE_LIMIT, recognise } from '@airlock/evidence/recognise.ts';
import { type References, readPlainReferences, referencesOfCorim } from '@airlock/evidence/references.ts';
import { timeText } from '@airlock/evidence/time.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { readPlainYaml } from './plain-yaml.ts';
import type { Context, Values } from './verb.ts';

const FOLDER_LIMIT = 1024;

export function texts(values: Values, name: string): string[] {
  const value = values[name];
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

/** The bytes, unpacked where they are gzip's, or why there are none. A pipe may be read, a device that never ends only up to the limit. */
export async function readBytes(context: Context, path: string): Promise<Uint8Array | string> {
  if (path === '-') {
    return (await context.readStdinBytes?.()) ?? new TextEncoder().encode(await context.readStdin());
  }
  try {
    const handle = await open(resolve(context.cwd, path));
    try {
      if ((await handle.stat()).isDirectory()) return 'a directory; give its files';
      const chunks: Buffer[] = [];
      let length = 0;
      for (;;) {
        const { bytesRead, buffer } = await handle.read(Buffer.alloc(65536), 0, 65536, null);
        if (bytesRead === 0) break;
        chunks.push(buffer.subarray(0, bytesRead));
        length += bytesRead;
        if (length > FILE_LIMIT) break;
      }
      return unpacked(Buffer.concat(chunks));
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : code;
  }
}

/** No key is that long, so that none is taken for it. */
const GZIP_LEAST = 64;

/** What `gzip` made smaller is made whole again, once and up to the limit; or why it cannot be. */
function unpacked(bytes: Uint8Array): Uint8Array | string {
  if (bytes.length <= GZIP_LEAST || bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: FILE_LIMIT });
  } catch (error) {
    const large =
      error instanceof RangeError ||
      (error instanceof Error && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE');
    return large ? `gzip: more than ${FILE_LIMIT} bytes` : 'gzip: broken or cut off';
  }
}

/** Files right below a folder, in the order of their names; or why there are none. */
export async function listFolder(path: string): Promise<string[] | string> {
  try {
    const names = (await readdir(path)).sort();
    if (names.length > FOLDER_LIMIT) return `more than ${FOLDER_LIMIT} files`;
    const files = await Promise.all(names.map(async (name) => (await lstat(join(path, name))).isFile()));
    return names.filter((_, i) => files[i] === true);
  } catch {
    return 'not a directory that can be read';
  }
}

/**
 * What folders and documents of `airlock collateral bundle` hold; what is no collateral is told on standard error. A text
 * says which of them cannot be read.
 */
export async function readCollateral(
  context: Context,
  verb: string,
  paths: readonly string[],
): Promise<Found[] | string> {
  const collateral: Found[] = [];
  for (const path of paths) {
    const names = await listFolder(resolve(context.cwd, path));
    if (typeof names === 'string') {
      const bundle = await readBundleFile(context, path);
      if (typeof bundle === 'string') return `${printable(path)}: ${bundle}`;
      collateral.push(...bundle);
      continue;
    }
    for (const name of names) {
      const file = join(path, name);
      const read = await readBytes(context, file);
      const recognition = typeof read === 'string' ? null : recognise(printable(file), read);
      if (recognition === null || recognition.found.length === 0)
        context.stderr(`airlock ${verb}: ${printable(file)}: left out, it is no collateral\n`);
      else collateral.push(...recognition.found);
    }
  }
  return collateral;
}

async function readBundleFile(context: Context, path: string): Promise<Found[] | string> {
  const read = await readBytes(context, path);
  if (typeof read === 'string') return read;
  const text = Buffer.from(read).toString('latin1');
  if (!isCollateralBundle(text)) return 'neither a folder nor what airlock collateral bundle writes';
  const bundle = readCollateralBundle(nodeCrypto(), text);
  if (!bundle.ok) return formatProblem(bundle.error);
  return [
    ...gatherCollateral(bundle.value.files.map(({ name, bytes }) => ({ name: `${printable(path)}: ${name}`, bytes })))
      .found,
  ];
}

const DAY = 24 * 60 * 60 * 1000;
/** RFC 5280 §4.1.2.5: no well-defined expiration date. */
const NEVER = Date.UTC(9999, 11, 31);

/** A line for each, with the days that are left; what expires first in front. */
export function collateralText(
  entries: readonly CollateralEntry[],
  asOf: number,
  { terminal, columns }: Context,
): string {
  if (entries.length === 0) return 'no collateral\n';
  const date = (moment: number | null) => (moment === null ? '' : timeText(moment).slice(0, 10));
  const rows = entries.map(({ what, from, until, source }) => {
    const days = until === null || until >= NEVER ? null : Math.floor((until - asOf) / DAY);
    const state =
      from !== null && asOf < from
        ? 'not yet valid'
        : days === null
          ? 'no end'
          : until !== null && asOf > until
            ? 'expired'
            : `${days} days`;
    return [state, date(from), date(until), printable(what), printable(source)] as const;
  });
  const head = ['LEFT', 'FROM', 'UNTIL', 'WHAT', 'FILE'] as const;
  const widths = [0, 1, 2, 3].map((i) => Math.max(...[head, ...rows].map((row) => (row[i] ?? '').length)));
  const lines = [head, ...rows].map((row) => {
    const line = row
      .map((cell, i) => (i < 4 ? cell.padEnd(widths[i] ?? 0) : cell))
      .join('  ')
      .trimEnd();
    const shown = line.length > columns ? `${line.slice(0, columns - 1)}…` : line;
    const bad = row[0] === 'expired' || row[0] === 'not yet valid';
    return terminal && bad ? `\x1b[31m${shown}\x1b[0m` : shown;
  });
  const [first] = entries;
  const until = first?.until ?? null;
  const last =
    first === undefined || until === null ? '' : `\n${printable(first.what)} expires first, on ${timeText(until)}\n`;
  return `${lines.join('\n')}\n${last}`;
}

/** CoRIM, or the plain form in YAML or JSON. Codes: those of both, `references-invalid`. */
export async function readReferenceFile(context: Context, path: string): Promise<Result<References>> {
  const read = await readBytes(context, path);
  if (typeof read === 'string') return fail('references-invalid', read);
  const name = printable(path);
  if (isCorim(read)) {
    const corim = readCorim(read);
    return corim.ok ? ok(referencesOfCorim(corim.value, name)) : corim;
  }
  const text = Buffer.from(read).toString('utf8');
  const plain = readPlainYaml(text, name, 'references-invalid');
  return plain.ok ? readPlainReferences(plain.value, name) : plain;
}
