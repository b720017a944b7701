/**
 * The rule that two guest tests hold: when a guest is reset, reboots itself, or its QEMU is killed while it writes to a disk
 * over vfio-user, the process that serves the disk goes on, holds nothing of the guest that is gone, and serves the next
 * one; what was synced is there.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { freeSlots } from '../src/device-bench.ts';
import { startDevice } from '../src/device-process.ts';
import { bootDriverGuest, type DriverImages, prepareDriverGuest } from '../src/driver-guest.ts';
import type { Guest } from '../src/guest.ts';
import { shell } from './guests.ts';
import { holdingsOf, qemuOf } from './vfio-user-plug-cycles.ts';

/** The process that serves: the last of the line of children. */
function serverOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ');
  const own = children.map(Number).filter((child) => child > 0 && readdirSync(`/proc/${child}/fd`).length > 0);
  return own[0] === undefined ? pid : serverOf(own[0]);
}

async function boot(t: TestContext, images: DriverImages): Promise<Guest> {
  const guest = await bootDriverGuest(images, { parts: freeSlots(), cmdline: 'tsc=nowatchdog' });
  assert.ok(guest.ok, JSON.stringify(guest));
  t.after(() => guest.value.end());
  return guest.value;
}

async function plug(guest: Guest, socket: string): Promise<void> {
  const part = { id: 'disk', driver: 'vfio-user-pci', bus: 'port1', socket: { type: 'unix', path: socket } };
  const added = await guest.qmp.execute('device_add', part);
  assert.ok(added.ok, JSON.stringify(added));
  await haveDisk(guest);
}

async function haveDisk(guest: Guest): Promise<void> {
  const found = await shell(
    guest,
    'for i in $(seq 300); do [ -e /dev/vda ] && break; sleep 0.1; done; ls /dev/vda',
    60,
  );
  assert.equal(found.trim(), '/dev/vda');
}

/** Writes without end begin; returns once some were done. */
async function beginWriting(guest: Guest): Promise<void> {
  const written = await shell(
    guest,
    `count() { cut -c1-200 /sys/block/vda/stat | awk '{print $5}'; }
(while :; do dd if=/dev/zero of=/dev/vda bs=64k seek=16 count=200 oflag=direct 2>/dev/null; done) >/dev/null 2>&1 &
before=$(count)
for i in $(seq 200); do [ $(count) -gt $((before + 50)) ] && break; sleep 0.1; done
echo $(($(count) - before))`,
    60,
  );
  assert.ok(Number(written) > 50, `writes: ${written}`);
}

/** A pattern that the guest writes and syncs, and reads back later. */
const PATTERN_BYTES = 64 * 1024;
const pattern = (text: string) => `yes '${text}' | head -c ${PATTERN_BYTES}`;

async function keep(guest: Guest, text: string): Promise<void> {
  await shell(guest, `${pattern(text)} | dd of=/dev/vda bs=64k oflag=direct conv=fsync iflag=fullblock 2>/dev/null`);
}

async function kept(guest: Guest, text: string): Promise<void> {
  const sums = await shell(
    guest,
    `${pattern(text)} | sha256sum; dd if=/dev/vda bs=64k count=1 iflag=direct 2>/dev/null | sha256sum`,
  );
  const [wanted, found] = sums.trim().split('\n');
  assert.equal(found, wanted);
}

/** Waits until the guest answers anew, after it went down. */
async function upAgain(guest: Guest): Promise<void> {
  for (let tries = 0; tries < 8; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 4000));
    // `/tmp` of the guest before is gone.
    const answer = await guest.run('[ -e /tmp/before ] || echo new', 2);
    if (answer.ok && answer.value.stdout.trim() === 'new') return;
  }
  assert.fail(`the guest did not come up again: ${guest.console().slice(-500)}`);
}

async function goesMidIo(t: TestContext, resets: boolean): Promise<void> {
  if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
  const images = await prepareDriverGuest('7.2');
  if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
  assert.ok(images.ok, JSON.stringify(images));
  const folder = mkdtempSync(join(tmpdir(), 'airlock-survival-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'disk');
  writeFileSync(file, '');
  truncateSync(file, 32 << 20);
  const device = await startDevice('block', ['--transport', 'vfio-user', '--file', file]);
  assert.ok(device.ok, JSON.stringify(device));
  t.after(() => device.value.end());
  const server = serverOf(device.value.pid);
  const gone = () => device.value.said().match(/"event":"disconnected"/g)?.length ?? 0;
  const untilGone = async (count: number) => {
    for (let i = 0; i < 300 && gone() < count; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(gone(), count, device.value.said());
  };
  // One client, so that what is made once has been made.
  const first = await boot(t, images.value);
  await plug(first, device.value.socket);
  await keep(first, 'before');
  const deleted = await first.qmp.execute('device_del', { id: 'disk' });
  assert.ok(deleted.ok);
  await untilGone(1);
  const before = holdingsOf(server);
  assert.equal(before.guestMemory, 0);
  await plug(first, device.value.socket);
  const plugged = holdingsOf(server);
  assert.ok(plugged.guestMemory > 0);

  const resetMidIo = async (how: 'reset by QMP' | 'rebooted from within') => {
    const action = await first.qmp.execute('set-action', { reboot: 'reset' });
    assert.ok(action.ok, JSON.stringify(action));
    await keep(first, how);
    await shell(first, 'touch /tmp/before');
    await beginWriting(first);
    if (how === 'reset by QMP') assert.ok((await first.qmp.execute('system_reset')).ok);
    else await shell(first, '(sleep 1; reboot -f) >/dev/null 2>&1 &');
    await upAgain(first);
    await haveDisk(first);
    await kept(first, how);
    assert.deepEqual([holdingsOf(server).fds, holdingsOf(server).guestMemory], [plugged.fds, plugged.guestMemory]);
  };
  if (resets) await t.test('reset by QMP', () => resetMidIo('reset by QMP'));
  if (resets) await t.test('rebooted from within', () => resetMidIo('rebooted from within'));

  await t.test('QEMU is killed', async () => {
    await keep(first, 'before the end');
    await beginWriting(first);
    process.kill(qemuOf(first), 'SIGKILL');
    await untilGone(2);
    const after = holdingsOf(server);
    t.diagnostic(`server before ${JSON.stringify(before)}, with a guest ${JSON.stringify(plugged)}`);
    t.diagnostic(`server after QEMU was killed ${JSON.stringify(after)}`);
    assert.equal(after.fds, before.fds);
    assert.equal(after.guestMemory, 0, 'memory of a guest that is gone');
    await first.end();
  });

  await t.test('the next guest is served', async () => {
    const next = await boot(t, images.value);
    await plug(next, device.value.socket);
    await kept(next, 'before the end');
    await keep(next, 'the next guest');
    await kept(next, 'the next guest');
    await next.end();
    await untilGone(3);
    assert.equal(holdingsOf(server).fds, before.fds);
    assert.equal(readFileSync(file, 'latin1').slice(0, 15), 'the next guest\n');
  });
  assert.ok(!/"event":"(failed|problem)"/.test(device.value.said()), device.value.said());
}

export function guestGoesMidIo({ resets }: { readonly resets: boolean }): void {
  const what = resets ? 'reset, rebooted, killed' : 'killed';
  test(`Linux 7.2: a guest that goes in the middle of writing: ${what}`, { timeout: 600_000 }, (t) =>
    goesMidIo(t, resets),
  );
}
