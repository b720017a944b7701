import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createChecklist } from '../src/check.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import type { Certificate } from '../src/x509/certificate.ts';
import { type ChainInput, checkChain } from '../src/x509/chain.ts';
import { issue, revoke, rootOf, signer } from './support/authority.ts';

const crypto = nodeCrypto();
const root = signer('Root');
const middle = signer('Middle');
const leaf = signer('Leaf');
const SIGN = 0x06;
const rootCertificate = issue({ subject: root, issuer: root, authority: { pathLength: 1 }, keyUsage: SIGN });
const middleCertificate = issue({
  subject: middle,
  issuer: root,
  authority: { pathLength: 0 },
  keyUsage: SIGN,
  serial: 5,
});
const leafCertificate = issue({ subject: leaf, issuer: middle, serial: 9 });
const asOf = Date.parse('2026-01-01');

function chain(changes: Partial<ChainInput> & { pool?: readonly Certificate[] } = {}) {
  const list = createChecklist();
  const found = checkChain(list, {
    crypto,
    leaf: leafCertificate,
    pool: [rootCertificate, middleCertificate],
    roots: [rootOf(root)],
    asOf,
    revocation: { lists: [], required: false, of: 'all' },
    ...changes,
  });
  const failed = list.checks.filter(({ status }) => status === 'failed');
  return { root: found.root?.name ?? null, failed: failed.map(({ id }) => id), checks: list.checks, all: failed };
}

test('a whole chain leads to its root, whatever the order of the files', () => {
  for (const pool of [
    [rootCertificate, middleCertificate],
    [middleCertificate, rootCertificate, leafCertificate],
  ]) {
    const { root: end, failed } = chain({ pool });
    assert.equal(end, 'Root');
    assert.deepEqual(failed, []);
  }
});

test('a root of the same name with another key is not the root', () => {
  const forged = { ...signer('Root') };
  const forgedMiddle = issue({ subject: middle, issuer: forged, authority: {}, keyUsage: SIGN });
  const forgedRoot = issue({ subject: forged, issuer: forged, authority: {}, keyUsage: SIGN });
  const { root: end, failed } = chain({ pool: [forgedMiddle, forgedRoot] });
  assert.equal(end, null);
  assert.deepEqual(failed, ['chain.root']);
});

test('the right issuer is found among forged ones of its name', () => {
  const forged = Array.from({ length: 5 }, () => {
    const key = signer('Middle');
    return issue({ subject: key, issuer: key, authority: {}, keyUsage: SIGN });
  });
  assert.deepEqual(chain({ pool: [...forged, middleCertificate, rootCertificate] }).failed, []);
});

test('of several certificates of one key that counts which leads to a root, in whatever order', () => {
  const old = issue({ subject: middle, issuer: root, authority: {}, keyUsage: SIGN, to: '2025-01-01', serial: 4 });
  const other = signer('Other');
  const otherRoot = issue({ subject: other, issuer: other, authority: {}, keyUsage: SIGN });
  const crossed = issue({ subject: root, issuer: other, authority: {}, keyUsage: SIGN, serial: 6 });
  const alone = issue({
    subject: middle,
    issuer: { ...middle, name: 'Middle' },
    authority: {},
    keyUsage: SIGN,
    serial: 7,
  });
  for (const pool of [
    [old, middleCertificate, rootCertificate],
    [crossed, otherRoot, middleCertificate, rootCertificate],
    [alone, middleCertificate, rootCertificate],
  ])
    for (const given of [pool, [...pool].reverse()]) {
      const { root: end, failed } = chain({ pool: given });
      assert.deepEqual([end, failed], ['Root', []]);
    }
  // A root's key in somebody else's certificate is no root.
  assert.deepEqual(chain({ pool: [crossed, otherRoot, middleCertificate] }).root, null);
});

test('a certificate that its issuer did not sign is named', () => {
  const stranger = signer('Stranger');
  const wrong = issue({ subject: leaf, issuer: stranger, issuerName: 'Middle' });
  const { root: end, failed, all } = chain({ leaf: wrong });
  assert.equal(end, null);
  assert.deepEqual(failed, ['chain.signature']);
  assert.equal(all[0]?.subject, 'Leaf');
});

test('a missing link is asked for by name', () => {
  const { failed, all } = chain({ pool: [rootCertificate] });
  assert.deepEqual(failed, ['chain.path']);
  assert.match(all[0]?.expected ?? '', /CN=Middle/);
});

