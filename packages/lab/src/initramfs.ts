/** The lab's initramfs without the gate: busybox, the guest's modules, and an init that binds whatever it finds. */

import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { file, folder, link, type NewEntry, writeCpio } from '@airlock/gate/build/cpio.ts';
import { built, type Cache, contentKey, type Kernel, runProgram } from './cache.ts';
import { INITRAMFS_INIT } from './guest-scripts.ts';
import { copyModules, GUEST_MODULES } from './modules.ts';

/** Raised when the layout below changes in a way that no text of the key shows. */
const LAYOUT = 'initramfs 2';

/** Path of the initramfs, uncompressed: a kernel under emulation unpacks slowly. Codes: `lab-build`. */
export async function baseInitramfs(cache: Cache, kernel: Kernel): Promise<Result<string>> {
  const busybox = join(cache.tools, 'usr/bin/busybox');
  const key = contentKey([LAYOUT, kernel.release, GUEST_MODULES.join(' '), INITRAMFS_INIT, { file: busybox }]);
  return built(cache, `initramfs-${kernel.series}`, key, async (into) => {
    const tree = `${into}.tree`;
    try {
      rmSync(tree, { recursive: true, force: true });
      const filled = await fillTree(cache, kernel, tree, INITRAMFS_INIT, GUEST_MODULES);
      if (!filled.ok) return filled;
      const packed = packTree(tree);
      if (!packed.ok) return packed;
      writeFileSync(into, packed.value);
      return ok(undefined);
    } finally {
      rmSync(tree, { recursive: true, force: true });
    }
  });
}

/** A static busybox with its names, and the modules. */
export async function fillTree(
  cache: Cache,
  kernel: Kernel,
  tree: string,
  init: string,
  modules: readonly string[],
): Promise<Result<void>> {
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
  writeFileSync(join(tree, 'init'), init, { mode: 0o755 });
  return copyModules(cache, kernel, modules, tree);
}

/** The tree as one archive; the same tree gives the same bytes. */
export function packTree(tree: string): Result<Uint8Array> {
  const entries: NewEntry[] = [];
  const walk = (at: string): void => {
    for (const entry of readdirSync(join(tree, at), { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = at === '' ? entry.name : `${at}/${entry.name}`;
      const full = join(tree, path);
      if (entry.isDirectory()) {
        entries.push(folder(path));
        walk(path);
      } else if (entry.isSymbolicLink()) entries.push(link(path, readlinkSync(full)));
      else entries.push(file(path, readFileSync(full), statSync(full).mode & 0o777));
    }
  };
  walk('');
  return writeCpio(entries);
}
