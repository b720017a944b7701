/**
 * The rule that three guest tests hold, each on its kernel: every back-end of `airlock device serve` is used by an
 * unmodified Linux for what it is for, and what was written is there after a reboot. The devices live on through the
 * reboot: one front-end goes, the next comes.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startOwnDevice } from '../../device/test/support/own-device.ts';
import type { KernelSeries } from '../src/cache.ts';
import { freeSlots, PORTS, runCase } from '../src/device-bench.ts';
import { DEVICE_CASES } from '../src/device-cases.ts';
import { type DeviceProcess, startDevice } from '../src/device-process.ts';
import { bootDriverGuest, type DriverImages, prepareDriverGuest, vhostUserPart } from '../src/driver-guest.ts';
import type { Guest } from '../src/guest.ts';
import type { Part } from '../src/qemu.ts';
import { assertClean } from './clean-case.ts';

const DISK_BYTES = 96 << 20;
const CID = 42;
const ECHO_PORT = 5000;
const CALL_PORT = 6000;
/** A model with events, one with a window of memory, and one that Debian's kernels have no driver for. */
const PLUGGED_IN = ['input', 'pmem', 'spi'] as const;

interface Devices {
  readonly folder: string;
  readonly parts: readonly Part[];
  readonly processes: ReadonlyMap<string, DeviceProcess>;
}

async function serve(t: TestContext, type: string, options: readonly string[]): Promise<DeviceProcess> {
  const device = await startDevice(type, options);
  assert.ok(device.ok, JSON.stringify(device));
  t.after(() => device.value.end());
  return device.value;
}

/** A part of QEMU for a device type that it has no front-end for by name. */
function anyType(id: string, type: number, queues: number, config: number, socket: string): Part {
  return vhostUserPart(id, 'vhost-user-test-device-pci', socket, {
    'virtio-id': String(type),
    num_vqs: String(queues),
    config_size: String(config),
  });
}

async function startAll(t: TestContext): Promise<Devices> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-devices-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const disk = join(folder, 'disk.img');
  writeFileSync(disk, '');
  truncateSync(disk, DISK_BYTES);
  for (const share of ['rw', 'ro']) mkdirSync(join(folder, share));
  writeFileSync(join(folder, 'rw', 'from-host'), 'written by the host\n');
  writeFileSync(join(folder, 'ro', 'from-host'), 'only to be read\n');
  const start = (type: string, ...options: string[]) => serve(t, type, options);
  const [block, net, entropy, vsock, share, fixed, port] = await Promise.all([
    start('block', '--file', disk, '--serial', 'airlock-disk', '--queues', '2'),
    start('net', '--peer', 'user'),
    start('entropy'),
    start('vsock', '--cid', String(CID), '--host', join(folder, 'vsock')),
    start('9p', '--share', join(folder, 'rw'), '--tag', 'both'),
    start('9p', '--share', join(folder, 'ro'), '--tag', 'only', '--read-only'),
    start('console', '--port', `socket=${join(folder, 'first')}`, '--port', `name=talk,socket=${join(folder, 'talk')}`),
  ]);
  return {
    folder,
    processes: new Map(Object.entries({ block, net, entropy, vsock, share, fixed, port })),
    parts: [
      vhostUserPart('disk', 'vhost-user-blk-pci', block.socket, { 'num-queues': '2' }),
      vhostUserPart('card', 'virtio-net-pci', net.socket, { mac: '52:54:00:0a:0b:0c' }),
      vhostUserPart('random', 'vhost-user-rng-pci', entropy.socket),
      vhostUserPart('line', 'vhost-user-vsock-pci', vsock.socket),
      anyType('both', 9, 1, 2 + 'both'.length, share.socket),
      anyType('only', 9, 1, 2 + 'only'.length, fixed.socket),
      anyType('talk', 3, 6, 12, port.socket),
    ],
  };
}

