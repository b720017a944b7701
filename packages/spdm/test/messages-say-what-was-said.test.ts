import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import fc from 'fast-check';
import { SPDM_VERSIONS, type SpdmVersion, since } from '../src/algorithms.ts';
import {
  decodeCertificate,
  decodeGetCertificate,
  encodeCertificate,
  encodeGetCertificate,
} from '../src/messages/certificate.ts';
import {
  decodeChallenge,
  decodeChallengeAuth,
  encodeChallenge,
  encodeChallengeAuth,
} from '../src/messages/challenge.ts';
import {
  decodeChunk,
  decodeChunkGet,
  decodeChunkSendAck,
  encodeChunk,
  encodeChunkGet,
  encodeChunkSendAck,
} from '../src/messages/chunk.ts';
import { REQUEST, RESPONSE } from '../src/messages/codes.ts';
import { decodeDigests, encodeDigests } from '../src/messages/digests.ts';
import { decodeEncapsulatedAck, encodeEncapsulatedAck } from '../src/messages/encapsulated.ts';
import {
  decodeEndpointInfo,
  decodeGetEndpointInfo,
  encodeEndpointInfo,
  encodeGetEndpointInfo,
} from '../src/messages/endpoint-info.ts';
import {
  decodeKeyExchange,
  decodeKeyExchangeResponse,
  encodeKeyExchange,
  encodeKeyExchangeResponse,
} from '../src/messages/key-exchange.ts';
import { decodeKeyPairInfo, encodeKeyPairInfo } from '../src/messages/key-pair.ts';
import {
  decodeGetMeasurements,
  decodeMeasurements,
  encodeGetMeasurements,
  encodeMeasurementBlock,
  encodeMeasurements,
  readMeasurementRecord,
} from '../src/messages/measurements.ts';
import { decodeOpaqueElements, encodeOpaqueElements } from '../src/messages/opaque.ts';
import {
  decodeGetCsr,
  decodeSetCertificate,
  encodeGetCsr,
  encodeSetCertificate,
} from '../src/messages/provisioning.ts';
import {
  decodePskExchange,
  decodePskExchangeResponse,
  encodePskExchange,
  encodePskExchangeResponse,
} from '../src/messages/psk.ts';
import { type Decoded, initialContext, type MessageContext } from '../src/messages/reader.ts';
import { decodeVendorDefined, encodeVendorDefined } from '../src/messages/vendor-defined.ts';
import { decodeVersion, encodeVersion } from '../src/messages/version.ts';
import { must } from './support/must.ts';

const contextOf = (version: SpdmVersion, padding = 0, multiKey = false): MessageContext => ({
  ...initialContext(version, padding),
  hashSize: 32,
  signatureSize: 64,
  requesterSignatureSize: 96,
  exchangeSize: { request: 64, response: 48 },
  multiKey,
});

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const some = fc.uint8Array({ maxLength: 300 });
const slot = fc.nat(7);
const byte = fc.nat(255);
const word = fc.nat(0xffff);
const long = fc.nat(0x7fff_ffff);
const summary = fc.constantFrom('none', 'tcb', 'all');
const ofVersion = fc.constantFrom(...SPDM_VERSIONS);

/** What was encoded is read again, ends where it ended, and neither cut nor lengthened read as whole. */
function holds<T>(
  context: MessageContext,
  encoded: Uint8Array,
  expected: T,
  decode: (bytes: Uint8Array, context: MessageContext) => Result<Decoded<T>>,
): void {
  const read = must(decode(encoded, context));
  assert.deepEqual(read.message, expected);
  assert.equal(read.length, encoded.length);
  for (let cut = 1; cut <= Math.min(encoded.length, 40); cut++)
    assert.equal(decode(encoded.slice(0, encoded.length - cut), context).ok, false, `shorter by ${cut}`);
  assert.equal(decode(concat(encoded, Uint8Array.of(0)), context).ok, false);
  const padded = { ...context, padding: 3 };
  for (let more = 1; more <= 3; more++)
    assert.equal(must(decode(concat(encoded, new Uint8Array(more)), padded)).length, encoded.length);
  assert.equal(decode(concat(encoded, new Uint8Array(4)), padded).ok, false);
  assert.equal(decode(concat(encoded, Uint8Array.of(1)), padded).ok, false);
}

