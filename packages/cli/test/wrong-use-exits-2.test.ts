import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

test('no verb prints the list on stderr and exits 2; --help prints it on stdout and exits 0', async () => {
  const none = fakeContext();
  assert.equal(await run(none, []), 2);
  assert.equal(none.out(), '');
  assert.match(none.err(), /airlock VERB --help/);
  const help = fakeContext();
  assert.equal(await run(help, ['--help']), 0);
  assert.match(help.out(), /Exit codes/);
});

test('a mistyped verb names the nearest', async () => {
  const context = fakeContext();
  assert.equal(await run(context, ['lst']), 2);
  assert.match(context.err(), /did you mean "airlock list"/);
});

test('a group alone lists its verbs', async () => {
  const context = fakeContext();
  assert.equal(await run(context, ['policy']), 2);
  assert.match(context.err(), /check/);
});

test('an unknown option names the nearest and shows the usage', async () => {
  const context = fakeContext();
  assert.equal(await run(context, ['list', '--jsno']), 2);
  assert.match(context.err(), /did you mean --json/);
  assert.match(context.err(), /usage: airlock list/);
});
