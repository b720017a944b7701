import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

test('a kernel that is none of the three, an argument, a policy that is not there: usage', async () => {
  for (const [args, words] of [
    [['--kernel', '5.10'], /6\.1, 6\.12, 7\.2/],
    [['7.2'], /no argument/],
    [['--policy', '/nowhere/p.yaml'], /no such policy/],
    [['--interactive', '--json'], /do not go together/],
    [['--compere'], /did you mean --compare/],
  ] as const) {
    const context = fakeContext();
    assert.equal(await run(context, ['lab', 'up', ...args]), 2, args.join(' '));
    assert.match(context.err(), words);
    assert.equal(context.out(), '');
  }
});

test('a policy with errors starts no guest and shows each error', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-lab-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const policy = join(folder, 'p.yaml');
  writeFileSync(policy, 'version: 1\nmode: enforce\nrules:\n  - id: a\n    mach: { bus: virtio }\n    level: limitd\n');
  const context = fakeContext();
  assert.equal(await run(context, ['lab', 'up', '--policy', policy]), 1);
  assert.match(context.err(), /p\.yaml:5:\d+: .*mach/);
  assert.match(context.err(), /p\.yaml:6:\d+: .*limited/);
  assert.match(context.err(), /no guest was started/);
  const json = fakeContext();
  assert.equal(await run(json, ['lab', 'up', '--json', '--policy', policy]), 1);
  assert.equal(JSON.parse(json.out()).kind, 'policy');
});
