/**
 * The rule that three guest tests hold, each on its kernel: a physical function that exists only as an object of ours has
 * virtual ones. An unmodified Linux makes them appear with `sriov_numvfs`, drives each, and lets them go, through a QEMU
 * that knows nothing of it.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KernelSeries } from '../src/cache.ts';
import { startDevice } from '../src/device-process.ts';
import { bootDriverGuest, prepareDriverGuest } from '../src/driver-guest.ts';
import { shell } from './guests.ts';

const AT = '/sys/bus/pci/devices/0000:01:00';

/** Functions of one slot, as QEMU takes them: a socket is said in JSON only. */
function slot(sockets: readonly string[]): string[] {
  return sockets.flatMap((path, i) => [
    '-device',
    JSON.stringify({
      ...{ driver: 'vfio-user-pci', bus: 'vport', addr: `0.${i}`, socket: { type: 'unix', path } },
      ...(i === 0 ? { multifunction: true } : {}),
    }),
  ]);
}

export function virtualFunctionsOfOurs(series: KernelSeries): void {
  test(`Linux ${series}: virtual functions of ours come, work and go as the guest says`, {
    timeout: 400_000,
  }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest(series);
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    const device = await startDevice('entropy', [
      ...['--transport', 'vfio-user', '--sr-iov', '--virtual-function', '', '--virtual-function', ''],
    ]);
    assert.ok(device.ok, JSON.stringify(device));
    t.after(() => device.value.end());
    const { socket } = device.value;
    const folder = mkdtempSync(join(tmpdir(), 'airlock-disks-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    for (const name of ['a', 'b']) {
      writeFileSync(join(folder, name), '');
      truncateSync(join(folder, name), 1 << 20);
    }
    const disk = await startDevice('block', [
      ...['--transport', 'vfio-user', '--file', join(folder, 'a'), '--serial', 'own'],
      ...['--virtual-function', `file=${join(folder, 'b')},serial=other`],
    ]);
    assert.ok(disk.ok, JSON.stringify(disk));
    t.after(() => disk.value.end());
    const guest = await bootDriverGuest(images.value, {
      parts: ['vport', 'free0', 'free1'].map((id, i) => ({
        device: { driver: 'pcie-root-port', id, addr: `1${i}.0`, chassis: String(i + 1), slot: String(i + 1) },
      })),
      backends: slot([socket, `${socket}-vf0`, `${socket}-vf1`]),
    });
    assert.ok(guest.ok, `${JSON.stringify(guest)} ${device.value.said()}`);
    t.after(() => guest.value.end());
    const run = (script: string) => shell(guest.value, script, 60);
    const functions = async () =>
      (await run(`ls -d ${AT}.*; true`))
        .trim()
        .split('\n')
        .map((path) => path.slice(-4));
    const waits = 'for i in 1 2 3 4 5 6 7 8 9 10';

    assert.deepEqual(await functions(), ['00.0'], 'nothing of them is there before they are asked for');
    assert.equal((await run(`cat ${AT}.0/sriov_totalvfs ${AT}.0/sriov_numvfs`)).replaceAll('\n', ' '), '2 0 ');
    await run(`echo 2 > ${AT}.0/sriov_numvfs`);
    assert.deepEqual(await functions(), ['00.0', '00.1', '00.2']);
    assert.equal(
      (
        await run(`for n in 1 2; do basename $(readlink ${AT}.$n/physfn); cat ${AT}.$n/vendor ${AT}.$n/device; done`)
      ).trim(),
      ['0000:01:00.0', '0x1af4', '0x1044', '0000:01:00.0', '0x1af4', '0x1044'].join('\n'),
    );
    const ids = await run(`for n in 1 2; do hexdump -n 4 -e '4/1 "%02x"' ${AT}.$n/config; echo; done`);
    assert.deepEqual(ids.trim().split('\n'), ['ffffffff', 'ffffffff'], 'in their own space they have no ids');

    // Each gives bytes of its own, through its own queue and its own interrupt.
    await run(
      `${waits}; do [ "$(cat /sys/class/misc/hw_random/rng_available | wc -w)" -ge 4 ] && break; sleep 1; done`,
    );
    for (const n of [1, 2]) {
      const before = await interrupts(n);
      const bytes = await run(
        `echo virtio_rng.${n} > /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c`,
      );
      assert.equal(bytes.trim(), '256');
      assert.ok((await interrupts(n)) > before, `virtual function ${n - 1} interrupted`);
    }
    async function interrupts(n: number): Promise<number> {
      return Number((await run(`grep "virtio${n}-" /proc/interrupts | awk '{ s += $2 } END { print s }'`)).trim());
    }
    const decoded = await run('lspci -vvv -s 01:00.0 2>&1');
    assert.match(decoded, /Single Root I\/O Virtualization[\s\S]*Total VFs: 2, Number of VFs: 2/);
    assert.doesNotMatch(await run('lspci -vvv 2>&1'), /unknown header|!!!|pcilib:/i);

    await run(`echo 0 > ${AT}.0/sriov_numvfs`);
    assert.deepEqual(await functions(), ['00.0']);
    await run(`echo 1 > ${AT}.0/sriov_numvfs; ${waits}; do [ -e ${AT}.1/driver ] && break; sleep 1; done`);
    assert.deepEqual(await functions(), ['00.0', '00.1']);
    assert.match(await run(`readlink ${AT}.1/driver`), /virtio-pci/);
    // A driver that leaves its physical function takes the virtual ones along.
    await run('echo 0000:01:00.0 > /sys/bus/pci/drivers/virtio-pci/unbind');
    assert.deepEqual(await functions(), ['00.0']);

    // What the VMM shows as functions by themselves, in ports of their own: Linux knows of nothing between them.
    const plug = (bus: string, addr: string, path: string) =>
      guest.value.qmp.execute('device_add', {
        ...{ driver: 'vfio-user-pci', id: `on-${bus}-${addr}`, bus, addr, socket: { type: 'unix', path } },
      });
    for (const [bus, path] of [
      ['free0', disk.value.socket],
      ['free1', `${disk.value.socket}-vf0`],
    ] as const) {
      const plugged = await plug(bus, '0', path);
      assert.ok(plugged.ok, JSON.stringify(plugged));
    }
    await run(`${waits}; do [ -e /sys/block/vdb/serial ] && break; sleep 1; done`);
    assert.deepEqual((await run('for d in /sys/block/vd?; do cat $d/serial; echo; done')).match(/[a-z]+/g)?.sort(), [
      'other',
      'own',
    ]);
    const numbers = await run('lspci -vv -s 02: ; lspci -vv -s 03:');
    assert.equal(new Set(numbers.match(/Device Serial Number \S+/g)).size, 2);
    assert.equal((await run('ls -d /sys/bus/pci/devices/*/physfn 2>/dev/null; true')).trim(), '');

    const told = device.value.said().match(/"enabled":\d/g);
    assert.deepEqual(told, ['"enabled":2', '"enabled":0', '"enabled":1', '"enabled":0']);
    assert.doesNotMatch(device.value.said(), /"event":"problem"/);
    const log = await run('dmesg -r | grep -E "^<[0-4]>" | grep -iE "pci|virtio|VF" ; true');
    assert.equal(log.trim(), '', 'the kernel warns of nothing');
  });
}
