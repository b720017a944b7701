import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { nearest } from '../src/nearest.ts';

test('a slip finds the word that was meant', () => {
  const words = ['vendor', 'device', 'revision', 'hotplugged'];
  assert.equal(nearest('vendr', words), 'vendor');
  assert.equal(nearest('devcie', words), 'device');
  assert.equal(nearest('Revision', words), 'revision');
  assert.equal(nearest('hotpluged', words), 'hotplugged');
});

test('a word that resembles none finds none', () => {
  assert.equal(nearest('colour', ['vendor', 'device']), undefined);
  assert.equal(nearest('', ['vendor']), undefined);
  assert.equal(nearest('x'.repeat(10_000), ['vendor']), undefined);
});

test('what is found is a candidate, and a candidate finds itself', () => {
  fc.assert(
    fc.property(fc.string(), fc.array(fc.string({ minLength: 1, maxLength: 60 }), { minLength: 1 }), (word, words) => {
      const found = nearest(word, words);
      assert.ok(found === undefined || words.includes(found));
      const first = words[0] ?? '';
      assert.equal(nearest(first, words)?.toLowerCase(), first.toLowerCase());
    }),
  );
});
