/**
 * Reads a recorded conversation as neither of its ends: every message through our decoders, every signature and MAC
 * verified, every record opened with keys that come from the recorded shared secret.
 */
import assert from 'node:assert/strict';
import { concat } from '@airlock/evidence/bytes.ts';
import { since, versionOfByte } from '../../src/algorithms.ts';
import { readCertificateChain } from '../../src/certificate-chain.ts';
import { doeBinding } from '../../src/doe/binding.ts';
import { dataSecrets, type HandshakeSecrets, handshakeSecrets } from '../../src/key-schedule.ts';
import { decodeCapabilities, decodeGetCapabilities } from '../../src/messages/capabilities.ts';
import { decodeCertificate, decodeGetCertificate } from '../../src/messages/certificate.ts';
import { type Challenge, decodeChallenge, decodeChallengeAuth } from '../../src/messages/challenge.ts';
import { nameOfCode, REQUEST, RESPONSE } from '../../src/messages/codes.ts';
import { decodeDigests, decodeGetDigests } from '../../src/messages/digests.ts';
import { decodeEncapsulated, decodeEncapsulatedAck } from '../../src/messages/encapsulated.ts';
import {
  decodeFinish,
  decodeFinishResponse,
  decodeKeyExchange,
  decodeKeyExchangeResponse,
  type KeyExchange,
} from '../../src/messages/key-exchange.ts';
import {
  decodeGetMeasurements,
  decodeMeasurements,
  type MeasurementsRequest,
  readMeasurementRecord,
} from '../../src/messages/measurements.ts';
import { decodeAlgorithms, decodeNegotiateAlgorithms } from '../../src/messages/negotiation.ts';
import {
  decodePskExchange,
  decodePskExchangeResponse,
  decodePskFinish,
  decodePskFinishResponse,
} from '../../src/messages/psk.ts';
import { type Decoded, initialContext, type MessageContext } from '../../src/messages/reader.ts';
import { decodeBare, decodeKeyUpdate } from '../../src/messages/session.ts';
import { decodeVendorDefined } from '../../src/messages/vendor-defined.ts';
import { decodeGetVersion, decodeVersion } from '../../src/messages/version.ts';
import { acceptSelection, contextOf, type Negotiated } from '../../src/negotiate.ts';
import { createRecordSession, type RecordSession, recordSessionId } from '../../src/secured/records.ts';
import { PURPOSE, type Purpose, verifyTranscript } from '../../src/signing.ts';
import { must } from './must.ts';
import { crypto } from './pair.ts';

export interface Observed {
  readonly names: string[];
  readonly decrypted: Uint8Array[];
  signatures: number;
  macs: number;
  records: number;
}

interface Handshake {
  transcript: Uint8Array[];
  secrets: HandshakeSecrets | null;
  requests: RecordSession | null;
  responses: RecordSession | null;
  clear: boolean;
  finish: Uint8Array;
}

/** Every 32 bytes in a row of a message that is long enough to hold several keys. */
function windows(bytes: Uint8Array): Uint8Array[] {
  if (bytes.length < 128 || bytes[1] !== REQUEST.VENDOR_DEFINED_REQUEST) return [];
  return Array.from({ length: bytes.length - 31 }, (_, at) => bytes.subarray(at, at + 32));
}

const newHandshake = (): Handshake => ({
  transcript: [],
  secrets: null,
  requests: null,
  responses: null,
  clear: false,
  finish: new Uint8Array(),
});

