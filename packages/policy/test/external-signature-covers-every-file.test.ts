import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { CompactSign } from 'jose';
import { type Bundle, readBundle } from '../src/external/bundle.ts';
import { gunzipBounded } from '../src/external/node-gunzip.ts';
import { type SignatureAlgorithm, type Verification, verifyBundle } from '../src/external/signatures.ts';
import { readTar } from '../src/external/tar.ts';
import { bytesOf, type TarEntry, tar, vector } from './external-fixtures.ts';

const es256 = { algorithm: 'ES256', key: vector('es256.pub.pem') } as const;
const rs256 = { algorithm: 'RS256', key: vector('rs256.pub.pem') } as const;
const hs256 = { algorithm: 'HS256', key: vector('hs256.secret') } as const;

async function open(bytes: Uint8Array): Promise<Bundle> {
  const bundle = await readBundle(bytes, gunzipBounded);
  assert.ok(bundle.ok, JSON.stringify(bundle));
  return bundle.value;
}

async function verify(bytes: Uint8Array, verification: Verification | null): Promise<string> {
  const result = await verifyBundle(await open(bytes), verification);
  return result.ok ? 'ok' : result.error.code;
}

/** The files of a bundle, changed, packed again. */
function repack(packed: Uint8Array, change: (files: Map<string, Uint8Array>) => void): Uint8Array {
  const files = readTar(new Uint8Array(gunzipSync(packed)), { files: 100, fileBytes: 1 << 24 });
  assert.ok(files.ok);
  change(files.value);
  const entries = [...files.value].map(([name, content]): TarEntry => ({ name, content }));
  return new Uint8Array(gzipSync(tar(entries)));
}

interface Token {
  readonly payload?: unknown;
  readonly header?: Readonly<Record<string, unknown>>;
  readonly key?: KeyObject | Uint8Array;
  readonly algorithm?: SignatureAlgorithm;
}

const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ours = { algorithm: 'ES256', key: pair.publicKey.export({ type: 'spki', format: 'pem' }).toString() } as const;
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const plain = vector('narrow.tar.gz');
const original = await open(plain);

/** What OPA would sign, from the hashes that its own signature of the same bundle states. */
const listed: { name: string; hash: string; algorithm: string }[] = (() => {
  const signed = readTar(new Uint8Array(gunzipSync(vector('narrow-es256.tar.gz'))), { files: 9, fileBytes: 1 << 24 });
  assert.ok(signed.ok);
  const text = new TextDecoder().decode(signed.value.get('.signatures.json'));
  const token: string = JSON.parse(text).signatures[0];
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()).files;
})();

async function sign(token: Token = {}): Promise<string> {
  const payload = token.payload ?? { files: listed };
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
  return new CompactSign(bytesOf(text))
    .setProtectedHeader({ alg: token.algorithm ?? 'ES256', ...token.header })
    .sign(token.key ?? pair.privateKey);
}

const withSignatures = (value: unknown, packed = plain) =>
  repack(packed, (files) => files.set('.signatures.json', bytesOf(JSON.stringify(value))));
const signedBy = async (token: Token) => withSignatures({ signatures: [await sign(token)] });

test("bundles that OPA itself signed verify with OPA's keys", async () => {
  assert.equal(await verify(vector('narrow-es256.tar.gz'), { key: es256 }), 'ok');
  assert.equal(await verify(vector('narrow-es256.tar.gz'), { key: es256, keyId: 'vendor-a' }), 'ok');
  assert.equal(await verify(vector('narrow-hs256.tar.gz'), { key: hs256, keyId: 'shared' }), 'ok');
  assert.equal(await verify(vector('narrow-rs256-scope.tar.gz'), { key: rs256, scope: 'airlock' }), 'ok');
  assert.equal(await verify(await signedBy({}), { key: ours }), 'ok');
});

