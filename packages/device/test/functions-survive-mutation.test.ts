/** The fuzz loop of packages/device/fuzz, long enough to notice when it has rotted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackFunctions } from '../fuzz/functions.ts';

test('hostile messages and accesses to PCI functions: nothing escapes, no descriptor is left', async () => {
  const tally = await attackFunctions(20_000, 50_000, 11);
  assert.ok(tally.messages >= 20_000 && tally.accesses === 50_000);
  assert.equal(tally.descriptorsAfter, tally.descriptorsBefore);
  // It reached beyond the first check.
  for (const code of ['vfio-user-body-invalid', 'vfio-user-descriptors', 'left']) {
    assert.ok((tally.ended.get(code) ?? 0) > 0, `${code}: ${JSON.stringify([...tally.ended])}`);
  }
});
