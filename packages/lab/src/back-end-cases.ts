/** What the six back-ends are used for in a guest. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { ok } from '@airlock/core/result.ts';
import { NONE, wrong } from './case-steps.ts';
import type { DeviceCase } from './device-bench.ts';

const DISK_BYTES = 32 << 20;

export const block: DeviceCase = {
  ...{ type: 'block', driver: 'virtio_blk', option: 'VIRTIO_BLK', silent: true },
  shape: { queues: 2, config: 60 },
  frontEnd: { driver: 'vhost-user-blk-pci' },
  options(folder) {
    const file = join(folder, 'disk.img');
    writeFileSync(file, '');
    truncateSync(file, DISK_BYTES);
    return ['--file', file, '--queues', '2'];
  },
  async use(bench) {
    const done = await bench.shell(
      `dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=256k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </tmp/data)" = "$(head -c 2097152 /dev/vda | sha256sum)" ]
sha256sum </tmp/data; rm /tmp/data`,
      90,
    );
    if (!done.ok) return done;
    const file = readFileSync(join(bench.folder, 'disk.img')).subarray(0, 2 << 20);
    if (createHash('sha256').update(file).digest('hex') !== done.value.split(' ')[0]) return wrong('disk', done.value);
    return ok('2 MiB written, synced and read back; the same in the file');
  },
};

export const net: DeviceCase = {
  ...{ type: 'net', driver: 'virtio_net', option: 'VIRTIO_NET', silent: true },
  shape: { queues: 3, config: 24 },
  frontEnd: 'QEMU’s is virtio-net-pci with a netdev: `packages/lab/test/devices-serve-linux.ts`',
  options: () => ['--peer', 'user'],
  async use(bench) {
    const done = await bench.shell(
      `for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && break; sleep 0.2; done
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up
ping -c 3 -W 5 10.0.2.2 | grep ' 3 packets received'`,
    );
    return done.ok ? ok('three pings, answered') : done;
  },
};

export const entropy: DeviceCase = {
  ...{ type: 'entropy', driver: 'virtio_rng', option: 'HW_RANDOM_VIRTIO', silent: true },
  shape: { queues: 1, config: 0 },
  frontEnd: { driver: 'vhost-user-rng-pci' },
  options: () => [],
  async use(bench) {
    const done = await bench.shell(
      `grep -q virtio_rng /sys/class/misc/hw_random/rng_current
[ $(dd if=/dev/hwrng bs=512 count=8 2>/dev/null | wc -c) = 4096 ]`,
    );
    return done.ok ? ok('4 KiB of /dev/hwrng') : done;
  },
};

export const vsock: DeviceCase = {
  ...{ type: 'vsock', driver: 'vmw_vsock_virtio_transport', option: 'VIRTIO_VSOCKETS', silent: true },
  shape: { queues: 3, config: 8 },
  frontEnd: { driver: 'vhost-user-vsock-pci' },
  options: (folder) => ['--cid', '42', '--host', join(folder, 'vsock')],
  async use(bench) {
    const server = createServer((socket) => void socket.on('error', () => {}).pipe(socket));
    await new Promise<void>((resolve) => server.listen(join(bench.folder, 'vsock_5000'), resolve));
    const done = await bench.shell('echo over and back | socat -t 20 - VSOCK-CONNECT:2:5000');
    server.close();
    if (!done.ok) return done;
    return done.value === 'over and back\n' ? ok('a line to a socket of the host and back') : wrong('echo', done.value);
  },
};

export const p9: DeviceCase = {
  ...{ type: '9p', driver: '9pnet_virtio', option: 'NET_9P_VIRTIO', silent: true },
  shape: { queues: 1, config: 6 },
  frontEnd: NONE,
  options(folder) {
    mkdirSync(join(folder, 'share'));
    writeFileSync(join(folder, 'share/from-host'), 'written by the host\n');
    return ['--share', join(folder, 'share'), '--tag', 'tree'];
  },
  async use(bench) {
    const done = await bench.shell(
      `mkdir -p /mnt/9p && mount -t 9p -o trans=virtio,version=9p2000.L tree /mnt/9p
grep -q 'by the host' /mnt/9p/from-host && echo guest >/mnt/9p/from-guest && umount /mnt/9p`,
    );
    if (!done.ok) return done;
    const back = readFileSync(join(bench.folder, 'share/from-guest'), 'utf8');
    return back === 'guest\n' ? ok('a folder mounted, a file each way') : wrong('9p', back);
  },
};

export const console_: DeviceCase = {
  ...{ type: 'console', driver: 'virtio_console', option: 'VIRTIO_CONSOLE', silent: true },
  shape: { queues: 4, config: 12 },
  frontEnd: NONE,
  options: (folder) => ['--port', `name=talk,socket=${join(folder, 'talk')}`],
  async use(bench) {
    const socket = connect(join(bench.folder, 'talk')).on('error', () => {});
    const heard = new Promise<string>((resolve) => socket.once('data', (bytes) => resolve(bytes.toString('latin1'))));
    const done = await bench.shell(
      `for i in $(seq 50); do port=$(grep -l talk /sys/class/virtio-ports/*/name 2>/dev/null) && break; sleep 0.2; done
echo from the guest >/dev/$(basename $(dirname $port))`,
    );
    const line = done.ok ? await heard : '';
    socket.destroy();
    if (!done.ok) return done;
    return line.startsWith('from the guest') ? ok('a line through a named port') : wrong('console', line);
  },
};
