import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeSelection,
  decodeSupportedVersions,
  encodeSelection,
  encodeSupportedVersions,
  SECURED_VERSIONS,
} from '../src/secured/opaque.ts';
import { codeOf, must } from './support/must.ts';

const forms = ['general', 'table'] as const;
const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

test('offers and selections come back', () => {
  for (const form of forms) {
    assert.deepEqual(
      must(decodeSupportedVersions(form, encodeSupportedVersions(form, SECURED_VERSIONS))),
      SECURED_VERSIONS,
    );
    for (const version of SECURED_VERSIONS) {
      const limitExponent = version === 0x13 ? 40 : 64;
      const opaque = encodeSelection(form, { version, limitExponent });
      assert.deepEqual(must(decodeSelection(form, SECURED_VERSIONS, opaque)), { version, limitExponent });
    }
  }
});

test('what DMTF’s emulator writes', () => {
  assert.deepEqual(must(decodeSelection('general', [0x11], bytes('01000000 00000400 01000011'))), {
    version: 0x11,
    limitExponent: 64,
  });
  assert.deepEqual(must(decodeSelection('table', [0x11], bytes('46544d44 01010000 00000400 01000011'))), {
    version: 0x11,
    limitExponent: 64,
  });
});

test('a version that was not offered, or two of them, or none, is refused', () => {
  for (const form of forms) {
    const refuse = (opaque: Uint8Array) =>
      assert.equal(codeOf(decodeSelection(form, [0x11, 0x12], opaque)), 'secured-opaque-invalid');
    refuse(encodeSelection(form, { version: 0x10, limitExponent: 64 }));
    refuse(encodeSelection(form, { version: 0x13, limitExponent: 64 }));
    refuse(encodeSupportedVersions(form, [0x11]));
  }
  const twice = bytes('02000000 00000400 01000011 00000400 01000012');
  assert.equal(codeOf(decodeSelection('general', [0x11, 0x12], twice)), 'secured-opaque-invalid');
  assert.equal(codeOf(decodeSelection('general', [0x11], bytes('00000000'))), 'secured-opaque-invalid');
});

test('an AEAD limit above 64, or of two bytes, is refused', () => {
  const wrong = ['02000000 00000400 01000013 00000300 010241 00', '02000000 00000400 01000013 00000400 01022020'];
  for (const one of wrong)
    assert.equal(codeOf(decodeSelection('general', [0x13], bytes(one))), 'secured-opaque-invalid');
});

test('elements of others are passed over', () => {
  const odd = bytes('02000000 0302 0100 0300 aabbcc 000000 00000400 01000011');
  const unaligned = bytes('02000000 0302 0100 0200 aabb 0000 0000 0400 0100 0011');
  assert.equal(must(decodeSelection('general', [0x11], odd)).version, 0x11);
  assert.equal(codeOf(decodeSelection('general', [0x11], unaligned)), 'secured-opaque-invalid');
  const padded = bytes('02000000 0302 0100 0200 aabb 00000400 01000011');
  assert.equal(must(decodeSelection('general', [0x11], padded)).version, 0x11);
});

test('any bytes give a value or a refusal', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (opaque) => {
      for (const form of forms) {
        for (const result of [decodeSelection(form, [0x11], opaque), decodeSupportedVersions(form, opaque)])
          if (!result.ok) assert.equal(result.error.code, 'secured-opaque-invalid');
      }
    }),
  );
  assert.equal(codeOf(decodeSupportedVersions('general', new Uint8Array(2000))), 'secured-opaque-invalid');
});
