/** What the lab's guests boot from, built once, and the boot. */
import { ok, type Result } from '@airlock/core/result.ts';
import { type Accelerator, chooseAccelerator } from './accelerator.ts';
import { type Cache, type Kernel, type KernelSeries, openCache, openKernel } from './cache.ts';
import { type Guest, startGuest } from './guest.ts';
import { baseInitramfs } from './initramfs.ts';
import { CMDLINE, HOTPLUG_BACKENDS, labParts, type MachineChange, MEMORY } from './machine.ts';
import { rootDisk } from './root-disk.ts';

/** Everything a guest boots from. */
export interface Images {
  readonly cache: Cache;
  readonly kernel: Kernel;
  readonly accelerator: Accelerator;
  readonly plain: string;
  readonly root: string;
}

/** Codes: the cache's and the builds'. */
export async function prepareImages(
  series: KernelSeries,
  say: (line: string) => void,
  signal?: AbortSignal,
): Promise<Result<Images>> {
  const cache = await openCache(say);
  if (!cache.ok) return cache;
  const kernel = await openKernel(cache.value, series, say);
  if (!kernel.ok) return kernel;
  const plain = await baseInitramfs(cache.value, kernel.value);
  if (!plain.ok) return plain;
  const root = await rootDisk(cache.value, kernel.value);
  if (!root.ok) return root;
  const accelerator = await chooseAccelerator(cache.value, kernel.value, plain.value, root.value, signal);
  return ok({ cache: cache.value, kernel: kernel.value, accelerator, plain: plain.value, root: root.value });
}

/** The kernel's command line. */
export function labCmdline({ cmdline }: MachineChange): string {
  return cmdline === undefined ? CMDLINE : `${CMDLINE} ${cmdline}`;
}

/** Boots the lab's machine from an initramfs; `tweaks` change devices by slot. Codes: the guest's. */
export function bootLab(
  images: Images,
  initramfs: string,
  more: MachineChange & {
    readonly signal?: AbortSignal | undefined;
    readonly onConsole?: (line: string) => void;
    readonly owns?: string;
    readonly tweaks?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  } = {},
): Promise<Result<Guest>> {
  return startGuest(images.cache, {
    machine: {
      accelerator: images.accelerator.name,
      memory: more.memory ?? MEMORY,
      kernel: images.kernel.image,
      initramfs,
      cmdline: labCmdline(more),
      parts: [
        ...labParts({ rootDisk: images.root, ...(more.tweaks ? { tweaks: more.tweaks } : {}) }),
        ...(more.parts ?? []),
      ],
      sharedMemory: more.sharedMemory ?? false,
      backends: HOTPLUG_BACKENDS,
      ...(more.tpmState === undefined ? {} : { tpmState: more.tpmState }),
    },
    ...(more.owns === undefined ? {} : { owns: more.owns }),
    ...(more.signal ? { signal: more.signal } : {}),
    ...(more.onConsole ? { onConsole: more.onConsole } : {}),
  });
}
