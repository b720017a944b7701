import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import type { Found } from '../src/item.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { hostKeyHash, isHostKey } from '../src/se/host-key.ts';
import type { Certificate } from '../src/x509/certificate.ts';
import { readCertificate } from '../src/x509/certificate.ts';
import { type Issue, issue, must, revoke, type Signer, signer } from './support/authority.ts';
import { evidence, missing } from './support/evidence.ts';
import { headerBytes, KEY, requestBytes, responseBytes } from './support/se-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-06-01');
const IBM = 'International Business Machines Corporation';
const ibm = (unit: string, place = 'Poughkeepsie', country = 'US') =>
  [
    ['2.5.4.6', country],
    ['2.5.4.10', IBM],
    ['2.5.4.3', IBM],
    ['2.5.4.7', place],
    ['2.5.4.11', unit],
  ] as const;
const named = (attributes: Signer['attributes'], of = signer('x')): Signer => ({
  ...of,
  ...(attributes === undefined ? {} : { attributes }),
});
const root = signer('Some public root');
const middle = signer('Some public CA');
const service = named(ibm('IBM Z Host Key Signing Service'));
const hostKey = (): Signer => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-521' });
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  return { name: 'host', key: privateKey, spki, curve: 'P-384', attributes: ibm('IBM Z Host Key', 'Armonk') };
};
const key = hostKey();
const rootCertificate = issue({ subject: root, issuer: root, authority: {}, keyUsage: 6 });
const middleCertificate = issue({ subject: middle, issuer: root, authority: {}, keyUsage: 6 });
const serviceCertificate = issue({ subject: service, issuer: middle, keyUsage: 0x80, serial: 7 });
const documentOf = (more: Partial<Issue> = {}) =>
  issue({ subject: key, issuer: service, keyUsage: 0x08, serial: 9, ...more });
const document = documentOf();
const lists = [revoke({ issuer: service }), revoke({ issuer: middle })];

const items = (certificates: readonly Certificate[], revocation = lists): Found[] => [
  ...certificates.map((certificate): Found => ({ item: { kind: 'certificate', certificate }, source: 'certificate' })),
  ...revocation.map((list): Found => ({ item: { kind: 'revocation-list', list }, source: 'list' })),
];
function judge(found: readonly Found[], more: Partial<AppraiseOptions> = {}) {
  const report = appraise(found, [], { crypto, asOf, makerRoots: [rootCertificate], certificatesAlone: true, ...more });
  const checks = report?.appraisals[0]?.checks ?? [];
  return {
    verdict: report?.verdict,
    failed: checks.filter(({ status }) => status === 'failed').map(({ id }) => id),
    checks,
  };
}
const whole = [document, serviceCertificate, middleCertificate];

test('a host key document that IBM’s service signed, below a root of the verifier’s, is accepted', () => {
  assert.ok(isHostKey(document));
  assert.deepEqual(judge(items(whole)).failed, []);
  assert.equal(judge(items(whole)).verdict, 'accepted');
});

test('without a root, a service or lists, or on another day, it is not', () => {
  assert.deepEqual(judge(items(whole), { makerRoots: [] }).failed, ['chain.path']);
  assert.deepEqual(judge(items([document, middleCertificate])).failed, ['se.host-key-signature']);
  assert.deepEqual(judge(items(whole, [])).failed, ['se.host-key-revocation', 'se.host-key-revocation']);
  assert.equal(judge(items(whole, []), { allowed: new Set(['se.host-key-revocation']) }).verdict, 'accepted');
  assert.deepEqual(judge(items(whole, [revoke({ issuer: service })])).failed, ['se.host-key-revocation']);
  // The list of another authority with a like name is none of the service's issuer.
  assert.deepEqual(judge(items(whole, [revoke({ issuer: service }), revoke({ issuer: root })])).failed, [
    'se.host-key-revocation',
  ]);
  const late = judge(items(whole), { asOf: Date.parse('2035-01-01') }).failed;
  assert.ok(late.includes('se.host-key-validity') && late.includes('se.host-key-revocation'));
  const expired = documentOf({ to: '2025-01-01' });
  assert.deepEqual(judge(items([expired, ...whole.slice(1)])).failed, ['se.host-key-validity']);
  const forged = revoke({ issuer: named(service.attributes, signer('x')) });
  assert.deepEqual(judge(items(whole, [forged, revoke({ issuer: middle })])).failed, ['se.host-key-revocation']);
});

