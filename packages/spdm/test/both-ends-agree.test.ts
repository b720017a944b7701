import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AEADS,
  DHE_GROUPS,
  HASHES,
  KEMS,
  type SignatureName,
  SPDM_VERSIONS,
  type SpdmVersion,
  since,
} from '../src/algorithms.ts';
import { encodeCertificateChain, readCertificateChain } from '../src/certificate-chain.ts';
import { REQUEST } from '../src/messages/codes.ts';
import { KEY_USAGE } from '../src/messages/digests.ts';
import { readLogEntries } from '../src/messages/measurement-log.ts';
import { getCertificate, getDigests } from '../src/requester/certificates.ts';
import { challenge } from '../src/requester/challenge.ts';
import { getMeasurements } from '../src/requester/measurements.ts';
import {
  askVendor,
  getCsr,
  getEndpointInfo,
  getKeyPairInfo,
  getMeasurementLog,
  setCertificate,
} from '../src/requester/requests.ts';
import { endSession, establishSession } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { verifyTranscript } from '../src/signing.ts';
import { codeOf, must } from './support/must.ts';
import { crypto, MEASUREMENTS, makePair, testKey } from './support/pair.ts';
import { authenticate, useSession } from './support/whole-exchange.ts';

function leafKey(certificate: Uint8Array): Uint8Array {
  const chain = encodeCertificateChain(crypto, '1.2', 'sha256', certificate, [certificate]);
  return must(readCertificateChain(chain, '1.2', 'sha256')).leafSpki;
}

for (const version of SPDM_VERSIONS) {
  for (const binding of ['doe', 'mctp'] as const) {
    test(`SPDM ${version} over ${binding}: authentication, and sessions with and without a pre-shared key`, () => {
      const pair = makePair({ version, binding });
      const believed = must(pair.run(authenticate(pair.connection)));
      assert.equal(JSON.parse(believed.agreed).version, version);
      assert.equal(JSON.parse(believed.measurements).length, MEASUREMENTS.length);
      must(pair.run(useSession(pair.connection)));
      must(pair.run(useSession(pair.connection, true)));
      assert.equal(pair.responder.sessions, 0);
    });
  }

  for (const mutual of ['plain', 'encapsulated', 'digests'] as const) {
    for (const clear of [false, true]) {
      test(`SPDM ${version}: the requester is known too (${mutual}${clear ? ', handshake in the clear' : ''})`, () => {
        const pair = makePair({
          version,
          mutual,
          requester: { clearHandshake: clear },
          responder: { clearHandshake: clear },
        });
        must(pair.run(useSession(pair.connection)));
        assert.equal(pair.responder.sessions, 0);
      });
    }
  }
}

const SIGNATURES: readonly (readonly [SignatureName, SpdmVersion])[] = [
  ...([
    ['ecdsa-p256', '1.1'],
    ['ecdsa-p384', '1.1'],
    ['ecdsa-p521', '1.2'],
    ['rsassa-2048', '1.1'],
  ] as const),
  ...([
    ['rsapss-2048', '1.1'],
    ['rsapss-3072', '1.2'],
    ['ed25519', '1.2'],
    ['ed448', '1.3'],
  ] as const),
  ...([
    ['ml-dsa-44', '1.4'],
    ['ml-dsa-65', '1.4'],
    ['ml-dsa-87', '1.4'],
    ['slh-dsa-sha2-128f', '1.4'],
  ] as const),
];
for (const [signature, version] of SIGNATURES) {
  test(`${signature} signs at ${version}, for both ends`, () => {
    const pair = makePair({ version, signature, requesterSignature: signature, mutual: 'encapsulated' });
    must(pair.run(authenticate(pair.connection)));
    must(pair.run(useSession(pair.connection)));
  });
}

for (const exchange of [...DHE_GROUPS, ...KEMS]) {
  const version = (KEMS as readonly string[]).includes(exchange) ? '1.4' : '1.2';
  test(`${exchange} gives both ends the same keys`, () => {
    const pair = makePair({ version, preferences: { exchanges: [exchange] } });
    must(pair.run(useSession(pair.connection)));
  });
}

