/** What each type of device is used for in a guest, and how both sides are asked whether it was. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Bench, type DeviceCase, GUEST_USES } from './device-bench.ts';

const wrong = (what: string, seen: unknown): Result<never> =>
  fail('device-bench-failed', `${what}: ${typeof seen === 'string' ? seen : JSON.stringify(seen)}`);

/** A fact of the device as a number; 0 where there is none. */
async function fact(bench: Bench, name: string): Promise<number> {
  const facts = await bench.ask('facts');
  const value = facts.ok ? (facts.value as Record<string, unknown>)[name] : undefined;
  return typeof value === 'number' ? value : 0;
}

/** Asks until it holds, or 20 s are over. */
async function until(holds: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 100; tries++) {
    if (await holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return false;
}

/** Said of a type that QEMU has nothing of its own for. */
const NONE = 'QEMU 11 has no vhost-user device for the type';

const FREE = "awk '/^MemFree/ { print $2 }' /proc/meminfo";

const balloon: DeviceCase = {
  type: 'balloon',
  driver: 'virtio_balloon',
  option: 'VIRTIO_BALLOON',
  frontEnd: NONE,
  shape: { queues: 4, config: 8 },
  options: () => [],
  async use(bench) {
    const before = await bench.shell(FREE);
    if (!before.ok) return before;
    const target = 64 * 256;
    await bench.ask('target 64');
    const full = await until(async () => (await fact(bench, 'pages')) === target);
    const during = await bench.shell(FREE);
    if (!full || !during.ok) return wrong('the balloon did not fill', await bench.ask('facts'));
    if (Number(before.value) - Number(during.value) < 48 * 1024) return wrong('free memory', [before, during]);
    await bench.ask('target 0');
    if (!(await until(async () => (await fact(bench, 'pages')) === 0))) return wrong('it stays full', '');
    if ((await fact(bench, 'strange')) !== 0) return wrong('pages', await bench.ask('facts'));
    // The pages were the driver's again before it frees them.
    const given = await until(async () => {
      const back = await bench.shell(FREE);
      return back.ok && Number(back.value) - Number(during.value) >= 48 * 1024;
    });
    if (!given) return wrong('not given back', during.value);
    const facts = await bench.ask('facts');
    const { stats } = (facts.ok ? facts.value : {}) as { stats?: Record<string, number> };
    if (!((stats?.['total-memory'] ?? 0) > 2 ** 28)) return wrong('statistics', facts);
    return ok('64 MiB inflated and deflated, page by page; statistics');
  },
};

const input: DeviceCase = {
  type: 'input',
  driver: 'virtio_input',
  option: 'VIRTIO_INPUT',
  frontEnd: { driver: 'vhost-user-input-pci' },
  shape: { queues: 2, config: 136 },
  options: () => ['--name', 'Airlock test keys'],
  async use(bench) {
    const node = await bench.shell(
      `for e in /sys/class/input/event*; do grep -q 'Airlock test keys' $e/device/name && basename $e; done`,
    );
    if (!node.ok) return node;
    // 24 bytes each: the time, then type, code and value.
    const heard = bench.shell(
      `timeout 20 dd if=/dev/input/${node.value.trim()} bs=24 count=4 2>/dev/null | hexdump -v -e '8/2 "%x " " = " 1/2 "%x " 1/2 "%x " 1/4 "%x" "\\n"'`,
      40,
    );
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const pressed = await bench.ask('key 30');
    if (!pressed.ok) return pressed;
    const events = await heard;
    if (!events.ok) return events;
    const seen = events.value
      .trim()
      .split('\n')
      .map((line) => line.split(' = ')[1]);
    if (seen.join('; ') !== '1 1e 1; 0 0 0; 1 1e 0; 0 0 0') return wrong('events', events.value);
    if ((await fact(bench, 'dropped')) !== 0) return wrong('dropped', '');
    return ok('a key pressed and let go, read from /dev/input');
  },
};

const SCSI_BYTES = 32 << 20;

const scsi: DeviceCase = {
  type: 'scsi',
  driver: 'virtio_scsi',
  // Its disk is looked for after the driver has bound: unplugged in the midst of that it is missed, and said to be.
  settled: (bench) => until(async () => (await bench.shell("dmesg | grep 'Attached SCSI disk'")).ok),
  option: 'SCSI_VIRTIO',
  frontEnd: { driver: 'vhost-user-scsi-pci' },
  shape: { queues: 3, config: 36 },
  options(folder) {
    const file = join(folder, 'disk.img');
    writeFileSync(file, '');
    truncateSync(file, SCSI_BYTES);
    return ['--file', file, '--serial', 'airlock-scsi'];
  },
  async use(bench) {
    const done = await bench.shell(
      `for i in $(seq 50); do [ -b /dev/sda ] && break; sleep 0.2; done
[ "$(cat /sys/block/sda/size)" = ${SCSI_BYTES / 512} ]
cat /sys/block/sda/device/model /sys/block/sda/device/vendor >&2
dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
dd if=/tmp/data of=/dev/sda bs=256k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </tmp/data)" = "$(head -c 4194304 /dev/sda | sha256sum)" ]
mkfs.ext4 -q -E lazy_itable_init=0 /dev/sda
mkdir -p /mnt/s && mount /dev/sda /mnt/s && cp /tmp/data /mnt/s/ && umount /mnt/s
e2fsck -fn /dev/sda >/dev/null 2>&1
mount /dev/sda /mnt/s && cmp /tmp/data /mnt/s/data && umount /mnt/s
rm /tmp/data`,
      120,
    );
    if (!done.ok) return done;
    if ((await fact(bench, 'written')) < 8 << 20 || (await fact(bench, 'malformed')) !== 0) {
      return wrong('commands', await bench.ask('facts'));
    }
    return ok('4 MiB written, synced and read back; a filesystem');
  },
};

const GPU_PICTURE = { width: 640, height: 480 };

const gpu: DeviceCase = {
  type: 'gpu',
  driver: 'virtio_gpu',
  option: 'DRM_VIRTIO_GPU',
  frontEnd: NONE,
  shape: { queues: 2, config: 16 },
  options: (folder) => ['--size', `${GPU_PICTURE.width}x${GPU_PICTURE.height}`, '--png', join(folder, 'picture.png')],
  async use(bench) {
    // The console's own picture first; then the upper half red and the lower half blue, as the framebuffer has them.
    const { width, height } = GPU_PICTURE;
    const painted = await bench.shell(
      `for i in $(seq 50); do [ -c /dev/fb0 ] && break; sleep 0.2; done
[ "$(cat /sys/class/graphics/fb0/virtual_size)" = ${width},${height} ]
cat /sys/class/drm/card0-Virtual-1/edid | head -c 128 | wc -c
half=$(( ${width} * ${height} / 2 ))
echo -ne '\\x00\\x00\\xff\\x00' >/tmp/red
echo -ne '\\xff\\x00\\x00\\x00' >/tmp/blue
for c in red blue; do
  cp /tmp/$c /tmp/all; while [ $(wc -c </tmp/all) -lt $((half * 4)) ]; do cat /tmp/all /tmp/all >/tmp/more; mv /tmp/more /tmp/all; done
  head -c $((half * 4)) /tmp/all >/tmp/half.$c
done
cat /tmp/half.red /tmp/half.blue >/dev/fb0
rm /tmp/half.* /tmp/all`,
      120,
    );
    if (!painted.ok) return painted;
    if (!painted.value.includes('128')) return wrong('EDID', painted.value);
    let last = '';
    const shown = await until(async () => {
      const answer = await bench.ask('screenshot');
      if (!answer.ok) return false;
      const colours = picturePixels(Buffer.from((answer.value as { png: string }).png, 'base64'), [
        [width / 2, 20],
        [width / 2, height / 2 - 2],
        [width / 2, height / 2 + 2],
        [width / 2, height - 4],
      ]);
      last = colours.join(' ');
      return last === 'ff0000 ff0000 0000ff 0000ff';
    });
    if (!shown) return wrong('the picture', last);
    if ((await fact(bench, 'refused')) !== 0) return wrong('commands', await bench.ask('facts'));
    return ok('display and EDID; a framebuffer painted, flushed and saved as PNG');
  },
};

/** Colours of some pixels of a PNG of ours: one IDAT, no filters. */
function picturePixels(png: Uint8Array, points: readonly (readonly [number, number])[]): string[] {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const width = view.getUint32(16);
  const data = inflateSync(png.subarray(41, 41 + view.getUint32(33)));
  return points.map(([x, y]) =>
    Buffer.from(data.subarray((3 * width + 1) * y + 1 + 3 * x).subarray(0, 3)).toString('hex'),
  );
}

const fs: DeviceCase = {
  type: 'fs',
  driver: 'virtiofs',
  option: 'VIRTIO_FS',
  frontEnd: { driver: 'vhost-user-fs-pci', properties: { tag: 'folder' } },
  shape: { queues: 2, config: 40 },
  options(folder) {
    mkdirSync(join(folder, 'share/deep'), { recursive: true });
    writeFileSync(join(folder, 'share/from-host'), 'written by the host\n');
    writeFileSync(join(folder, 'secret'), 'not to be seen\n');
    symlinkSync('../secret', join(folder, 'share/out'));
    return ['--share', join(folder, 'share'), '--tag', 'folder'];
  },
  async use(bench) {
    const done = await bench.shell(
      `mkdir -p /mnt/fs && mount -t virtiofs folder /mnt/fs
[ "$(cat /mnt/fs/from-host)" = 'written by the host' ]
[ "$(ls /mnt/fs | tr '\\n' ' ')" = 'deep from-host out ' ]
! cat /mnt/fs/out 2>/dev/null
dd if=/dev/urandom of=/mnt/fs/deep/file bs=100k count=20 2>/dev/null
mkdir /mnt/fs/new && mv /mnt/fs/deep/file /mnt/fs/new/moved && sync
for n in $(seq 300); do echo $n >/mnt/fs/deep/$n; done
[ $(ls /mnt/fs/deep | wc -l) = 300 ]
rm -r /mnt/fs/deep
df /mnt/fs >/dev/null
sha256sum </mnt/fs/new/moved
umount /mnt/fs`,
      120,
    );
    if (!done.ok) return done;
    const here = createHash('sha256')
      .update(readFileSync(join(bench.folder, 'share/new/moved')))
      .digest('hex');
    if (done.value.split(' ')[0] !== here || existsSync(join(bench.folder, 'share/deep'))) {
      return wrong('files', done.value);
    }
    return ok('a folder mounted: files and folders read, made, moved, removed; a link that leads out leads nowhere');
  },
};

/**
 * The kernel runs the vectors of its self-test through every implementation that appears: when it is bound, and bound
 * again. True once they have passed and nobody holds it any more: Linux warns where an algorithm that is in use leaves.
 * One that left may still be listed, without its module.
 */
function tested(bench: Bench): Promise<boolean> {
  return until(async () => {
    const said = await bench.shell(`grep -A 4 '^driver.*virtio_crypto_aes_cbc' /proc/crypto`);
    const entries = said.ok ? said.value.split('--\n') : [];
    const idle = entries.every((entry) => /refcnt +: 1\n/.test(entry) && /selftest +: passed/.test(entry));
    return idle && entries.some((entry) => /module +: virtio_crypto/.test(entry));
  });
}

const crypto: DeviceCase = {
  type: 'crypto',
  driver: 'virtio_crypto',
  option: 'CRYPTO_DEV_VIRTIO',
  frontEnd: NONE,
  shape: { queues: 2, config: 56 },
  settled: tested,
  options: () => [],
  async use(bench) {
    const passed = await tested(bench);
    const facts = await bench.ask('facts');
    if (!passed) return wrong('self-test', facts);
    if ((await fact(bench, 'encrypted')) < 100 || (await fact(bench, 'decrypted')) < 100) return wrong('data', facts);
    return ok('AES-CBC with three key lengths: the kernel’s self-test, passed');
  },
};

/** A square wave as /dev/dsp takes it before it is told otherwise: 8000 bytes a second. */
const WAVE_HERTZ = 500;

const sound: DeviceCase = {
  type: 'sound',
  driver: 'virtio_snd',
  option: 'SND_VIRTIO',
  frontEnd: { driver: 'vhost-user-snd-pci' },
  shape: { queues: 4, config: 12 },
  options: (folder) => ['--wav', join(folder, 'played.wav')],
  async use(bench) {
    const played = await bench.shell(
      `modprobe snd_pcm_oss
for i in $(seq 50); do [ -c /dev/dsp ] && break; sleep 0.2; done
echo -ne '\\x20\\x20\\x20\\x20\\x20\\x20\\x20\\x20\\xe0\\xe0\\xe0\\xe0\\xe0\\xe0\\xe0\\xe0' >/tmp/wave
for i in $(seq 10); do cat /tmp/wave /tmp/wave >/tmp/more; mv /tmp/more /tmp/wave; done
head -c 8000 /tmp/wave >/dev/dsp
rm /tmp/wave`,
      90,
    );
    if (!played.ok) return played;
    const wave = readFileSync(join(bench.folder, 'played.wav'));
    const [channels, rate, bytes] = [wave.readUInt16LE(22), wave.readUInt32LE(24), wave.readUInt32LE(40)];
    const seconds = bytes / (2 * channels * rate);
    let crossings = 0;
    for (let at = 44, before = 0; at + 2 * channels <= 44 + bytes; at += 2 * channels) {
      const now = Math.sign(wave.readInt16LE(at));
      if (now !== 0 && before !== 0 && now !== before) crossings++;
      if (now !== 0) before = now;
    }
    const right = seconds > 0.9 && seconds < 2 && Math.abs(crossings - 2 * WAVE_HERTZ) < 60;
    if (!right) return wrong('the WAV file', { seconds, crossings, channels, rate });
    return ok('a second of a 500 Hz tone played into a WAV file, in its time; jack and channel map');
  },
};

const PMEM_BYTES = 16 << 20;

const pmem: DeviceCase = {
  type: 'pmem',
  driver: 'virtio_pmem',
  option: 'VIRTIO_PMEM',
  frontEnd: NONE,
  shape: { queues: 1, config: 16 },
  options(folder) {
    const file = join(folder, 'pmem.img');
    writeFileSync(file, 'persistent before it was plugged in\n');
    truncateSync(file, PMEM_BYTES);
    return ['--file', file];
  },
  async use(bench) {
    const done = await bench.shell(
      `for i in $(seq 50); do [ -b /dev/pmem0 ] && break; sleep 0.2; done
[ "$(cat /sys/block/pmem0/size)" = ${PMEM_BYTES / 512} ]
dd if=/dev/pmem0 bs=4k count=1 2>/dev/null | head -n 1
dd if=/dev/urandom of=/tmp/page bs=4k count=4 2>/dev/null
dd if=/tmp/page of=/dev/pmem0 bs=4k seek=8 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
[ "$(dd if=/dev/pmem0 bs=4k skip=8 count=4 2>/dev/null | sha256sum)" = "$(sha256sum </tmp/page)" ]
sha256sum </tmp/page; rm /tmp/page`,
      120,
    );
    if (!done.ok) return done;
    const [line = '', sum = ''] = done.value.split('\n');
    const file = readFileSync(join(bench.folder, 'pmem.img')).subarray(8 * 4096, 12 * 4096);
    const here = createHash('sha256').update(file).digest('hex');
    if (line !== 'persistent before it was plugged in' || sum.split(' ')[0] !== here) return wrong('pmem', done.value);
    if ((await fact(bench, 'flushes')) === 0) return wrong('flushes', await bench.ask('facts'));
    return ok('/dev/pmem0 read, written and flushed through its window');
  },
};

const TOTAL = "awk '/^MemTotal/ { print $2 }' /proc/meminfo";

const memory: DeviceCase = {
  type: 'memory',
  driver: 'virtio_mem',
  option: 'VIRTIO_MEM',
  frontEnd: NONE,
  shape: { queues: 1, config: 56 },
  options: () => ['--address', String(GUEST_USES), '--size', '256'],
  async use(bench) {
    const before = await bench.shell(`echo online_movable >/sys/devices/system/memory/auto_online_blocks; ${TOTAL}`);
    if (!before.ok) return before;
    const asked = await bench.ask('request 128');
    if (!asked.ok) return asked;
    const grown = await until(async () => {
      const total = await bench.shell(TOTAL);
      return total.ok && Number(total.value) - Number(before.value) === 128 * 1024;
    });
    if (!grown || (await fact(bench, 'plugged')) !== 128 << 20) return wrong('plugging', await bench.ask('facts'));
    await bench.ask('request 0');
    const shrunk = await until(async () => (await fact(bench, 'plugged')) === 0);
    const after = await bench.shell(TOTAL);
    if (!shrunk || !after.ok || after.value !== before.value) return wrong('unplugging', await bench.ask('facts'));
    return ok('128 MiB plugged, online, and unplugged again');
  },
};

const iommu: DeviceCase = {
  type: 'iommu',
  driver: 'virtio_iommu',
  option: 'VIRTIO_IOMMU',
  frontEnd: NONE,
  shape: { queues: 2, config: 40 },
  options: () => [],
  async use(bench) {
    const there = await bench.shell('ls /sys/class/iommu');
    if (!there.ok) return there;
    if (there.value.trim() === '') return wrong('/sys/class/iommu', there.value);
    return ok('probed and registered with the kernel’s IOMMU layer; no endpoints, which a VIOT table would name');
  },
};

const block: DeviceCase = {
  ...{ type: 'block', driver: 'virtio_blk', option: 'VIRTIO_BLK', silent: true },
  shape: { queues: 2, config: 60 },
  frontEnd: { driver: 'vhost-user-blk-pci' },
  options(folder) {
    const file = join(folder, 'disk.img');
    writeFileSync(file, '');
    truncateSync(file, SCSI_BYTES);
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

const net: DeviceCase = {
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

const entropy: DeviceCase = {
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

const vsock: DeviceCase = {
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

const p9: DeviceCase = {
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

const console_: DeviceCase = {
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

/** A model whose driver Debian does not build: it is shown as a function, and nothing more. */
function driverless(
  type: DeviceCase['type'],
  option: string | null,
  shape: DeviceCase['shape'],
  frontEnd: DeviceCase['frontEnd'] = NONE,
): DeviceCase {
  return {
    ...{ type, driver: '', option, shape, frontEnd },
    options: () => [],
    use: async () => fail('device-bench-failed', 'a driver appeared'),
  };
}

const i2c: DeviceCase = {
  ...{ type: 'i2c', driver: 'i2c_virtio', option: 'I2C_VIRTIO' },
  shape: { queues: 1, config: 0 },
  frontEnd: { driver: 'vhost-user-i2c-pci' },
  options: () => [],
  async use(bench) {
    const done = await bench.shell(
      `modprobe i2c_dev
bus=$(grep -l '^i2c_virtio' /sys/class/i2c-dev/*/name | sed 's,.*i2c-\\([0-9]*\\)/name,\\1,')
i2cdetect -y $bus | grep '^50:' >&2
[ "$(i2cdetect -y $bus | grep -c ' 50 ')" = 1 ]
i2cset -y $bus 0x50 0x10 0x5a
[ "$(i2cget -y $bus 0x50 0x10)" = 0x5a ]
[ "$(i2cget -y $bus 0x50 0x11)" = 0xff ]
i2ctransfer -y $bus w5@0x50 0x20 1 2 3 4
[ "$(i2ctransfer -y $bus w1@0x50 0x20 r4 | tr -d '\\n')" = '0x01 0x02 0x03 0x04' ]
! i2cget -y $bus 0x51 0x10 2>/dev/null`,
    );
    if (!done.ok) return done;
    if ((await fact(bench, 'written')) !== 5) return wrong('bytes', await bench.ask('facts'));
    return ok('a scan finds the EEPROM and nothing else; bytes written and read back');
  },
};

const gpio: DeviceCase = {
  ...{ type: 'gpio', driver: 'gpio_virtio', option: 'GPIO_VIRTIO' },
  shape: { queues: 2, config: 8 },
  frontEnd: { driver: 'vhost-user-gpio-pci' },
  options: () => ['--lines', 'in,out,spare'],
  async use(bench) {
    const taken = await bench.shell(
      `cd /sys/class/gpio
chip=$(for c in gpiochip*; do [ "$(cat $c/ngpio)" = 3 ] && echo $c; done)
first=$(cat $chip/base)
mkdir -p /run/debug && mount -t debugfs debug /run/debug
[ "$(grep -cE 'gpio-0 +\\(in |gpio-1 +\\(out |gpio-2 +\\(spare ' /run/debug/gpio)" = 3 ]
umount /run/debug
echo $first >export && echo $((first + 1)) >export
ln -s /sys/class/gpio/gpio$first /run/in && ln -s /sys/class/gpio/gpio$((first + 1)) /run/out
cd /run
echo in >in/direction # Linux says "in" of a line before it has told the device
[ "$(cat in/direction)" = in ] && [ "$(cat in/value)" = 0 ]
echo high >out/direction
[ "$(cat out/value)" = 1 ]
echo both >in/edge
grep -c gpiolib /proc/interrupts`,
    );
    if (!taken.ok) return taken;
    const facts = await bench.ask('facts');
    const { lines } = (facts.ok ? facts.value : {}) as { lines?: readonly Record<string, number>[] };
    if (JSON.stringify(lines?.[1]) !== JSON.stringify({ direction: 1, value: 1, irq: 0 })) return wrong('out', facts);
    for (const value of [1, 0]) {
      const moved = await bench.ask(`set 0 ${value}`);
      if (!moved.ok) return moved;
      const seen = await until(async () => {
        const counted = await bench.shell(
          `[ "$(cat /run/in/value)" = ${value} ] && awk '/gpiolib/ { print $2 }' /proc/interrupts`,
        );
        return counted.ok && Number(counted.value) === 2 - value;
      });
      if (!seen) return wrong(`interrupts after ${value}`, await bench.ask('facts'));
    }
    const given = await bench.shell(
      `cd /sys/class/gpio
echo none >/run/in/edge
rm /run/in /run/out
chip=$(for c in gpiochip*; do [ "$(cat $c/ngpio)" = 3 ] && echo $c; done)
first=$(cat $chip/base)
echo $first >unexport && echo $((first + 1)) >unexport`,
    );
    if (!given.ok) return given;
    if ((await fact(bench, 'interrupts')) !== 2) return wrong('interrupts', await bench.ask('facts'));
    return ok('lines by name: an output set, an input read, an interrupt at each of its edges');
  },
};

const rtc: DeviceCase = {
  ...{ type: 'rtc', driver: 'virtio_rtc', option: 'VIRTIO_RTC' },
  shape: { queues: 1, config: 0 },
  frontEnd: 'QEMU’s wants a queue for alarms, which this clock has not',
  options: () => [],
  async use(bench) {
    const before = Date.now();
    const done = await bench.shell(
      `cd /sys/class/ptp
for type in 4 2; do
  clock=$(basename $(dirname $(grep -l "^Virtio PTP type $type/" */clock_name)))
  ask-device clock /dev/$clock
  ask-device clock /dev/$clock
done`,
    );
    const after = Date.now();
    if (!done.ok) return done;
    const [utc = 0n, later = 0n, ran = 0n, on = 0n] = done.value.trim().split('\n').map(BigInt);
    const within = utc >= BigInt(before) * 1_000_000n && later < BigInt(after + 1) * 1_000_000n;
    if (!within || later < utc || ran === 0n || on <= ran) return wrong('clocks', { ...done, before, after });
    if ((await fact(bench, 'reads')) !== 4) return wrong('reads', await bench.ask('facts'));
    return ok('both clocks read as /dev/ptp: this machine’s time, and one that only goes forward');
  },
};

/** A socket of CAN_RAW for socat: family 29, type 3, protocol 1, and the address behind the family: interface and ids. */
const CAN_SOCKET = `n=$(printf '%08x' $(cat /sys/class/net/can0/ifindex) | sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\)/\\4\\3\\2\\1/')
address=x0000\${n}0000000000000000`;

const can: DeviceCase = {
  ...{ type: 'can', driver: 'virtio_can', option: 'CAN_VIRTIO_CAN' },
  shape: { queues: 3, config: 2 },
  frontEnd: NONE,
  options: () => [],
  async use(bench) {
    const sent = await bench.shell(
      `modprobe can_raw
ip link set can0 up
${CAN_SOCKET}
echo -ne '\\x23\\x01\\x00\\x00\\x04\\x00\\x00\\x00\\xde\\xad\\xbe\\xef\\x00\\x00\\x00\\x00' >/tmp/frame
( timeout 20 socat -u -b 16 SOCKET-DATAGRAM:29:3:1:$address,bind=$address - >/tmp/heard & )
sleep 1
socat -u -b 16 -t 3 /tmp/frame SOCKET-DATAGRAM:29:3:1:$address,bind=$address
for i in $(seq 50); do [ $(wc -c </tmp/heard) -ge 32 ] && break; sleep 0.2; done
hexdump -v -e '16/1 "%02x" "\\n"' /tmp/heard
cat /sys/class/net/can0/statistics/tx_packets /sys/class/net/can0/statistics/rx_packets`,
      90,
    );
    if (!sent.ok) return sent;
    // What this machine sent comes back once it is on the bus, and then what the other node repeats.
    const frame = '2301000004000000deadbeef00000000';
    if (sent.value !== `${frame}\n${frame}\n1\n1\n`)
      return wrong('frames', { ...sent, facts: await bench.ask('facts') });
    const heard = await bench.ask('hear 7ff 0102');
    if (!heard.ok) return heard;
    const third = await bench.shell(
      `for i in $(seq 50); do [ $(wc -c </tmp/heard) -ge 48 ] && break; sleep 0.2; done
tail -c 16 /tmp/heard | hexdump -v -e '16/1 "%02x" "\\n"'
ip link set can0 down && ip link set can0 up && ip link set can0 down
rm /tmp/heard /tmp/frame`,
    );
    if (!third.ok) return third;
    if (third.value !== 'ff070000020000000102000000000000\n') return wrong('frame', third);
    if ((await fact(bench, 'refused')) !== 0) return wrong('refused', await bench.ask('facts'));
    return ok('a frame sent and repeated by another node, one heard; the controller stopped and started');
  },
};

const spi: DeviceCase = {
  ...{ type: 'spi', driver: 'spi_virtio', option: 'SPI_VIRTIO' },
  shape: { queues: 1, config: 32 },
  frontEnd: { driver: 'vhost-user-spi-pci' },
  stays: 'spi_virtio has no remove: Linux 7.2 follows a null pointer when its device is let go or unplugged',
  options: () => [],
  async use(bench) {
    const done = await bench.shell(
      `modprobe chip-on-spi
cd /sys/bus/spi
chip=$(ls devices | grep '\\.0$')
echo spidev >devices/$chip/driver_override
echo $chip >drivers/spidev/bind
ask-device spi /dev/spidev\${chip#spi}
echo -n 12345678 >/dev/spidev\${chip#spi}
rmmod chip-on-spi`,
    );
    if (!done.ok) return done;
    if (done.value !== '256\n') return wrong('transfer', done.value);
    if ((await fact(bench, 'bytes')) !== 264) return wrong('bytes', await bench.ask('facts'));
    return ok('a chip on the bus: 256 bytes each way at once through spidev, the same; 8 one way');
  },
};

/** In the order in which they are run. */
export const DEVICE_CASES: readonly DeviceCase[] = [
  ...[block, net, entropy, vsock, p9, console_],
  ...[balloon, input, scsi, gpu, fs, crypto, sound, pmem, memory, iommu],
  driverless('rpmb', null, { queues: 1, config: 3 }),
  driverless('scmi', 'ARM_SCMI_TRANSPORT_VIRTIO', { queues: 1, config: 0 }),
  ...[i2c, gpio, rtc, can, spi],
];