test('whoever has a certificate below the same root is not IBM', () => {
  for (const attributes of [
    [['2.5.4.3', 'Somebody else']] as const,
    ibm('IBM Cloud', 'Armonk'),
    ibm('Host Key Signing Service', 'Armonk', 'DE'),
    [
      ...ibm('IBM Z Host Key Signing Service').slice(0, 1),
      ['2.5.4.10', 'Evil'] as const,
      ...ibm('IBM Z Host Key Signing Service').slice(2),
    ],
  ]) {
    const stranger = named(attributes);
    const certificate = issue({ subject: stranger, issuer: middle, keyUsage: 0x80 });
    // It may write IBM's name as the issuer, but not into its own certificate.
    const made = issue({ subject: key, issuer: { ...stranger, attributes: service.attributes ?? [] }, keyUsage: 8 });
    const { failed, verdict } = judge(items([made, certificate, middleCertificate]));
    assert.equal(verdict, 'rejected');
    assert.ok(failed.includes('se.host-key-signature'), failed.join());
    assert.equal(judge(items([made, certificate, serviceCertificate, middleCertificate])).verdict, 'rejected');
  }
  // IBM's name, certified by nobody that the verifier trusts.
  const pretender = named(service.attributes, signer('x'));
  const own = issue({ subject: pretender, issuer: pretender, keyUsage: 0x80 });
  const made = issue({ subject: key, issuer: pretender, keyUsage: 8 });
  assert.equal(judge(items([made, own], [revoke({ issuer: pretender })])).verdict, 'rejected');
});

test('a revoked host key, or signing key, is refused whatever other list there is', () => {
  const gone = revoke({ issuer: service, serials: [9] });
  assert.deepEqual(judge(items(whole, [gone, ...lists])).failed, ['se.host-key-revoked']);
  assert.ok(
    judge(items(whole, [...lists, revoke({ issuer: middle, serials: [7] })])).failed.includes('chain.revocation'),
  );
});

test('the place of the service in the document may be another; nothing else of its name may', () => {
  const moved = named(ibm('IBM Z Host Key Signing Service', 'Armonk'), service);
  assert.equal(
    judge(items([issue({ subject: key, issuer: moved, keyUsage: 8, serial: 9 }), ...whole.slice(1)])).verdict,
    'accepted',
  );
  const other = named(ibm('LinuxONE Key Signing Service'), service);
  assert.deepEqual(judge(items([issue({ subject: key, issuer: other, keyUsage: 8 }), ...whole.slice(1)])).failed, [
    'se.host-key-signature',
  ]);
});

/** A request for one host key, and what the machine with it answers. */
function answer(sealedFor: Certificate, by: Certificate = sealedFor): readonly Found[] {
  const hash = Buffer.from(hostKeyHash(crypto, sealedFor), 'hex');
  const request = requestBytes(0x70, hash);
  const additional = Buffer.concat([Buffer.alloc(32, 9), Buffer.from(hostKeyHash(crypto, by), 'hex')]);
  return [
    ...recognise('response', responseBytes({ request, additional: new Uint8Array(additional) })).found,
    ...recognise('header', headerBytes()).found,
  ];
}

test('a request is held against the documents that it was sealed for, the answer against the machine', () => {
  const more = { seRequestKey: KEY };
  assert.deepEqual(judge([...answer(document), ...items(whole)], more).failed, []);
  const without = judge(answer(document), more);
  assert.equal(without.verdict, 'accepted');
  assert.equal(without.checks.find(({ id }) => id === 'se.host-key')?.status, 'unchecked');
  const other = issue({ subject: hostKey(), issuer: service, keyUsage: 8, serial: 11 });
  assert.deepEqual(judge([...answer(other), ...items(whole)], more).failed, ['se.host-key', 'se.host-key-answered']);
  assert.deepEqual(judge([...answer(document, other), ...items([...whole, other])], more).failed, [
    'se.host-key-answered',
  ]);
  const expired = documentOf({ to: '2025-01-01' });
  assert.deepEqual(judge([...answer(expired), ...items([expired, ...whole.slice(1)])], more).failed, [
    'se.host-key-validity',
    'se.host-key',
    'se.host-key-answered',
  ]);
});

test('IBM’s own files: host.crt is good, host_crt_expired.crt is refused, and so is it by date and without a list', {
  skip: missing,
}, () => {
  const read = (name: string) => recognise(name, evidence(`ibmse/${name}`)).found;
  const [ibmRoot] = read('root_ca.crt').flatMap(({ item }) => (item.kind === 'certificate' ? [item.certificate] : []));
  assert.ok(ibmRoot !== undefined);
  const around = ['ibm.crt', 'inter_ca.crt', 'ibm.crl', 'inter_ca.crl'].flatMap(read);
  const good = judge([...read('host.crt'), ...around], { makerRoots: [ibmRoot] });
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  const expired = judge([...read('host_crt_expired.crt'), ...around], { makerRoots: [ibmRoot] });
  assert.deepEqual([expired.verdict, expired.failed], ['rejected', ['se.host-key-validity']]);
  const early = judge([...read('host_crt_expired.crt'), ...around], {
    makerRoots: [ibmRoot],
    asOf: Date.parse('2023-01-01'),
  });
  assert.ok(!early.failed.includes('se.host-key-validity') && early.verdict === 'rejected', 'the others are younger');
  const listless = judge([...read('host.crt'), ...around.slice(0, 3)], { makerRoots: [ibmRoot] });
  assert.deepEqual(listless.failed, ['se.host-key-revocation']);
  for (let at = 0; at < 1200; at += 97) {
    const bytes = must(readCertificate(document.der)).der.slice();
    bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ 4;
    const changed = readCertificate(bytes);
    if (changed.ok) assert.equal(judge(items([changed.value, ...whole.slice(1)])).verdict, 'rejected', `byte ${at}`);
  }
});
