/** A real Linux guest for the gate's tests: kernels and QEMU of the cache, an init that says what it sees, nothing else. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { file, type NewEntry, writeCpio } from '@airlock/gate/build/cpio.ts';
import { cacheFolder, toolTree } from '@airlock/gate/build/node-gate-binary.ts';
import { makeInitrd } from '@airlock/gate/build/node-initrd.ts';
import { findKernel } from '@airlock/gate/build/node-kernel.ts';
import { minimalEntries } from '@airlock/gate/build/node-minimal.ts';

const cache = cacheFolder();
const tree = toolTree(cache);

/** Why guests cannot be started here, or false. */
export const skip =
  process.env['AIRLOCK_NO_GUESTS'] === '1'
    ? 'AIRLOCK_NO_GUESTS=1'
    : existsSync(join(tree, 'usr/bin/qemu-system-x86_64'))
      ? false
      : 'no QEMU in the cache (make setup-guests)';

/** Busybox alone, so that what it sees owes nothing to Airlock. */
const WITNESS = `#!/bin/busybox sh
export PATH=/bin:/sbin
[ -e /proc/self ] || mount -t proc proc /proc
[ -d /sys/bus ] || mount -t sysfs sysfs /sys
echo "witness args $*"
echo "witness env $(env | tr '\\n' ' ')"
for path in /sys/bus/pci/devices/* /sys/bus/virtio/devices/*; do
  driver=$(readlink $path/driver)
  echo "witness driver \${path##*/} \${driver##*/}"
done
for bus in pci virtio vdpa usb; do
  [ -e /sys/bus/$bus/drivers_autoprobe ] && echo "witness autoprobe $bus $(cat /sys/bus/$bus/drivers_autoprobe)"
done
for node in $denied; do
  for driver in virtio-pci nvme; do
    echo $node >/sys/bus/pci/drivers/$driver/bind
  done 2>/dev/null
  echo $node >/sys/bus/pci/drivers_probe
  echo 1 >/sys/bus/pci/rescan
  driver=$(readlink /sys/bus/pci/devices/$node/driver)
  echo "witness forced $node \${driver##*/}"
done
echo "witness modules $(cut -d ' ' -f 1 /proc/modules | tr '\\n' ' ')"
echo "witness modules_disabled $(cat /proc/sys/kernel/modules_disabled)"
[ -e /run/airlock/gate.json ] && echo "witness gate $(cat /run/airlock/gate.json)"
[ -e /run/airlock/enforcement.json ] && echo "witness enforcement $(cat /run/airlock/enforcement.json)"
ls -ld /run/airlock
echo witness end
while :; do sleep 60; done
`;

export interface GuestOptions {
  readonly kernel: '6.1' | '6.12' | '7.2';
  /** Text of the policy, or bytes that take the place of /airlock/policy.json. */
  readonly policy: string;
  readonly append?: string;
  readonly devices: readonly string[];
  /** Put over the finished initramfs. */
  readonly over?: readonly NewEntry[];
}

export interface Seen {
  /** Everything that the console showed. */
  readonly console: string;
  /** The witness's lines without their first word, by their second. */
  readonly said: (what: string) => string[];
  readonly driver: (node: string) => string | undefined;
  readonly ended: boolean;
}

export const disk = (id: string, serial: string) => [
  '-drive',
  `if=none,id=${id},file=DISK,format=raw,snapshot=on`,
  '-device',
  `virtio-blk-pci,drive=${id},serial=${serial},iommu_platform=on,disable-legacy=on`,
];

export async function bootGuest(options: GuestOptions): Promise<Seen> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-guest-'));
  try {
    const kernel = findKernel(options.kernel, cache);
    if (!kernel.ok) throw new Error(kernel.error.message);
    const entries = await minimalEntries(kernel.value, ['virtio_balloon'], tree);
    if (!entries.ok) throw new Error(entries.error.message);
    const base = writeCpio(
      entries.value.map((one) => (one.path === 'init' ? file('init', Buffer.from(WITNESS), 0o755) : one)),
    );
    if (!base.ok) throw new Error(base.error.message);
    writeFileSync(join(folder, 'base'), base.value);
    writeFileSync(join(folder, 'policy.yaml'), options.policy);
    const made = await makeInitrd({ policy: join(folder, 'policy.yaml'), initrd: join(folder, 'base') });
    if (made.initrd === undefined) throw new Error(JSON.stringify(made.problems));
    const over = writeCpio(options.over ?? []);
    if (!over.ok) throw new Error(over.error.message);
    writeFileSync(join(folder, 'initrd'), Buffer.concat([made.initrd.bytes, over.value]));
    writeFileSync(join(folder, 'disk'), '');
    truncateSync(join(folder, 'disk'), 16 * 1024 * 1024);
    const shown = await runQemu(options, folder);
    return describe(shown);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function runQemu(options: GuestOptions, folder: string): Promise<string> {
  const lib = join(tree, 'usr/lib/x86_64-linux-gnu');
  const argv = [
    '--library-path',
    lib,
    join(tree, 'usr/bin/qemu-system-x86_64'),
    ...['-L', join(tree, 'usr/share/qemu'), '-L', join(tree, 'usr/share/seabios')],
    ...['-M', 'q35,accel=tcg', '-cpu', 'max', '-m', '512', '-smp', '1'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', join(cache, 'kernels', options.kernel, 'vmlinuz'), '-initrd', join(folder, 'initrd')],
    ...['-append', `console=ttyS0 quiet panic=-1 swiotlb=force ${options.append ?? ''}`],
    ...options.devices.map((one) => one.replace('file=DISK', `file=${join(folder, 'disk')}`)),
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(join(lib, 'ld-linux-x86-64.so.2'), argv, { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), 120_000);
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      // Ended from here: a guest that powers itself off may take its last words with it.
      if (/^witness end\r?$/m.test(text.slice(-4096))) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
    });
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      resolve(text);
    });
  });
}

function describe(shown: string): Seen {
  const lines = shown.split('\n').map((line) => line.trimEnd());
  const said = (what: string) =>
    lines.filter((line) => line.startsWith(`witness ${what}`)).map((line) => line.slice(`witness ${what} `.length));
  return {
    console: shown,
    said,
    driver: (node) =>
      said('driver')
        .find((line) => line === node || line.startsWith(`${node} `))
        ?.slice(node.length + 1),
    ended: lines.includes('witness end'),
  };
}
