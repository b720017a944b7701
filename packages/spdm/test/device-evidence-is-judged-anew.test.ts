import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { readTime } from '@airlock/evidence/time.ts';
import fc from 'fast-check';
import { SPDM_VERSIONS, type SpdmVersion } from '../src/algorithms.ts';
import { type AppraiseDevice, appraiseDevice } from '../src/attest/appraise.ts';
import { type DeviceEvidence, decodeEvidence, encodeEvidence, type SignedStatement } from '../src/attest/evidence.ts';
import { gatherEvidence } from '../src/attest/gather.ts';
import { doeBinding } from '../src/doe/binding.ts';
import { DEFAULT_PREFERENCES } from '../src/negotiate.ts';
import { Connection } from '../src/requester/connection.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import type { Responder } from '../src/responder/responder.ts';
import { cmaName, type Device, dmtf, makeDevice, spdmCrypto } from './support/device-chain.ts';
import { codeOf, must } from './support/must.ts';
import { MEASURED, responderOf } from './support/responder.ts';

const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';
const device = makeDevice({ leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] });
const nonce = new Uint8Array(32).fill(0x5a);

const ask = (responder: Responder, version: SpdmVersion, given: { nonce?: Uint8Array; raw?: boolean } = { nonce }) =>
  runAtOnce(
    gatherEvidence(
      new Connection({
        crypto: spdmCrypto,
        binding: doeBinding,
        trust: () => ok(null),
        preferences: { ...DEFAULT_PREFERENCES, versions: [version] },
      }),
      { device: 'made up', ...given },
    ),
    (bytes) => must(responder.answer(bytes)),
  );

const input = (of: Device, more: Partial<AppraiseDevice> = {}): AppraiseDevice => ({
  x509: nodeCrypto(),
  spdm: spdmCrypto,
  roots: [of.rootCertificate],
  asOf: readTime('2026-06-01') ?? 0,
  revocation: { lists: [], required: false },
  function: {
    vendor: 0x1b36,
    device: 0x0010,
    class: 0x010802,
    revision: 2,
    subsystem: { vendor: 0x1af4, device: 0x1100 },
    serial: null,
  },
  references: [],
  nonce,
  ...more,
});

const judge = (evidence: DeviceEvidence, more: Partial<AppraiseDevice> = {}, of: Device = device) =>
  appraiseDevice(evidence, input(of, more));
const failures = (evidence: DeviceEvidence, more: Partial<AppraiseDevice> = {}, of: Device = device) =>
  must(judge(evidence, more, of))
    .checks.filter(({ status }) => status === 'failed')
    .map(({ id }) => id);

const gathered = new Map(SPDM_VERSIONS.map((version) => [version, must(ask(responderOf(device), version))]));
const evidenceOf = (version: SpdmVersion): DeviceEvidence => {
  const one = gathered.get(version);
  assert.ok(one);
  return one;
};

for (const version of SPDM_VERSIONS) {
  test(`SPDM ${version}: gathered, written, read again and believed`, () => {
    const evidence = must(decodeEvidence(encodeEvidence(evidenceOf(version))));
    assert.deepEqual(evidence, evidenceOf(version));
    const appraisal = must(judge(evidence));
    assert.deepEqual(failures(evidence), []);
    assert.equal(appraisal.verdict, 'accepted');
    assert.equal(appraisal.tier, 'attested');
    assert.deepEqual(
      appraisal.compared.map(({ index }) => index),
      MEASURED.map(({ index }) => index),
    );
    assert.equal(evidence.statements.length, 2);
  });
}

