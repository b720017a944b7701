import assert from 'node:assert/strict';
import { checkPrimeSync, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import {
  AEAD_BIT,
  AEAD_KEY_SIZE,
  AEADS,
  BASE_SIGNATURE_BIT,
  DHE_BIT,
  DHE_GROUPS,
  EXCHANGE_SIZE,
  HASH_BIT,
  HASH_SIZE,
  HASHES,
  KEM_BIT,
  KEMS,
  nameOfBit,
  namesIn,
  PQC_SIGNATURE_BIT,
  SIGNATURE_SIZE,
  type SignatureName,
} from '../src/algorithms.ts';
import { ffdhePrime } from '../src/ffdhe.ts';
import { nodeSpdmCrypto, readSigningKey, signingKey } from '../src/node-crypto.ts';
import { PURPOSE, signTranscript, verifyTranscript } from '../src/signing.ts';
import { codeOf, must } from './support/must.ts';

const crypto = nodeSpdmCrypto();
const text = (value: string) => new TextEncoder().encode(value);

function keyOf(algorithm: SignatureName) {
  const bits = /^rsa(?:ssa|pss)-(\d+)$/.exec(algorithm)?.[1];
  const curve = { 'ecdsa-p256': 'P-256', 'ecdsa-p384': 'P-384', 'ecdsa-p521': 'P-521' }[algorithm as string];
  if (bits !== undefined) return generateKeyPairSync('rsa', { modulusLength: Number(bits) });
  if (curve !== undefined) return generateKeyPairSync('ec', { namedCurve: curve });
  return generateKeyPairSync(algorithm as 'ed25519');
}

// The largest of SLH-DSA take a second to sign; the others are of the same kind.
const ALL = [...Object.keys(BASE_SIGNATURE_BIT), ...Object.keys(PQC_SIGNATURE_BIT)] as SignatureName[];
const SIGNED = ALL.filter((name) => !/rsa.*4096|slh-dsa.*(192s|256s|128s)/.test(name));

for (const algorithm of SIGNED) {
  test(`${algorithm}: what is signed verifies for its purpose, version, key and bytes alone`, () => {
    const { privateKey, publicKey } = keyOf(algorithm);
    const key = signingKey(privateKey);
    const verifying = crypto.publicKey(new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })));
    assert.ok(verifying !== undefined && key.fits(algorithm) && verifying.fits(algorithm));
    const suite = { version: '1.4', hash: 'sha384', algorithm } as const;
    const parts = [text('one'), text('two')];
    const signature = signTranscript(crypto, suite, key, PURPOSE.measurements, parts);
    assert.ok(signature !== undefined);
    assert.equal(signature.length, SIGNATURE_SIZE[algorithm]);
    const verify = (
      change: Partial<typeof suite>,
      purpose = PURPOSE.measurements as string,
      messages = parts,
      sig = signature,
    ) =>
      verifyTranscript(
        crypto,
        { ...suite, ...change },
        verifying,
        purpose as typeof PURPOSE.measurements,
        messages,
        sig,
      );
    assert.equal(verify({}), true);
    assert.equal(verify({}, PURPOSE.measurements, [text('onetwo')]), true);
    assert.equal(verify({}, PURPOSE.challengeAuth), false);
    assert.equal(verify({}, PURPOSE.requesterChallengeAuth), false);
    assert.equal(verify({ version: '1.3' as '1.4' }), false);
    assert.equal(verify({ version: '1.1' as '1.4' }), false);
    assert.equal(verify({ hash: 'sha3-384' as 'sha384' }), false);
    assert.equal(verify({}, PURPOSE.measurements, [text('one'), text('twO')]), false);
    assert.equal(verify({}, PURPOSE.measurements, parts, signature.slice(1)), false);
    assert.equal(
      verify(
        {},
        PURPOSE.measurements,
        parts,
        signature.map((byte, at) => (at === 7 ? byte ^ 1 : byte)),
      ),
      false,
    );
    const other = crypto.publicKey(new Uint8Array(keyOf(algorithm).publicKey.export({ format: 'der', type: 'spki' })));
    assert.ok(other !== undefined);
    assert.equal(verifyTranscript(crypto, suite, other, PURPOSE.measurements, parts, signature), false);
    // A key of one kind is none of another, whatever the negotiation says.
    const wrong = algorithm === 'ecdsa-p256' ? 'ed25519' : 'ecdsa-p256';
    assert.equal(key.fits(wrong), false);
    assert.equal(key.sign({ algorithm: wrong, hash: 'sha256', context: new Uint8Array() }, text('x')), undefined);
    assert.equal(
      verifying.verify({ algorithm: wrong, hash: 'sha256', context: new Uint8Array() }, text('x'), signature),
      false,
    );
  });
}

