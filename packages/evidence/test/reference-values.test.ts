import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import { appraise } from '../src/appraise.ts';
import { isCorim, readCorim } from '../src/corim/corim.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { type References, readPlainReferences, referencesOfCorim } from '../src/references.ts';
import { must } from './support/authority.ts';
import { cbor, map, type Value } from './support/cbor.ts';
import { evidence, missing } from './support/evidence.ts';
import { snpMachine } from './support/snp-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');
const machine = snpMachine();
const MEASUREMENT = '77'.repeat(48);
const OTHER = '78'.repeat(48);
const HOST = '00'.repeat(32);

function judge(
  references: readonly References[],
  more: { allowed?: ReadonlySet<string>; referenceKeys?: readonly Uint8Array[] } = {},
) {
  const found = [
    { item: { kind: 'snp-report' as const, report: machine.report }, source: 'report' },
    ...machine.certificates.map((certificate) => ({
      item: { kind: 'certificate' as const, certificate },
      source: 'chain',
    })),
  ];
  const report = appraise(found, [], { crypto, asOf, roots: machine.roots, references, ...more });
  assert.ok(report !== null);
  const all = report.appraisals.flatMap(({ checks }) => checks);
  return { ...report, all, failed: all.filter(({ status }) => status === 'failed').map(({ id }) => id) };
}
const plain = (sets: readonly unknown[], more = {}) =>
  must(readPlainReferences({ version: 1, sets, ...more }, 'r.yaml'));
const snp = (fields: object) => ({ kind: 'amd-sev-snp', ...fields });

test('evidence that states every value of one set is accepted, and its launch was compared', () => {
  const good = judge([
    plain([snp({ measurement: OTHER }), snp({ measurement: [OTHER, MEASUREMENT], 'host-data': HOST })]),
  ]);
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  assert.ok(!good.all.some(({ id }) => id === 'launch.measurement'));
  const without = judge([plain([snp({ 'host-data': HOST })])]);
  assert.ok(without.all.some(({ id, status }) => id === 'launch.measurement' && status === 'unchecked'));
});

test('parts of two sets are none', () => {
  const mixed = plain([
    snp({ measurement: MEASUREMENT, 'host-data': '11'.repeat(32) }),
    snp({ measurement: OTHER, 'host-data': HOST }),
  ]);
  assert.deepEqual(judge([mixed]).failed, ['reference.value']);
  assert.equal(judge([mixed], { allowed: new Set(['reference.value']) }).verdict, 'rejected');
});

test('sets of a kind that was not shown are told, and decide nothing of what was', () => {
  const used = (references: readonly References[]) => {
    const { all, verdict } = judge(references);
    return [verdict, all.find(({ id }) => id === 'reference.used')] as const;
  };
  const own = snp({ measurement: MEASUREMENT });
  const boot = { kind: 'tpm-2.0', name: 'boot 7', pcr4: MEASUREMENT };
  for (const files of [[plain([own, boot])], [plain([own]), plain([boot])]]) {
    const [verdict, check] = used(files);
    assert.deepEqual([verdict, check?.status], ['accepted', 'unchecked']);
    assert.match(check?.found ?? '', /boot 7/);
  }
  assert.equal(used([plain([own])])[1], undefined);
});

test('references of other kinds say nothing of this evidence', () => {
  const tdx = plain([{ kind: 'intel-tdx', mrtd: MEASUREMENT }]);
  assert.deepEqual(judge([tdx]).failed, ['reference.present']);
  assert.equal(judge([tdx], { allowed: new Set(['reference.present']) }).verdict, 'accepted');
});

test('references that are not valid on the date reject', () => {
  const sets = [snp({ measurement: MEASUREMENT })];
  assert.deepEqual(judge([plain(sets, { from: '2026-01-02' })]).failed, ['reference.validity']);
  assert.deepEqual(judge([plain(sets, { until: '2025-12-31' })]).failed, ['reference.validity']);
  assert.deepEqual(judge([plain(sets, { from: '2025-01-01', until: '2026-12-31' })]).failed, []);
});

test('the plain form is strict', () => {
  const good = snp({ measurement: MEASUREMENT });
  for (const given of [
    null,
    [],
    { version: 2, sets: [good] },
    { version: 1, sets: [] },
    { version: 1, sets: [good], more: 1 },
    { version: 1, sets: [snp({})] },
    { version: 1, sets: [snp({ mrtd: MEASUREMENT })] },
    { version: 1, sets: [snp({ measurement: 'xyz' })] },
    { version: 1, sets: [snp({ measurement: 12 })] },
    { version: 1, sets: [snp({ measurement: [] })] },
    { version: 1, sets: [{ kind: 'sgx', measurement: MEASUREMENT }] },
    { version: 1, sets: [good], from: 'soon' },
  ]) {
    const read = readPlainReferences(given, 'x');
    assert.ok(!read.ok && read.error.code === 'references-invalid', JSON.stringify(given));
  }
});

interface Made {
  readonly model?: string;
  readonly digest?: string;
  readonly until?: number;
  readonly triples?: Value;
}
function corimOf({ model = 'SEV-SNP', digest = MEASUREMENT, until = 1_800_000_000, triples }: Made = {}): Value {
  const measurement = map({ 0: 'measurement', 1: map({ 2: [[7, Buffer.from(digest, 'hex')]] }) });
  const environment = map({ 0: map({ 1: 'AMD', 2: model }) });
  const comid = map({ 1: map({ 0: 'c' }), 4: triples ?? map({ 0: [[environment, [measurement]]] }) });
  return {
    tag: 501,
    value: map({ 0: 'made', 1: [{ tag: 506, value: cbor(comid) }], 4: map({ 1: { tag: 1, value: until } }) }),
  };
}
function signed(payload: Value, key: KeyObject, meta: Value = map({ 0: map({ 0: 'maker' }) })): Buffer {
  const header = cbor(map({ 1: -7, 3: 'application/rim+cbor', 8: cbor(meta) }));
  const body = cbor(payload);
  const message = cbor(['Signature1', header, new Uint8Array(), body]);
  const signature = sign('sha256', message, { key, dsaEncoding: 'ieee-p1363' });
  return cbor({ tag: 18, value: [header, new Map(), body, signature] });
}
const references = (bytes: Uint8Array) => referencesOfCorim(must(readCorim(bytes)), 'x.corim');

