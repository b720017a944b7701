/**
 * What the gate adds to a boot under emulation, from the start of QEMU to the first line of the real init, beside the
 * same initramfs whose init is a shell that does nothing, and beside one that loads the same three drivers with one
 * modprobe: the kernel checks a signature for each module, which no one who uses the devices is spared. The gate runs
 * with policies/lab.yaml, which connects those three, and with a policy that connects nothing: its own work alone. Its
 * row names the size that it adds.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { file, writeCpio } from '@airlock/gate/build/cpio.ts';
import { cacheFolder, toolTree } from '@airlock/gate/build/node-gate-binary.ts';
import { makeInitrd } from '@airlock/gate/build/node-initrd.ts';
import { findKernel } from '@airlock/gate/build/node-kernel.ts';
import { minimalEntries } from '@airlock/gate/build/node-minimal.ts';
import type { Bench, Side } from './side-by-side.ts';

const KERNEL = '7.2';
const MARK = 'the real init is here';
const POLICY = join(import.meta.dirname, '../policies/lab.yaml');

const init = (before: string) => `#!/bin/busybox sh
export PATH=/bin:/sbin
${before}echo
echo "${MARK}: $(ls -d /sys/bus/virtio/devices/*/driver | grep -c .) virtio drivers"
while :; do sleep 60; done
`;
const NOTHING = '';
const SAME_DRIVERS = `mount -t proc proc /proc
mount -t sysfs sysfs /sys
modprobe -a virtio_blk virtio_net virtio_rng
`;

const COMMON = 'iommu_platform=on,disable-legacy=on';

/** Resolves with the line that the real init wrote; the guest ends with it. */
function bootTo(mark: string, initrd: string, disk: string): Promise<string> {
  const cache = cacheFolder();
  const tree = toolTree(cache);
  const lib = join(tree, 'usr/lib/x86_64-linux-gnu');
  const child = spawn(
    join(lib, 'ld-linux-x86-64.so.2'),
    [
      ...['--library-path', lib, join(tree, 'usr/bin/qemu-system-x86_64')],
      ...['-L', join(tree, 'usr/share/qemu'), '-L', join(tree, 'usr/share/seabios')],
      ...['-M', 'q35,accel=tcg', '-cpu', 'max', '-m', '512', '-smp', '1', '-nodefaults', '-no-user-config'],
      ...['-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...['-kernel', join(cache, 'kernels', KERNEL, 'vmlinuz'), '-initrd', initrd],
      ...['-append', 'console=ttyS0 quiet panic=-1 swiotlb=force'],
      ...['-drive', `if=none,id=d,file=${disk},format=raw,snapshot=on`],
      ...['-device', `virtio-blk-pci,drive=d,serial=root,${COMMON}`],
      ...['-netdev', 'user,id=n,restrict=on', '-device', `virtio-net-pci,netdev=n,${COMMON}`],
      ...['-device', `virtio-rng-pci,${COMMON}`, '-device', `virtio-balloon-pci,${COMMON}`],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  return new Promise((resolve, reject) => {
    let text = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), 120_000);
    const hear = (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const line = text.split('\n').find((one) => one.includes(mark) && one.endsWith('\r'));
      if (line === undefined) return;
      resolve(line.trim());
      child.kill('SIGKILL');
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      reject(new Error(`the guest did not reach its init:\n${text.slice(-800)}`));
    });
  });
}

export const bench: Bench = {
  name: 'gate-boot',
  title: `boot of Linux ${KERNEL} under emulation, to the first line of the real init`,
  unit: 'boots',
  show: 'time',
  turns: 5,
  turnLength: 0,
  async prepare() {
    const cache = cacheFolder();
    const tree = toolTree(cache);
    if (!existsSync(join(tree, 'usr/bin/qemu-system-x86_64'))) return 'no QEMU in the cache (make setup-guests)';
    const kernel = findKernel(KERNEL, cache);
    if (!kernel.ok) return kernel.error.message;
    const entries = await minimalEntries(kernel.value, [], tree);
    if (!entries.ok) return entries.error.message;
    const folder = mkdtempSync(join(tmpdir(), 'airlock-bench-'));
    const disk = join(folder, 'disk');
    writeFileSync(disk, '');
    truncateSync(disk, 16 * 1024 * 1024);
    const write = (name: string, before: string): string => {
      const made = writeCpio(
        entries.value.map((one) => (one.path === 'init' ? file('init', Buffer.from(init(before)), 0o755) : one)),
      );
      if (!made.ok) throw new Error(made.error.message);
      writeFileSync(join(folder, name), made.value);
      return join(folder, name);
    };
    const nothing = write('nothing', NOTHING);
    const drivers = write('drivers', SAME_DRIVERS);
    const gated = async (name: string, policy: string): Promise<{ path: string; added: number }> => {
      const { initrd, problems } = await makeInitrd({ policy, initrd: nothing });
      if (initrd === undefined) throw new Error(problems.map((one) => one.message).join('; '));
      const path = join(folder, name);
      writeFileSync(path, initrd.bytes);
      return { path, added: initrd.added };
    };
    const gate = await gated('gate', POLICY);
    const closed = join(folder, 'closed.yaml');
    writeFileSync(closed, 'version: 1\nmode: enforce\ndefault: disconnected\nrules: []\n');
    const alone = await gated('gate-alone', closed);

    // The same devices work in the end, but for the balloon, which the policy does not allow and no module was loaded for.
    const [ours, theirs] = [await bootTo(MARK, gate.path, disk), await bootTo(MARK, drivers, disk)];
    for (const line of [ours, theirs]) {
      if (!line.endsWith(': 3 virtio drivers')) throw new Error(`not three drivers: ${line}`);
    }
    const side = (name: string, initrd: string): Side => ({
      name,
      run: async (times) => {
        for (let i = 0; i < times; i++) await bootTo(MARK, initrd, disk);
      },
    });
    return {
      ours: [
        side(`airlock gate (+${(gate.added / 1e6).toFixed(2)} MB)`, gate.path),
        side('gate that connects nothing', alone.path),
      ],
      peers: [side('shell doing nothing', nothing), side('shell loading the drivers', drivers)],
      operations: 1,
      close: async () => rmSync(folder, { recursive: true, force: true }),
    };
  },
};
