/** The lab's initramfs without the gate: busybox, the guest's modules, and an init that binds whatever it finds. */

import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, createWriteStream, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { built, type Cache, contentKey, type Kernel, runProgram } from './cache.ts';
import { INITRAMFS_INIT } from './guest-scripts.ts';
import { copyModules, GUEST_MODULES } from './modules.ts';

/** Raised when the layout below changes in a way that no text of the key shows. */
const LAYOUT = 'initramfs 1';

/** Path of the initramfs, uncompressed: a kernel under emulation unpacks slowly. Codes: `lab-build`. */
export async function baseInitramfs(cache: Cache, kernel: Kernel): Promise<Result<string>> {
  const busybox = join(cache.tools, 'usr/bin/busybox');
  const key = contentKey([LAYOUT, kernel.release, GUEST_MODULES.join(' '), INITRAMFS_INIT, { file: busybox }]);
  return built(cache, `initramfs-${kernel.series}`, key, async (into) => {
    const tree = `${into}.tree`;
    try {
      rmSync(tree, { recursive: true, force: true });
      const filled = await fillTree(cache, kernel, tree);
      return filled.ok ? await packTree(busybox, tree, into) : filled;
    } finally {
      rmSync(tree, { recursive: true, force: true });
    }
  });
}

/** A static busybox with its names, and the modules. */
export async function fillTree(cache: Cache, kernel: Kernel, tree: string): Promise<Result<void>> {
  const busybox = join(cache.tools, 'usr/bin/busybox');
  for (const folder of ['bin', 'sbin', 'proc', 'sys', 'dev', 'run', 'root', 'tmp']) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  copyFileSync(busybox, join(tree, 'bin/busybox'));
  chmodSync(join(tree, 'bin/busybox'), 0o755);
  const names = await runProgram([busybox, '--list']);
  if (!names.ok) return names;
  for (const name of names.value.split('\n')) {
    if (name !== '' && name !== 'busybox') symlinkSync('busybox', join(tree, 'bin', name));
  }
  symlinkSync('../bin/busybox', join(tree, 'sbin/modprobe'));
  writeFileSync(join(tree, 'init'), INITRAMFS_INIT, { mode: 0o755 });
  return copyModules(cache, kernel, GUEST_MODULES, tree);
}

function packTree(busybox: string, tree: string, into: string): Promise<Result<void>> {
  return new Promise((resolve) => {
    const child = spawn('sh', ['-c', 'find . | LC_ALL=C sort | "$0" cpio -o -H newc -R 0:0', busybox], {
      cwd: tree,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const out = createWriteStream(into);
    child.stdout.pipe(out);
    child.on('error', () => resolve(fail('lab-build', 'cpio did not start')));
    let status: number | null = null;
    child.on('exit', (code) => {
      status = code;
    });
    out.on('error', (error) => resolve(fail('lab-build', `${into}: ${error.message}`)));
    out.on('close', () => resolve(status === 0 ? ok(undefined) : fail('lab-build', 'cpio failed')));
  });
}
