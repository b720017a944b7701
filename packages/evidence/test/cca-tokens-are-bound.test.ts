import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readCbor } from '../src/cbor.ts';
import { readCcaToken } from '../src/cca/token.ts';
import { type CcaInput, verifyCca } from '../src/cca/verify.ts';
import { EVIDENCE_ERRORS } from '../src/errors.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { must } from './support/authority.ts';
import { cpak, rak, token } from './support/cca-realm.ts';
import { join } from './support/der.ts';

function failed(bytes: Uint8Array, more: Partial<CcaInput> = {}): string[] {
  const { checks } = verifyCca({
    crypto: nodeCrypto(),
    token: must(readCcaToken(bytes)),
    keys: [],
    trustedKeys: [cpak.spki],
    ...more,
  });
  return checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
}

test('a token of another kind with the same claims is no platform’s, whoever signed it', () => {
  for (const profile of ['tag:arm.com,2023:cca_platform#1.0.0', 'http://arm.com/CCA-SSD/1.1.0'])
    assert.deepEqual(failed(token({ profile })), []);
  // PSA's tokens have the same numbers for challenge, instance, implementation and lifecycle.
  for (const profile of [null, 'tag:psacertified.org,2023:psa#tfm', 'PSA_IOT_PROFILE_1', 'http://arm.com/psa/2.0.0']) {
    const read = readCcaToken(token({ profile }));
    assert.equal(read.ok ? 'ok' : read.error.code, 'cca-token-invalid');
  }
});

test('names of hashes are those of hashes only', () => {
  for (const keyHash of ['constructor', 'toString', '__proto__', 'sha-1']) {
    const read = readCcaToken(token({ keyHash }));
    assert.equal(read.ok ? 'ok' : read.error.code, 'cca-token-invalid');
  }
});

test('a token whose parts hold together is accepted by who knows the platform’s key', () => {
  assert.deepEqual(
    failed(token(), { nonce: new Uint8Array(64).fill(5), measurements: [new Uint8Array(48).fill(8)] }),
    [],
  );
  assert.deepEqual(failed(token(), { trustedKeys: [], keys: [cpak.spki], allowed: new Set(['cca.key']) }), ['cca.key']);
  assert.deepEqual(failed(token(), { trustedKeys: [] }), ['cca.platform-signature']);
});

test('good signatures with a broken binding are refused', () => {
  assert.deepEqual(failed(token({ bound: new Uint8Array(32) })), ['cca.binding']);
  assert.deepEqual(failed(token({ platformBy: rak })), ['cca.platform-signature']);
  assert.deepEqual(failed(token({ realmBy: cpak })), ['cca.realm-signature']);
});

test('a platform under debug or not yet secured, another nonce and another realm are refused', () => {
  for (const lifecycle of [0, 0x2fff, 0x3100, 0x4001])
    assert.deepEqual(failed(token({ lifecycle })), ['cca.lifecycle']);
  assert.deepEqual(failed(token(), { nonce: Uint8Array.of(1) }), ['freshness.nonce']);
  assert.deepEqual(failed(token(), { measurements: [new Uint8Array(48)] }), ['launch.measurement']);
});

test('no byte of what is signed can change, and what is refused has a code', () => {
  const good = token();
  const expected = JSON.stringify(must(readCcaToken(good)));
  for (let at = 0; at < good.length; at++) {
    const bad = good.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const read = readCcaToken(bad);
    if (!read.ok) assert.ok(read.error.code in EVIDENCE_ERRORS, read.error.code);
    // Names of map entries that nobody signs may change as long as the same is read.
    else if (failed(bad).length === 0) assert.equal(JSON.stringify(read.value), expected, `byte ${at}`);
    assert.equal(readCcaToken(good.subarray(0, at)).ok, false);
  }
});

test('CBOR that is deep, wide, indefinite or double is refused', () => {
  const codeOf = (...bytes: number[]) => {
    const read = readCbor(Uint8Array.from(bytes));
    return read.ok ? 'ok' : read.error.code;
  };
  assert.equal(codeOf(0xa2, 1, 1, 2, 2), 'ok');
  for (const bad of [
    [0xa2, 1, 1, 1, 2],
    [0x9f, 0xff],
    [0x5f, 0xff],
    [0x9b, 0, 0, 0, 1, 0, 0, 0, 0],
    [0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x62, 0xc3, 0xa4],
    [0x41],
    [1, 1],
    [],
    [0x1c],
  ])
    assert.equal(codeOf(...bad), 'cbor-invalid', String(bad));
  assert.equal(codeOf(...new Array<number>(50_000).fill(0x81)), 'cbor-invalid');
  assert.equal(codeOf(...new Array<number>(50_000).fill(0xc1)), 'cbor-invalid');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (random) => {
      readCbor(random);
      readCcaToken(join(Uint8Array.of(0xd9, 0x01, 0x8f), random));
    }),
    { numRuns: 500 },
  );
});

test('a key comes as JWK, a token as base64 within JSON', () => {
  const jwk = {
    kty: 'EC',
    crv: 'P-384',
    x: Buffer.from(cpak.spki.subarray(-96, -48)).toString('base64url'),
    y: Buffer.from(cpak.spki.subarray(-48)).toString('base64url'),
  };
  const { found, problems } = recognise(
    'x',
    Buffer.from(JSON.stringify({ key: jwk, evidence: Buffer.from(token()).toString('base64') })),
  );
  assert.deepEqual([problems, found.map(({ item }) => item.kind)], [[], ['public-key', 'cca-token']]);
  const [key] = found;
  assert.ok(key?.item.kind === 'public-key');
  assert.deepEqual(key.item.spki, cpak.spki);
});
