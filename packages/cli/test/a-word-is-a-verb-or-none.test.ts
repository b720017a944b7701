import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

test('what every object has is no verb', async () => {
  for (const word of ['constructor', 'toString', '__proto__', 'hasOwnProperty']) {
    const context = fakeContext({});
    assert.equal(await run(context, [word]), 2);
    assert.match(context.err(), /no such verb/);
  }
});