const check = <T>(arbitrary: fc.Arbitrary<T>, property: (version: SpdmVersion, value: T) => void) =>
  fc.assert(fc.property(ofVersion, arbitrary, property), { numRuns: 40 });

const in13 = (version: SpdmVersion, value: Uint8Array) => (since(version, '1.3') ? value : new Uint8Array());

test('VERSION and DIGESTS', () => {
  const nibble = fc.nat(15);
  const entry = record({ major: nibble, minor: nibble, update: nibble, alpha: nibble });
  check(fc.array(entry, { minLength: 1, maxLength: 20 }), (version, entries) =>
    holds(contextOf(version), encodeVersion(entries), entries, (one, { padding }) => decodeVersion(one, padding)),
  );
  const slots = fc.uniqueArray(slot, { minLength: 1 }).chain((numbers) =>
    fc.tuple(
      ...numbers
        .sort((a, b) => a - b)
        .map((number) =>
          record({
            slot: fc.constant(number),
            digest: bytes(32),
            key: record({ pair: byte, certificateModel: slot, usage: word }),
          }),
        ),
    ),
  );
  check(fc.tuple(slots, fc.boolean()), (version, [given, several]) => {
    const multiKey = several && since(version, '1.3');
    const context = contextOf(version, 0, multiKey);
    const told = given.map(({ slot: number, digest, key }) =>
      multiKey ? { slot: number, digest, key } : { slot: number, digest },
    );
    const supported = since(version, '1.3') ? 0xff : 0;
    holds(context, encodeDigests(context, { supported, slots: told }), { supported, slots: told }, decodeDigests);
  });
});

test('GET_CERTIFICATE, CERTIFICATE, large and small', () => {
  check(record({ slot, offset: word, length: word, large: fc.boolean(), slotSize: fc.boolean() }), (version, given) => {
    const context = contextOf(version);
    const large = given.large && since(version, '1.4');
    const value = {
      ...given,
      large,
      offset: large ? given.offset * 7 : given.offset,
      slotSize: given.slotSize && since(version, '1.3'),
    };
    holds(context, encodeGetCertificate(context, value), value, decodeGetCertificate);
  });
  check(
    record({ slot, model: slot, portion: fc.uint8Array({ minLength: 1, maxLength: 200 }), remainder: word }),
    (version, given) => {
      const context = contextOf(version);
      const value = { ...given, model: since(version, '1.3') ? given.model : 0, large: since(version, '1.4') };
      holds(context, encodeCertificate(context, value), value, decodeCertificate);
    },
  );
});

test('CHALLENGE, CHALLENGE_AUTH, GET_MEASUREMENTS, MEASUREMENTS, their signatures last', () => {
  check(record({ slot, summary, nonce: bytes(32), context: bytes(8) }), (version, given) => {
    const context = contextOf(version);
    const value = { ...given, context: in13(version, given.context) };
    holds(context, encodeChallenge(context, value), value, decodeChallenge);
  });
  const auth = record({
    ...{ slot, mutual: fc.boolean(), slotMask: byte, chainDigest: bytes(32), nonce: bytes(32), summaryHash: bytes(32) },
    ...{ opaque: some, context: bytes(8), signature: bytes(64) },
  });
  check(auth, (version, given) => {
    const context = contextOf(version);
    const value = { ...given, context: in13(version, given.context) };
    const encoded = concat(encodeChallengeAuth(context, value), value.signature);
    holds(context, encoded, value, (one, where) => decodeChallengeAuth(one, where, true));
  });
  const request = record({
    ...{ operation: byte, raw: fc.boolean(), fresh: fc.boolean(), context: bytes(8) },
    sign: fc.option(record({ nonce: bytes(32), slot })),
  });
  check(request, (version, given) => {
    const context = contextOf(version);
    const value = {
      ...given,
      raw: given.raw && since(version, '1.2'),
      fresh: given.fresh && since(version, '1.3'),
      context: in13(version, given.context),
    };
    holds(context, encodeGetMeasurements(context, value), value, decodeGetMeasurements);
  });
  const answer = record({
    ...{ total: byte, slot, changed: fc.nat(2), blocks: byte, record: some, nonce: bytes(32), opaque: some },
    ...{ context: bytes(8), signature: bytes(64) },
  });
  check(answer, (version, given) => {
    const context = contextOf(version);
    const changed = since(version, '1.2') ? given.changed : 0;
    const value = { ...given, changed, context: in13(version, given.context) };
    const encoded = concat(encodeMeasurements(context, value), value.signature);
    holds(context, encoded, value, (one, where) => decodeMeasurements(one, where, true));
  });
});