test('one wrong digit anywhere is never believed', () => {
  for (const version of SPDM_VERSIONS) {
    const text = encodeEvidence(evidenceOf(version));
    const quoted = [...text.matchAll(/"([0-9a-f]{8,})"/g)].map(
      (match) => [match.index + 1, (match[1] ?? '').length] as const,
    );
    fc.assert(
      fc.property(fc.nat(quoted.length - 1), fc.nat(), fc.integer({ min: 1, max: 15 }), (which, where, flip) => {
        const [start, length] = quoted[which] ?? [0, 1];
        const at = start + (where % length);
        const digit = (Number.parseInt(text[at] ?? '0', 16) ^ flip).toString(16);
        const spoilt = `${text.slice(0, at)}${digit}${text.slice(at + 1)}`;
        const evidence = decodeEvidence(spoilt);
        if (!evidence.ok) return;
        const appraisal = judge(evidence.value);
        if (!appraisal.ok) return;
        // Before 1.4 two bytes of the chain’s header mean nothing, and neither digest nor signature of 1.1 covers what
        // was agreed on in measurements alone; both are covered by the challenge.
        assert.equal(appraisal.value.verdict, 'rejected', `${version}: ${which}, ${where % length}`);
      }),
      { numRuns: 100 },
    );
  }
});

test('evidence that was asked for with another nonce is not fresh, and without one nobody knows', () => {
  const evidence = evidenceOf('1.2');
  assert.deepEqual([...new Set(failures(evidence, { nonce: new Uint8Array(32) }))], ['freshness.nonce']);
  const unknown = must(judge(evidence, { nonce: null }));
  assert.equal(unknown.verdict, 'accepted');
  assert.equal(unknown.tier, 'claimed');
});

test('statements of another device, or of another connection, are not this one’s', () => {
  const other = makeDevice({ leaf: [cmaName(NAME)] });
  const theirs = must(ask(responderOf(other), '1.2'));
  const mixed = { ...evidenceOf('1.2'), statements: theirs.statements };
  const judged = judge(mixed);
  if (judged.ok) assert.deepEqual(failures(mixed).sort(), ['spdm.challenge', 'spdm.measurements']);
  const chain = { ...evidenceOf('1.2'), chain: theirs.chain };
  assert.ok(failures(chain).includes('chain.root'));
  const newer = must(ask(responderOf(device), '1.2', { nonce: new Uint8Array(32).fill(1) }));
  const [challenge] = evidenceOf('1.2').statements;
  const [, measurements] = newer.statements;
  assert.ok(challenge !== undefined && measurements !== undefined);
  assert.deepEqual(failures({ ...newer, statements: [challenge, measurements] }, {}).sort(), ['freshness.nonce']);
});

test('a challenge passes for no measurements, and the other way round', () => {
  for (const version of SPDM_VERSIONS) {
    const evidence = evidenceOf(version);
    const swapped = evidence.statements.map(
      (one): SignedStatement => ({ ...one, kind: one.kind === 'challenge' ? 'measurements' : 'challenge' }),
    );
    assert.equal(judge({ ...evidence, statements: swapped }).ok, false, version);
  }
});

test('messages left out, doubled, moved or joined are refused', () => {
  const evidence = evidenceOf('1.3');
  for (const [which, statement] of evidence.statements.entries()) {
    const { messages } = statement;
    const changes: (readonly Uint8Array[])[] = [
      ...messages.map((_, at) => messages.filter((_one, i) => i !== at)),
      ...messages.map((one, at) => [...messages.slice(0, at), one, ...messages.slice(at)]),
      ...messages
        .slice(1)
        .map((_, at) =>
          messages.map((one, i) => (i === at ? (messages[at + 1] ?? one) : i === at + 1 ? (messages[at] ?? one) : one)),
        ),
      [new Uint8Array(Buffer.concat(messages))],
      [],
    ];
    for (const changed of changes) {
      const statements = evidence.statements.map((one, i) => (i === which ? { ...one, messages: changed } : one));
      const judged = judge({ ...evidence, statements });
      if (judged.ok) assert.equal(judged.value.verdict, 'rejected');
    }
  }
});

test('another agreement than the one that was signed is refused', () => {
  const evidence = evidenceOf('1.2');
  const other = evidenceOf('1.3');
  assert.equal(judge({ ...evidence, vca: other.vca }).ok, false);
  assert.equal(judge({ ...evidence, version: '1.3' }).ok, false);
  assert.equal(codeOf(judge({ ...evidence, hash: 'sha256' })), 'device-evidence-invalid');
  assert.equal(codeOf(judge({ ...evidence, slot: 1 })), 'device-evidence-invalid');
  assert.equal(codeOf(judge({ ...evidence, vca: [] })), 'device-evidence-invalid');
});

