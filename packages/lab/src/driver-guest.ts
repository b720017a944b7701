/**
 * A small guest in which a kernel's own drivers meet devices that other processes serve: nothing but an initramfs with
 * busybox, the drivers, and a few of Debian's programs. Its memory is a sealed memfd, so that vhost-user and vfio-user
 * servers can map it.
 */
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ok, type Result } from '@airlock/core/result.ts';
import { type Accelerator, chooseAccelerator } from './accelerator.ts';
import {
  built,
  type Cache,
  contentKey,
  copyProgram,
  type Kernel,
  type KernelSeries,
  openCache,
  openKernel,
  openPeers,
} from './cache.ts';
import { type Guest, startGuest } from './guest.ts';
import { CHANNEL_SCRIPT } from './guest-scripts.ts';
import { baseInitramfs, fillTree, packTree } from './initramfs.ts';
import { buildMissingDrivers, MISSING_OPTIONS, putMissingDrivers } from './missing-drivers.ts';
import type { Part } from './qemu.ts';
import { rootDisk } from './root-disk.ts';

/** Raised when what the initramfs holds changes in a way that no text of the key shows. */
const LAYOUT = 'driver guest 3';

/** Every VIRTIO driver that Debian's kernels have, and what makes their devices usable. `?`: not in every kernel. */
const DRIVER_MODULES = [
  ...['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio_rng', 'virtio_balloon', 'virtio_gpu'],
  ...['virtio_input', 'virtio_scsi', 'virtio_crypto', 'virtio_pmem', 'virtio_mem', 'virtiofs', '9p', '9pnet_virtio'],
  ...['vmw_vsock_virtio_transport', 'sd_mod', 'evdev', 'ext4', 'nvme', 'virtio_mmio'],
  // What makes them usable: namespaces of persistent memory, AES for user space, sound as a file.
  ...['nd_pmem', 'algif_skcipher', 'cbc?', 'snd_pcm_oss'],
  ...['virtio_snd?', 'virtio_iommu?', 'virtio_vdpa?', 'vduse?', 'vdpa?', 'crc32c_generic?', 'crc32c_intel?'],
];

/** Of the cache's trees: a real mkfs, a client of AF_VSOCK, and the program that people read a PCI function with. */
const DRIVER_PROGRAMS = ['mkfs.ext4', 'e2fsck', 'socat', 'lspci'];

/** lspci's names of vendors and classes, below the tree of the peers and of the guest. */
const PCI_IDS = 'usr/share/misc/pci.ids';

/** What makes the devices usable whose drivers are built aside. */
const MISSING_MODULES = ['i2c_dev', 'can_dev', 'can_raw'];

const DRIVER_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /dev/pts /mnt
mount -t devpts devpts /dev/pts
hostname drivers
for round in 1 2; do
  find /sys/devices -name modalias | xargs cat | sort -u | xargs modprobe -a -q -b
