import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleGate } from '@airlock/gate/build/node-gate-binary.ts';

test('the bundle of the gate asks for nothing that QuickJS does not have, and for no YAML', async () => {
  const bundle = await bundleGate();
  assert.ok(bundle.ok, JSON.stringify(bundle));
  const text = bundle.value;
  assert.deepEqual(
    [...text.matchAll(/from\s*"([^"]+)"/g)]
      .map((one) => one[1])
      .sort()
      .filter((one, i, all) => all.indexOf(one) === i),
    ['os', 'std'],
  );
  for (const absent of [
    'TextDecoder',
    'TextEncoder',
    'structuredClone',
    'Buffer',
    'crypto',
    'fetch',
    'process',
    'performance',
    'AbortController',
  ]) {
    assert.ok(!new RegExp(`(?<![.\\w"'\`/-])${absent}[.(]`).test(text), absent);
  }
  assert.ok(!/Math\.random|(?<!\.)\bsetTimeout\(/.test(text), 'random numbers or timers');
  // Dates of a policy are reckoned with; the clock is not asked.
  assert.ok(!/Date\.now|new Date\(\)|(?<![.\w]|new )Date\(/.test(text), 'the clock');
  assert.ok(text.length < 400_000, String(text.length));
});

test('the same sources give the same bundle', async () => {
  const [one, two] = [await bundleGate(), await bundleGate()];
  assert.deepEqual(one, two);
});
