import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import type { KeyKind } from '../src/crypto.ts';
import { nodeCrypto } from '../src/node-crypto.ts';

/** Usual encodings are read as numbers, all others by OpenSSL: nobody may be able to tell which it was. */
const crypto = nodeCrypto({ keys: 0 });
const message = Buffer.from('what is signed');

function isKey(spki: Uint8Array): boolean {
  try {
    createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
    return true;
  } catch {
    return false;
  }
}

const EC = [
  ['P-256', 'p256', 'sha256'],
  ['P-384', 'p384', 'sha384'],
  ['P-521', 'p521', 'sha512'],
] as const satisfies readonly (readonly [string, KeyKind, string])[];

test('EC keys verify what they signed, and a point off the curve is no key', () => {
  for (const [namedCurve, kind, hash] of EC) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
    const key = crypto.publicKey(spki);
    const signature = new Uint8Array(sign(hash, message, privateKey));
    assert.equal(key?.kind, kind);
    assert.equal(key?.verify({ kind: 'ecdsa', hash, form: 'der' }, message, signature), true);
    assert.equal(key?.verify({ kind: 'ecdsa', hash, form: 'der' }, Buffer.from('else'), signature), false);
    const off = spki.slice();
    off[off.length - 1] = (off.at(-1) ?? 0) ^ 1;
    assert.equal(crypto.publicKey(off), undefined);
    assert.equal(crypto.publicKey(spki.subarray(0, -1)), undefined);
  }
});

test('RSA keys of usual and of other sizes and exponents verify what they signed', () => {
  for (const [modulusLength, publicExponent] of [
    [2048, 65537],
    [3072, 65537],
    [4096, 65537],
    [2048, 3],
    [1024, 65537],
  ] as const) {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength, publicExponent });
    const key = crypto.publicKey(new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })));
    const signature = new Uint8Array(sign('sha256', message, privateKey));
    assert.deepEqual([key?.kind, key?.bits], ['rsa', modulusLength]);
    assert.equal(key?.verify({ kind: 'rsa-pkcs1', hash: 'sha256' }, message, signature), true);
  }
});

test('an RSA key with any other byte around its numbers is a key only where OpenSSL says so', () => {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  const around = [...Array.from({ length: 36 }, (_, i) => i), ...[1, 2, 3, 4, 5].map((i) => spki.length - i)];
  for (const at of around) {
    for (const flip of [1, 0x80, 0xff]) {
      const other = spki.slice();
      other[at] = (other[at] ?? 0) ^ flip;
      assert.equal(crypto.publicKey(other) !== undefined, isKey(other), `byte ${at} ^ ${flip}`);
    }
  }
  for (const other of [spki.subarray(0, -1), new Uint8Array([...spki, 0])])
    assert.equal(crypto.publicKey(other) !== undefined, isKey(other));
});
