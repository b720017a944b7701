import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { SPDM_VERSIONS, since } from '../src/algorithms.ts';
import { encodeChallengeAuth, NONCE_SIZE } from '../src/messages/challenge.ts';
import { encodeMeasurementBlock, encodeMeasurements } from '../src/messages/measurements.ts';
import { getCertificate, getDigests } from '../src/requester/certificates.ts';
import { challenge } from '../src/requester/challenge.ts';
import type { Connection } from '../src/requester/connection.ts';
import { getMeasurements } from '../src/requester/measurements.ts';
import { type Procedure, runAtOnce } from '../src/requester/procedure.ts';
import { establishSession } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { PURPOSE, type Purpose, signTranscript } from '../src/signing.ts';
import { codeOf, must } from './support/must.ts';
import { crypto, makePair, testKey } from './support/pair.ts';

/** A device that holds the genuine key and says what it wants: its answers are signed as they should be. */
function signed(connection: Connection, purpose: Purpose, request: Uint8Array, unsigned: Uint8Array): Uint8Array {
  const agreed = connection.negotiated;
  assert.ok(agreed !== null);
  const { version, hash } = agreed;
  const { vca, identity, measurements } = connection.transcripts;
  const parts =
    purpose === PURPOSE.challengeAuth
      ? [...vca, ...identity, request, unsigned]
      : [...(since(version, '1.2') ? vca : []), ...measurements, request, unsigned];
  const key = testKey('ecdsa-p256').signing;
  const signature = signTranscript(crypto, { version, hash, algorithm: 'ecdsa-p256' }, key, purpose, parts);
  assert.ok(signature !== undefined);
  return concat(unsigned, signature);
}

function prepared(version: (typeof SPDM_VERSIONS)[number]) {
  const pair = makePair({ version, binding: 'mctp' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getDigests(connection, null)));
  must(pair.run(getCertificate(connection, 0, null)));
  return pair;
}

/** Runs with every answer made by `make` out of the request. */
function against<T>(
  connection: Connection,
  procedure: Procedure<T>,
  make: (request: Uint8Array) => Uint8Array,
): Result<T> {
  const { binding } = connection.options;
  return runAtOnce(procedure, (bytes) => must(binding.wrap('plain', make(must(binding.unwrap(bytes)).message))));
}

for (const version of SPDM_VERSIONS) {
  test(`SPDM ${version}: a challenge answered for another slot, chain or request, however well signed`, () => {
    const honest = (connection: Connection, request: Uint8Array) => ({
      slot: 0,
      mutual: false,
      slotMask: 1,
      chainDigest: connection.keys.get(0)?.digest ?? new Uint8Array(),
      nonce: crypto.random(NONCE_SIZE),
      summaryHash: new Uint8Array(),
      opaque: new Uint8Array(),
      context: request.slice(36, 44),
    });
    type Answer = ReturnType<typeof honest>;
    const cases: readonly (readonly [string, Partial<Answer>])[] = [
      ['', {}],
      ['slot-mismatch', { slot: 1 }],
      ['slot-mismatch', { slotMask: 2 }],
      ['chain-digest-mismatch', { chainDigest: new Uint8Array(32) }],
      ['message-malformed', { summaryHash: new Uint8Array(32) }],
      ['message-malformed', { opaque: new Uint8Array(1025) }],
      ['session-refused', { mutual: true }],
      ...(since(version, '1.3') ? ([['context-mismatch', { context: new Uint8Array(8) }]] as const) : []),
    ];
    for (const [code, change] of cases) {
      const { connection } = prepared(version);
      const result = against(connection, challenge(connection, 0), (request) => {
        const answer = { ...honest(connection, request), ...change };
        return signed(connection, PURPOSE.challengeAuth, request, encodeChallengeAuth(connection.context, answer));
      });
      assert.equal(result.ok ? '' : result.error.code, code, JSON.stringify(change));
    }
  });

  test(`SPDM ${version}: measurements that are not the ones asked for, however well signed`, () => {
    const block = (index: number, raw = true, size = 4) =>
      encodeMeasurementBlock({ index, typeCode: 1, raw, value: new Uint8Array(size) });
    const honest = (request: Uint8Array) => ({
      total: 0,
      slot: 0,
      changed: 0,
      blocks: 1,
      record: block(3),
      nonce: crypto.random(NONCE_SIZE),
      opaque: new Uint8Array(),
      context: request.slice(37, 45),
    });
    type Answer = ReturnType<typeof honest>;
    const cases: readonly (readonly [string, Partial<Answer>])[] = [
      ['', {}],
      ['slot-mismatch', { slot: 2 }],
      ['measurements-invalid', { record: block(4) }],
      ['measurements-invalid', { record: concat(block(3), block(4)), blocks: 2 }],
      ['measurements-invalid', { record: concat(block(3), block(3)), blocks: 2 }],
      ['measurements-invalid', { record: concat(block(4), block(3)), blocks: 2 }],
      ['measurements-invalid', { blocks: 2 }],
      ['measurements-invalid', { blocks: 0 }],
      ['measurements-invalid', { record: new Uint8Array(), blocks: 0 }],
      ['measurements-invalid', { record: block(0) }],
      ['measurements-invalid', { record: block(255) }],
      ['measurements-invalid', { record: block(3, false, 31) }],
      ['measurements-invalid', { record: block(3).slice(0, -1) }],
      ['measurements-invalid', { record: concat(block(3), Uint8Array.of(0)) }],
      ['measurements-invalid', { record: block(3).map((byte, at) => (at === 1 ? 2 : byte)) }],
      ['measurements-invalid', { record: block(3).map((byte, at) => (at === 2 ? 6 : byte)) }],
      ...(since(version, '1.2') ? ([['message-malformed', { changed: 3 }]] as const) : []),
      ...(since(version, '1.3') ? ([['context-mismatch', { context: new Uint8Array(8) }]] as const) : []),
    ];
    for (const [code, change] of cases) {
      const { connection } = prepared(version);
      const result = against(connection, getMeasurements(connection, { operation: 3, sign: 0 }), (request) => {
        const answer = { ...honest(request), ...change };
        return signed(connection, PURPOSE.measurements, request, encodeMeasurements(connection.context, answer));
      });
      assert.equal(result.ok ? '' : result.error.code, code, JSON.stringify(change));
      // What was refused is never covered by a later signature.
      assert.deepEqual(connection.transcripts.measurements, []);
    }
  });

  test(`SPDM ${version}: a signature for one purpose is none for another, and none at all is none`, () => {
    const { connection } = prepared(version);
    const answer = (request: Uint8Array, purpose: Purpose | null) => {
      const unsigned = encodeMeasurements(connection.context, {
        ...{ total: 0, slot: 0, changed: 0, blocks: 0, record: new Uint8Array(), nonce: crypto.random(NONCE_SIZE) },
        opaque: new Uint8Array(),
        context: request.slice(37, 45),
      });
      return purpose === null ? unsigned : signed(connection, purpose, request, unsigned);
    };
    const ask = (purpose: Purpose | null) =>
      against(connection, getMeasurements(connection, { operation: 'all', sign: 0 }), (request) =>
        answer(request, purpose),
      );
    assert.equal(ask(PURPOSE.measurements).ok, true);
    assert.equal(codeOf(ask(null)), 'message-malformed');
    // 1.1 has no purposes: there, what a challenge covers differs in its messages.
    assert.equal(codeOf(ask(PURPOSE.challengeAuth)), 'signature-wrong');
  });
}

