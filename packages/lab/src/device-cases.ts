/** What each type of device is used for in a guest, and how both sides are asked whether it was. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { fail, ok } from '@airlock/core/result.ts';
import { block, console_, entropy, net, p9, vsock } from './back-end-cases.ts';
import { can, gpio, i2c, rtc, spi } from './bus-cases.ts';
import { fact, NONE, until, wrong } from './case-steps.ts';
import { type Bench, type DeviceCase, GUEST_USES } from './device-bench.ts';

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

/** In the order in which they are run. */
export const DEVICE_CASES: readonly DeviceCase[] = [
  ...[block, net, entropy, vsock, p9, console_],
  ...[balloon, input, scsi, gpu, fs, crypto, sound, pmem, memory, iommu],
  driverless('rpmb', null, { queues: 1, config: 3 }),
  driverless('scmi', 'ARM_SCMI_TRANSPORT_VIRTIO', { queues: 1, config: 0 }),
  ...[i2c, gpio, rtc, can, spi],
];