async function boot(t: TestContext, images: DriverImages, parts: readonly Part[]): Promise<Guest> {
  // Through the bounce buffer, as in a confidential VM. Time in an emulated guest is uneven, which is no fault of a device.
  const guest = await bootDriverGuest(images, { parts, cmdline: 'swiotlb=force tsc=nowatchdog', processors: 2 });
  assert.ok(guest.ok, JSON.stringify(guest));
  t.after(() => guest.value.end());
  return guest.value;
}

async function shell(guest: Guest, script: string, seconds = 60): Promise<string> {
  const answer = await guest.run(`set -e\n${script}`, seconds);
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.value.status, 0, `${script}\n${answer.value.stdout}\n${answer.value.stderr}`);
  return answer.value.stdout;
}

/** Listens on a Unix socket and gives every byte back. */
function echoServer(t: TestContext, path: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  t.after(() => server.close());
  return new Promise((resolve) => server.listen(path, () => resolve(server)));
}

/** Connects to a Unix socket, says `text`, and gives what comes until the other side ends or `enough` is there. */
function say(path: string, text: string, enough: RegExp, seconds = 60): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let heard = '';
    const timer = setTimeout(() => socket.destroy(new Error(`heard only ${JSON.stringify(heard)}`)), seconds * 1000);
    socket.setEncoding('latin1');
    socket.on('connect', () => socket.write(text, 'latin1'));
    socket.on('data', (piece: string) => {
      heard += piece;
      if (enough.test(heard)) socket.end();
    });
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(heard);
    });
  });
}

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

