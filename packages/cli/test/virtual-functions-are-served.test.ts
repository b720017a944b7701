/** `airlock device serve --virtual-function`: what it refuses, and one socket for each function. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'airlock-functions-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const disks = ['a', 'b', 'c'].map((name) => {
  const path = join(folder, `${name}.img`);
  writeFileSync(path, '');
  truncateSync(path, 1024 * 1024);
  return path;
});
const [first = '', second = '', third = ''] = disks;
const socket = join(folder, 'disk.sock');
const BLOCK = ['block', '--transport', 'vfio-user', '--socket', socket, '--file', first];

async function serve(...args: string[]): Promise<{ code: number; out: string; err: string; there: string[] }> {
  const stop = new AbortController();
  const context = fakeContext();
  let there: string[] = [];
  const code = await run(
    {
      ...context,
      signal: stop.signal,
      stdout(text) {
        context.stdout(text);
        there = readdirSync(folder).filter((name) => name.startsWith('disk.sock'));
        stop.abort();
      },
    },
    ['device', 'serve', ...args, '--json'],
  );
  return { code, out: context.out(), err: context.err(), there };
}

test('wrong use is answered with what would be right', async () => {
  const virtual = (text: string) => [...BLOCK, '--virtual-function', text];
  for (const [args, expected] of [
    [['block', '--socket', socket, '--file', first, '--virtual-function', ''], /is for --transport vfio-user/],
    [[...BLOCK, '--sr-iov'], /--sr-iov needs --virtual-function/],
    [[...virtual(''), '--sr-iov', '--plain'], /does not go with --plain/],
    [virtual('flie=b.img'), /"flie=b\.img": no option flie; did you mean file\?/],
    [virtual('file'), /file=FILE/],
    [virtual('read-only=yes'), /read-only takes no value/],
    [virtual('file=a,file=b'), /file stands twice/],
    [virtual('queues=0'), /--virtual-function "queues=0": --queues 0: a whole number/],
    [virtual(',,'), /no option ,/],
    [virtual('__proto__=1'), /no option __proto__/],
    [virtual('\x1b[2J'), /no option/],
    [[...BLOCK, ...Array.from({ length: 8 }, () => ['--virtual-function', '']).flat()], /at most 7/],
  ] as const) {
    const { code, err } = await serve(...args);
    assert.equal(code, 2, args.join(' '));
    assert.match(err, expected);
    assert.equal(err.includes('\x1b'), false);
  }
  assert.deepEqual(readdirSync(folder).length, 3);
});

for (const more of [[], ['--sr-iov']]) {
  test(`a disk and two beside it, each with a socket of its own, all gone at the end (${more.join('') || 'each by itself'})`, async () => {
    const { code, out, err, there } = await serve(
      ...[...BLOCK, '--serial', 'physical', ...more],
      ...['--virtual-function', `file=${second},serial=one`, '--virtual-function', `file=${third},serial=two`],
    );
    assert.equal(code, 0, err);
    assert.deepEqual(there, ['disk.sock', 'disk.sock-vf0', 'disk.sock-vf1']);
    const [listening] = out.trim().split('\n');
    assert.match(
      String(JSON.parse(listening ?? '{}').device),
      /a\.img; virtual functions on \S+disk\.sock-vf0, \S+disk\.sock-vf1$/,
    );
    assert.deepEqual(
      there.filter((name) => existsSync(join(folder, name))),
      [],
    );
  });
}

test('two that would write to one image are refused, and so are groups of what cannot be one', async () => {
  const twice = await serve(...BLOCK, '--virtual-function', '');
  assert.equal(twice.code, 3);
  assert.match(twice.err, /disk-in-use/);
  for (const path of [first, second]) truncateSync(path, 2 * 1024 * 1024);
  const memory = ['pmem', '--transport', 'vfio-user', '--socket', socket, '--file', first];
  const shared = await serve(...memory, '--virtual-function', `file=${second}`, '--sr-iov');
  assert.equal(shared.code, 3, shared.err);
  assert.match(shared.err, /pci-virtual-functions-invalid/);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('disk.sock')),
    [],
  );
});
