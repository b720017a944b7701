import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appraise } from '../src/appraise.ts';
import { appraiseMachine } from '../src/machine/appraise.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { readSeHeader, readSeRequest, readSeResponse } from '../src/se/exchange.ts';
import { measure, verifySe } from '../src/se/verify.ts';
import { must } from './support/authority.ts';
import { evidence, missing } from './support/evidence.ts';
import { CUID, headerBytes, KEY, M_KEY, NONCE, requestBytes, responseBytes, USER } from './support/se-machine.ts';

const crypto = nodeCrypto();
const verify = (bytes: Uint8Array, key: Uint8Array | null = KEY, headers = [headerBytes()], nonce?: Uint8Array) => {
  const appraisal = verifySe({
    ...{ crypto, response: must(readSeResponse(bytes)), headers: headers.map((one) => must(readSeHeader(one))) },
    ...(key === null ? {} : { requestKey: key }),
    ...(nonce === undefined ? {} : { nonce }),
  });
  return { ...appraisal, failed: appraisal.checks.filter(({ status }) => status === 'failed').map(({ id }) => id) };
};

test('a response to one’s own request, of the expected image, is accepted', () => {
  const good = verify(responseBytes(), KEY, [headerBytes(2), headerBytes()], USER);
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  assert.equal(good.claims['image-phkh'], '09'.repeat(32));
  assert.equal(good.claims['secret-store'], 'absent');
  const plain = verify(responseBytes({ request: requestBytes(0x30), nonce: new Uint8Array() }));
  assert.deepEqual(plain.failed, []);
});

test('another key, image, nonce, or no key at all, is refused', () => {
  assert.deepEqual(verify(responseBytes(), new Uint8Array(32)).failed, ['se.request', 'se.measurement']);
  assert.deepEqual(verify(responseBytes(), new Uint8Array(16)).failed, ['se.request', 'se.measurement']);
  assert.deepEqual(verify(responseBytes(), null).failed, ['se.request', 'se.measurement']);
  assert.deepEqual(verify(responseBytes(), KEY, [headerBytes(2)]).failed, ['se.measurement']);
  assert.deepEqual(verify(responseBytes(), KEY, []).failed, ['se.measurement']);
  assert.deepEqual(verify(responseBytes(), KEY, [headerBytes()], new Uint8Array(64)).failed, ['freshness.nonce']);
  assert.deepEqual(verify(responseBytes({ additional: new Uint8Array(65) })).failed, ['se.additional']);
});

test('whoever answers does not say which image is expected', () => {
  const own = Buffer.from(headerBytes(4));
  const wrapped = Buffer.from(
    JSON.stringify({
      header: own.toString('base64'),
      response: Buffer.from(responseBytes({ header: own })).toString('hex'),
    }),
  );
  const { found, problems } = recognise('response', wrapped);
  assert.deepEqual(
    found.map(({ item }) => item.kind),
    ['se-response'],
  );
  assert.deepEqual(
    problems.map(({ code }) => code),
    ['se-header-invalid'],
  );
  const options = { crypto, asOf: Date.parse('2026-01-01'), seRequestKey: KEY };
  assert.equal(appraise(found, [], options)?.verdict, 'rejected');
  // Nor does the document of a whole machine, in whatever part of it.
  const nonce = new Uint8Array(32).fill(7);
  const bundle = {
    ...{ nonce, devices: [] },
    vm: [
      { name: 'header', bytes: own },
      { name: 'response', bytes: responseBytes({ header: own }) },
    ],
  };
  const machine = appraiseMachine(bundle, [], { ...options, nonce });
  assert.equal(machine.verdict, 'rejected');
  assert.ok(machine.vm[0]?.checks.some(({ id, status }) => id === 'se.measurement' && status === 'failed'));
  const given = recognise('image.hdr', own).found;
  const judged = appraiseMachine({ ...bundle, vm: bundle.vm.slice(1) }, given, { ...options, nonce });
  assert.ok(judged.vm[0]?.checks.some(({ id, status }) => id === 'se.measurement' && status === 'passed'));
});

