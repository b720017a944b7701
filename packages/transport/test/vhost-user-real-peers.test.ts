/** Our front-end drives back-ends that others wrote: qemu-storage-daemon and virtiofsd. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { benchBlock } from '@airlock/transport/vhost-user/block-bench.ts';
import { BlockDriver } from '@airlock/transport/vhost-user/block-driver.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { probeBackEnd } from '@airlock/transport/vhost-user/probe/probe.ts';
import { must, openDescriptors, systemCalls } from './support/scripted-front-end.ts';

const house = resolve(import.meta.dirname, '../../..');
const cache = execFileSync(join(house, 'tools/debian-cache'), ['path'], { encoding: 'utf8' }).trim();
const folder = mkdtempSync(join(tmpdir(), 'airlock-peers-'));
const running: ChildProcess[] = [];

after(async () => {
  for (const child of running) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = new Promise((done) => child.on('exit', done));
    child.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

function missing(program: string): string | false {
  const places = ['tools', 'peers'].flatMap((tree) =>
    ['usr/bin', 'usr/sbin', 'usr/libexec'].map((part) => join(cache, tree, part, program)),
  );
  return places.some((place) => existsSync(place)) ? false : `needs ${program} (tools/debian-cache peers)`;
}

async function start(socket: string, program: string, args: readonly string[]): Promise<void> {
  const child = spawn(join(house, 'tools/cached'), [program, ...args], { stdio: 'ignore' });
  running.push(child);
  for (let i = 0; i < 500 && !existsSync(socket); i++) {
    assert.equal(child.exitCode, null, `${program} ended`);
    await sleep(20);
  }
  // The socket's file is there a moment before anybody listens.
  await sleep(100);
}

function serveDisk(name: string): { socket: string; image: string; begin: () => Promise<void> } {
  const socket = join(folder, `${name}.sock`);
  const image = join(folder, `${name}.img`);
  writeFileSync(image, '');
  truncateSync(image, 16 * 2 ** 20);
  const addr = `addr.type=unix,addr.path=${socket}`;
  const args = [
    ...['--blockdev', `driver=file,node-name=disk,filename=${image}`],
    ...['--export', `type=vhost-user-blk,id=disk,node-name=disk,${addr},writable=on,num-queues=2`],
  ];
  return { socket, image, begin: () => start(socket, 'qemu-storage-daemon', args) };
}

const noDaemon = missing('qemu-storage-daemon');

test('qemu-storage-daemon: what is written is read back, and is in the file', { skip: noDaemon }, async () => {
  const { socket, image, begin } = serveDisk('disk');
  await begin();
  const before = openDescriptors();
  const front = must(FrontEnd.connect(socket, { calls: systemCalls, timeout: 20_000 }));
  const disk = must(BlockDriver.open(front, { queues: 2, size: 64, transfer: 65536, depth: 8 }));
  assert.equal(disk.capacity, 32768);
  assert.equal(disk.queues.all.length, 2);
  assert.equal(must(disk.identify()), 'vhost_user_blk');
  const data = new Uint8Array(65536).map((_, i) => (i * 31 + (i >>> 8)) & 0xff);
  must(disk.write(64, data, 0));
  must(disk.flush(1));
  assert.deepEqual(must(disk.read(64, 65536, 1)), data);
  assert.deepEqual(new Uint8Array(readFileSync(image).subarray(32768, 98304)), data);
  const beyond = disk.read(disk.capacity, 512);
  assert.equal(beyond.ok ? '' : beyond.error.code, 'driver-request-failed');
  must(front.stop());
  front.close();
  assert.equal(openDescriptors(), before);
});

test('qemu-storage-daemon: sane, and an offended one serves on', { skip: noDaemon }, async () => {
  const { socket, begin } = serveDisk('probed');
  await begin();
  const before = openDescriptors();
  const report = must(probeBackEnd(socket, { calls: systemCalls, timeout: 20_000, hostile: true }));
  assert.equal(report.type, 'block');
  assert.equal(report.typeFrom, 'seen');
  assert.equal(report.queues, 2);
  assert.deepEqual(
    report.checks.filter(({ outcome }) => outcome === 'fail'),
    [],
  );
  for (const id of ['request-answered', 'queue-resumes', 'hostile-address', 'hostile-index', 'hostile-message']) {
    assert.equal(report.checks.find((one) => one.id === id)?.outcome, 'pass', id);
  }
  assert.equal(openDescriptors(), before);
});

test('qemu-storage-daemon: the bench counts what it did', { skip: noDaemon }, async () => {
  const { socket, begin } = serveDisk('measured');
  await begin();
  for (const poll of [true, false]) {
    const options = { seconds: 0.3, depth: 8, blockSize: 4096, pattern: 'randread', queues: 2, poll } as const;
    const report = must(benchBlock(socket, { calls: systemCalls, timeout: 20_000, ...options }));
    assert.equal(report.errors, 0);
    assert.ok(report.requests > 0);
    const { min, p50, p99, p999, max } = report.latency;
    assert.ok(0 < min && min <= p50 && p50 <= p99 && p99 <= p999 && p999 <= max);
    assert.equal(Math.round(report.requestsPerSecond * report.seconds), report.requests);
  }
});

test('virtiofsd: begins a FUSE session and shows its root', { skip: missing('virtiofsd') }, async () => {
  const socket = join(folder, 'share.sock');
  await start(socket, 'virtiofsd', ['--socket-path', socket, '--shared-dir', folder, '--sandbox', 'none']);
  const report = must(probeBackEnd(socket, { calls: systemCalls, timeout: 20_000, type: 'fs' }));
  assert.equal(report.sane, true, JSON.stringify(report.checks.filter(({ outcome }) => outcome === 'fail')));
  const answered = report.checks.find(({ id }) => id === 'request-answered');
  assert.match(answered?.found ?? '', /^FUSE 7\.\d+; its root is a folder, mode 700$/);
  // It ends with its first front-end: that is noted, and no failure.
  assert.equal(report.checks.find(({ id }) => id === 'serves-again')?.outcome, 'note');
});
