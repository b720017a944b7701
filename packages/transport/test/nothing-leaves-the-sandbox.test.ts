import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { SandboxReport } from '@airlock/transport/sandbox.ts';
import { CHANNEL_VARIABLE, spawnSandboxed } from '@airlock/transport/sandbox-spawn.ts';
import { findSandboxWay } from '@airlock/transport/sandbox-way.ts';
import { missing } from './support/calls.ts';

interface Outcome {
  readonly code: number | null;
  readonly layers: Readonly<Record<string, string>>;
  readonly details: Readonly<Record<string, string>>;
  readonly tries: Readonly<Record<string, string>>;
  readonly error: string | undefined;
}

const PROGRAM = join(import.meta.dirname, 'support', 'sandboxed.ts');
const way = missing ? null : findSandboxWay();
const skipRoot =
  missing || (way?.namespaces.includes('mount') === true ? false : `no mount namespace here: ${way?.because}`);

async function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  const { entered, tries } = JSON.parse(text) as {
    entered: { ok: boolean; value?: SandboxReport; error?: { code: string } };
    tries: Record<string, string>;
  };
  const layers = entered.value?.layers ?? [];
  return {
    code,
    tries,
    layers: Object.fromEntries(layers.map(({ layer, status }) => [layer, status])),
    details: Object.fromEntries(layers.map(({ layer, detail }) => [layer, detail])),
    error: entered.error?.code,
  };
}

const sandboxed = (options: string, keep: readonly 'network'[] = []): Promise<Outcome> =>
  outcomeOf(spawnSandboxed(PROGRAM, [options], { stdio: ['ignore', 'pipe', 'inherit'], keep }));

test('in namespaces: every layer holds, and what was tried against it failed', { skip: skipRoot }, async () => {
  const { code, layers, tries } = await sandboxed('');
  assert.equal(code, 7);
  assert.deepEqual(new Set(Object.values(layers)), new Set(['enforced']), JSON.stringify(layers));
  assert.equal(Object.keys(layers).length, 11);
  const { 'read the inherited file': file, 'list /': list, ...others } = tries;
  assert.equal(file, 'done');
  assert.equal(list, 'done');
  assert.deepEqual(others, {
    '/etc/passwd': 'ENOENT',
    'relative path': 'ENOENT',
    'dot dot': 'ENOENT',
    '/proc/self/root': 'ENOENT',
    'another thread': 'ENOENT',
    'write /': 'EROFS',
    program: 'EPERM',
    'tcp connection': 'EPERM',
    'unix socket': 'EPERM',
    'packet socket': 'EPERM',
    netlink: 'EPERM',
    io_uring: 'EPERM',
    mount: 'EPERM',
    unshare: 'EPERM',
    'kill process 1': 'EPERM',
    'type into the terminal': 'EPERM',
  });
});

test('what a device needs is left to it, and said: Unix sockets, rings, the network of the host, a folder', {
  skip: skipRoot,
}, async () => {
  const { layers, details, tries } = await sandboxed('unix,rings,folder', ['network']);
  assert.equal(tries['unix socket'], 'done');
  assert.equal(tries['tcp connection'], 'EPERM');
  assert.notEqual(tries['io_uring'], 'EPERM');
  assert.equal(layers['network'], 'not-enforceable');
  assert.match(details['network'] ?? '', /needs that of the host/);
  assert.equal(layers['descriptors'], 'not-enforceable');
  assert.match(details['descriptors'] ?? '', /test\/support/);
  assert.equal(layers['root'], 'enforced');
  assert.equal(tries['/etc/passwd'], 'ENOENT');
});

