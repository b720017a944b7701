import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EVIDENCE_ERRORS } from '../src/errors.ts';
import { readCertificate } from '../src/x509/certificate.ts';
import { readRevocationList } from '../src/x509/crl.ts';
import { DerReader, TAG } from '../src/x509/der.ts';
import { readPem } from '../src/x509/pem.ts';
import { issueDer, revokeDer, signer } from './support/authority.ts';
import { element, join } from './support/der.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

function codeOf(read: (reader: DerReader) => unknown, ...values: number[]): string | undefined {
  const reader = new DerReader(bytes(...values));
  read(reader);
  reader.finish();
  return reader.problem?.code;
}

test('what BER allows and DER forbids is refused', () => {
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x80, 0x00, 0x00),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x81, 0x01, 0xaa),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x82, 0x00, 0x01, 0xaa),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.unsigned(), 0x02, 0x02, 0x00, 0x01),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.integerBytes(), 0x02, 0x02, 0xff, 0x80),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.boolean(), 0x01, 0x01, 0x01),
    'der-not-canonical',
  );
  assert.equal(
    codeOf((r) => r.flags(), 0x03, 0x02, 0x01, 0x81),
    'der-not-canonical',
  );
});

test('lengths that lie, integers without octets and numbers out of range are refused', () => {
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x05, 0x00),
    'der-truncated',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04),
    'der-truncated',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x82, 0x01),
    'der-truncated',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.octetString), 0x04, 0x84, 1, 0, 0, 0),
    'der-too-large',
  );
  assert.equal(
    codeOf((r) => r.unsigned(), 0x02, 0x00),
    'der-value-invalid',
  );
  assert.equal(
    codeOf((r) => r.unsigned(), 0x02, 0x01, 0x80),
    'der-value-invalid',
  );
  assert.equal(
    codeOf((r) => r.unsigned(), 0x02, 0x05, 0x01, 0, 0, 0, 0),
    'der-value-invalid',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.null), 0x05, 0x00, 0x05),
    'der-trailing-bytes',
  );
  assert.equal(
    codeOf((r) => r.take(TAG.null), 0x06, 0x00),
    'der-unexpected-tag',
  );
});

test('times that no calendar has are refused', () => {
  const utc = (text: string) => codeOf((r) => r.time(), 0x17, text.length, ...Buffer.from(text));
  assert.equal(utc('240229120000Z'), undefined);
  for (const wrong of [
    '230229120000Z',
    '241301000000Z',
    '240101240000Z',
    '2401010000Z',
    '240101000000+0100',
    '24010100000aZ',
  ])
    assert.equal(utc(wrong), 'der-value-invalid', wrong);
});

test('nesting ends', () => {
  let deep: Uint8Array = new Uint8Array();
  for (let i = 0; i < 5000; i++) deep = element(0x30, deep);
  let reader = new DerReader(deep);
  for (let i = 0; i < 100; i++) reader = reader.enter(0x30);
  assert.equal(reader.problem?.code, 'der-too-large');
  assert.equal(readCertificate(deep).ok, false);
});

const ca = signer('root');
const certificate = issueDer({ subject: ca, issuer: ca, authority: { pathLength: 1 }, keyUsage: 6 });
const list = revokeDer({ issuer: ca, serials: [1, 2, 300] });

test('no change of a byte or of a length makes a reader throw, and whatever it refuses has a code', () => {
  for (const [good, read] of [
    [certificate, readCertificate],
    [list, readRevocationList],
  ] as const) {
    assert.equal(read(good).ok, true);
    for (let at = 0; at < good.length; at++) {
      for (const value of [0x00, 0x80, 0xff, (good[at] ?? 0) ^ 1]) {
        const bad = good.slice();
        bad[at] = value;
        const result = read(bad);
        if (!result.ok) assert.ok(result.error.code in EVIDENCE_ERRORS, result.error.code);
      }
      assert.equal(read(good.subarray(0, at)).ok, false, `cut at ${at}`);
    }
    assert.equal(read(join(good, bytes(0))).ok, false);
  }
});

test('arbitrary bytes and texts never throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (random) => {
      readCertificate(random);
      readRevocationList(random);
      readCertificate(element(0x30, element(0x30, random), element(0x30, random), element(0x03, random)));
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.string(), (text) => {
      readPem(text);
      readPem(`-----BEGIN CERTIFICATE-----${text}-----END CERTIFICATE-----`);
    }),
    { numRuns: 300 },
  );
});

test('a version 1 certificate, an extension that stands twice and a default written out are refused', () => {
  const key = { oid: '1.2.3', value: bytes(5, 0) };
  const twice = readCertificate(issueDer({ subject: ca, issuer: ca, extensions: [key, key] }));
  assert.equal(twice.ok ? '' : twice.error.code, 'der-value-invalid');
  const delta = readRevocationList(
    revokeDer({ issuer: ca, extensions: [{ oid: '2.5.29.27', value: bytes(2, 1, 1), critical: true }] }),
  );
  assert.equal(delta.ok ? '' : delta.error.code, 'crl-invalid');
});
