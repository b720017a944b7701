/**
 * The gate's binary: boot/main.ts bundled by esbuild, compiled to byte code by QuickJS's qjsc, linked statically with
 * libquickjs.a. Kept in the cache folder under a key made of everything that goes into it.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { nodeCommands } from '@airlock/linux/node-commands.ts';

export interface GateBinary {
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of the binary, hexadecimal. */
  readonly digest: string;
  /** It was there already. */
  readonly cached: boolean;
}

const HOUSE = resolve(import.meta.dirname, '../../../..');
const ENTRY = join(HOUSE, 'packages/gate/src/boot/main.ts');
/** Raised when the way of building changes. */
const RECIPE = 1;

/** The cache folder of tools/debian-cache. */
export function cacheFolder(env: Readonly<Record<string, string | undefined>> = process.env): string {
  return env['AIRLOCK_CACHE'] ?? join(env['XDG_CACHE_HOME'] ?? join(env['HOME'] ?? homedir(), '.cache'), 'airlock');
}

/** What one needs of the cache's private tree. */
export function toolTree(cache: string): string {
  return join(cache, 'tools');
}

/** Source text of the gate as one ES module; ends with the same bytes for the same sources. Code: `build-failed`. */
export async function bundleGate(): Promise<Result<string>> {
  try {
    // Loaded when used: a bundle of the CLI that never builds a gate does not need it.
    const { build } = await import('esbuild');
    const made = await build({
      entryPoints: [ENTRY],
      bundle: true,
      write: false,
      format: 'esm',
      target: 'es2023',
      platform: 'neutral',
      // Names stay, so that a stack on the console of a machine that does not boot can be read.
      minifySyntax: true,
      minifyWhitespace: true,
      legalComments: 'none',
      absWorkingDir: HOUSE,
      alias: { 'quickjs:os': 'os', 'quickjs:std': 'std' },
      external: ['os', 'std'],
      conditions: ['import'],
      mainFields: ['module', 'main'],
      logLevel: 'silent',
    });
    const text = made.outputFiles[0]?.text;
    return text === undefined ? fail('build-failed', 'the bundler made nothing') : ok(text);
  } catch (error) {
    return fail('build-failed', error instanceof Error ? error.message : String(error));
  }
}

/** Builds the gate, or finds it built. Codes: `build-tool-missing`, `build-failed`. */
export async function buildGate(options: { readonly cache?: string } = {}): Promise<Result<GateBinary>> {
  const cache = options.cache ?? cacheFolder();
  const tree = toolTree(cache);
  const library = join(tree, 'usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a');
  const compiler = join(tree, 'usr/bin/qjsc');
  for (const part of [library, compiler]) {
    if (!existsSync(part)) {
      return fail('build-tool-missing', `${part} is not there`, { hint: 'make setup-guests fetches QuickJS' });
    }
  }
  const bundle = await bundleGate();
  if (!bundle.ok) return bundle;
  const key = createHash('sha256')
    .update(`recipe ${RECIPE}\n`)
    .update(bundle.value)
    .update(readFileSync(library))
    .update(readFileSync(compiler))
    .digest('hex')
    .slice(0, 32);
  const folder = join(cache, 'build');
  const path = join(folder, `gate-${key}`);
  if (!existsSync(path)) {
    const made = await compile(bundle.value, tree, library, path, folder);
    if (!made.ok) return made;
    forgetOlder(folder, path);
    return describe(path, false);
  }
  return describe(path, true);
}

/** The newest few stay: other checkouts use the same cache. */
function forgetOlder(folder: string, made: string): void {
  const others = readdirSync(folder)
    .filter((name) => /^gate-[0-9a-f]{32}$/.test(name))
    .map((name) => join(folder, name))
    .filter((path) => path !== made)
    .map((path) => ({ path, since: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.since - a.since);
  for (const { path } of others.slice(4)) rmSync(path, { force: true });
}

function describe(path: string, cached: boolean): Result<GateBinary> {
  const digest = createHash('sha256').update(readFileSync(path)).digest('hex');
  return ok({ path, bytes: statSync(path).size, digest, cached });
}

async function compile(
  bundle: string,
  tree: string,
  library: string,
  path: string,
  folder: string,
): Promise<Result<void>> {
  const commands = nodeCommands();
  const work = mkdtempSync(join(tmpdir(), 'airlock-gate-'));
  try {
    writeFileSync(join(work, 'gate.js'), bundle);
    const lib = join(tree, 'usr/lib/x86_64-linux-gnu');
    const compiled = await commands.run([
      join(lib, 'ld-linux-x86-64.so.2'),
      '--library-path',
      lib,
      join(tree, 'usr/bin/qjsc'),
      '-e',
      '-m',
      '-N',
      'gate',
      '-o',
      join(work, 'gate.c'),
      join(work, 'gate.js'),
    ]);
    if (!compiled.ok) return fail('build-failed', compiled.error.message);
    if (compiled.value.status !== 0) return fail('build-failed', `qjsc: ${firstLines(compiled.value.stderr)}`);
    // libquickjs.a was made for a newer libc than Debian 12 has: names that this libc lacks mean the older ones.
    const stands: string[] = [];
    for (let tries = 0; ; tries++) {
      const linked = await commands.run(
        [
          'gcc',
          '-O2',
          '-static',
          '-s',
          `-I${join(tree, 'usr/include/quickjs')}`,
          '-o',
          join(work, 'gate'),
          join(work, 'gate.c'),
          library,
          '-lm',
          '-lpthread',
          // The same input gives the same bytes.
          '-Wl,--build-id=none',
          ...stands.map((name) => `-Wl,--defsym=__isoc23_${name}=${name}`),
        ],
        { timeout: 120_000 },
      );
      if (!linked.ok) {
        return linked.error.code === 'command-missing'
          ? fail('build-tool-missing', 'gcc is not there', { hint: 'make setup-guests installs it' })
          : fail('build-failed', linked.error.message);
      }
      if (linked.value.status === 0) break;
      const missing = [...linked.value.stderr.matchAll(/undefined reference to `__isoc23_([a-z]+)'/g)].map((m) => m[1]);
      const more = [...new Set(missing)].filter((name) => name !== undefined && !stands.includes(name));
      if (more.length === 0 || tries > 4) return fail('build-failed', `gcc: ${firstLines(linked.value.stderr)}`);
      stands.push(...more.filter((name) => name !== undefined));
    }
    mkdirSync(folder, { recursive: true });
    // Across file systems, then into place at once: two builds at a time make the same file.
    const beside = `${path}.${process.pid}`;
    copyFileSync(join(work, 'gate'), beside);
    renameSync(beside, path);
    return ok(undefined);
  } catch (error) {
    return fail('build-failed', error instanceof Error ? error.message : String(error));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function firstLines(text: string): string {
  return text.split('\n').slice(0, 4).join('; ').slice(0, 600);
}
