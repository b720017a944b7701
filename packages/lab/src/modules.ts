/** The kernel modules that the guest carries: a small tree of its own, uncompressed, with depmod run over it. */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Cache, cachedProgram, type Kernel, runProgram } from './cache.ts';

/**
 * Drivers for everything that the lab's machine has: a guest that binds nothing because it has no driver would prove
 * nothing. Names as modprobe takes them; what a kernel has built in is skipped, and so is a name with `?` that it has not
 * (ext4 finds its checksum through the crypto interface on 6.1 only).
 */
export const GUEST_MODULES = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'virtio_console',
  'virtio_rng',
  'virtio_balloon',
  'virtio_gpu',
  'virtio_input',
  '9p',
  '9pnet_virtio',
  'nvme',
  'ahci',
  'sd_mod',
  'i2c_i801',
  'lpc_ich',
  'e1000e',
  'ext4',
  'vduse?',
  'virtio_vdpa?',
  'crc32c_generic?',
  'crc32c_intel?',
] as const;

/** The root disk has drivers for devices of ours too, whatever their type. */
export const ROOT_MODULES = [
  ...GUEST_MODULES,
  ...['virtio_scsi', 'virtio_crypto', 'virtio_pmem', 'nd_pmem', 'virtio_mem', 'virtiofs', 'vmw_vsock_virtio_transport'],
  ...['evdev', 'virtio_snd?', 'snd_pcm_oss', 'virtio_iommu?'],
] as const;

/** Puts the modules and all that they need below `into`/lib/modules/RELEASE. Codes: `lab-build`. */
export async function copyModules(
  cache: Cache,
  kernel: Kernel,
  names: readonly string[],
  into: string,
): Promise<Result<void>> {
  const from = join(kernel.tree, 'lib/modules', kernel.release);
  const to = join(into, 'lib/modules', kernel.release);
  const wanted = moduleFiles(readFileSync(join(from, 'modules.dep'), 'utf8'), builtinNames(from), names);
  if (!wanted.ok) return wanted;
  const compressed: string[] = [];
  for (const file of wanted.value) {
    mkdirSync(dirname(join(to, file)), { recursive: true });
    copyFileSync(join(from, file), join(to, file));
    if (file.endsWith('.xz')) compressed.push(join(to, file));
  }
  if (compressed.length > 0) {
    const unpacked = await runProgram([...cachedProgram(cache, 'xz'), '--decompress', ...compressed]);
    if (!unpacked.ok) return unpacked;
  }
  for (const list of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    if (existsSync(join(from, list))) copyFileSync(join(from, list), join(to, list));
  }
  writeFileSync(join(to, '.complete'), '');
  const mapped = await runProgram([...cachedProgram(cache, 'depmod'), '-b', into, kernel.release]);
  return mapped.ok ? ok(undefined) : mapped;
}

function builtinNames(folder: string): ReadonlySet<string> {
  return new Set(readFileSync(join(folder, 'modules.builtin'), 'utf8').split('\n').map(moduleName));
}

/** `kernel/drivers/block/virtio_blk.ko.xz` → `virtio_blk`; `-` and `_` are the same to the kernel. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz|\.zst|\.gz)?$/, '')
    .replaceAll('-', '_');
}

/** Files of the modules and of what they depend on, by modules.dep. */
function moduleFiles(
  dependencies: string,
  builtin: ReadonlySet<string>,
  names: readonly string[],
): Result<readonly string[]> {
  const byName = new Map<string, string[]>();
  for (const line of dependencies.split('\n')) {
    const [file = '', rest = ''] = line.split(':');
    if (file !== '') byName.set(moduleName(file), [file, ...rest.split(' ').filter((word) => word !== '')]);
  }
  const files = new Set<string>();
  for (const wanted of names) {
    const name = wanted.replace('?', '');
    const found = byName.get(name);
    if (found) for (const file of found) files.add(file);
    else if (name === wanted && !builtin.has(name)) return fail('lab-build', `this kernel has no module ${name}`);
  }
  return ok([...files].sort());
}
