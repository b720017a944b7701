/**
 * The rule that two guest tests hold: inside one machine, the kernel's own disk driver uses a disk that a process of the
 * same machine is; it leaves in order, and when the process does not answer, the kernel's limit ends the wait.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelSeries } from '../src/cache.ts';
import { bootFor, imagesOrSkip, shell } from './guests.ts';

export function vduseServesLinux(series: KernelSeries): void {
  test(`Linux ${series}: a disk over VDUSE`, { timeout: 900_000 }, async (t) => {
    const images = await imagesOrSkip(t, series);
    if (images === undefined) return;
    const guest = await bootFor(t, images, images.plain);
    const start = (seconds: number) =>
      shell(
        guest,
        `(airlock device serve block --transport vduse --as data --file /tmp/disk --serial vduse-disk --no-sandbox --json >/tmp/log 2>&1 &)
tries=0; until [ -e /sys/block/vdb/serial ]; do tries=$((tries + 1)); [ $tries -lt ${2 * seconds} ] || exit 1; sleep 0.5; done
cat /sys/block/vdb/serial`,
        seconds + 30,
      );
    const pids = (what: string) => `$(for p in $(pidof node); do grep -q ${what} /proc/$p/cmdline && echo $p; done)`;

    await t.test('attached by the server itself, found by its serial number', async () => {
      await shell(guest, 'modprobe vduse && modprobe virtio_vdpa && dd if=/dev/zero of=/tmp/disk bs=1M count=32');
      assert.equal((await start(180)).trim(), 'vduse-disk');
      assert.match(await shell(guest, 'readlink /sys/bus/vdpa/devices/data/driver'), /virtio_vdpa/);
    });

    await t.test('what is written is in the file, and is read back', async () => {
      const sums = await shell(
        guest,
        `mke2fs /dev/vdb >/dev/null && mkdir -p /tmp/m && mount -t ext4 /dev/vdb /tmp/m
dd if=/dev/urandom of=/tmp/m/file bs=64k count=64 2>/dev/null; sync; sha256sum </tmp/m/file; umount /tmp/m
echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vdb /tmp/m; sha256sum </tmp/m/file; umount /tmp/m
mount -t ext4 -o loop /tmp/disk /tmp/m 2>/dev/null && sha256sum </tmp/m/file && umount /tmp/m`,
        120,
      );
      const lines = sums.trim().split('\n');
      assert.ok(lines.length >= 2, sums);
      for (const line of lines) assert.equal(line, lines[0]);
    });

    await t.test('SIGTERM takes it off the bus first, then ends it in order', async () => {
      await shell(
        guest,
        `kill -TERM ${pids('airlock.mjs')}; tries=0; while [ -n "$(pidof node)" ] && [ $tries -lt 120 ]; do tries=$((tries + 1)); sleep 0.5; done`,
        90,
      );
      const log = await shell(guest, 'cat /tmp/log');
      assert.match(log, /"event":"ended"/);
      assert.ok(!/"event":"(problem|failed)"/.test(log), log);
      assert.equal((await shell(guest, 'ls /dev/vduse')).trim(), 'control');
      assert.equal(await shell(guest, 'ls /sys/bus/vdpa/devices'), '');
    });

    await t.test(
      'a server that does not answer holds the kernel no longer than its limit, and hears of it',
      async () => {
        assert.equal((await start(180)).trim(), 'vduse-disk');
        await shell(
          guest,
          `echo 3 >/sys/class/vduse/data/msg_timeout
kill -STOP ${pids('serve-process')}
(echo data >/sys/bus/vdpa/drivers/virtio_vdpa/unbind; echo unbound >/tmp/unbound) >/dev/null 2>&1 &
tries=0; until [ -e /tmp/unbound ]; do tries=$((tries + 1)); [ $tries -lt 120 ] || exit 1; sleep 0.5; done
[ ! -e /sys/block/vdb ]`,
          90,
        );
        await shell(guest, `kill -CONT ${pids('serve-process')}; sleep 5`, 30);
        assert.match(await shell(guest, 'cat /tmp/log'), /"code":"vduse-broken"/);
      },
    );
  });
}