test('every hash and every AEAD', () => {
  for (const [index, hash] of HASHES.entries()) {
    const pair = makePair({
      version: '1.3',
      preferences: { hashes: [hash], aeads: [AEADS[index % 3] ?? 'aes-128-gcm'] },
    });
    must(pair.run(authenticate(pair.connection)));
    must(pair.run(useSession(pair.connection)));
  }
});

test('large messages go in chunks, both ways, within sessions too', () => {
  for (const version of ['1.2', '1.3', '1.4'] as const) {
    const large = MEASUREMENTS.map((one) => ({ ...one, raw: true, value: new Uint8Array(3000).fill(one.index) }));
    const pair = makePair({
      version,
      requester: { transferSize: 256 },
      responder: {
        transferSize: 200,
        measurements: large,
        vendor: (message) => ({ ...message, payload: message.payload.slice().reverse() }),
      },
    });
    must(pair.run(authenticate(pair.connection)));
    must(pair.run(useSession(pair.connection)));
    const payload = Uint8Array.from({ length: 2000 }, (_, i) => i & 0xff);
    const message = { standard: 3, vendor: Uint8Array.of(1, 0), payload };
    const answer = must(pair.run(askVendor(pair.connection, message, null)));
    assert.deepEqual(answer.payload, payload.slice().reverse());
  }
});

test('a statement verifies again from what it carries, and not with a byte changed', () => {
  const pair = makePair({ version: '1.2' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getCertificate(connection, 0, null)));
  const { statement } = must(pair.run(challenge(connection, 0)));
  const key = connection.keys.get(0)?.key;
  assert.ok(key !== undefined);
  const verify = (transcript: Uint8Array) =>
    verifyTranscript(crypto, statement.suite, key, statement.purpose, [transcript], statement.signature);
  assert.equal(verify(statement.transcript), true);
  const changed = statement.transcript.slice();
  changed[40] = (changed[40] ?? 0) ^ 1;
  assert.equal(verify(changed), false);
});

test('one signature covers the blocks that were asked for one by one', () => {
  const pair = makePair({ version: '1.2' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getCertificate(connection, 0, null)));
  must(pair.run(getMeasurements(connection, { operation: 1 })));
  must(pair.run(getMeasurements(connection, { operation: 2, raw: true })));
  const last = must(pair.run(getMeasurements(connection, { operation: 5, sign: 0 })));
  assert.deepEqual(
    last.blocks.map(({ index }) => index),
    [5],
  );
  assert.deepEqual(
    last.signedBlocks.map(({ index }) => index),
    [1, 2, 5],
  );
  // Another request between: what was said before it is not covered.
  must(pair.run(getMeasurements(connection, { operation: 1 })));
  must(pair.run(getDigests(connection, null)));
  const next = must(pair.run(getMeasurements(connection, { operation: 2, sign: 0 })));
  assert.deepEqual(
    next.signedBlocks.map(({ index }) => index),
    [2],
  );
});

test('a responder with several keys: each for what it says, and no other', () => {
  for (const version of ['1.3', '1.4'] as const) {
    const measuring = testKey('ecdsa-p256', 'measuring');
    const challenged = testKey('ecdsa-p256');
    const pair = makePair({
      version,
      responder: {
        multiKey: 'only',
        slots: new Map([
          [
            0,
            {
              certificates: [challenged.certificate],
              key: challenged.signing,
              keyPair: 1,
              keyUsage: KEY_USAGE.challenge,
            },
          ],
          [
            2,
            {
              certificates: [measuring.certificate],
              key: measuring.signing,
              keyPair: 2,
              keyUsage: KEY_USAGE.measurement | KEY_USAGE.keyExchange,
            },
          ],
        ]),
      },
    });
    const { connection } = pair;
    assert.equal(must(pair.run(start(connection))).multiKey, true);
    must(pair.run(getDigests(connection, null)));
    must(pair.run(getCertificate(connection, 0, null)));
    must(pair.run(challenge(connection, 0)));
    assert.equal(codeOf(pair.run(getMeasurements(connection, { operation: 'all', sign: 0 }))), 'state-wrong');
    must(pair.run(getCertificate(connection, 2, null)));
    must(pair.run(getMeasurements(connection, { operation: 'all', sign: 2 })));
    assert.equal(codeOf(pair.run(challenge(connection, 2))), 'state-wrong');
    const info = must(pair.run(getKeyPairInfo(connection, 2, null)));
    assert.deepEqual([info.total, info.slotMask, info.usage], [2, 4, 5]);
  }
});

