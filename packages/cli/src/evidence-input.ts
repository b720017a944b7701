/** Files that verbs about evidence are given: their bytes, folders of collateral. */
import { lstat, open, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { isCorim, readCorim } from '@airlock/evidence/corim/corim.ts';
import type { Found } from '@airlock/evidence/item.ts';
import { FILE_LIMIT, recognise } from '@airlock/evidence/recognise.ts';
import { type References, readPlainReferences, referencesOfCorim } from '@airlock/evidence/references.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { MapEntry, Node } from '@airlock/policy/document.ts';
import { readYaml } from '@airlock/policy/yaml.ts';
import type { Context, Values } from './verb.ts';

const FOLDER_LIMIT = 1024;

export function texts(values: Values, name: string): string[] {
  const value = values[name];
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}

/** The bytes, or why there are none. A pipe may be read, a device that never ends only up to the limit. */
export async function readBytes(context: Context, path: string): Promise<Uint8Array | string> {
  if (path === '-') {
    return (await context.readStdinBytes?.()) ?? new TextEncoder().encode(await context.readStdin());
  }
  try {
    const handle = await open(resolve(context.cwd, path));
    try {
      if ((await handle.stat()).isDirectory()) return 'a directory; give its files, or --collateral';
      const chunks: Buffer[] = [];
      let length = 0;
      for (;;) {
        const { bytesRead, buffer } = await handle.read(Buffer.alloc(65536), 0, 65536, null);
        if (bytesRead === 0) break;
        chunks.push(buffer.subarray(0, bytesRead));
        length += bytesRead;
        if (length > FILE_LIMIT) break;
      }
      return Buffer.concat(chunks);
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : code;
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

/** What `--collateral DIR` holds; what is no collateral is told on standard error. A text says which folder is none. */
export async function readCollateralFolders(
  context: Context,
  verb: string,
  folders: readonly string[],
): Promise<Found[] | string> {
  const collateral: Found[] = [];
  for (const folder of folders) {
    const names = await listFolder(resolve(context.cwd, folder));
    if (typeof names === 'string') return `${printable(folder)}: ${names}`;
    for (const name of names) {
      const path = join(folder, name);
      const read = await readBytes(context, path);
      const recognition = typeof read === 'string' ? null : recognise(printable(path), read);
      if (recognition === null || recognition.found.length === 0)
        context.stderr(`airlock ${verb}: ${printable(path)}: left out, it is no collateral\n`);
      else collateral.push(...recognition.found);
    }
  }
  return collateral;
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
  const { node, problems } = readYaml(text, name);
  const [problem] = problems;
  if (problem !== undefined || node === undefined)
    return problem === undefined ? fail('references-invalid', 'the file is empty') : { ok: false, error: problem };
  const twice = repeatedKey(node);
  if (twice !== null) return fail('references-invalid', `${twice.key} stands twice`, { at: twice.keyAt });
  return readPlainReferences(plainOf(node), name);
}

function repeatedKey(node: Node): MapEntry | null {
  if (node.kind === 'scalar') return null;
  if (node.kind === 'list') return node.items.map(repeatedKey).find((one) => one !== null) ?? null;
  const { entries } = node;
  const own = entries.find(({ key }, i) => entries.slice(0, i).some((one) => one.key === key));
  return own ?? entries.map(({ value }) => repeatedKey(value)).find((one) => one !== null) ?? null;
}

function plainOf(node: Node): unknown {
  if (node.kind === 'list') return node.items.map(plainOf);
  if (node.kind === 'scalar') return node.value;
  return Object.fromEntries(node.entries.map(({ key, value }) => [key, plainOf(value)]));
}
