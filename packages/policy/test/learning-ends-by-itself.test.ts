import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modeAt } from '../src/mode.ts';
import { parse } from './policy-fixtures.ts';

test('learn holds for its time since boot, then the policy is enforced; other modes do not change', () => {
  const learn = parse('version: 1\nmode: learn\nlearn: { for: 30m }\n');
  assert.deepEqual(
    [0, 1799.9, 1800, 1e9, Number.NaN].map((now) => modeAt(learn, now)),
    ['learn', 'learn', 'enforce', 'enforce', 'enforce'],
  );
  for (const mode of ['audit', 'enforce'] as const)
    assert.equal(modeAt(parse(`version: 1\nmode: ${mode}\n`), 1e9), mode);
});