test('records of measurement blocks', () => {
  const block = record({ typeCode: fc.nat(10), raw: fc.boolean(), value: bytes(32) });
  fc.assert(
    fc.property(fc.array(block, { maxLength: 20 }), (given) => {
      const blocks = given.map((one, at) => ({ ...one, index: 3 * at + 1 }));
      const record = concat(...blocks.map(encodeMeasurementBlock));
      const read = must(readMeasurementRecord(record, blocks.length, 32));
      assert.deepEqual(
        read.map(({ type: _, ...rest }) => rest),
        blocks,
      );
      if (blocks.length > 0) assert.equal(readMeasurementRecord(record.slice(1), blocks.length, 32).ok, false);
      assert.equal(readMeasurementRecord(record, blocks.length + 1, 32).ok, false);
    }),
  );
});

test('KEY_EXCHANGE, PSK_EXCHANGE and their answers', () => {
  check(
    record({
      slot,
      summary,
      sessionId: word,
      policy: byte,
      random: bytes(32),
      exchangeData: bytes(64),
      opaque: some,
    }),
    (version, given) => {
      const context = contextOf(version);
      const value = { ...given, policy: since(version, '1.2') ? given.policy : 0 };
      holds(context, encodeKeyExchange(context, value), value, decodeKeyExchange);
    },
  );
  const answer = record({
    ...{
      heartbeat: byte,
      sessionId: word,
      mutual: fc.constantFrom(0, 1, 2, 4),
      requesterSlot: slot,
      random: bytes(32),
    },
    ...{ exchangeData: bytes(48), summaryHash: bytes(32), opaque: some, signature: bytes(64), verifyData: bytes(32) },
  });
  check(answer, (version, value) => {
    const context = contextOf(version);
    const encoded = concat(encodeKeyExchangeResponse(context, value), value.signature, value.verifyData);
    holds(context, encoded, value, (one, where) => decodeKeyExchangeResponse(one, where, true, true));
  });
  check(
    record({ summary, policy: byte, sessionId: word, hint: some, context: bytes(40), opaque: some }),
    (version, given) => {
      const context = contextOf(version);
      const value = { ...given, policy: since(version, '1.2') ? given.policy : 0 };
      holds(context, encodePskExchange(context, value), value, decodePskExchange);
    },
  );
  check(
    record({
      heartbeat: byte,
      sessionId: word,
      summaryHash: bytes(32),
      context: some,
      opaque: some,
      verifyData: bytes(32),
    }),
    (version, value) => {
      const context = contextOf(version);
      const encoded = concat(encodePskExchangeResponse(context, value), value.verifyData);
      holds(context, encoded, value, (one, where) => decodePskExchangeResponse(one, where, true));
    },
  );
});