test('endpoint info, signed and not; the measurement log; a CSR; a certificate that is installed', () => {
  const kept: number[] = [];
  const entry = Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 0x81, 2, 0, 9, 9);
  const log = Uint8Array.from([1, 0, 0, 0, entry.length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...entry]);
  for (const version of SPDM_VERSIONS) {
    const pair = makePair({
      version,
      requester: { transferSize: 100 },
      responder: {
        endpointInfo: Uint8Array.of(1, 0, 0, 0),
        measurementLog: log,
        csr: () => Uint8Array.of(0x30, 0),
        setCertificate: ({ slot, chain }) => kept.push(slot, chain.length) > 0,
      },
    });
    const { connection } = pair;
    const agreed = must(pair.run(start(connection)));
    if (version === '1.1') {
      assert.equal(codeOf(pair.run(getCsr(connection, {}, null))), 'capability-missing');
      continue;
    }
    must(pair.run(getCertificate(connection, 0, null)));
    assert.deepEqual(must(pair.run(getCsr(connection, {}, null))), Uint8Array.of(0x30, 0));
    const { certificate } = testKey('ecdsa-p256');
    const chain = encodeCertificateChain(crypto, version, agreed.hash, certificate, [certificate]);
    must(pair.run(setCertificate(connection, { slot: 0, certificateModel: 1, keyPair: 0, chain }, null)));
    const broken = chain.slice();
    broken[0] = (broken[0] ?? 0) ^ 0x10;
    const refused = pair.run(
      setCertificate(connection, { slot: 0, certificateModel: 1, keyPair: 0, chain: broken }, null),
    );
    assert.equal(codeOf(refused), 'peer-error');
    if (!since(version, '1.3')) continue;
    const signed = must(pair.run(getEndpointInfo(connection, { sign: 0 })));
    assert.equal(signed.statement?.slot, 0);
    assert.equal(must(pair.run(getEndpointInfo(connection))).statement, null);
    const read = must(readLogEntries(must(pair.run(getMeasurementLog(connection, null)))));
    assert.deepEqual(
      read.map(({ type, raw }) => [type, raw]),
      [['mutable-firmware', true]],
    );
  }
  assert.deepEqual(kept.length, 6);
});

test('a responder that needs time: its answers are asked for again, and signed as if they had come at once', () => {
  const codes = [
    REQUEST.GET_DIGESTS,
    REQUEST.CHALLENGE,
    REQUEST.GET_MEASUREMENTS,
    REQUEST.KEY_EXCHANGE,
    REQUEST.FINISH,
  ];
  for (const version of SPDM_VERSIONS) {
    const pair = makePair({ version, responder: { late: { codes, exponent: 15 } } });
    must(pair.run(authenticate(pair.connection)));
    must(pair.run(useSession(pair.connection)));
  }
});

test('a responder whose key is known, and has no certificate', () => {
  const { certificate, signing } = testKey('ecdsa-p256');
  for (const version of SPDM_VERSIONS) {
    const known = leafKey(certificate);
    const pair = makePair({
      version,
      requester: { peerKey: known },
      responder: { slots: new Map(), knownKey: { spki: known, key: signing } },
    });
    const { connection } = pair;
    must(pair.run(start(connection)));
    assert.equal(codeOf(pair.run(getDigests(connection, null))), 'capability-missing');
    must(pair.run(challenge(connection, 15)));
    must(pair.run(getMeasurements(connection, { operation: 'all', sign: 15 })));
    const { session } = must(pair.run(establishSession(connection, { slot: 15 })));
    must(pair.run(endSession(connection, session)));
    // Another key than the one that was given.
    const other = makePair({
      version,
      requester: { peerKey: leafKey(testKey('ecdsa-p256', 'other').certificate) },
      responder: { slots: new Map(), knownKey: { spki: known, key: signing } },
    });
    must(other.run(start(other.connection)));
    assert.equal(codeOf(other.run(challenge(other.connection, 15))), 'chain-digest-mismatch');
    assert.equal(codeOf(other.run(establishSession(other.connection, { slot: 15 }))), 'signature-wrong');
  }
});