test('a CoRIM’s reference triples are sets, by what its environment names', () => {
  assert.ok(isCorim(cbor(corimOf())));
  assert.deepEqual(judge([references(cbor(corimOf()))]).failed, []);
  assert.deepEqual(judge([references(cbor(corimOf({ digest: OTHER })))]).failed, ['reference.value']);
  assert.deepEqual(judge([references(cbor(corimOf({ model: 'RoadRunner' })))]).failed, ['reference.present']);
  assert.deepEqual(judge([references(cbor(corimOf({ until: 1_700_000_000 })))]).failed, ['reference.validity']);
});

test('a signed CoRIM counts when a key that the verifier gave signed it', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = (key: KeyObject) => new Uint8Array(key.export({ format: 'der', type: 'spki' }));
  const bytes = signed(corimOf(), privateKey);
  assert.ok(isCorim(bytes));
  assert.deepEqual(judge([references(bytes)], { referenceKeys: [spki(publicKey)] }).failed, []);
  const stranger = createPublicKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey);
  assert.deepEqual(judge([references(bytes)], { referenceKeys: [spki(stranger)] }).failed, ['reference.signature']);
  const unsure = judge([references(bytes)]);
  assert.ok(unsure.all.some(({ id, status }) => id === 'reference.signature' && status === 'unchecked'));
  const late = signed(
    corimOf(),
    privateKey,
    map({ 0: map({ 0: 'm' }), 1: map({ 1: { tag: 1, value: 1_700_000_000 } }) }),
  );
  assert.deepEqual(judge([references(late)]).failed, ['reference.validity']);
  for (let at = 0; at < bytes.length; at += 5) {
    const bad = Buffer.from(bytes);
    bad[at] = (bad[at] ?? 0) ^ 1;
    const read = readCorim(bad);
    if (!read.ok || read.value.signature === null) continue;
    const report = judge([referencesOfCorim(read.value, 'x')], { referenceKeys: [spki(publicKey)] });
    assert.equal(report.verdict, 'rejected', `byte ${at}`);
  }
});

test('CoRIMs of another form are refused', () => {
  const environment = map({ 0: map({ 1: 'AMD' }) });
  const values = (inner: Record<number, Value>) => map({ 0: [[environment, [map({ 1: map(inner) })]]] });
  for (const triples of [
    map({ 0: 'x' }),
    map({ 0: [[environment]] }),
    map({ 0: [['x', []]] }),
    map({ 0: [[environment, ['x']]] }),
    values({ 2: 'x' }),
    values({ 2: [[7, Buffer.alloc(3)]] }),
    values({ 1: 'x' }),
    values({ 4: { tag: 563, value: [Buffer.alloc(2), Buffer.alloc(3)] } }),
    map({ 3: [[environment, [{ tag: 554, value: 'no key' }]]] }),
    'x',
  ] as readonly Value[])
    assert.equal(readCorim(cbor(corimOf({ triples }))).ok, false);
  assert.equal(readCorim(cbor({ tag: 501, value: map({ 0: 'x' }) })).ok, false);
  assert.equal(readCorim(cbor({ tag: 501, value: map({ 0: 'x', 1: [{ tag: 506, value: 'x' }] }) })).ok, false);
  assert.equal(readCorim(Buffer.alloc(40)).ok, false);
});

test('real CoRIMs are read, and the signed one’s signature is good', { skip: missing }, () => {
  const good = must(readCorim(evidence('corim/signed-good-corim.cbor')));
  assert.deepEqual(
    [good.id, good.references.length, good.signature?.signer],
    ['test corim id', 3, 'ACME Ltd signing key'],
  );
  const jwk = JSON.parse(Buffer.from(evidence('corim/ec-p256.jwk')).toString()) as { kty: string };
  const spki = new Uint8Array(createPublicKey({ key: jwk, format: 'jwk' }).export({ format: 'der', type: 'spki' }));
  const file = referencesOfCorim(good, 'x');
  // Its signing period ended with 2025.
  const when = { crypto, asOf: Date.parse('2025-06-01'), roots: machine.roots, references: [file] };
  const found = [{ item: { kind: 'snp-report' as const, report: machine.report }, source: 'report' }];
  const own = appraise(found, [], { ...when, referenceKeys: [spki] })?.appraisals.find(
    ({ kind }) => kind === 'reference-values',
  );
  assert.equal(own?.verdict, 'accepted');
  const unsigned = must(readCorim(evidence('corim/unsigned-good-corim.cbor')));
  assert.deepEqual(unsigned.references, good.references);
  assert.equal(unsigned.signature, null);
  const first = must(readCorim(evidence('corim/corim-1.cbor'))).references[0];
  assert.deepEqual(
    [first?.environment.model, first?.environment.layer, first?.version],
    ['ACME RoadRunner', 1, '1.0.0'],
  );
  const cca = must(readCorim(evidence('corim/veraison-e2e-cca-endorsements.cbor')));
  assert.deepEqual([cca.references.length, cca.attestKeys.length, cca.profile], [5, 1, 'http://arm.com/cca/ssd/1']);
});