test('dates are held on both ends, for each certificate', () => {
  assert.deepEqual(chain({ asOf: Date.parse('2024-01-01') }).failed, []);
  assert.deepEqual(chain({ asOf: Date.parse('2034-01-01') }).failed, []);
  assert.deepEqual(chain({ asOf: Date.parse('2023-12-31') }).failed, [
    'chain.validity',
    'chain.validity',
    'chain.validity',
  ]);
  const short = issue({ subject: leaf, issuer: middle, from: '2024-01-01', to: '2025-01-01' });
  const { failed, all } = chain({ leaf: short });
  assert.deepEqual(failed, ['chain.validity']);
  assert.equal(all[0]?.found, 'expired on 2025-01-01');
});

test('who may not issue does not', () => {
  const plain = issue({ subject: middle, issuer: root });
  assert.deepEqual(chain({ pool: [plain, rootCertificate] }).failed, ['chain.authority']);
  const wrongUse = issue({ subject: middle, issuer: root, authority: {}, keyUsage: 0x80 });
  assert.deepEqual(chain({ pool: [wrongUse, rootCertificate] }).failed, ['chain.authority']);
  const narrowRoot = issue({ subject: root, issuer: root, authority: { pathLength: 0 }, keyUsage: SIGN });
  assert.deepEqual(chain({ pool: [middleCertificate, narrowRoot] }).failed, ['chain.authority']);
});

test('a critical extension that nobody understands fails, unless the caller does', () => {
  const odd = issue({
    subject: leaf,
    issuer: middle,
    extensions: [{ oid: '1.2.3.4', value: Uint8Array.of(5, 0), critical: true }],
  });
  assert.deepEqual(chain({ leaf: odd }).failed, ['chain.extensions']);
  assert.deepEqual(chain({ leaf: odd, understood: ['1.2.3.4'] }).failed, []);
  const noSigning = issue({ subject: leaf, issuer: middle, keyUsage: 0x20 });
  assert.deepEqual(chain({ leaf: noSigning }).failed, ['chain.extensions']);
});

const lists = (...given: ReturnType<typeof revoke>[]) => ({
  revocation: { lists: given, required: true, of: 'all' as const },
});

test('lists that are asked for must be there, genuine and current', () => {
  assert.deepEqual(chain(lists()).failed, ['chain.revocation', 'chain.revocation']);
  assert.deepEqual(chain(lists(revoke({ issuer: root }), revoke({ issuer: middle }))).failed, []);
  const late = chain(lists(revoke({ issuer: root }), revoke({ issuer: middle, to: '2025-01-01' })));
  assert.deepEqual(late.failed, ['chain.revocation-list']);
  const early = chain(lists(revoke({ issuer: root }), revoke({ issuer: middle, from: '2027-01-01' })));
  assert.match(early.all[0]?.found ?? '', /issued in the future/);
  const forged = chain(lists(revoke({ issuer: root }), revoke({ issuer: signer('x'), issuerName: 'Middle' })));
  assert.deepEqual(forged.failed, ['chain.revocation-list']);
});

test('a certificate on a list is refused, whichever genuine list it is on', () => {
  const onLeaf = chain(lists(revoke({ issuer: root }), revoke({ issuer: middle, serials: [9] })));
  assert.deepEqual(onLeaf.failed, ['chain.revocation']);
  const old = revoke({ issuer: middle, serials: [9], to: '2024-07-01' });
  const hidden = chain(lists(revoke({ issuer: root }), revoke({ issuer: middle }), old));
  assert.deepEqual(hidden.failed, ['chain.revocation']);
  const onMiddle = chain(lists(revoke({ issuer: root, serials: [5] }), revoke({ issuer: middle })));
  assert.equal(onMiddle.all[0]?.subject, 'Middle');
});

test('a forged list cannot revoke, and cannot hide that none was given', () => {
  const forged = revoke({ issuer: signer('x'), issuerName: 'Middle', serials: [9] });
  const { failed } = chain({ revocation: { lists: [forged], required: false, of: 'all' } });
  assert.deepEqual(failed, ['chain.revocation-list']);
});

test('names in a circle end', () => {
  const a = signer('A');
  const b = signer('B');
  const ab = issue({ subject: a, issuer: b, authority: {}, keyUsage: SIGN });
  const ba = issue({ subject: b, issuer: a, authority: {}, keyUsage: SIGN });
  const { root: end, failed } = chain({ leaf: ab, pool: [ab, ba] });
  assert.equal(end, null);
  assert.ok(failed.includes('chain.path'));
});