test('no byte of a response can change', () => {
  const good = responseBytes();
  for (let at = 0; at < good.length; at += 1) {
    const bad = good.slice();
    bad[at] = (bad[at] ?? 0) ^ 0x10;
    const read = readSeResponse(bad);
    // Bytes 16 to 23 of the file say nothing.
    if (!read.ok || (at >= 16 && at < 24)) continue;
    assert.equal(verify(bad).verdict, 'rejected', `byte ${at}`);
  }
  for (let size = 0; size < good.length; size += 7) assert.equal(readSeResponse(good.subarray(0, size)).ok, false);
});

test('requests and headers that contradict themselves are refused', () => {
  for (const [at, value] of [
    [8, 0x200],
    [12, 5],
    [0x20, 1],
    [0x24, 0],
    [0x24, 2],
    [0x2c, 79],
    [0x38, 2],
  ] as const) {
    const bytes = Buffer.from(requestBytes());
    bytes.writeUInt32BE(value, at);
    assert.equal(readSeRequest(bytes).ok, false, `0x${at.toString(16)}`);
  }
  const header = Buffer.from(headerBytes());
  header.writeUInt32BE(2, 0x24);
  assert.equal(readSeHeader(header).ok, false);
});

test('IBM’s own vectors of the measurement', () => {
  const tags = new Uint8Array([
    ...new Uint8Array(64).fill(1),
    ...new Uint8Array(64).fill(2),
    ...new Uint8Array(64).fill(3),
    ...new Uint8Array(16).fill(4),
  ]);
  const key = new Uint8Array(64).fill(0x41);
  const [user, additional, nonce] = [
    new Uint8Array(256).fill(7),
    new Uint8Array(128).fill(9),
    new Uint8Array(16).fill(8),
  ];
  const none = new Uint8Array();
  const begins = (parts: { user: Uint8Array; additional: Uint8Array; nonce: Uint8Array }) =>
    Buffer.from(measure(crypto, { key, nonce: parts.nonce }, tags, { configUid: CUID, ...parts }))
      .toString('hex')
      .slice(0, 32);
  assert.equal(begins({ user, additional, nonce }), '88794c62cce7bcf26216deb3f48f13fe');
  assert.equal(begins({ user, additional, nonce: none }), 'fbd4f738a390edd947cd4f11af3a2f3b');
  assert.equal(begins({ user: none, additional, nonce: none }), '63671fbf295036eb1023ea71f7182e7d');
  assert.equal(begins({ user: none, additional: none, nonce: none }), 'c5c34c93835d1ec23f5c2d778dfa2012');
});

test('IBM’s files: a request opens with its key, a response and a header are read, a request alone is none', {
  skip: missing,
}, () => {
  const request = must(readSeRequest(evidence('ibmse/arcb.bin')));
  const plain = crypto.openAesGcm?.(KEY, request.iv, request.authenticated, request.sealed, request.tag);
  assert.deepEqual(plain, new Uint8Array([...M_KEY, ...NONCE]));
  assert.deepEqual(request.flags, {
    nonce: true,
    imageHostKey: true,
    attestationHostKey: true,
    secretStore: false,
    firmware: false,
  });
  const response = must(readSeResponse(evidence('ibmse/full_resp.bin')));
  assert.deepEqual([response.additional.length, response.user.length, response.user[0]], [32, 256, 0x15]);
  assert.equal(readSeResponse(evidence('ibmse/exchange.bin')).ok, true);
  const unanswered = readSeResponse(evidence('ibmse/full_req.bin'));
  assert.ok(!unanswered.ok && /without an answer/.test(unanswered.error.message));
  assert.ok(readSeHeader(evidence('ibmse/secure_guest.hdr')).ok);
  const answer = responseBytes({ request: evidence('ibmse/arcb.bin'), header: evidence('ibmse/secure_guest.hdr') });
  const found = [
    ...recognise('response', answer).found,
    ...recognise('header', evidence('ibmse/secure_guest.hdr')).found,
  ];
  const report = appraise(found, [], { crypto, asOf: Date.parse('2026-01-01'), seRequestKey: KEY });
  assert.equal(report?.verdict, 'accepted');
  assert.equal(appraise(found, [], { crypto, asOf: Date.parse('2026-01-01') })?.verdict, 'rejected');
});
