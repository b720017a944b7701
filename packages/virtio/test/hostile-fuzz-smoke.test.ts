import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzRings } from '../fuzz/rings.ts';

/** Each must be reached, or the fuzzer does not look where it should. */
const reached: Readonly<Record<string, readonly string[]>> = {
  'split ring, device side': [
    'taken',
    'untranslated',
    'avail-index-jump',
    'avail-head-out-of-range',
    'avail-head-in-flight',
    'chain-loops',
    'chain-too-long',
    'chain-too-fragmented',
    'chain-too-large',
    'next-out-of-range',
    'readable-after-writable',
    'indirect-not-negotiated',
    'indirect-nested',
    'indirect-with-next',
    'indirect-length-invalid',
    'address-outside-memory',
    'access-denied',
  ],
  'packed ring, device side': [
    'taken',
    'untranslated',
    'avail-overrun',
    'buffer-id-out-of-range',
    'buffer-id-in-flight',
    'list-partly-available',
    'list-longer-than-ring',
    'chain-too-long',
    'chain-too-fragmented',
    'chain-too-large',
    'readable-after-writable',
    'indirect-not-negotiated',
    'indirect-with-next',
    'indirect-length-invalid',
    'address-outside-memory',
    'access-denied',
  ],
  'split ring, driver side': [
    'completed',
    'used-index-jump',
    'used-id-out-of-range',
    'used-id-not-in-flight',
    'used-out-of-order',
    'used-length-exceeds-buffer',
  ],
  'packed ring, driver side': [
    'completed',
    'used-id-out-of-range',
    'used-id-not-in-flight',
    'used-length-exceeds-buffer',
  ],
};

test('400 000 hostile ring states: none escapes, and every rule is reached', () => {
  for (const { name, tally } of fuzzRings(400_000, 20261121)) {
    assert.equal(tally.states, 100_000);
    const missed = (reached[name] ?? ['no such part']).filter((what) => !tally.seen.has(what));
    assert.deepEqual(missed, [], name);
  }
});