test('measurements of 1.1 alone cover nothing of what was agreed on, and that is said', () => {
  for (const [version, said] of [
    ['1.1', /not what was agreed on/],
    ['1.2', /^the device was not challenged$/],
  ] as const) {
    const evidence = evidenceOf(version);
    const [, measurements] = evidence.statements;
    assert.ok(measurements !== undefined);
    const { checks } = must(judge({ ...evidence, statements: [measurements] }));
    const check = checks.find(({ id }) => id === 'spdm.challenge');
    assert.equal(check?.status, 'unchecked');
    assert.match(check?.found ?? '', said);
  }
});

test('nothing signed is nothing proven', () => {
  const evidence = { ...evidenceOf('1.2'), statements: [] };
  for (const given of [nonce, null]) {
    const appraisal = must(judge(evidence, { nonce: given }));
    assert.equal(appraisal.tier, 'claimed');
    assert.equal(appraisal.verdict, 'rejected');
    assert.deepEqual(failures(evidence, { nonce: given }), ['spdm.challenge']);
  }
});

test('a device that gives its measurements one by one has them all under one signature', () => {
  for (const version of SPDM_VERSIONS) {
    const responder = responderOf(device);
    const stubborn = {
      answer: (bytes: Uint8Array) => {
        // GET_MEASUREMENTS of all of them.
        if (bytes[9] === 0xe0 && bytes[11] === 0xff)
          return ok(Uint8Array.of(1, 0, 1, 0, 3, 0, 0, 0, bytes[8] ?? 0, 0x7f, 0x01, 0));
        return responder.answer(bytes);
      },
    } as unknown as Responder;
    const evidence = must(ask(stubborn, version));
    assert.deepEqual(failures(evidence), [], version);
    assert.deepEqual(
      must(judge(evidence)).compared.map(({ index }) => index),
      MEASURED.map(({ index }) => index),
    );
  }
});

test('a device without measurements, and one that signs nothing at all', () => {
  const responder = responderOf(device, {
    measurements: undefined as never,
    algorithms: {
      ...DEFAULT_PREFERENCES,
      hashes: ['sha384'],
      signatures: ['ecdsa-p384'],
      measurementHash: null,
    },
  });
  const evidence = must(ask(responder, '1.2'));
  assert.deepEqual(
    evidence.statements.map(({ kind }) => kind),
    ['challenge'],
  );
  const appraisal = must(judge(evidence));
  assert.equal(appraisal.verdict, 'accepted');
  assert.equal(appraisal.checks.find(({ id }) => id === 'spdm.measurements')?.status, 'unchecked');
});

test('a file that is no evidence', () => {
  const good = JSON.parse(encodeEvidence(evidenceOf('1.2'))) as Record<string, unknown>;
  const wrong: readonly unknown[] = [
    {},
    [],
    'text',
    { ...good, format: 'other' },
    { ...good, formatVersion: 2 },
    { ...good, more: 1 },
    { ...good, version: '1.0' },
    { ...good, hash: 'md5' },
    { ...good, slot: 9 },
    { ...good, slot: '0' },
    { ...good, chain: 'xyz' },
    { ...good, chain: '0xab' },
    { ...good, vca: 'ab' },
    { ...good, vca: [1] },
    { ...good, device: 5 },
    { ...good, function: 5 },
    { ...good, function: 'Vendor=1b36' },
    { ...good, statements: {} },
    { ...good, statements: [{ kind: 'other', messages: [], signature: '' }] },
    { ...good, statements: [{ kind: 'challenge', messages: [], signature: '', more: 1 }] },
    { ...good, statements: Array(9).fill({ kind: 'challenge', messages: [], signature: '' }) },
  ];
  for (const one of wrong) assert.equal(codeOf(decodeEvidence(JSON.stringify(one))), 'device-evidence-invalid');
  assert.equal(codeOf(decodeEvidence('{')), 'json-invalid');
  assert.equal(codeOf(decodeEvidence('{"format":1,"format":1}')), 'json-invalid');
});

test('a nonce of another length is not sent', () => {
  assert.equal(codeOf(ask(responderOf(device), '1.2', { nonce: new Uint8Array(16) })), 'state-wrong');
});
