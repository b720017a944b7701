import assert from 'node:assert/strict';
import { createHash, sign } from 'node:crypto';
import { test } from 'node:test';
import { createChecklist } from '../src/check.ts';
import { listCollateral } from '../src/collateral-bundle.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { checkChain } from '../src/x509/chain.ts';
import { readOcspResponse } from '../src/x509/ocsp.ts';
import { issue, issueDer, must, rootOf, type Signer, signer } from './support/authority.ts';
import { bits, element, integer, octets, oid, sequence } from './support/der.ts';

const root = signer('Root');
const device = signer('Device');
const responder = signer('Responder');
const rootCertificate = issue({ subject: root, issuer: root, authority: {}, keyUsage: 0x06 });
const leaf = issue({ subject: device, issuer: root, serial: 77 });
const PURPOSE = { oid: '2.5.29.37', value: sequence(oid('1.3.6.1.5.5.7.3.9')) };
const delegated = issueDer({ subject: responder, issuer: root, serial: 5, extensions: [PURPOSE] });

const GOOD = element(0x80);
const REVOKED = element(0xa1, element(0x18, Buffer.from('20250601000000Z')));
const HELD = element(
  0xa1,
  element(0x18, Buffer.from('20250601000000Z')),
  element(0xa0, element(0x0a, Uint8Array.of(6))),
);
const UNKNOWN = element(0x82);
const general = (text: string) => element(0x18, Buffer.from(text));

interface Options {
  readonly status?: Uint8Array;
  readonly by?: Signer;
  readonly with?: Uint8Array;
  readonly serial?: number;
  readonly issuer?: Signer;
  readonly from?: string;
  readonly to?: string | null;
  /** Statuses of further answers for the same certificate. */
  readonly more?: readonly Uint8Array[];
  readonly none?: boolean;
}
function responseDer({
  status = GOOD,
  by = root,
  serial = 77,
  issuer = root,
  from,
  to,
  with: certificate,
  more = [],
  none = false,
}: Options = {}) {
  const hash = (bytes: Uint8Array) => octets(new Uint8Array(createHash('sha1').update(bytes).digest()));
  const name = sequence(element(0x31, sequence(oid('2.5.4.3'), element(0x0c, Buffer.from(issuer.name)))));
  const key = issuer.spki.subarray(-97);
  const id = sequence(sequence(oid('1.3.14.3.2.26'), element(5)), hash(name), hash(key), integer(serial));
  const next = to === null ? [] : [element(0xa0, general(to ?? '20260601000000Z'))];
  const answers = (none ? [] : [status, ...more]).map((one) =>
    sequence(id, one, general(from ?? '20251201000000Z'), ...next),
  );
  const tbs = sequence(element(0xa2, octets(new Uint8Array(20))), general('20251201000000Z'), sequence(...answers));
  const signature = new Uint8Array(sign('sha384', tbs, by.key));
  const certificates = certificate === undefined ? [] : [element(0xa0, sequence(certificate))];
  const basic = sequence(tbs, sequence(oid('1.2.840.10045.4.3.3')), bits(signature), ...certificates);
  return sequence(element(0x0a, Uint8Array.of(0)), element(0xa0, sequence(oid('1.3.6.1.5.5.7.48.1.1'), octets(basic))));
}

function revocation(options: readonly Options[], asOf = '2026-01-01') {
  const list = createChecklist();
  checkChain(list, {
    crypto: nodeCrypto(),
    leaf,
    pool: [rootCertificate],
    roots: [rootOf(root)],
    asOf: Date.parse(asOf),
    revocation: {
      lists: [],
      responses: options.map((one) => must(readOcspResponse(responseDer(one)))),
      required: true,
      of: 'all',
    },
  });
  return list.checks.filter(({ id }) => id === 'chain.revocation');
}
const status = (options: readonly Options[], asOf?: string) =>
  revocation(options, asOf)
    .map((one) => one.status)
    .join();

