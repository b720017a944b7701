/** `airlock device serve`: what it refuses, what it says, and that it ends in order. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SERVED_TYPES } from '@airlock/device/serve-types.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'airlock-serve-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const image = join(folder, 'disk.img');
writeFileSync(image, '');
truncateSync(image, 1024 * 1024);
const socket = join(folder, 'disk.sock');

async function refused(...args: string[]): Promise<{ code: number; stderr: string }> {
  const context = fakeContext();
  const code = await run(context, ['device', 'serve', ...args]);
  return { code, stderr: context.err() };
}

test('--help tells the types; with a type, its options and no other’s', async () => {
  const all = fakeContext();
  assert.equal(await run(all, ['device', 'serve', '--help']), 0);
  const lines = all.out().split('\n');
  for (const type of Object.keys(SERVED_TYPES))
    assert.ok(
      lines.some((line) => line.startsWith(`  ${type} `)),
      type,
    );
  assert.ok(lines.every((line) => line.length <= 120) && lines.length < 70);
  const one = fakeContext();
  assert.equal(await run(one, ['device', 'serve', 'gpu', '--help']), 0);
  assert.match(one.out(), /^gpu: .*\n {2}not over vhost-user: .*\n {2}--size WIDTHxHEIGHT/m);
  assert.doesNotMatch(one.out(), /--share|--tap/);
});

test('wrong use is answered with what would be right', async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /which type\? one of block, /],
    [['blok', '--socket', socket], /did you mean block\?/],
    [['block', 'net', '--socket', socket], /one type/],
    [['block', '--file', image], /--socket PATH is needed/],
    [['block', '--socket', socket], /--file FILE is needed/],
    [['entropy', '--socket', socket, '--file', image], /--file is an option of block/],
    [['block', '--socket', socket, '--file', image, '--transport', 'x'], /--transport: no x; one of vhost-user/],
    [['block', '--socket', socket, '--file', image, '--transport', 'vfiouser'], /did you mean vfio-user\?/],
    [['gpu', '--socket', socket], /not served over vhost-user: .*--transport vfio-user carries it/],
    [['block', '--socket', socket, '--file', image, '--queues', '0'], /--queues 0: a whole number from 1 to/],
    [['block', '--socket', socket, '--file', image, '--queue-size', '100'], /a power of two/],
    [['block', '--socket', socket, '--file', image, '--cache', 'none'], /one of writeback, writethrough/],
    [['block', '--socket', socket, '--file', image, '--serial', 'x'.repeat(21)], /at most 20/],
    [['block', '--socket', socket, '--file', image, '--flie', 'x'], /did you mean --file\?/],
  ];
  for (const [args, expected] of cases) {
    const { code, stderr } = await refused(...args);
    assert.equal(code, 2, args.join(' '));
    assert.match(stderr, expected);
  }
});

test('what cannot be served is an environment error with its reason', async () => {
  const odd = join(folder, 'odd.img');
  writeFileSync(odd, 'x'.repeat(1000));
  const plain = join(folder, 'plain');
  writeFileSync(plain, '');
  for (const [file, at, expected] of [
    [join(folder, 'none.img'), socket, /no such file .*\[disk-not-usable\]/],
    [folder, socket, /is a directory/],
    [odd, socket, /1000 bytes, which is no multiple of 512 .*\[disk-size-invalid\]/],
    [image, plain, /is there and is no socket .*\[socket-path-taken\]/],
  ] as const) {
    const { code, stderr } = await refused('block', '--file', file, '--socket', at, '--no-sandbox');
    assert.equal(code, 3);
    assert.match(stderr, expected);
    assert.equal(existsSync(socket), false);
  }
});

test('a socket that somebody listens on is left alone', async () => {
  const taken = join(folder, 'taken.sock');
  const server = createServer().listen(taken);
  await new Promise((done) => server.once('listening', done));
  const { code, stderr } = await refused('block', '--file', image, '--socket', taken, '--no-sandbox');
  assert.equal(code, 3);
  assert.match(stderr, /another process listens/);
  server.close();
});

for (const [name, more] of [
  ['sandboxed', []],
  ['not sandboxed', ['--no-sandbox']],
] as const) {
  test(`it says that it listens and what confines it, and ends in order when it is told to (${name})`, async () => {
    const stop = new AbortController();
    const context = fakeContext();
    const listening: unknown[] = [];
    const code = await run(
      {
        ...context,
        signal: stop.signal,
        stdout(text) {
          context.stdout(text);
          listening.push(existsSync(socket));
          stop.abort();
        },
      },
      ['device', 'serve', 'block', '--file', image, '--socket', socket, '--json', ...more],
    );
    assert.equal(code, 0, context.err());
    const events = context
      .out()
      .trim()
      .split('\n')
      .map((line): Record<string, unknown> => JSON.parse(line));
    assert.deepEqual(
      events.map(({ event }) => event),
      ['listening', 'ended'],
    );
    assert.equal(listening[0], true);
    assert.equal(existsSync(socket), false, 'the socket is removed');
    const layers = events[0]?.['sandbox'];
    assert.ok(Array.isArray(layers));
    assert.equal(layers.length > 0, more.length === 0);
    assert.ok(layers.every(({ status }: { status: string }) => status === 'enforced' || status === 'not-enforceable'));
  });
}

test('text for people names the layers', async () => {
  const stop = new AbortController();
  const context = fakeContext();
  await run(
    {
      ...context,
      signal: stop.signal,
      stderr(text) {
        context.stderr(text);
        stop.abort();
      },
    },
    ['device', 'serve', 'block', '--file', image, '--socket', socket],
  );
  assert.match(context.err(), /block \(.*disk\.img\) listens on .*disk\.sock\n {2}sandbox holds: .*system-calls/);
});
