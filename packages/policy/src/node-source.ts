/** The files of a policy: `policy.yaml`, then `policy.d/*.yaml` beside it, in byte order of their names. */
import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { DOCUMENT_LIMIT, type Node } from './document.ts';
import { readYaml, TEXT_LIMIT } from './yaml.ts';

export interface Source {
  readonly file: string;
  readonly text: string;
}

export interface LoadedPolicy {
  /** In merge order: what `decodePolicy` takes and the boot gate carries. */
  readonly documents: readonly Node[];
  readonly sources: readonly Source[];
  /** Paths in merge order, as positions name them; also those that could not be read or parsed. */
  readonly files: readonly string[];
  /** Names in the folder of drop-ins that are no policy files and were left out. */
  readonly ignored: readonly string[];
  readonly problems: readonly Problem[];
}

/**
 * Reads and parses; `decodePolicy` comes after. `path` is the main file; its drop-ins lie in the folder of the same name
 * with `.d` (policy.yaml → policy.d). Relative paths start from `cwd`, and are named as they were given. Never throws; what is wrong is in `problems` (codes `source-*`, `yaml-*`).
 */
export async function loadPolicy(path: string, cwd = '.'): Promise<LoadedPolicy> {
  const folder = join(dirname(path), `${basename(path, extname(path))}.d`);
  const problems: Problem[] = [];
  const { names, ignored } = await dropIns(cwd, folder, problems);
  const files = [path, ...names.map((name) => join(folder, name))];
  const sources: Source[] = [];
  for (const file of files) {
    const text = await readText(resolve(cwd, file), file, TEXT_LIMIT * 4);
    if (text.ok) sources.push({ file, text: text.value });
    else problems.push(text.error);
  }
  const parsed = parseSources(sources);
  return { ...parsed, files, ignored, problems: [...problems, ...parsed.problems] };
}

/** The same for text that is already here (standard input, an editor). */
export function parseSources(sources: readonly Source[]): LoadedPolicy {
  const documents: Node[] = [];
  const problems: Problem[] = [];
  for (const { file, text } of sources) {
    const read = readYaml(text, file);
    problems.push(...read.problems);
    if (read.node !== undefined) documents.push(read.node);
  }
  return { documents, sources, files: sources.map((source) => source.file), ignored: [], problems };
}

async function dropIns(
  cwd: string,
  folder: string,
  problems: Problem[],
): Promise<{ names: string[]; ignored: string[] }> {
  let all: string[];
  try {
    all = await readdir(resolve(cwd, folder));
  } catch (error) {
    const code = errno(error);
    // No folder, no drop-ins; a folder that cannot be read is not the same as none.
    if (code !== 'ENOENT') problems.push({ code: 'source-unreadable', message: `${folder}: ${code}` });
    return { names: [], ignored: [] };
  }
  const names: string[] = [];
  const ignored: string[] = [];
  for (const name of all.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    if (name.endsWith('.yaml') && !name.startsWith('.') && !name.endsWith('.test.yaml')) names.push(name);
    else if (/\.(yml|json|YAML|YML)$/.test(name) && !name.startsWith('.')) {
      problems.push({
        code: 'source-ignored-name',
        message: `${join(folder, name)} would never be read`,
        hint: 'the names of drop-ins end in .yaml',
      });
    } else ignored.push(name);
  }
  if (names.length >= DOCUMENT_LIMIT) {
    problems.push({ code: 'too-many', message: `${folder}: more than ${DOCUMENT_LIMIT - 1} drop-ins` });
    return { names: [], ignored };
  }
  return { names, ignored };
}

/**
 * Text of one file, at most `limit` bytes of valid UTF-8; `name` is what messages call it. Codes: `source-unreadable`,
 * `yaml-too-large`, `yaml-syntax`.
 */
export async function readText(path: string, name: string, limit: number): Promise<Result<string>> {
  try {
    // O_NONBLOCK: a pipe with nobody at the other end must not hold us.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (!(await handle.stat()).isFile()) return fail('source-unreadable', `${name}: not a regular file`);
      const chunks: Uint8Array[] = [];
      let length = 0;
      while (length <= limit) {
        const chunk = new Uint8Array(65_536);
        const { bytesRead } = await handle.read(chunk, 0, chunk.length, length);
        if (bytesRead === 0) break;
        chunks.push(chunk.subarray(0, bytesRead));
        length += bytesRead;
      }
      if (length > limit) return fail('yaml-too-large', `${name}: more than ${limit} bytes`);
      try {
        return ok(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks)));
      } catch {
        return fail('yaml-syntax', `${name}: not UTF-8 text`);
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = errno(error);
    return fail('source-unreadable', `${name}: ${code === 'ENOENT' ? 'no such file' : code}`);
  }
}

function errno(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown error';
}