test('an answer of the issuer, or of whom it certified for that, says whether a certificate is revoked', () => {
  assert.equal(status([]), 'failed');
  assert.equal(status([{}]), 'passed');
  assert.equal(status([{ by: responder, with: delegated }]), 'passed');
  assert.equal(status([{ status: REVOKED }]), 'failed');
  assert.match(revocation([{ status: REVOKED }])[0]?.found ?? '', /revoked on 2025-06-01/);
  assert.match(revocation([{ status: HELD }])[0]?.found ?? '', /on hold/);
  assert.equal(status([{ status: UNKNOWN }]), 'failed');
});

test('answers of strangers, for others, and of another time, are none', () => {
  const stranger = signer('Responder');
  assert.match(revocation([{ by: stranger }])[0]?.found ?? '', /none was given/);
  const plain = issueDer({ subject: responder, issuer: root, serial: 6 });
  assert.match(revocation([{ by: responder, with: plain }])[0]?.found ?? '', /none was given/);
  const foreign = issueDer({ subject: responder, issuer: stranger, issuerName: 'Root', extensions: [PURPOSE] });
  assert.match(revocation([{ by: responder, with: foreign }])[0]?.found ?? '', /none was given/);
  assert.match(revocation([{ serial: 78 }])[0]?.found ?? '', /none was given/);
  assert.match(revocation([{ issuer: stranger, by: root }])[0]?.found ?? '', /none was given/);
  assert.equal(status([{}], '2026-06-02'), 'failed');
  assert.equal(status([{}], '2025-11-30'), 'failed');
  assert.equal(status([{ to: null }], '2025-12-01'), 'passed');
  assert.equal(status([{ to: null }], '2025-12-03'), 'failed');
});

test('a revocation is not taken back by another answer that says good', () => {
  assert.equal(status([{}, { status: REVOKED }]), 'failed');
  assert.equal(status([{ status: REVOKED, to: '20251202000000Z' }, {}]), 'failed');
});

test('a revocation is not hidden: not among many responses, not behind another answer, not by the age of its responder', () => {
  const others = Array.from({ length: 70 }, (_, i): Options => ({ serial: 100 + i }));
  assert.equal(status([...others, { status: REVOKED }]), 'failed');
  assert.equal(status([...others, {}]), 'passed');
  const many = revocation(Array<Options>(65).fill({ by: signer('Root') }));
  assert.match(many[0]?.found ?? '', /65/);
  assert.equal(many[0]?.status, 'failed');
  assert.equal(status([{ more: [REVOKED] }]), 'failed');
  assert.equal(status([{ status: REVOKED, more: [GOOD] }]), 'failed');
  const old = issueDer({ subject: responder, issuer: root, serial: 5, to: '2025-12-20', extensions: [PURPOSE] });
  assert.equal(status([{ by: responder, with: old }, {}]), 'passed');
  assert.equal(status([{ by: responder, with: old, status: REVOKED }, {}]), 'failed');
});

test('a response that says nothing of anything has no dates', () => {
  const { found } = recognise('x', responseDer({ none: true }));
  assert.deepEqual(listCollateral(found)[0]?.until, null);
});

test('responses are read strictly, and found among files', () => {
  const der = responseDer();
  assert.deepEqual(
    recognise('x', der).found.map(({ item }) => item.kind),
    ['ocsp-response'],
  );
  const refusal = sequence(element(0x0a, Uint8Array.of(6)));
  assert.equal(readOcspResponse(refusal).ok, false);
  for (let at = 0; at < der.length; at++) {
    const cut = readOcspResponse(der.subarray(0, at));
    assert.equal(cut.ok, false);
  }
  assert.equal(readOcspResponse(Buffer.concat([der, Uint8Array.of(0)])).ok, false);
  for (let at = 0; at < der.length; at++) {
    const bad = der.slice();
    bad[at] = (bad[at] ?? 0) ^ 0x10;
    readOcspResponse(bad);
  }
});
