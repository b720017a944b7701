/** `airlock device probe` and `airlock device bench`: what they refuse, and what they say of a disk of ours. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const house = resolve(import.meta.dirname, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'airlock-probe-'));
const socket = join(folder, 'disk.sock');
const image = join(folder, 'disk.img');
let server: ReturnType<typeof spawn> | undefined;

before(async () => {
  writeFileSync(image, '');
  truncateSync(image, 2 ** 20);
  const args = ['device', 'serve', 'block', '--file', image, '--socket', socket, '--queues', '2', '--json'];
  const started = spawn(join(house, 'airlock'), args, { stdio: ['ignore', 'pipe', 'inherit'] });
  server = started;
  await new Promise<void>((done, fail) => {
    started.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('"listening"')) done();
    });
    started.on('exit', () => fail(new Error('the server ended')));
  });
});

after(async () => {
  if (server !== undefined && server.exitCode === null) {
    const ended = new Promise((done) => server?.on('exit', done));
    server.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

async function say(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const context = fakeContext({ cwd: folder });
  const code = await run(context, ['device', ...args]);
  return { code, out: context.out(), err: context.err() };
}

test('wrong use exits with 2, a socket that nobody serves with 3', async () => {
  const cases: readonly (readonly [number, readonly string[], RegExp])[] = [
    [2, ['probe'], /which socket\?/],
    [2, ['probe', 'a', 'b'], /one socket, got a b/],
    [2, ['probe', socket, '--type', 'blok'], /did you mean block\?/],
    [2, ['probe', socket, '--timeout', '5'], /--timeout 5: a whole number from 10 to 600000/],
    [2, ['probe', socket, '--timeout', '-5'], /--timeout/],
    [3, ['probe', join(folder, 'none')], /ENOENT \[system-call-failed\]/],
    [3, ['probe', image], /nobody listens .*\[socket-refused\]/],
    [3, ['probe', 'x'.repeat(200)], /\[socket-path-invalid\]/],
    [2, ['bench'], /which socket\?/],
    [2, ['bench', socket, '--pattern', 'randwrite'], /say --allow-writes/],
    [2, ['bench', socket, '--pattern', 'read'], /one of randread, randwrite/],
    [2, ['bench', socket, '--block-size', '1000'], /a multiple of 512/],
    [2, ['bench', socket, '--depth', '0'], /--depth 0: a whole number from 1 to 256/],
    [2, ['bench', socket, '--seconds', '1e3'], /--seconds 1e3/],
    [2, ['bench', socket, '--poll', '--event'], /either --poll or --event/],
    [3, ['bench', join(folder, 'none')], /ENOENT/],
  ];
  for (const [expected, args, message] of cases) {
    const { code, out, err } = await say(...args);
    assert.equal(code, expected, args.join(' '));
    assert.match(err, message);
    assert.equal(out, '');
  }
});

test('a disk of ours is sane, whatever is done to it', async () => {
  const { code, out, err } = await say('probe', socket, '--hostile', '--json');
  assert.equal(err, '');
  const report = JSON.parse(out);
  const odd = report.checks.filter(({ outcome }: { outcome: string }) => outcome !== 'pass');
  assert.deepEqual(odd, []);
  assert.equal(code, 0);
  assert.equal(report.type, 'block');
  assert.equal(report.config.capacity, 2048);
  assert.equal(report.queues, 2);
  assert.equal(report.checks.length, 28);
  // And nothing was written.
  assert.ok(readFileSync(image).every((byte) => byte === 0));
});

test('the text names the type, what is offered, and every check', async () => {
  const { code, out } = await say('probe', 'disk.sock', '--type', 'block');
  assert.equal(code, 0);
  assert.match(out, /^type {10}block \(as you say\)$/m);
  assert.match(out, /^features .*BLK_F_FLUSH.* ACCESS_PLATFORM/m);
  assert.match(out, /^ok {4}request-answered {6}sector 0 was read, used length 513$/m);
  assert.match(out, /\nsane\n$/);
});

test('a device that is not what it is said to be: findings', async () => {
  const { code, out } = await say('probe', socket, '--type', 'net', '--json');
  assert.equal(code, 1);
  const report = JSON.parse(out);
  assert.equal(report.sane, false);
  const failed = report.checks.filter(({ outcome }: { outcome: string }) => outcome === 'fail');
  assert.equal(failed[0].id, 'feature-dependencies');
  assert.equal(failed[0].clause, 'VIRTIO 1.3 §2.2.1');
});

test('the bench reads at random, and writes only where it may', async () => {
  const read = await say('bench', socket, '--seconds', '1', '--depth', '4', '--queues', '2', '--json');
  assert.equal(read.code, 0, read.err);
  const report = JSON.parse(read.out);
  assert.equal(report.errors, 0);
  assert.ok(report.requests > 0 && report.latency.p50 > 0);
  assert.equal(report.packed, true);
  assert.ok(readFileSync(image).every((byte) => byte === 0));
  const write = await say('bench', socket, '--seconds', '1', '--pattern', 'randwrite', '--allow-writes', '--split');
  assert.equal(write.code, 0, write.err);
  assert.match(write.out, /^randwrite, 4096 bytes, depth 32, 1 queue \(split\), polled\nrequests {2}\d+ in /);
  assert.ok(readFileSync(image).some((byte) => byte !== 0));
});