test('a chain that is not trusted ends it, before its key verifies anything', () => {
  const pair = makePair({
    version: '1.2',
    requester: { trust: () => fail('chain-untrusted', 'another maker') },
  });
  const { connection } = pair;
  must(pair.run(start(connection)));
  assert.equal(codeOf(pair.run(getCertificate(connection, 0, null))), 'chain-untrusted');
  assert.equal(codeOf(pair.run(challenge(connection, 0))), 'state-wrong');
  assert.equal(codeOf(pair.run(getMeasurements(connection, { operation: 'all', sign: 0 }))), 'state-wrong');
  assert.equal(codeOf(pair.run(establishSession(connection, { slot: 0 }))), 'state-wrong');
});

test('a chain that changes after it was trusted is trusted no more', () => {
  let first = true;
  const one = testKey('ecdsa-p256');
  const other = testKey('ecdsa-p256', 'other');
  const slots = () => {
    const { certificate, signing } = first ? one : other;
    return new Map([[0, { certificates: [certificate], key: signing }]]);
  };
  const responder = {
    get slots() {
      return slots();
    },
  };
  const pair = makePair({ version: '1.2' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getDigests(connection, null)));
  must(pair.run(getCertificate(connection, 0, null)));
  must(pair.run(challenge(connection, 0)));
  first = false;
  const second = makePair({ version: '1.2', responder: { slots: responder.slots } });
  must(second.run(start(second.connection)));
  // The relay: from now on another device answers.
  const swapped = runAtOnce(getDigests(connection, null), second.answer);
  must(swapped);
  assert.equal(connection.keys.has(0), false);
  assert.equal(codeOf(runAtOnce(challenge(connection, 0), second.answer)), 'state-wrong');
});

test('a leaf whose key is of another algorithm than the one that was agreed on', () => {
  const { certificate } = testKey('ecdsa-p384');
  const { signing } = testKey('ecdsa-p256');
  const pair = makePair({
    version: '1.2',
    responder: { slots: new Map([[0, { certificates: [certificate], key: signing }]]) },
  });
  must(pair.run(start(pair.connection)));
  assert.equal(codeOf(pair.run(getCertificate(pair.connection, 0, null))), 'leaf-key-unsuitable');
});

test('a chain of more than 64 KiB needs 1.4, and comes whole', () => {
  const { certificate, signing } = testKey('ecdsa-p256');
  const size = 100_000;
  const root = concat(Uint8Array.of(0x30, 0x83, size >> 16, (size >> 8) & 0xff, size & 0xff), new Uint8Array(size));
  const slots = new Map([[0, { certificates: [root, certificate], key: signing }]]);
  const late = makePair({ version: '1.4', responder: { slots } });
  must(late.run(start(late.connection)));
  assert.equal(must(late.run(getCertificate(late.connection, 0, null))).certificates.length, 2);
  must(late.run(challenge(late.connection, 0)));
  const early = makePair({ version: '1.3', responder: { slots } });
  must(early.run(start(early.connection)));
  assert.equal(codeOf(early.run(getCertificate(early.connection, 0, null))), 'peer-error');
});

test('a nonce of the caller is 32 bytes, and is in what was signed', () => {
  const { connection, run } = prepared('1.2');
  const nonce = new Uint8Array(32).fill(0x5a);
  const { statement } = must(run(challenge(connection, 0, { nonce })));
  assert.ok(Buffer.from(statement.transcript).includes(Buffer.from(nonce)));
  assert.equal(codeOf(run(challenge(connection, 0, { nonce: new Uint8Array(16) }))), 'state-wrong');
  const ask = getMeasurements(connection, { operation: 'all', sign: 0, nonce: new Uint8Array(33) });
  assert.equal(codeOf(run(ask)), 'state-wrong');
});
