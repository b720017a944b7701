import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { asciiText, hex, readLe } from '../src/bytes.ts';

test('nothing that a host sends reaches a terminal as a control', () => {
  assert.equal(asciiText(Uint8Array.of(0x1b, 0x5b, 0x32, 0x4a)), '\\x1b[2J');
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.match(asciiText(bytes), /^[\x20-\x7e\n\t]*$/);
    }),
  );
});

test('readLe gives the value, and nothing where the bytes end', () => {
  const bytes = Uint8Array.of(0x78, 0x56, 0x34, 0xf2);
  assert.equal(readLe(bytes, 0, 4), 0xf2345678);
  assert.equal(readLe(bytes, 1, 2), 0x3456);
  assert.equal(readLe(bytes, 3, 1), 0xf2);
  assert.equal(readLe(bytes, 3, 2), undefined);
  assert.equal(readLe(bytes, -1, 1), undefined);
  assert.equal(hex(bytes), '785634f2');
});
