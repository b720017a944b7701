/**
 * The cache folder that tools/debian-cache fills: one private tree of tools with its own loader, and three kernels.
 * What the lab builds itself lies below `build/`, named by a key of its content.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { arch, platform } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const KERNELS = ['6.1', '6.12', '7.2'] as const;
export type KernelSeries = (typeof KERNELS)[number];

/** Root of the checkout. */
export const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));

export interface Cache {
  readonly folder: string;
  /** The tree that holds QEMU, busybox and the rest. */
  readonly tools: string;
  /** The tree of other people's programs that ours are held against; `openPeers` fills it. */
  readonly peers: string;
}

export interface Kernel {
  readonly series: KernelSeries;
  /** `7.2.12+deb13-amd64` */
  readonly release: string;
  readonly image: string;
  /** The folder that holds `lib/modules/RELEASE`. */
  readonly tree: string;
  /** Options that Debian left unset, whose drivers were built aside: `missing-drivers.ts`. */
  readonly added?: readonly string[];
}

/** The cache with its tools; fetched when missing. Codes: `lab-unsupported`, `lab-cache`. */
export async function openCache(say: (line: string) => void = () => {}): Promise<Result<Cache>> {
  if (platform() !== 'linux' || arch() !== 'x64') {
    return fail('lab-unsupported', `the lab needs x86-64 Linux, this is ${platform()} ${arch()}`);
  }
  const folder = await debianCache('path', say);
  if (!folder.ok) return folder;
  const at = folder.value.trim();
  const cache = { folder: at, tools: join(at, 'tools'), peers: join(at, 'peers') };
  if (!existsSync(join(cache.tools, '.complete'))) {
    const fetched = await debianCache('tools', say);
    if (!fetched.ok) return fetched;
  }
  return ok(cache);
}

/** Makes sure that the peers are there, those of today: an older cache holds fewer. Codes: `lab-cache`. */
export async function openPeers(say: (line: string) => void = () => {}): Promise<Result<void>> {
  const fetched = await debianCache('peers', say);
  return fetched.ok ? ok(undefined) : fetched;
}

/**
 * The folder of what drivers of this very kernel are built from: `source/`, headers and their compiler; fetched when
 * missing. Codes: `lab-unsupported` where its packages are for another kernel, or gone; `lab-cache`.
 */
export async function openDriverSources(
  cache: Cache,
  kernel: Kernel,
  say: (line: string) => void = () => {},
): Promise<Result<string>> {
  const fetched = await debianCache('drivers', say);
  if (!fetched.ok) return fail('lab-unsupported', fetched.error.message);
  const folder = join(cache.folder, 'drivers');
  if (existsSync(join(folder, `usr/src/linux-headers-${kernel.release}`))) return ok(folder);
  return fail('lab-unsupported', `no sources of Linux ${kernel.release}`);
}

/** One kernel; fetched when missing. Codes: `lab-cache`. */
export async function openKernel(
  cache: Cache,
  series: KernelSeries,
  say: (line: string) => void = () => {},
): Promise<Result<Kernel>> {
  const tree = join(cache.folder, 'kernels', series);
  if (!existsSync(join(tree, '.complete'))) {
    const fetched = await debianCache(series, say);
    if (!fetched.ok) return fetched;
  }
  const release = readFileSync(join(tree, 'release'), 'utf8').trim();
  return ok({ series, release, image: join(tree, 'vmlinuz'), tree });
}

function debianCache(part: string, say: (line: string) => void): Promise<Result<string>> {
  return new Promise((resolve) => {
    const child = execFile(join(CHECKOUT, 'tools/debian-cache'), [part], (error, stdout, stderr) => {
      const last = stderr.trim().split('\n').at(-1) ?? '';
      resolve(
        error === null
          ? ok(stdout)
          : fail('lab-cache', last === '' ? `tools/debian-cache ${part} failed` : last, { hint: 'make setup-guests' }),
      );
    });
    child.stderr?.on('data', (text: string) => {
      for (const line of text.split('\n')) if (line.trim() !== '') say(line.trim());
    });
  });
}

/**
 * The words that start a program of one of the cache's trees with that tree's own loader and libraries; `own` is a folder
 * of libraries of its own, below that of all.
 */
export function cachedProgram(cache: Cache, program: string, own?: string): string[] {
  const { tree, path } = findProgram(cache, program);
  const lib = join(tree, LIBRARIES);
  const libraries = own === undefined ? lib : `${lib}:${join(lib, own)}`;
  return [join(lib, LOADER), '--library-path', libraries, '--argv0', program, path];
}

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const LOADER = 'ld-linux-x86-64.so.2';