test('a key in the policy demands a signature, and a signature demands a key', async () => {
  assert.equal(await verify(plain, null), 'ok');
  assert.equal(await verify(plain, { key: es256 }), 'bundle-unsigned');
  assert.equal(await verify(vector('narrow-es256.tar.gz'), null), 'bundle-key-missing');
});

test('another key, another key id, another scope, another algorithm do not verify', async () => {
  const signed = vector('narrow-es256.tar.gz');
  assert.equal(await verify(signed, { key: ours }), 'bundle-signature-invalid');
  assert.equal(await verify(signed, { key: es256, keyId: 'vendor-b' }), 'bundle-key-missing');
  assert.equal(await verify(signed, { key: es256, scope: 'airlock' }), 'bundle-signature-invalid');
  assert.equal(await verify(vector('narrow-rs256-scope.tar.gz'), { key: rs256 }), 'bundle-signature-invalid');
  assert.equal(await verify(signed, { key: rs256 }), 'bundle-signature-invalid');
  assert.equal(
    await verify(vector('narrow-rs256-scope.tar.gz'), { key: { ...rs256, algorithm: 'PS256' } }),
    'bundle-signature-invalid',
  );
  assert.equal(
    await verify(vector('narrow-hs256.tar.gz'), { key: { ...hs256, key: 'x'.repeat(32) } }),
    'bundle-signature-invalid',
  );
});

test('a token cannot choose its algorithm: none, and a public key taken for a secret', async () => {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  for (const alg of ['none', 'None', 'HS256', undefined, 7]) {
    const token = `${encode({ alg })}.${encode({ files: listed })}.`;
    assert.equal(await verify(withSignatures({ signatures: [token] }), { key: ours }), 'bundle-signature-invalid');
  }
  const confused = await signedBy({ algorithm: 'HS256', key: bytesOf(ours.key) });
  assert.equal(await verify(confused, { key: ours }), 'bundle-signature-invalid');
  assert.equal(await verify(confused, { key: { algorithm: 'HS256', key: ours.key } }), 'bundle-key-malformed');
});

test('keys that cannot be read, or secrets too short for their hash, are said to be so', async () => {
  for (const key of [
    '',
    'x',
    '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----',
    new Uint8Array([0xff, 0xfe]),
  ]) {
    assert.equal(
      await verify(vector('narrow-es256.tar.gz'), { key: { algorithm: 'ES256', key } }),
      'bundle-key-malformed',
    );
  }
  const pem = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  assert.equal(await verify(await signedBy({}), { key: { algorithm: 'ES256', key: pem } }), 'bundle-key-malformed');
  assert.equal(
    await verify(vector('narrow-hs256.tar.gz'), { key: { algorithm: 'HS256', key: 'x'.repeat(31) } }),
    'bundle-key-malformed',
  );
});

test('a byte changed in any signed file is tampering', async () => {
  const signed = vector('narrow-es256.tar.gz');
  for (const [path, change] of [
    ['policy.wasm', (text: Uint8Array) => text.with(text.length - 1, (text.at(-1) ?? 0) ^ 1)],
    ['narrow.rego', (text: Uint8Array) => text.with(0, 0x20)],
    ['data.json', () => bytesOf('{}')],
    ['.manifest', (text: Uint8Array) => bytesOf(new TextDecoder().decode(text).replace('example-1', 'example-2'))],
  ] as const) {
    const tampered = repack(signed, (files) => files.set(path, change(files.get(path) ?? new Uint8Array())));
    assert.equal(await verify(tampered, { key: es256 }), 'bundle-tampered', path);
  }
});

test('another layout of the same data is not tampering, as in OPA', async () => {
  const relaid = repack(vector('narrow-es256.tar.gz'), (files) => {
    const text = new TextDecoder().decode(files.get('data.json'));
    files.set('data.json', bytesOf(text.replaceAll(',"', ' ,\n "')));
  });
  assert.equal(await verify(relaid, { key: es256 }), 'ok');
});

