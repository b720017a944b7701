/** KVM where a guest really boots with it, else emulation. The answer is remembered: asking costs a boot. */
import { accessSync, constants, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { type Cache, contentKey, type Kernel } from './cache.ts';
import { startGuest } from './guest.ts';

export interface Accelerator {
  readonly name: 'kvm' | 'tcg';
  /** Why, in words for a person. */
  readonly because: string;
}

/** How long a guest under KVM may take to come up; real ones need about a second. */
const PROBE_SECONDS = 12;

export async function chooseAccelerator(
  cache: Cache,
  kernel: Kernel,
  initramfs: string,
  rootDisk: string,
  signal?: AbortSignal,
): Promise<Accelerator> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return { name: 'tcg', because: 'no usable /dev/kvm' };
  }
  // A machine that was moved, or a kernel that was changed, is asked again.
  const key = contentKey(['accelerator 1', release(), cpus()[0]?.model ?? '', kernel.release]);
  const path = join(cache.folder, 'build', `accelerator-${key}`);
  try {
    const known = readFileSync(path, 'utf8');
    return known === 'kvm'
      ? { name: 'kvm', because: 'a guest boots with it here' }
      : { name: 'tcg', because: `KVM is here, but no guest boots with it: ${known.slice(0, 200)}` };
  } catch {}
  const guest = await startGuest(cache, {
    machine: {
      accelerator: 'kvm',
      memory: 256,
      kernel: kernel.image,
      initramfs,
      cmdline: 'console=ttyS0 quiet panic=-1',
      parts: [
        {
          device: { driver: 'virtio-blk-pci', drive: 'root', serial: 'root' },
          backend: ['-drive', `if=none,id=root,file=${rootDisk},format=raw,read-only=on,file.locking=off`],
        },
      ],
    },
    bootSeconds: PROBE_SECONDS,
    ...(signal ? { signal } : {}),
  });
  if (guest.ok) await guest.value.end();
  const answer = guest.ok ? 'kvm' : guest.error.message;
  if (signal?.aborted !== true) {
    mkdirSync(join(cache.folder, 'build'), { recursive: true });
    rmSync(path, { force: true });
    writeFileSync(path, answer);
  }
  return guest.ok
    ? { name: 'kvm', because: 'a guest boots with it here' }
    : { name: 'tcg', because: `KVM is here, but no guest boots with it: ${answer}` };
}