function findProgram(cache: Cache, program: string): { readonly tree: string; readonly path: string } {
  for (const tree of [cache.tools, cache.peers]) {
    for (const at of ['usr/bin', 'usr/sbin', 'usr/libexec']) {
      const path = join(tree, at, program);
      if (existsSync(path)) return { tree, path };
    }
  }
  return { tree: cache.tools, path: join(cache.tools, 'usr/bin', program) };
}

/** Puts a program of the cache with its libraries and its loader where a guest finds them. Codes: `lab-build`. */
export async function copyProgram(cache: Cache, program: string, into: string): Promise<Result<void>> {
  const { tree, path } = findProgram(cache, program);
  const from = join(tree, LIBRARIES);
  const listed = await runProgram([join(from, LOADER), '--library-path', from, '--list', path]);
  if (!listed.ok) return listed;
  const to = join(into, 'lib/x86_64-linux-gnu');
  for (const folder of [to, join(into, 'lib64'), join(into, 'bin')]) mkdirSync(folder, { recursive: true });
  const copy = (source: string, target: string) => {
    copyFileSync(realpathSync(source), target);
    chmodSync(target, 0o755);
  };
  for (const [, name] of listed.value.matchAll(/^\s*(\S+) => /gm)) {
    if (name !== undefined && existsSync(join(from, name))) copy(join(from, name), join(to, name));
  }
  copy(join(from, LOADER), join(into, 'lib64', LOADER));
  rmSync(join(into, 'bin', program), { force: true }); // busybox's own of that name
  copy(path, join(into, 'bin', program));
  return ok(undefined);
}

/** Runs a program to its end. Gives its standard output. Codes: `lab-build` with what it said. */
export function runProgram(
  words: readonly string[],
  options: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<Result<string>> {
  const [program = '', ...args] = words;
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { maxBuffer: 64 << 20, timeout: 300_000, cwd: options.cwd, env: { ...process.env, ...options.env } },
      (error, stdout, stderr) => {
        if (error === null) return resolve(ok(stdout));
        const said = stderr.trim().split('\n').slice(-3).join('; ');
        resolve(
          fail(
            'lab-build',
            `${words.find((word) => !word.startsWith('-') && !word.includes('ld-linux') && !word.endsWith('/x86_64-linux-gnu')) ?? program}: ${said || error.message}`,
          ),
        );
      },
    );
  });
}

/** A key over texts and files; files count by content when small, else by path, size and time of change. */
export function contentKey(parts: readonly (string | { readonly file: string })[]): string {
  const hash = createHash('sha256');
  for (const part of parts) {
    if (typeof part === 'string') hash.update(`text ${part.length}\n`).update(part);
    else {
      const stat = statSync(part.file);
      hash.update(`file ${stat.size}\n`);
      if (stat.size < 4 << 20) hash.update(readFileSync(part.file));
      else hash.update(`${part.file} ${stat.mtimeMs}`);
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/**
 * What lies at `build/NAME-KEY`, made by `make` (which writes to the path that it is given) when it is not there yet.
 * A half-made thing never counts: it is renamed into place. Older keys of the same name are removed.
 */
export async function built(
  cache: Cache,
  name: string,
  key: string,
  make: (into: string) => Promise<Result<void>>,
): Promise<Result<string>> {
  const folder = join(cache.folder, 'build');
  const path = join(folder, `${name}-${key}`);
  if (existsSync(path)) return ok(path);
  mkdirSync(folder, { recursive: true });
  const partial = `${path}.new-${process.pid}`;
  rmSync(partial, { recursive: true, force: true });
  try {
    const made = await make(partial);
    if (!made.ok) return made;
    renameSync(partial, path);
  } catch (error) {
    // Another run that made the same thing at the same time has won.
    if (!existsSync(path)) return fail('lab-build', `${path}: ${error instanceof Error ? error.message : error}`);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  forgetOlder(folder, name, path);
  return ok(path);
}

/** Keeps the newest few of a name: runs of other checkouts may still boot from them. */
function forgetOlder(folder: string, name: string, current: string): void {
  const older = readdirSync(folder)
    .filter((entry) => entry.startsWith(`${name}-`) && /^[0-9a-f]{16}$/.test(entry.slice(name.length + 1)))
    .map((entry) => join(folder, entry))
    .filter((path) => path !== current)
    .map((path) => ({ path, time: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.time - a.time);
  for (const { path } of older.slice(2)) rmSync(path, { recursive: true, force: true });
}