test('chunks, acknowledgements, encapsulated answers, vendors’ messages', () => {
  check(
    record({
      handle: byte,
      sequence: fc.nat(3),
      last: fc.boolean(),
      size: long,
      data: fc.uint8Array({ minLength: 1, maxLength: 99 }),
    }),
    (version, given) => {
      const context = contextOf(version);
      const value = { ...given, size: given.sequence === 0 ? given.size : null };
      const encoded = encodeChunk(context, REQUEST.CHUNK_SEND, value);
      holds(context, encoded, value, (one, where) => decodeChunk(one, where, REQUEST.CHUNK_SEND));
      const get = { handle: value.handle, sequence: value.sequence };
      holds(context, encodeChunkGet(context, value.handle, value.sequence), get, decodeChunkGet);
      const ack = { ...get, earlyError: value.last, response: value.data };
      assert.deepEqual(must(decodeChunkSendAck(encodeChunkSendAck(context, ack), context)).message, ack);
    },
  );
  check(fc.tuple(byte, byte, slot), (version, [requestId, answered, number]) => {
    const context = contextOf(version);
    const value = {
      requestId,
      answered: since(version, '1.2') ? answered : 0,
      payload: { kind: 'slot' as const, slot: number },
    };
    holds(context, encodeEncapsulatedAck(context, value), value, decodeEncapsulatedAck);
  });
  check(record({ standard: word, vendor: fc.uint8Array({ maxLength: 16 }), payload: some }), (version, value) => {
    const context = contextOf(version);
    const encoded = encodeVendorDefined(context, RESPONSE.VENDOR_DEFINED_RESPONSE, value);
    holds(context, encoded, value, (one, where) => decodeVendorDefined(one, where, RESPONSE.VENDOR_DEFINED_RESPONSE));
  });
  fc.assert(
    fc.property(
      fc.array(record({ id: byte, vendor: fc.uint8Array({ maxLength: 9 }), data: some }), { maxLength: 5 }),
      (elements) => {
        assert.deepEqual(must(decodeOpaqueElements(encodeOpaqueElements(elements))), elements);
      },
    ),
  );
});

test('endpoint info, key pairs, CSR, certificates to install', () => {
  check(record({ slot, nonce: bytes(32), info: some, signature: bytes(64) }), (version, value) => {
    const context = contextOf(version);
    const encoded = concat(encodeEndpointInfo(context, value), value.signature);
    holds(context, encoded, value, (one, where) => decodeEndpointInfo(one, where, true));
    const request = { subCode: 1, sign: { nonce: value.nonce, slot: value.slot } };
    holds(context, encodeGetEndpointInfo(context, request), request, decodeGetEndpointInfo);
  });
  const info = record({
    ...{
      total: byte,
      pair: byte,
      capabilities: word,
      usageCapabilities: word,
      usage: word,
      algorithmCapabilities: long,
    },
    ...{ algorithm: long, publicKeyInfo: some, slotMask: byte, pqcCapabilities: long, pqcAlgorithm: long },
  });
  check(info, (version, given) => {
    const context = contextOf(version);
    const value = since(version, '1.4') ? given : { ...given, pqcCapabilities: 0, pqcAlgorithm: 0 };
    holds(context, encodeKeyPairInfo(context, value), value, decodeKeyPairInfo);
  });
  const csr = record({
    keyPair: byte,
    certificateModel: slot,
    trackingTag: slot,
    overwrite: fc.boolean(),
    requesterInfo: some,
    opaque: some,
  });
  check(csr, (version, given) => {
    const context = contextOf(version);
    const value = since(version, '1.3')
      ? given
      : { ...given, keyPair: 0, certificateModel: 0, trackingTag: 0, overwrite: false };
    holds(context, encodeGetCsr(context, value), value, decodeGetCsr);
  });
  check(
    record({ slot, certificateModel: slot, keyPair: byte, chain: fc.uint8Array({ minLength: 1, maxLength: 99 }) }),
    (version, given) => {
      const context = contextOf(version);
      const value = since(version, '1.3') ? given : { ...given, certificateModel: 0, keyPair: 0 };
      assert.deepEqual(must(decodeSetCertificate(encodeSetCertificate(context, value), context)).message, value);
    },
  );
});
