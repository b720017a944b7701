import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OUTPUT_LIMIT } from '@airlock/linux/commands.ts';
import { nodeCommands } from '@airlock/linux/node-commands.ts';

const commands = nodeCommands();

test('status, both outputs, and input', async () => {
  const ran = await commands.run(['sh', '-c', 'cat; echo no >&2; exit 3'], { input: 'yes' });
  assert.deepEqual(ran, { ok: true, value: { status: 3, stdout: 'yes', stderr: 'no\n' } });
});

test('a program that is not there is a coded error', async () => {
  const ran = await commands.run(['/nonexistent/program']);
  assert.ok(!ran.ok);
  assert.equal(ran.error.code, 'command-missing');
});

test('a program that does not end is killed, also when a child of it holds the pipes', async () => {
  for (const script of ['exec sleep 60', 'sleep 60 & wait']) {
    const ran = await commands.run(['sh', '-c', script], { timeout: 200 });
    assert.ok(!ran.ok);
    assert.equal(ran.error.code, 'command-timeout');
  }
});

test('a program that writes without end is killed', async () => {
  const ran = await commands.run([
    'sh',
    '-c',
    'while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done',
  ]);
  assert.ok(!ran.ok);
  assert.equal(ran.error.code, 'command-too-loud');
  assert.match(ran.error.message, new RegExp(String(OUTPUT_LIMIT)));
});

test('a signal is a status, and a program that does not read its input is no error', async () => {
  const killed = await commands.run(['sh', '-c', 'kill -SEGV $$']);
  assert.ok(killed.ok);
  assert.equal(killed.value.status, 139);
  const deaf = await commands.run(['true'], { input: 'x'.repeat(1_000_000) });
  assert.ok(deaf.ok);
});

test('nothing of this process reaches a program through the environment', async () => {
  const ran = await commands.run(['env']);
  assert.ok(ran.ok);
  assert.ok(!/NODE|LD_/.test(ran.value.stdout), ran.value.stdout);
});