/** `secrets` are the shared secrets of the key exchanges, in their order. */
export function observe(
  messages: readonly { bytes: Uint8Array; up: boolean }[],
  secrets: readonly Uint8Array[],
  psk: Uint8Array,
): Observed {
  const seen: Observed = { names: [], decrypted: [], signatures: 0, macs: 0, records: 0 };
  const padding = 3;
  let context: MessageContext = initialContext('1.1', padding);
  let negotiated: Negotiated | null = null;
  let vca: Uint8Array[] = [];
  let identity: Uint8Array[] = [];
  let measured: Uint8Array[] = [];
  let digests: Uint8Array | null = null;
  const chains = new Map<number, Uint8Array>();
  let requesterSaid: Uint8Array[] = [];
  let requesterDigests: Uint8Array | null = null;
  let requesterChain: Uint8Array | null = null;
  /** Portions of that chain are still to come. */
  let more = false;
  let slot = 0;
  let challenge: Challenge | null = null;
  let requesterChallenge: Challenge | null = null;
  let asked: MeasurementsRequest | null = null;
  let last = new Uint8Array();
  let handshake: Handshake | null = null;
  const sessions = new Map<number, Handshake>();
  let keyExchange: KeyExchange | null = null;
  let asksSummary = false;
  let requesterId = 0;
  let exchanges = 0;
  const offered = { own: 0, peer: 0 };
  let offer: Parameters<typeof acceptSelection>[1] | null = null;

  const agreed = () => {
    assert.ok(negotiated !== null);
    return negotiated;
  };
  const take = <T>(decoded: ReturnType<typeof must<Decoded<T>>>, bytes: Uint8Array) => ({
    message: decoded.message,
    exact: bytes.slice(0, decoded.length),
  });
  const keyOf = (chain: Uint8Array | undefined | null) => {
    const { version, hash } = agreed();
    assert.ok(chain !== undefined && chain !== null, 'no chain was told');
    const key = crypto.publicKey(must(readCertificateChain(chain, version, hash)).leafSpki);
    assert.ok(key !== undefined);
    return key;
  };
  const verify = (
    chain: Uint8Array | undefined | null,
    purpose: Purpose,
    parts: readonly Uint8Array[],
    signature: Uint8Array,
  ) => {
    const { version, hash, signature: responder, requesterSignature } = agreed();
    const algorithm = purpose.startsWith('requester') ? requesterSignature : responder;
    assert.ok(algorithm !== null);
    assert.ok(verifyTranscript(crypto, { version, hash, algorithm }, keyOf(chain), purpose, parts, signature), purpose);
    seen.signatures++;
  };

  function plain(bytes: Uint8Array, session: boolean): void {
    const code = bytes[1] ?? 0;
    seen.names.push(nameOfCode(code));
    switch (code) {
      case REQUEST.GET_VERSION:
        vca = [take(must(decodeGetVersion(bytes, padding)), bytes).exact];
        identity = [];
        measured = [];
        digests = null;
        return;
      case RESPONSE.VERSION:
        vca.push(take(must(decodeVersion(bytes, padding)), bytes).exact);
        return;
      case REQUEST.GET_CAPABILITIES: {
        const version = versionOfByte(bytes[0] ?? 0);
        assert.ok(version !== undefined);
        context = initialContext(version, padding);
        const { message, exact } = take(must(decodeGetCapabilities(bytes, context)), bytes);
        offered.own = message.flags;
        vca.push(exact);
        return;
      }
      case RESPONSE.CAPABILITIES: {
        const { message, exact } = take(must(decodeCapabilities(bytes, context)), bytes);
        offered.peer = message.flags;
        vca.push(exact);
        return;
      }
      case REQUEST.NEGOTIATE_ALGORITHMS: {
        const { message, exact } = take(must(decodeNegotiateAlgorithms(bytes, context)), bytes);
        offer = message;
        vca.push(exact);
        return;
      }
      case RESPONSE.ALGORITHMS: {
        const { message, exact } = take(must(decodeAlgorithms(bytes, context)), bytes);
        assert.ok(offer !== null);
        negotiated = must(acceptSelection(context.version, offer, message, offered.own, offered.peer));
        context = contextOf(negotiated, padding);
        vca.push(exact);
        return;
      }
      case REQUEST.GET_DIGESTS:
        identity = [take(must(decodeGetDigests(bytes, context)), bytes).exact];
        measured = [];
        return;
      case RESPONSE.DIGESTS: {
        const { exact } = take(must(decodeDigests(bytes, context)), bytes);
        digests ??= exact;
        identity.push(exact);
        return;
      }
      case REQUEST.GET_CERTIFICATE: {
        const { message, exact } = take(must(decodeGetCertificate(bytes, context)), bytes);
        slot = message.slot;
        identity.push(exact);
        return;
      }
      case RESPONSE.CERTIFICATE: {
        const { message, exact } = take(must(decodeCertificate(bytes, context)), bytes);
        assert.equal(message.slot, slot);
        assert.equal(message.remainder, 0);
        chains.set(slot, message.portion);
        identity.push(exact);
        return;
      }
      case REQUEST.CHALLENGE: {
        const { message, exact } = take(must(decodeChallenge(bytes, context)), bytes);
        challenge = message;
        identity.push(exact);
        return;
      }
      case RESPONSE.CHALLENGE_AUTH: {
        assert.ok(challenge !== null);
        const { message, exact } = take(must(decodeChallengeAuth(bytes, context, challenge.summary !== 'none')), bytes);
        const covered = exact.subarray(0, exact.length - message.signature.length);
        verify(chains.get(challenge.slot), PURPOSE.challengeAuth, [...vca, ...identity, covered], message.signature);
        identity = [];
        requesterSaid = [];
        return;
      }
      case REQUEST.GET_MEASUREMENTS: {
        const { message, exact } = take(must(decodeGetMeasurements(bytes, context)), bytes);
        asked = message;
        identity = [];
        measured.push(exact);
        return;
      }
      case RESPONSE.MEASUREMENTS: {
        assert.ok(asked !== null);
        const { message, exact } = take(must(decodeMeasurements(bytes, context, asked.sign !== null)), bytes);
        must(readMeasurementRecord(message.record, message.blocks, 64));
        measured.push(exact.subarray(0, exact.length - message.signature.length));
        if (asked.sign === null) return;
        const parts = since(context.version, '1.2') ? [...vca, ...measured] : measured;
        verify(chains.get(asked.sign.slot), PURPOSE.measurements, parts, message.signature);
        measured = [];
        return;
      }
      case REQUEST.KEY_EXCHANGE: {
        const { message, exact } = take(must(decodeKeyExchange(bytes, context)), bytes);
        last = exact;
        requesterSaid = [];
        requesterDigests = null;
        requesterChain = null;
        keyExchange = message;
        handshake = newHandshake();
        return;
      }
      case RESPONSE.KEY_EXCHANGE_RSP: {
        assert.ok(handshake !== null && keyExchange !== null);
        const request = keyExchange;
        const both = offered.own & offered.peer & 0x8000;
        handshake.clear = both !== 0;
        const { message, exact } = take(
          must(decodeKeyExchangeResponse(bytes, context, request.summary !== 'none', !handshake.clear)),
          bytes,
        );
        const { hash, multiKey } = agreed();
        const chain = chains.get(request.slot);
        assert.ok(chain !== undefined);
        const d = multiKey && digests !== null ? [digests] : [];
        const before = [...vca, ...d, crypto.hash(hash, chain), last];
        const signed = exact.length - message.verifyData.length;
        const covered = exact.subarray(0, signed - message.signature.length);
        verify(chain, PURPOSE.keyExchange, [...before, covered], message.signature);
        const shared = secrets[exchanges++];
        assert.ok(shared !== undefined, 'a shared secret for each key exchange');
        const th1 = crypto.hash(hash, ...before, exact.subarray(0, signed));
        handshake.secrets = handshakeSecrets(crypto, agreed(), { shared, psk: false, th1 });
        if (!handshake.clear) mac(message.verifyData, handshake.secrets.finished.response, th1);
        handshake.transcript = [...before, exact];
        open(handshake, (request.sessionId | (message.sessionId << 16)) >>> 0);
        return;
      }
      case REQUEST.FINISH: {
        assert.ok(handshake !== null && handshake.secrets !== null);
        const { hash, requesterMultiKey } = agreed();
        const { message, exact } = take(must(decodeFinish(bytes, context)), bytes);
        if (message.signature.length > 0) {
          if (requesterMultiKey && requesterDigests !== null) handshake.transcript.push(requesterDigests);
          assert.ok(requesterChain !== null);
          handshake.transcript.push(crypto.hash(hash, requesterChain));
        }
        const signed = exact.subarray(0, exact.length - message.verifyData.length);
        const unsigned = signed.subarray(0, signed.length - message.signature.length);
        if (message.signature.length > 0)
          verify(requesterChain, PURPOSE.finish, [...handshake.transcript, unsigned], message.signature);
        mac(message.verifyData, handshake.secrets.finished.request, crypto.hash(hash, ...handshake.transcript, signed));
        handshake.finish = exact;
        return;
      }
      case RESPONSE.FINISH_RSP: {
        assert.ok(handshake !== null && handshake.secrets !== null);
        const { hash } = agreed();
        const { message, exact } = take(must(decodeFinishResponse(bytes, context, handshake.clear)), bytes);
        const head = exact.subarray(0, exact.length - message.verifyData.length);
        const th = [...handshake.transcript, handshake.finish];
        if (handshake.clear)
          mac(message.verifyData, handshake.secrets.finished.response, crypto.hash(hash, ...th, head));
        const data = dataSecrets(crypto, agreed(), handshake.secrets.handshake, crypto.hash(hash, ...th, exact));
        handshake.requests?.install(data.secrets);
        handshake.responses?.install(data.secrets);
        return;
      }
      case REQUEST.PSK_EXCHANGE: {
        const { message, exact } = take(must(decodePskExchange(bytes, context)), bytes);
        last = exact;
        asksSummary = message.summary !== 'none';
        requesterId = message.sessionId;
        return;
      }
      case RESPONSE.PSK_EXCHANGE_RSP: {
        const { hash } = agreed();
        const { message, exact } = take(must(decodePskExchangeResponse(bytes, context, asksSummary)), bytes);
        const th1 = crypto.hash(hash, ...vca, last, exact.subarray(0, exact.length - message.verifyData.length));
        const secretsOf = (shared: Uint8Array) => handshakeSecrets(crypto, agreed(), { shared, psk: true, th1 });
        // A key that was told in an earlier session, where it is not the one that both ends had before.
        const candidates = [psk, ...seen.decrypted.flatMap(windows)];
        const shared = candidates.find((one) =>
          crypto.same(message.verifyData, crypto.hmac(hash, secretsOf(one).finished.response, th1)),
        );
        assert.ok(shared !== undefined, 'no pre-shared key verifies PSK_EXCHANGE_RSP');
        seen.macs++;
        const made = secretsOf(shared);
        handshake = newHandshake();
        handshake.secrets = made;
        handshake.transcript = [...vca, last, exact];
        open(handshake, (requesterId | (message.sessionId << 16)) >>> 0);
        return;
      }
      case REQUEST.PSK_FINISH: {
        assert.ok(handshake !== null && handshake.secrets !== null && session);
        const { message, exact } = take(must(decodePskFinish(bytes, context)), bytes);
        const head = exact.subarray(0, exact.length - message.verifyData.length);
        const th = crypto.hash(agreed().hash, ...handshake.transcript, head);
        mac(message.verifyData, handshake.secrets.finished.request, th);
        handshake.finish = exact;
        return;
      }
      case RESPONSE.PSK_FINISH_RSP: {
        assert.ok(handshake !== null && handshake.secrets !== null && session);
        const { exact } = take(must(decodePskFinishResponse(bytes, context)), bytes);
        const th2 = crypto.hash(agreed().hash, ...handshake.transcript, handshake.finish, exact);
        const data = dataSecrets(crypto, agreed(), handshake.secrets.handshake, th2);
        handshake.requests?.install(data.secrets);
        handshake.responses?.install(data.secrets);
        return;
      }
      case REQUEST.GET_ENCAPSULATED_REQUEST:
        must(decodeBare(bytes, context, code));
        return;
      case RESPONSE.ENCAPSULATED_REQUEST:
      case REQUEST.DELIVER_ENCAPSULATED_RESPONSE:
        encapsulated(must(decodeEncapsulated(bytes, context, code)).message.message);
        return;
      case RESPONSE.ENCAPSULATED_RESPONSE_ACK: {
        const { payload } = must(decodeEncapsulatedAck(bytes, context)).message;
        if (payload.kind === 'request') encapsulated(payload.message);
        return;
      }
      case REQUEST.KEY_UPDATE:
      case RESPONSE.KEY_UPDATE_ACK:
        must(decodeKeyUpdate(bytes, context, code));
        return;
      case REQUEST.HEARTBEAT:
      case RESPONSE.HEARTBEAT_ACK:
      case REQUEST.END_SESSION:
      case RESPONSE.END_SESSION_ACK:
        assert.ok(session);
        must(decodeBare(bytes, context, code));
        return;
      case REQUEST.VENDOR_DEFINED_REQUEST:
      case RESPONSE.VENDOR_DEFINED_RESPONSE:
        must(decodeVendorDefined(bytes, context, code));
        return;
      default:
        assert.fail(`${nameOfCode(code)} was not expected`);
    }
  }

  function mac(found: Uint8Array, key: Uint8Array, th: Uint8Array): void {
    assert.deepEqual(found, crypto.hmac(agreed().hash, key, th));
    seen.macs++;
  }

  function open(one: Handshake, sessionId: number): void {
    const { version, hash, aead } = agreed();
    assert.ok(aead !== null && one.secrets !== null);
    const common = {
      crypto,
      suite: { version, hash, aead },
      binding: doeBinding,
      sessionId,
      protection: 'encrypted' as const,
    };
    one.requests = createRecordSession({ ...common, role: 'responder' });
    one.responses = createRecordSession({ ...common, role: 'requester' });
    one.requests.install(one.secrets.secrets);
    one.responses.install(one.secrets.secrets);
    sessions.set(sessionId, one);
  }

  /** What the responder asks of the requester, and its answers. */
  function encapsulated(bytes: Uint8Array): void {
    const own: MessageContext = { ...context, multiKey: agreed().requesterMultiKey };
    const code = bytes[1] ?? 0;
    if (code === REQUEST.GET_DIGESTS) requesterSaid = [take(must(decodeGetDigests(bytes, own)), bytes).exact];
    else if (code === RESPONSE.DIGESTS) {
      requesterDigests = take(must(decodeDigests(bytes, own)), bytes).exact;
      requesterSaid.push(requesterDigests);
    } else if (code === REQUEST.GET_CERTIFICATE)
      requesterSaid.push(take(must(decodeGetCertificate(bytes, own)), bytes).exact);
    else if (code === RESPONSE.CERTIFICATE) {
      const { message, exact } = take(must(decodeCertificate(bytes, own)), bytes);
      requesterChain = concat(more ? (requesterChain ?? new Uint8Array()) : new Uint8Array(), message.portion);
      more = message.remainder > 0;
      requesterSaid.push(exact);
    } else if (code === REQUEST.CHALLENGE) {
      const { message, exact } = take(must(decodeChallenge(bytes, own)), bytes);
      requesterChallenge = message;
      requesterSaid.push(exact);
    } else if (code === RESPONSE.CHALLENGE_AUTH) {
      assert.ok(requesterChallenge !== null);
      const size = { ...own, signatureSize: own.requesterSignatureSize };
      const summary = requesterChallenge.summary !== 'none';
      const { message, exact } = take(must(decodeChallengeAuth(bytes, size, summary)), bytes);
      const covered = exact.subarray(0, exact.length - message.signature.length);
      const before = since(context.version, '1.2') ? vca : [];
      verify(requesterChain, PURPOSE.requesterChallengeAuth, [...before, ...requesterSaid, covered], message.signature);
    } else assert.fail(`${nameOfCode(code)}, encapsulated`);
  }

  for (const { bytes, up } of messages) {
    const { kind, message } = must(doeBinding.unwrap(bytes));
    if (kind === 'plain') {
      plain(message, false);
      continue;
    }
    const session = sessions.get(must(recordSessionId(message)));
    const channel = up ? session?.requests : session?.responses;
    assert.ok(session !== undefined && channel !== null && channel !== undefined);
    const inner = must(channel.unprotect(message));
    seen.records++;
    seen.decrypted.push(inner);
    if (session.finish.length === 0 || inner[1] === RESPONSE.PSK_FINISH_RSP || inner[1] === RESPONSE.FINISH_RSP)
      handshake = session;
    plain(inner, true);
    // New keys from the next record on: of the requests, and of the answers too with UpdateAllKeys.
    if (inner[1] === REQUEST.KEY_UPDATE && inner[2] !== 3) {
      session.requests?.renew('request');
      if (inner[2] === 2) session.responses?.renew('response');
    }
  }
  return seen;
}
