import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { compactVerify, decodeProtectedHeader } from 'jose';
import { appraise } from '../src/appraise.ts';
import type { Report } from '../src/check.ts';
import { readCborCmw, readJsonCmw, writeCmw } from '../src/cmw.ts';
import { earClaims, vectorOf } from '../src/ear.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { isPrivateKey, readEarKey, signEar } from '../src/node-ear.ts';
import { recognise } from '../src/recognise.ts';
import { must } from './support/authority.ts';
import { join } from './support/der.ts';
import { type SnpOptions, snpMachine } from './support/snp-machine.ts';

const asOf = Date.parse('2026-01-01');
function reportOf(
  options: SnpOptions = {},
  allowed: readonly string[] = [],
  measurements?: readonly Uint8Array[],
): Report {
  const { report, certificates, roots } = snpMachine(options);
  const found = [
    { item: { kind: 'snp-report' as const, report }, source: 'report' },
    ...certificates.map((certificate) => ({ item: { kind: 'certificate' as const, certificate }, source: 'chain' })),
  ];
  const judged = appraise(found, [], {
    ...{ crypto: nodeCrypto(), asOf, roots, allowed: new Set(allowed) },
    ...(measurements === undefined ? {} : { measurements }),
  });
  assert.ok(judged !== null);
  return { ...judged, files: [], problems: [] };
}
const debug = (bytes: Uint8Array) => {
  bytes[0x0a] = (bytes[0x0a] ?? 0) | 0x08;
};
const migration = (bytes: Uint8Array) => {
  bytes[0x0a] = (bytes[0x0a] ?? 0) | 0x04;
};
const claims = (report: Report) => earClaims(report, { issuedAt: 1_700_000_000_500, build: 'test' });
const only = (report: Report) => {
  const [first] = Object.values(claims(report).submods);
  assert.ok(first !== undefined);
  return first;
};

test('good evidence is affirming; what was not checked is absent, not zero', () => {
  const good = only(reportOf());
  assert.equal(good['ear.status'], 'affirming');
  assert.deepEqual(good['ear.trustworthiness-vector'], {
    'instance-identity': 2,
    configuration: 2,
    hardware: 2,
    'runtime-opaque': 2,
  });
  const measured = only(reportOf({}, [], [new Uint8Array(48).fill(0x77)]));
  assert.equal(measured['ear.trustworthiness-vector'].executables, 3);
});

test('what is waived warns, what fails contraindicates, and rejected evidence states nothing', () => {
  const waived = only(reportOf({ edit: debug }, ['snp.policy.debug']));
  assert.equal(waived['ear.status'], 'contraindicated');
  assert.equal(waived['ear.trustworthiness-vector'].configuration, 32);
  assert.equal(waived['ear.trustworthiness-vector']['runtime-opaque'], 96);
  const migratable = only(reportOf({ edit: migration }, ['snp.policy.migration']));
  assert.equal(migratable['ear.status'], 'warning');
  const other = only(reportOf({}, [], [new Uint8Array(48)]));
  assert.equal(other['ear.status'], 'contraindicated');
  assert.equal(other['ear.trustworthiness-vector'].executables, 96);
  assert.equal('claims' in other.airlock, false);
});

test('a wrong signature is the code for failed cryptography', () => {
  const report = reportOf();
  const [appraisal] = report.appraisals;
  assert.ok(appraisal !== undefined);
  const checks = appraisal.checks.map((one) =>
    one.id === 'snp.signature' ? { ...one, status: 'failed' as const } : one,
  );
  assert.equal(vectorOf({ ...appraisal, checks })['instance-identity'], 99);
});

test('a report that something unreadable rejects has no result that seems good', () => {
  const report = reportOf();
  const problems = [{ file: 'x', problem: { code: 'der-truncated', message: 'y' } }];
  const result = claims({ ...report, verdict: 'rejected', problems });
  assert.equal(result.submods['unread']?.['ear.status'], 'contraindicated');
  assert.equal(result.airlock.verdict, 'rejected');
});

