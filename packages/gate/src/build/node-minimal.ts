/** A minimal initramfs: busybox, the modules that a confidential VM's disk and network need, and an init. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { file, folder, link, type NewEntry } from './cpio.ts';
import { modulePaths, plainName, readModuleList, smallAlias, smallDep } from './modules.ts';
import type { KernelFiles } from './node-kernel.ts';

/** A name with `?` may be missing: ext4 finds its checksum through the crypto interface on older kernels only. */
export const MINIMAL_MODULES = [
  'virtio_pci',
  'virtio_blk',
  'virtio_scsi',
  'sd_mod',
  'virtio_net',
  'virtio_console',
  'virtio_rng',
  '9p',
  '9pnet_virtio',
  'vmw_vsock_virtio_transport?',
  'nvme',
  'ext4',
  'crc32c_generic?',
  'crc32c_intel?',
] as const;

/**
 * The real init of a minimal initramfs. It looks for the root file system that the kernel command line names and never
 * gives a shell: its console belongs to the host.
 */
export const MINIMAL_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin
[ -e /proc/self ] || mount -t proc proc /proc
[ -d /sys/bus ] || mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
root=; type=ext4; flags=ro; init=/sbin/init
for word in $(cat /proc/cmdline); do
  case $word in
    root=*) root=\${word#root=} ;;
    rootfstype=*) type=\${word#rootfstype=} ;;
    rw) flags=rw ;;
    init=*) init=\${word#init=} ;;
  esac
done
modprobe -q $type
tries=0
while [ $tries -lt 100 ]; do
  case $root in
    UUID=* | LABEL=*) disk=$(findfs "$root" 2>/dev/null) ;;
    *) disk=$root ;;
  esac
  [ -b "$disk" ] && break
  tries=$((tries + 1))
  sleep 0.1
done
mkdir -p /root
if ! mount -t "$type" -o $flags "$disk" /root; then
  echo "init: no root file system at \\"$root\\"; nothing was started"
  sleep 2
  poweroff -f
fi
for one in proc sys dev run; do mount --move /$one /root/$one; done
exec switch_root /root $init "$@"
`;

/** Codes: `module-missing`, `build-tool-missing`, `kernel-missing`. */
export async function minimalEntries(
  kernel: KernelFiles,
  more: readonly string[],
  tree: string,
): Promise<Result<NewEntry[]>> {
  const read = (name: string) => {
    const path = join(kernel.modules, name);
    return existsSync(path) ? readFileSync(path, 'latin1') : '';
  };
  const list = readModuleList(read('modules.dep'), read('modules.builtin'));
  const paths = modulePaths(list, [...MINIMAL_MODULES, ...more]);
  if (!paths.ok) return paths;
  const busybox = readFileSync(join(tree, 'usr/bin/busybox'));
  const applets = spawnSync(join(tree, 'usr/bin/busybox'), ['--list'], { encoding: 'latin1' });
  if (applets.status !== 0) return fail('build-tool-missing', 'busybox does not run here');

  const entries: NewEntry[] = ['bin', 'sbin', 'proc', 'sys', 'dev', 'run', 'root', 'tmp'].map((path) => folder(path));
  entries.push(file('bin/busybox', busybox, 0o755));
  for (const name of applets.stdout.split('\n').sort()) {
    if (/^[\w.[-]+$/.test(name) && name !== 'busybox') entries.push(link(`bin/${name}`, 'busybox'));
  }
  entries.push(link('sbin/modprobe', '../bin/busybox'));
  const at = `lib/modules/${kernel.release}`;
  const folders = new Set<string>();
  for (const path of [...paths.value.map((one) => `${at}/${one}`), `${at}/modules.dep`]) {
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) folders.add(parts.slice(0, i).join('/'));
  }
  for (const path of [...folders].sort()) entries.push(folder(path));
  for (const path of paths.value) {
    const module = readModule(join(kernel.modules, path), tree);
    if (!module.ok) return module;
    // Uncompressed: an emulated or slow processor spends longer on xz than the loader on the bytes.
    entries.push(file(`${at}/${plainName(path)}`, module.value));
  }
  const bytes = (value: string) => new Uint8Array(Buffer.from(value, 'latin1'));
  entries.push(
    file(`${at}/modules.dep`, bytes(smallDep(list, paths.value))),
    file(`${at}/modules.alias`, bytes(smallAlias(read('modules.alias'), paths.value))),
    file(`${at}/modules.builtin`, bytes(read('modules.builtin'))),
    file('init', bytes(MINIMAL_INIT), 0o755),
  );
  return ok(entries);
}

function readModule(path: string, tree: string): Result<Uint8Array> {
  try {
    const raw = readFileSync(path);
    if (path.endsWith('.gz')) return ok(gunzipSync(raw));
    if (path.endsWith('.zst')) return ok(zstdDecompressSync(raw));
    if (!path.endsWith('.xz')) return ok(raw);
    const lib = join(tree, 'usr/lib/x86_64-linux-gnu');
    const own = [join(lib, 'ld-linux-x86-64.so.2'), '--library-path', lib, join(tree, 'usr/bin/xz')];
    const argv = existsSync(own[3] ?? '') ? own : ['xz'];
    const plain = spawnSync(argv[0] ?? 'xz', [...argv.slice(1), '-dc'], { input: raw, maxBuffer: 256 * 1024 * 1024 });
    return plain.status === 0
      ? ok(plain.stdout)
      : fail('build-tool-missing', `xz could not unpack ${path}`, { hint: 'install xz-utils' });
  } catch (error) {
    return fail('kernel-missing', error instanceof Error ? error.message : String(error));
  }
}