test('every name has one bit, every bit one name', () => {
  for (const bits of [HASH_BIT, BASE_SIGNATURE_BIT, PQC_SIGNATURE_BIT, DHE_BIT, KEM_BIT, AEAD_BIT]) {
    const table = bits as Readonly<Record<string, number>>;
    const values = Object.values(table);
    assert.equal(new Set(values).size, values.length);
    for (const [name, bit] of Object.entries(table)) {
      assert.equal(bit & (bit - 1), 0);
      assert.equal(nameOfBit(table, bit), name);
    }
    assert.equal(nameOfBit(table, 3), undefined);
    assert.equal(nameOfBit(table, 0), undefined);
  }
  // SM2 and SM3 have bits, and no names here.
  assert.equal(nameOfBit(BASE_SIGNATURE_BIT, 0x200), undefined);
  assert.equal(nameOfBit(HASH_BIT, 0x40), undefined);
  assert.deepEqual(namesIn(HASH_BIT, 0x43), ['sha256', 'sha384']);
});

test('the primes of RFC 7919 are primes, and so are their halves', () => {
  for (const [bits, end] of [
    [2048, '886b423861285c97ffffffffffffffff'],
    [3072, '66c62e37ffffffffffffffff'],
    [4096, 'c68a007e5e655f6affffffffffffffff'],
  ] as const) {
    const prime = ffdhePrime(bits);
    assert.ok(hex(prime).endsWith(end));
    assert.ok(hex(prime).startsWith('ffffffffffffffffadf85458a2bb4a9aafdc5620273d3cf1'));
    const value = BigInt(`0x${hex(prime)}`);
    assert.ok(checkPrimeSync(value, { checks: 2 }) && checkPrimeSync((value - 1n) / 2n, { checks: 2 }));
  }
});

test('both ends of every exchange have the same secret, leading zeros kept', () => {
  for (const name of [...DHE_GROUPS, ...KEMS]) {
    for (let round = 0; round < (name.startsWith('ff') ? 3 : 20); round++) {
      const started = crypto.startExchange(name);
      assert.equal(started.data.length, EXCHANGE_SIZE[name].request);
      const answered = crypto.answerExchange(name, started.data);
      assert.ok(answered !== undefined);
      assert.equal(answered.data.length, EXCHANGE_SIZE[name].response);
      assert.deepEqual(started.finish(answered.data), answered.secret);
    }
  }
  // One in 256 values of a small group begins with a zero.
  for (let round = 0; round < 600; round++) {
    const [one, two] = [crypto.startExchange('ffdhe2048'), crypto.startExchange('ffdhe2048')];
    if (one.data[0] === 0 || two.data[0] === 0 || round === 0)
      assert.deepEqual(one.finish(two.data), two.finish(one.data));
    if (one.data[0] === 0) break;
  }
});

test('hashes, MACs and AEADs: known answers, and nothing for what was changed', () => {
  for (const name of HASHES) assert.equal(crypto.hash(name, text('a'), text('bc')).length, HASH_SIZE[name]);
  assert.ok(hex(crypto.hash('sha3-256', text('abc'))).startsWith('3a985da74fe225b2045c172d6bd390bd'));
  assert.ok(hex(crypto.hash('sha384', text('a'), text('bc'))).startsWith('cb00753f45a35e8bb5a03d699ac65007'));
  // RFC 4231, test case 2.
  assert.ok(
    hex(crypto.hmac('sha256', text('Jefe'), text('what do ya want for nothing?'))).startsWith('5bdcc146bf60754e'),
  );
  for (const aead of AEADS) {
    const key = crypto.random(AEAD_KEY_SIZE[aead]);
    const iv = crypto.random(12);
    const sealed = crypto.seal(aead, key, iv, text('header'), text('data'));
    assert.equal(sealed.length, 20);
    assert.deepEqual(crypto.open(aead, key, iv, text('header'), sealed), text('data'));
    assert.equal(crypto.open(aead, key, iv, text('Header'), sealed), undefined);
    assert.equal(crypto.open(aead, key, crypto.random(12), text('header'), sealed), undefined);
    assert.equal(crypto.open(aead, key.slice(1), iv, text('header'), sealed), undefined);
    for (let at = 0; at < sealed.length; at++) {
      const changed = sealed.slice();
      changed[at] = (changed[at] ?? 0) ^ 0x80;
      assert.equal(crypto.open(aead, key, iv, text('header'), changed), undefined);
    }
    for (let length = 0; length < sealed.length; length++)
      assert.equal(crypto.open(aead, key, iv, text('header'), sealed.slice(0, length)), undefined);
  }
  assert.equal(crypto.same(text('a'), text('ab')), false);
});

test('files that are no key', () => {
  assert.equal(
    codeOf(readSigningKey(text('-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'))),
    'signing-key-invalid',
  );
  assert.equal(codeOf(readSigningKey(new Uint8Array())), 'signing-key-invalid');
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  assert.equal(
    codeOf(readSigningKey(text(publicKey.export({ format: 'pem', type: 'spki' }).toString()))),
    'signing-key-invalid',
  );
  assert.ok(must(readSigningKey(new Uint8Array(privateKey.export({ format: 'der', type: 'pkcs8' })))).fits('ed25519'));
  assert.equal(crypto.publicKey(new Uint8Array(10_000)), undefined);
  assert.equal(crypto.publicKey(text('no key')), undefined);
});