done
modprobe -q ext4
modprobe -q 9p
ip link set lo up
# What udev does on any machine: a driver for whatever appears.
uevent /etc/lab/on-uevent &
busybox sh -c 'sh /etc/lab/channel & wait $!'
poweroff -f
`;

const ON_UEVENT = `#!/bin/busybox sh
[ "$ACTION" = add ] && [ -n "$MODALIAS" ] && exec /sbin/modprobe -q -b "$MODALIAS"
exit 0
`;

export interface DriverImages {
  readonly cache: Cache;
  readonly kernel: Kernel;
  readonly accelerator: Accelerator;
  readonly initramfs: string;
}

/**
 * Everything that a driver guest boots from. With `missing` also drivers that Debian does not build, made from the same
 * kernel's source. Codes: the cache's and the builds'; `lab-unsupported` where that source cannot be had.
 */
export async function prepareDriverGuest(
  series: KernelSeries,
  say: (line: string) => void = () => {},
  missing = false,
): Promise<Result<DriverImages>> {
  const cache = await openCache(say);
  if (!cache.ok) return cache;
  const peers = await openPeers(say);
  if (!peers.ok) return peers;
  const shipped = await openKernel(cache.value, series, say);
  if (!shipped.ok) return shipped;
  const made = missing ? await buildMissingDrivers(cache.value, shipped.value, say) : ok(null);
  if (!made.ok) return made;
  const kernel: Kernel = made.value === null ? shipped.value : { ...shipped.value, added: MISSING_OPTIONS };
  const initramfs = await driverInitramfs(cache.value, kernel, made.value);
  if (!initramfs.ok) return initramfs;
  const plain = await baseInitramfs(cache.value, kernel);
  if (!plain.ok) return plain;
  const root = await rootDisk(cache.value, kernel);
  if (!root.ok) return root;
  const accelerator = await chooseAccelerator(cache.value, kernel, plain.value, root.value);
  return ok({ cache: cache.value, kernel, accelerator, initramfs: initramfs.value });
}

/** `made`: a folder of modules and programs that were built aside. */
async function driverInitramfs(cache: Cache, kernel: Kernel, made: string | null): Promise<Result<string>> {
  const modules = made === null ? DRIVER_MODULES : [...DRIVER_MODULES, ...MISSING_MODULES];
  const key = contentKey([
    ...[LAYOUT, kernel.release, modules.join(' '), DRIVER_PROGRAMS.join(' ')],
    ...[DRIVER_INIT, ON_UEVENT, CHANNEL_SCRIPT, ...(made === null ? [] : [basename(made)])],
  ]);
  return built(
    cache,
    made === null ? `drivers-${kernel.series}` : `all-drivers-${kernel.series}`,
    key,
    async (into) => {
      const tree = `${into}.tree`;
      try {
        rmSync(tree, { recursive: true, force: true });
        if (made !== null) putMissingDrivers(made, kernel, tree);
        const filled = await fillTree(cache, kernel, tree, DRIVER_INIT, modules);
        if (!filled.ok) return filled;
        for (const program of DRIVER_PROGRAMS) {
          const copied = await copyProgram(cache, program, tree);
          if (!copied.ok) return copied;
        }
        mkdirSync(dirname(join(tree, PCI_IDS)), { recursive: true });
        copyFileSync(join(cache.peers, PCI_IDS), join(tree, PCI_IDS));
        mkdirSync(join(tree, 'etc/lab'), { recursive: true });
        writeFileSync(join(tree, 'etc/lab/channel'), CHANNEL_SCRIPT, { mode: 0o755 });
        writeFileSync(join(tree, 'etc/lab/on-uevent'), ON_UEVENT, { mode: 0o755 });
        writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
        writeFileSync(join(tree, 'etc/group'), 'root:x:0:\n');
        const packed = packTree(tree);
        if (!packed.ok) return packed;
        writeFileSync(into, packed.value);
        return ok(undefined);
      } finally {
        rmSync(tree, { recursive: true, force: true });
      }
    },
  );
}

export interface DriverGuestOptions {
  readonly parts: readonly Part[];
  readonly cmdline?: string;
  /** MiB; 512 when absent. */
  readonly memory?: number;
  readonly processors?: number;
  readonly backends?: readonly string[];
  readonly signal?: AbortSignal;
  readonly onConsole?: (line: string) => void;
}

/** Codes: the guest's. */
export function bootDriverGuest(images: DriverImages, options: DriverGuestOptions): Promise<Result<Guest>> {
  return startGuest(images.cache, {
    machine: {
      accelerator: images.accelerator.name,
      memory: options.memory ?? 512,
      kernel: images.kernel.image,
      initramfs: images.initramfs,
      cmdline: `console=ttyS0 quiet panic=-1${options.cmdline === undefined ? '' : ` ${options.cmdline}`}`,
      parts: options.parts,
      sharedMemory: true,
      processors: options.processors ?? 1,
      ...(options.backends ? { backends: options.backends } : {}),
    },
    ...(options.signal ? { signal: options.signal } : {}),
    ...(options.onConsole ? { onConsole: options.onConsole } : {}),
  });
}

/** Those of QEMU's devices that can be legacy ones too. */
const TRANSITIONAL = new Set(['vhost-user-blk-pci', 'virtio-net-pci', 'vhost-user-scsi-pci', 'vhost-user-vsock-pci']);

/** The words of a `-device` that has QEMU speak vhost-user to `socket`. Modern VIRTIO behind the DMA API. */
export function vhostUserPart(
  id: string,
  driver: string,
  socket: string,
  more: Readonly<Record<string, string>> = {},
): Part {
  const net = driver.startsWith('virtio-net');
  // Of QEMU's front-ends these two wait for a connection that is made in the background, and survive its loss.
  const reconnects = net || driver.startsWith('vhost-user-blk');
  return {
    backend: [
      ...['-chardev', `socket,id=${id},path=${socket.replaceAll(',', ',,')}${reconnects ? ',reconnect-ms=200' : ''}`],
      ...(net ? ['-netdev', `vhost-user,id=${id}-net,chardev=${id},queues=${more['queues'] ?? '1'}`] : []),
    ],
    device: {
      driver,
      ...(TRANSITIONAL.has(driver) ? { 'disable-legacy': 'on' } : {}),
      iommu_platform: 'on',
      ...(net ? { netdev: `${id}-net`, romfile: '' } : { chardev: id }),
      ...withoutQueues(more, net),
    },
  };
}

function withoutQueues(more: Readonly<Record<string, string>>, net: boolean): Readonly<Record<string, string>> {
  return net ? Object.fromEntries(Object.entries(more).filter(([key]) => key !== 'queues')) : more;
}
