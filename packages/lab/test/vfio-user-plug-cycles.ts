/**
 * The rule that two guest tests hold, for so many cycles: a function that is plugged in, probed, used and unplugged again
 * and again leaves nothing behind, in the process that serves it, in QEMU, in the guest.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { CHECKOUT } from '../src/cache.ts';
import { childWords } from '../src/child-words.ts';
import { freeSlots } from '../src/device-bench.ts';
import { bootDriverGuest, prepareDriverGuest } from '../src/driver-guest.ts';
import type { Guest } from '../src/guest.ts';
import { shell } from './guests.ts';

/** What is counted of a process on this machine. */
export interface Holdings {
  readonly fds: number;
  /** Of files, memory files and what else has a name; the engine's own heap comes and goes in pieces of 256 KiB. */
  readonly mappings: number;
  /** Of memory files: a guest's memory. */
  readonly guestMemory: number;
  /** Addresses that nothing may use, of a guest's memory that was let go (shared-memory.ts) or beside a stack. */
  readonly covered: number;
  /** KiB that are its own: without what it shares with others. */
  readonly resident: number;
}

export function holdingsOf(pid: number): Holdings {
  const maps = readFileSync(`/proc/${pid}/maps`, 'latin1').trim().split('\n');
  const resident = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
  return {
    fds: readdirSync(`/proc/${pid}/fd`).length,
    mappings: maps.filter((line) => / \d+ +\S+$/.test(line)).length,
    guestMemory: maps.filter((line) => line.includes('/memfd:')).length,
    covered: maps.filter((line) => /^\S+ ---p 00000000 00:00 0/.test(line)).length,
    resident: Number(resident?.[1] ?? 0),
  };
}

/** The QEMU of a guest: its watcher has the same words behind its own. */
export function qemuOf(guest: Guest): number {
  const found = readdirSync('/proc').find((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, 'latin1').split('\0');
      return words[0] !== 'sh' && words.some((word) => word.includes(guest.shellSocket));
    } catch {
      return false;
    }
  });
  assert.ok(found !== undefined, 'no QEMU of the guest');
  return Number(found);
}

interface GuestMemory {
  readonly MemFree: number;
  readonly Slab: number;
  readonly VmallocUsed: number;
}

/** KiB, with caches dropped. */
async function memoryOf(guest: Guest): Promise<GuestMemory> {
  const text = await shell(guest, 'echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo', 60);
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]);
  const memory = { MemFree: field('MemFree'), Slab: field('Slab'), VmallocUsed: field('VmallocUsed') };
  assert.ok(Object.values(memory).every(Number.isFinite), text);
  return memory;
}

export interface PlugServer {
  readonly pid: number;
  readonly socket: string;
  /** Waits until it says a word. */
  hear(word: 'listening' | 'used' | 'gone'): Promise<void>;
}

/** An entropy device in a process of its own, which says when it was used first and when its VMM went. */
export async function startPlugServer(t: TestContext): Promise<PlugServer> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-plug-'));
  const socket = join(folder, 's');
  const child: ChildProcess = spawn(process.execPath, [join(CHECKOUT, 'bench/support/plug-server.ts'), socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  });
  const hear = childWords(child);
  await hear('listening');
  return { pid: child.pid ?? 0, socket, hear };
}

export interface CycleLimits {
  readonly warmUp: number;
  readonly cycles: number;
  /** KiB that may be more at the end than after the warm-up: what grows with use, not with each cycle. */
  readonly resident: number;
  readonly guest: number;
}

export function plugCyclesLeaveNothing(limits: CycleLimits): void {
  const { warmUp, cycles } = limits;
  test(`Linux 7.2: ${cycles} times plugged in, used and unplugged leave nothing`, { timeout: 900_000 }, async (t) => {
    if (process.env['AIRLOCK_NO_GUESTS'] === '1') return t.skip('AIRLOCK_NO_GUESTS=1');
    const images = await prepareDriverGuest('7.2');
    if (!images.ok && images.error.code === 'lab-unsupported') return t.skip(images.error.message);
    assert.ok(images.ok, JSON.stringify(images));
    const server = await startPlugServer(t);
    const booted = await bootDriverGuest(images.value, { parts: freeSlots() });
    assert.ok(booted.ok, JSON.stringify(booted));
    const guest = booted.value;
    t.after(() => guest.end());
    const qemu = qemuOf(guest);
    // What stands in for udev starts a shell for each event, which takes longer than all the rest.
    await shell(guest, 'modprobe virtio_rng; killall uevent; dmesg -n 1; dmesg -c >/dev/null');

    let plugged = 0;
    const cycle = async () => {
      const id = `cycle${plugged++}`;
      const added = await guest.qmp.execute('device_add', {
        ...{ id, driver: 'vfio-user-pci', bus: 'port1', socket: { type: 'unix', path: server.socket } },
      });
      assert.ok(added.ok, JSON.stringify(added));
      await server.hear('used');
      const removed = await guest.qmp.execute('device_del', { id });
      assert.ok(removed.ok, JSON.stringify(removed));
      const deleted = await guest.qmp.event(
        ({ event, data }) => event === 'DEVICE_DELETED' && data['device'] === id,
        30,
      );
      assert.ok(deleted.ok, JSON.stringify(deleted));
      await server.hear('gone');
    };
    const look = async () => ({ server: holdingsOf(server.pid), qemu: holdingsOf(qemu), guest: await memoryOf(guest) });

    for (let i = 0; i < warmUp; i++) await cycle();
    const before = await look();
    const started = performance.now();
    for (let i = 0; i < cycles; i++) await cycle();
    const seconds = (performance.now() - started) / 1000;
    const after = await look();
    t.diagnostic(`${cycles} cycles in ${seconds.toFixed(1)} s: ${(cycles / seconds).toFixed(1)}/s`);
    t.diagnostic(`before ${JSON.stringify(before)}`);
    t.diagnostic(`after  ${JSON.stringify(after)}`);

    const log = await shell(guest, 'dmesg -r');
    assert.deepEqual(
      log.split('\n').filter((line) => /^<[0-4]>/.test(line)),
      [],
      'the kernel complains',
    );
    assert.equal(after.server.fds, before.server.fds);
    assert.equal(after.server.guestMemory, 0, 'guest memory stays mapped');
    assert.equal(after.server.mappings, before.server.mappings);
    assert.ok(after.server.covered <= before.server.covered + 64, 'more than 64 ranges are kept');
    assert.ok(after.server.resident <= before.server.resident + limits.resident, 'memory of the server');
    assert.equal(after.qemu.fds, before.qemu.fds);
    assert.equal(after.qemu.mappings, before.qemu.mappings);
    assert.ok(after.guest.MemFree >= before.guest.MemFree - limits.guest, 'memory of the guest');
    assert.ok(after.guest.Slab <= before.guest.Slab + limits.guest, 'slabs of the guest');
    assert.ok(after.guest.VmallocUsed <= before.guest.VmallocUsed + 512, 'mappings of the guest’s kernel');
  });
}