test('not started to be locked in: what a process can do to itself holds, the rest is said to be missing', {
  skip: missing,
}, async () => {
  const child = spawn(process.execPath, [PROGRAM, ''], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { layers, tries } = await outcomeOf(child);
  for (const layer of ['user', 'network', 'ipc', 'uts', 'pid', 'root']) assert.equal(layers[layer], 'not-enforceable');
  for (const layer of ['privileges', 'system-calls', 'core-dumps']) assert.equal(layers[layer], 'enforced');
  if (process.getuid?.() === 0) assert.equal(layers['capabilities'], 'not-enforceable');
  assert.equal(tries['program'], 'EPERM');
  assert.equal(tries['/etc/passwd'], 'done');
});

const refusals: Record<string, readonly [script: string | null, because: RegExp]> = {
  'unshare is not there': [null, /^unshare \(util-linux\) is not installed$/],
  'the kernel forbids namespaces': [
    '#!/bin/sh\nprintf "unshare: unshare failed: Operation not permitted\\033[2J\\nmore\\n" >&2\nexit 1\n',
    /^unshare: unshare failed: Operation not permitted\\x1b\[2J$/,
  ],
};
for (const [name, [script, because]] of Object.entries(refusals)) {
  test(`where ${name}, the program runs, and the report says why it is not locked in`, { skip: missing }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-sandbox-'));
    if (script !== null) writeFileSync(join(folder, 'unshare'), script, { mode: 0o755 });
    const path = process.env['PATH'];
    process.env['PATH'] = script === null ? folder : `${folder}:${path}`;
    const running = sandboxed('');
    process.env['PATH'] = path;
    const { code, layers, details, tries } = await running;
    rmSync(folder, { recursive: true });
    assert.equal(code, 7);
    for (const layer of ['user', 'network', 'ipc', 'uts', 'pid', 'root']) {
      assert.equal(layers[layer], 'not-enforceable', layer);
      assert.match(details[layer] ?? '', because);
    }
    assert.equal(layers['system-calls'], 'enforced');
    assert.equal(tries['program'], 'EPERM');
  });
}

test('a channel that leads nowhere is an error, not a sandbox', { skip: missing }, async () => {
  const children = ['9', '0', 'x', '99999'].map((channel) =>
    spawn(process.execPath, [PROGRAM, ''], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, [CHANNEL_VARIABLE]: channel },
    }),
  );
  for (const { error } of await Promise.all(children.map(outcomeOf))) assert.equal(error, 'sandbox-handshake');
});

test('a starter that lies about namespaces is found out', { skip: missing }, async () => {
  const child = spawn(process.execPath, [PROGRAM, ''], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
    env: { ...process.env, [CHANNEL_VARIABLE]: '3' },
  });
  const outside = Object.fromEntries(
    ['user', 'mnt', 'net', 'ipc', 'uts', 'pid'].map((name) => [name, namespace(name)]),
  );
  const namespaces = ['user', 'mount', 'network', 'ipc', 'uts', 'pid'];
  const channel = child.stdio[3] as NodeJS.WritableStream;
  channel.write(`${JSON.stringify({ outside, namespaces, kept: [], because: '', uid: 0 })}\n`);
  channel.write(`${JSON.stringify({ because: null })}\n`);
  const { layers } = await outcomeOf(child);
  for (const layer of ['user', 'network', 'ipc', 'uts', 'pid', 'root']) assert.equal(layers[layer], 'failed', layer);
});

test('a program that dies of a signal is told as such', { skip: skipRoot }, async () => {
  const dies = join(import.meta.dirname, 'support', 'dies.ts');
  const child = spawnSandboxed(dies, [], { stdio: ['ignore', 'ignore', 'ignore'] });
  const signal = await new Promise((resolve) => child.on('exit', (_code, name) => resolve(name)));
  assert.equal(signal, 'SIGBUS');
});

test('killing what was started kills the program', { skip: skipRoot }, async () => {
  const before = processes();
  const idle = join(import.meta.dirname, 'support', 'waits.ts');
  const child = spawnSandboxed(idle, [], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  const closed = new Promise((resolve) => child.on('close', resolve));
  child.kill('SIGKILL');
  // `close` comes when the last holder of the pipe is gone: that is the program itself.
  await closed;
  assert.deepEqual(
    processes().filter((command) => command.includes(idle)),
    before.filter((command) => command.includes(idle)),
  );
});

test('a mount namespace that is not meant is never emptied', { skip: skipRoot }, () => {
  const script = join(import.meta.dirname, '..', 'src', 'empty-root.ts');
  const here = namespace('mnt');
  // In a namespace of its own, so that not even a broken comparison takes anything from anybody.
  const sh = 'ns=$(readlink /proc/self/ns/mnt); exec "$@" $(echo "$WORDS" | sed "s/HERE/$ns/g")';
  const wrapper = ['--user', '--map-root-user', '--mount', '--', 'sh', '-c', sh, 'sh', process.execPath, script];
  for (const args of [[], ['HERE', 'HERE'], ['mnt:[1]', here]]) {
    const env = { ...process.env, WORDS: args.join(' ') };
    const run = spawnSync('unshare', wrapper, { encoding: 'utf8', timeout: 20_000, env });
    assert.equal(run.status, 1, args.join(' '));
    assert.match(run.stderr, /mount namespace/);
  }
  assert.ok(readdirSync('/').length > 0);
});

function namespace(name: string): string {
  return spawnSync('readlink', [`/proc/${process.pid}/ns/${name}`], { encoding: 'latin1' }).stdout.trim();
}

function processes(): string[] {
  return spawnSync('ps', ['-eo', 'args'], { encoding: 'latin1' }).stdout.split('\n');
}