export function devicesServeLinux(series: KernelSeries): void {
  test(`Linux ${series}: every back-end does its whole job`, { timeout: 600_000 }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest(series);
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    const { folder, parts, processes } = await startAll(t);
    await echoServer(t, join(folder, `vsock_${ECHO_PORT}`));
    const guest = await boot(t, images.value, [...parts, ...freeSlots()]);

    await t.test('each device has the kernel’s driver, modern and behind the DMA API', async () => {
      const drivers = await shell(
        guest,
        'for d in /sys/bus/virtio/devices/*; do n=$(readlink $d/driver); echo $(basename $n) $(cat $d/features); done | sort',
      );
      const lines = drivers.trim().split('\n');
      assert.deepEqual(
        lines.map((line) => line.split(' ')[0]),
        [
          ...['9pnet_virtio', '9pnet_virtio', 'virtio_blk', 'virtio_console', 'virtio_net', 'virtio_rng'],
          'vmw_vsock_virtio_transport',
        ],
      );
      for (const line of lines) assert.equal(line.split(' ')[1]?.slice(32, 34), '11', line);
    });

    let sums = '';
    await t.test('block: serial, queues, a filesystem with files, synced', async () => {
      assert.equal((await shell(guest, 'cat /sys/block/vda/serial')).trim(), 'airlock-disk');
      assert.equal((await shell(guest, 'ls /sys/block/vda/mq | wc -l')).trim(), '2');
      await shell(
        guest,
        'mkfs.ext4 -q -E lazy_itable_init=0 /dev/vda && mkdir -p /mnt/disk && mount /dev/vda /mnt/disk',
      );
      await shell(
        guest,
        `cd /mnt/disk
for n in 1 2 3 4; do dd if=/dev/urandom of=file$n bs=64k count=$((n * 16)) 2>/dev/null; done
dd if=/dev/urandom of=hole bs=4k count=1 seek=1000 2>/dev/null
sync`,
        120,
      );
      sums = await shell(guest, 'cd /mnt/disk && sha256sum file* hole');
      assert.equal(sums.trim().split('\n').length, 5);
      await shell(guest, 'fstrim /mnt/disk && umount /mnt/disk', 60);
    });

    await t.test('net: an address by DHCP, ping, and a bulk transfer whose sum is right', async () => {
      await shell(
        guest,
        `ip link set eth0 up
printf '#!/bin/sh\\n[ "$1" = bound ] && ip addr add $ip/24 dev eth0 && ip route add default via $router\\nexit 0\\n' >/tmp/dhcp
chmod +x /tmp/dhcp
udhcpc -i eth0 -n -q -s /tmp/dhcp -t 10 -T 1 >/dev/null 2>&1
ip addr show dev eth0 | grep -q 10.0.2.`,
      );
      assert.match(await shell(guest, 'ping -c 3 -W 5 10.0.2.2'), / 3 packets received/);
      const echoed = await shell(
        guest,
        `dd if=/dev/urandom of=/tmp/bulk bs=64k count=64 2>/dev/null
sha256sum </tmp/bulk
nc -w 20 10.0.2.2 7 </tmp/bulk | head -c 4194304 | sha256sum`,
        120,
      );
      const [sent, back] = echoed.trim().split('\n');
      assert.equal(back, sent);
      const statistics = await shell(
        guest,
        'cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/rx_dropped',
      );
      assert.deepEqual(statistics.trim().split('\n'), ['0', '0']);
    });

    await t.test('entropy: the kernel’s hardware generator is this device, and no two reads are the same', async () => {
      assert.match(await shell(guest, 'cat /sys/class/misc/hw_random/rng_current'), /^virtio_rng/);
      const read = 'dd if=/dev/hwrng bs=512 count=8 2>/dev/null | sha256sum';
      const [first, second] = [await shell(guest, read), await shell(guest, read)];
      assert.notEqual(first, second);
      assert.notEqual(first.split(' ')[0], sha256(new Uint8Array(4096)));
    });

    await t.test('vsock: the guest calls a Unix socket of the host, and the host calls the guest', async () => {
      const echoed = await shell(
        guest,
        `dd if=/dev/urandom of=/tmp/said bs=4k count=64 2>/dev/null
sha256sum </tmp/said
socat -t 20 - VSOCK-CONNECT:2:${ECHO_PORT} </tmp/said | sha256sum`,
        120,
      );
      const [sent, back] = echoed.trim().split('\n');
      assert.equal(back, sent);
      await shell(
        guest,
        `socat VSOCK-LISTEN:${CALL_PORT},fork SYSTEM:'read line; echo heard "$line"' >/dev/null 2>&1 &\nsleep 1`,
      );
      assert.match(
        await say(join(folder, 'vsock'), `CONNECT ${CALL_PORT}\nhello\n`, /heard hello\n/),
        /^OK \d+\nheard hello\n$/,
      );
      // Nobody listens there: refused, not left hanging.
      assert.match(await shell(guest, 'socat - VSOCK-CONNECT:2:4999 </dev/null 2>&1 || echo refused'), /refused/);
    });

    await t.test('9p: files both ways, names and sizes right, and nothing changes what is read-only', async () => {
      await shell(
        guest,
        `mkdir -p /mnt/both /mnt/only
mount -t 9p -o trans=virtio,version=9p2000.L both /mnt/both
mount -t 9p -o trans=virtio,version=9p2000.L,ro only /mnt/only`,
      );
      assert.equal(await shell(guest, 'cat /mnt/both/from-host'), 'written by the host\n');
      const sum = await shell(
        guest,
        `cd /mnt/both
mkdir -p deep/er && dd if=/dev/urandom of=deep/er/file bs=10k count=100 2>/dev/null
ln -s er/file deep/link && mv deep/er/file deep/er/moved && ln deep/er/moved deep/twin
sync; sha256sum deep/er/moved | cut -d' ' -f1`,
        120,
      );
      assert.equal(sha256(readFileSync(join(folder, 'rw/deep/er/moved'))), sum.trim());
      assert.equal(sha256(readFileSync(join(folder, 'rw/deep/twin'))), sum.trim());
      assert.equal(await shell(guest, 'ls /mnt/both/deep'), 'er\nlink\ntwin\n');
      await shell(
        guest,
        'rm -r /mnt/both/deep && for n in $(seq 200); do echo $n >/mnt/both/n$n; done && ls /mnt/both | wc -l | grep -q 201',
      );
      assert.equal(existsSync(join(folder, 'rw/deep')), false);
      assert.equal(readFileSync(join(folder, 'rw/n137'), 'utf8'), '137\n');
      assert.equal(await shell(guest, 'cat /mnt/only/from-host'), 'only to be read\n');
      // Not because the mount says so: the device refuses.
      await shell(guest, 'umount /mnt/only && mount -t 9p -o trans=virtio,version=9p2000.L only /mnt/only');
      const refused = await shell(
        guest,
        '(echo x >/mnt/only/new) 2>&1 || true; (echo x >>/mnt/only/from-host) 2>&1 || true',
      );
      assert.match(refused, /Read-only file system[\s\S]*Read-only file system/);
      assert.equal(readFileSync(join(folder, 'ro/from-host'), 'utf8'), 'only to be read\n');
    });

    await t.test('console: a port with a name carries bytes both ways', async () => {
      const port = (await shell(guest, 'grep -l talk /sys/class/virtio-ports/*/name')).trim().split('/').at(-2);
      await shell(
        guest,
        // A read ends at once while nobody of the host is there.
        `(exec 3<>/dev/${port}; while :; do read line <&3 && echo "heard $line" >&3 || sleep 0.1; done) >/dev/null 2>&1 &\nsleep 1`,
      );
      assert.match(await say(join(folder, 'talk'), 'one\ntwo\n', /heard two\r?\n/), /heard one\r?\nheard two/);
    });

    for (const type of PLUGGED_IN) {
      await t.test(`${type}, a function of ours plugged in beside them: used, and nobody complains`, async (each) => {
        const one = DEVICE_CASES.find((known) => known.type === type);
        assert.ok(one !== undefined);
        const outcome = await runCase(guest, images.value.kernel, 'vfio-user', one, PLUGGED_IN.indexOf(type));
        each.diagnostic(assertClean(outcome, one, images.value.kernel));
      });
    }

    await t.test(
      'the program of docs/write-your-own-device.md is this kernel’s random number generator',
      async (each) => {
        const own = await startOwnDevice(each);
        const before = await shell(guest, 'cat /sys/class/misc/hw_random/rng_available');
        const address = { type: 'unix', path: own.socket };
        const asked = { driver: 'vfio-user-pci', socket: address, bus: `port${PORTS}`, id: 'own' };
        const plugged = await guest.qmp.execute('device_add', asked);
        assert.ok(plugged.ok, JSON.stringify(plugged));
        const read = await shell(
          guest,
          `cd /sys/class/misc/hw_random
for i in $(seq 100); do new=$(tr ' ' '\\n' <rng_available | grep virtio_rng | grep -vxF "$(echo ${before.trim()} | tr ' ' '\\n')") && break; sleep 0.2; done
echo $new >rng_current
dd if=/dev/hwrng bs=64 count=8 2>/dev/null | tr -d '\\0'`,
          60,
        );
        // The kernel may hand out first what it had of the one before.
        assert.match(read, /<AIRLOCK [0-9]{8}><AIRLOCK [0-9]{8}>/);
        await guest.qmp.execute('device_del', { id: 'own' });
        assert.equal(await own.gone, 0, own.said());
      },
    );

    await guest.end();

    await t.test('after a reboot the filesystem is clean and every file is as it was written', async () => {
      const again = await boot(t, images.value, parts);
      await shell(again, 'e2fsck -fn /dev/vda', 60);
      assert.equal(
        await shell(again, 'mkdir -p /mnt/disk && mount /dev/vda /mnt/disk && cd /mnt/disk && sha256sum file* hole'),
        sums,
      );
      await again.end();
    });

    await t.test('every device ends in order', async () => {
      for (const [name, device] of processes) {
        assert.equal(await device.end(), 0, `${name}: ${device.said()}`);
        assert.ok(!/"event":"(failed|problem)"/.test(device.said()), `${name}: ${device.said()}`);
      }
    });
  });
}