test('a file more or a file less than what was signed is tampering', async () => {
  const signed = vector('narrow-es256.tar.gz');
  const more = repack(signed, (files) => files.set('extra.rego', bytesOf('package extra')));
  assert.equal(await verify(more, { key: es256 }), 'bundle-tampered');
  for (const path of ['narrow.rego', 'data.json']) {
    const less = repack(signed, (files) => files.delete(path));
    assert.equal(await verify(less, { key: es256 }), 'bundle-tampered', path);
  }
  for (let i = 0; i < listed.length; i++) {
    const token = await signedBy({ payload: { files: listed.toSpliced(i, 1) } });
    assert.equal(await verify(token, { key: ours }), 'bundle-tampered');
  }
});

test('hashes that prove nothing, files signed twice and lists of the wrong shape are invalid', async () => {
  const rego = original.files.get('narrow.rego') ?? new Uint8Array();
  const others = listed.filter(({ name }) => name !== 'narrow.rego');
  const md5 = { name: 'narrow.rego', hash: createHash('md5').update(rego).digest('hex'), algorithm: 'MD5' };
  const sha1 = { name: 'narrow.rego', hash: createHash('sha1').update(rego).digest('hex'), algorithm: 'SHA-1' };
  const good = { name: 'narrow.rego', hash: sha256(rego), algorithm: 'SHA-256' };
  assert.equal(await verify(await signedBy({ payload: { files: [...others, good] } }), { key: ours }), 'ok');
  const sha512 = { ...good, hash: createHash('sha512').update(rego).digest('hex'), algorithm: 'SHA-512' };
  assert.equal(await verify(await signedBy({ payload: { files: [...others, sha512] } }), { key: ours }), 'ok');
  const payloads: unknown[] = [
    { files: [...others, md5] },
    { files: [...others, sha1] },
    { files: [...others, good, { ...good, name: '/narrow.rego' }] },
    { files: [...others, { ...good, algorithm: 'constructor' }] },
    { files: [...others, { ...good, algorithm: '' }] },
    { files: [...others, { name: 'narrow.rego', hash: 7, algorithm: 'SHA-256' }] },
    { files: [...others, null] },
    { files: {} },
    { __proto__: { files: listed } },
    {},
    [],
    'not json',
    'null',
  ];
  for (const payload of payloads) {
    const result = await verify(await signedBy({ payload }), { key: ours });
    assert.ok(
      ['bundle-signature-invalid', 'bundle-json-malformed'].includes(result),
      `${JSON.stringify(payload)} ${result}`,
    );
  }
});

test('.signatures.json holds one token for the standard verifier, and nothing else will do', async () => {
  const token = await sign();
  assert.equal(await verify(withSignatures({ signatures: [token], plugin: '_default' }), { key: ours }), 'ok');
  const values: unknown[] = [
    {},
    [],
    null,
    { signatures: [] },
    { signatures: [token, token] },
    { signatures: token },
    { signatures: [7] },
    { signatures: [''] },
    { signatures: ['a.b'] },
    { signatures: [`${token}x`] },
    { signatures: [token.slice(0, -1)] },
    { signatures: ['x'.repeat(2 << 20)] },
    { signatures: [token], plugin: 'mine' },
  ];
  for (const value of values) {
    assert.equal(
      await verify(withSignatures(value), { key: ours }),
      'bundle-signature-invalid',
      JSON.stringify(value).slice(0, 99),
    );
  }
});

test('an expiry is kept, and refused where no clock can keep it', async () => {
  const bundle = await signedBy({ payload: { files: listed, exp: 2000 } });
  assert.equal(await verify(bundle, { key: ours, now: 1999 }), 'ok');
  assert.equal(await verify(bundle, { key: ours, now: 2000 }), 'bundle-signature-invalid');
  assert.equal(await verify(bundle, { key: ours }), 'bundle-signature-invalid');
  const word = await signedBy({ payload: { files: listed, exp: 'never' } });
  assert.equal(await verify(word, { key: ours, now: 1 }), 'bundle-signature-invalid');
});