const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString();

test('results are signed as JWTs with whatever key there is, and only with those that sign well', async () => {
  for (const [key, algorithm] of [
    [generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey, 'ES256'],
    [generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey, 'ES384'],
    [generateKeyPairSync('ed25519').privateKey, 'EdDSA'],
    [generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey, 'PS256'],
  ] as const) {
    for (const text of [pem(key), JSON.stringify(key.export({ format: 'jwk' }))]) {
      assert.ok(isPrivateKey(text));
      const token = must(await signEar(claims(reportOf()), must(readEarKey(text))));
      assert.equal(decodeProtectedHeader(token).alg, algorithm);
      assert.equal(decodeProtectedHeader(token).typ, 'eat+jwt');
      const { payload } = await compactVerify(token, createPublicKey(key));
      const read = JSON.parse(Buffer.from(payload).toString()) as { readonly iat: number };
      assert.equal(read.iat, 1_700_000_000);
    }
  }
  for (const text of [
    'x',
    '{"kty":"EC","d":"x"}',
    pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey),
    pem(generateKeyPairSync('x25519').privateKey),
  ]) {
    const read = readEarKey(text);
    assert.ok(!read.ok && read.error.code === 'ear-key-invalid');
  }
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  assert.equal(isPrivateKey(JSON.stringify(publicKey.export({ format: 'jwk' }))), false);
});

test('wrapped messages are read back, and evidence in them is found', () => {
  const value = snpMachine().report.bytes;
  const record = { type: 'application/vnd.example', value, indicator: 4 };
  const json = writeCmw(record);
  assert.deepEqual(must(readJsonCmw(JSON.parse(json))), [record]);
  assert.deepEqual(must(readJsonCmw({ __cmwc_t: 'tag:x', a: JSON.parse(json), b: { c: JSON.parse(json) } })).length, 2);
  assert.deepEqual(
    recognise('x', Buffer.from(json)).found.map(({ item }) => item.kind),
    ['snp-report'],
  );
  const type = Buffer.from('application/vnd.example');
  const cbor = join(
    ...[Uint8Array.of(0x83, 0x60 | 23), type],
    ...[Uint8Array.of(0x59, value.length >> 8, value.length & 0xff), value, Uint8Array.of(4)],
  );
  assert.deepEqual(must(readCborCmw(cbor)), [record]);
  assert.deepEqual(
    recognise('x', cbor).found.map(({ item }) => item.kind),
    ['snp-report'],
  );
});

test('wrappers of another form are none', () => {
  for (const text of ['[]', '["x/y"]', '["x","AA"]', '["x/y","A"]', '["x/y","AA",16]', '["x/y","AA",4,5]', '{}', '1'])
    assert.equal(readJsonCmw(JSON.parse(text)).ok, false, text);
  const deep = (depth: number): unknown => (depth === 0 ? ['x/y', 'AAAA'] : { a: deep(depth - 1) });
  assert.equal(readJsonCmw(deep(9)).ok, false);
  assert.equal(readCborCmw(Uint8Array.of(0x82, 0x63, 0x61, 0x2f, 0x62, 0x01)).ok, false);
});

test('a host key that is none of IBM’s says something of the hardware, not of how the guest is set up', () => {
  const check = (id: 'se.host-key' | 'se.measurement', status: 'failed' | 'passed') => ({
    id,
    status,
    expected: '',
    found: '',
  });
  const of = (...checks: readonly ReturnType<typeof check>[]) =>
    vectorOf({ kind: 'ibm-se', title: '', verdict: 'rejected', checks, claims: {} });
  assert.deepEqual(
    [of(check('se.host-key', 'failed')).hardware, of(check('se.host-key', 'failed')).configuration],
    [96, undefined],
  );
  assert.equal(of(check('se.measurement', 'failed'), check('se.host-key', 'passed')).configuration, 96);
});
