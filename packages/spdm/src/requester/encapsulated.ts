/** The responder's own requests, which it hands out as answers: who the requester is, and new keys. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { decodeGetCertificate, encodeCertificate } from '../messages/certificate.ts';
import { decodeChallenge, encodeChallengeAuth, NONCE_SIZE } from '../messages/challenge.ts';
import { ERROR_CODE, nameOfCode, REQUEST, RESPONSE } from '../messages/codes.ts';
import { decodeGetDigests, encodeDigests, encodeGetDigests } from '../messages/digests.ts';
import {
  decodeEncapsulated,
  decodeEncapsulatedAck,
  type EncapsulatedAck,
  encodeDeliverEncapsulated,
  encodeGetEncapsulatedRequest,
} from '../messages/encapsulated.ts';
import { encodeError } from '../messages/error.ts';
import type { MessageContext } from '../messages/reader.ts';
import { decodeKeyUpdate, encodeKeyUpdateAck, KEY_OPERATION } from '../messages/session.ts';
import type { Negotiated } from '../negotiate.ts';
import { PURPOSE, signTranscript } from '../signing.ts';
import type { Connection, RequesterIdentity, Session } from './connection.ts';
import type { Procedure } from './procedure.ts';

/** So many requests a responder may have at a time. */
const REQUEST_LIMIT = 64;
const CERTIFICATE_HEADER = 16;

export interface Served {
  /** The requester's slot that the responder wants to see used; null when it named none. */
  readonly slot: number | null;
  /** The DIGESTS that the requester gave; null when it was not asked. */
  readonly digests: Uint8Array | null;
}

/**
 * Answers what the responder asks until it asks no more. `implied`: the first request is GET_DIGESTS, without being said.
 * Codes: `session-refused` (endless requests), `message-*`, `peer-*`.
 */
export function* serveEncapsulated(
  connection: Connection,
  session: Session | null,
  implied: boolean,
): Procedure<Served> {
  const { context } = connection;
  let digests: Uint8Array | null = null;
  let requestId = 0;
  let message: Uint8Array;
  if (implied) message = encodeGetDigests(context);
  else {
    const get = encodeGetEncapsulatedRequest(context);
    const bytes = yield* connection.exchange(get, RESPONSE.ENCAPSULATED_REQUEST, session);
    if (!bytes.ok) return bytes;
    const decoded = decodeEncapsulated(bytes.value, context, RESPONSE.ENCAPSULATED_REQUEST);
    if (!decoded.ok) return decoded;
    ({ requestId, message } = decoded.value.message);
  }
  // What a signature of the requester's covers, when it is challenged.
  const said: Uint8Array[] = [];
  for (let count = 0; count < REQUEST_LIMIT; count++) {
    const code = message[1] ?? 0;
    const answer = answerEncapsulated(connection, session, message, said);
    if (code === REQUEST.GET_DIGESTS && answer[1] === RESPONSE.DIGESTS) digests = answer;
    const deliver = encodeDeliverEncapsulated(context, { requestId, message: answer });
    const bytes = yield* connection.exchange(deliver, RESPONSE.ENCAPSULATED_RESPONSE_ACK, session);
    if (!bytes.ok) return bytes;
    const decoded = decodeEncapsulatedAck(bytes.value, context);
    if (!decoded.ok) return decoded;
    const ack: EncapsulatedAck = decoded.value.message;
    if (context.version !== '1.1' && ack.answered !== requestId)
      return fail('message-unexpected', `ENCAPSULATED_RESPONSE_ACK is of request ${ack.answered}, not ${requestId}`);
    if (ack.payload.kind === 'none') return ok({ slot: null, digests });
    if (ack.payload.kind === 'slot') return ok({ slot: ack.payload.slot, digests });
    requestId = ack.requestId;
    message = ack.payload.message;
  }
  return fail('session-refused', `the responder asked ${REQUEST_LIMIT} things in a row`);
}

function answerEncapsulated(
  connection: Connection,
  session: Session | null,
  message: Uint8Array,
  said: Uint8Array[],
): Uint8Array {
  const { context } = connection;
  const answered = answerRequest(connection, session, message, said);
  return answered.ok ? answered.value : encodeError(context.version, ERROR_CODE.InvalidRequest);
}

function answerRequest(
  connection: Connection,
  session: Session | null,
  message: Uint8Array,
  said: Uint8Array[],
): Result<Uint8Array> {
  const { context, negotiated, crypto, options } = connection;
  const { identity } = options;
  const own: MessageContext = { ...context, multiKey: negotiated?.requesterMultiKey ?? false };
  const code = message[1] ?? 0;
  if (negotiated === null) return fail('state-wrong', 'nothing is negotiated yet');
  if (code === REQUEST.GET_DIGESTS && identity !== undefined) {
    const decoded = decodeGetDigests(message, own);
    if (!decoded.ok) return decoded;
    const digest = crypto.hash(negotiated.hash, identity.chain(negotiated));
    const slots = [{ slot: identity.slot, digest }];
    const answer = encodeDigests(own, { supported: 1 << identity.slot, slots });
    said.push(message.slice(0, decoded.value.length), answer);
    return ok(answer);
  }
  if (code === REQUEST.GET_CERTIFICATE && identity !== undefined) {
    const decoded = decodeGetCertificate(message, own);
    if (!decoded.ok) return decoded;
    const { slot, offset, length, large } = decoded.value.message;
    const chain = identity.chain(negotiated);
    if (slot !== identity.slot || offset >= chain.length) return fail('slot-empty', `slot ${slot} at ${offset}`);
    const room = (connection.peer?.dataTransferSize ?? 0xffff) - CERTIFICATE_HEADER - 4;
    const portion = chain.slice(offset, offset + Math.min(length, room, 0xffff));
    const remainder = chain.length - offset - portion.length;
    const answer = encodeCertificate(own, { slot, large, model: 0, portion, remainder });
    said.push(message.slice(0, decoded.value.length), answer);
    return ok(answer);
  }
  if (code === REQUEST.CHALLENGE && identity !== undefined && session === null)
    return answerChallenge(connection, identity, negotiated, message, said);
  if (code === REQUEST.KEY_UPDATE && session !== null && session.phase === 'data') {
    const decoded = decodeKeyUpdate(message, context, REQUEST.KEY_UPDATE);
    if (!decoded.ok) return decoded;
    const { operation } = decoded.value.message;
    if (operation === KEY_OPERATION.updateAllKeys) return fail('message-unexpected', 'UpdateAllKeys, encapsulated');
    if (operation === KEY_OPERATION.updateKey) session.records.renew('response');
    return ok(encodeKeyUpdateAck(context, decoded.value.message));
  }
  return fail('message-unexpected', `${nameOfCode(code)}, encapsulated`);
}

/** Basic mutual authentication: the requester proves that it holds its key, as the responder did before. */
function answerChallenge(
  connection: Connection,
  identity: RequesterIdentity,
  negotiated: Negotiated,
  message: Uint8Array,
  said: readonly Uint8Array[],
): Result<Uint8Array> {
  const { context, crypto, transcripts } = connection;
  const decoded = decodeChallenge(message, context);
  if (!decoded.ok) return decoded;
  const { slot, summary, context: responderContext } = decoded.value.message;
  const { version, hash, requesterSignature: algorithm } = negotiated;
  if (slot !== identity.slot || summary !== 'none' || algorithm === null)
    return fail('message-unexpected', `a challenge of slot ${slot}`);
  const unsigned = encodeChallengeAuth(context, {
    slot,
    mutual: false,
    slotMask: 1 << slot,
    chainDigest: crypto.hash(hash, identity.chain(negotiated)),
    nonce: crypto.random(NONCE_SIZE),
    summaryHash: new Uint8Array(),
    opaque: new Uint8Array(),
    context: responderContext,
  });
  // 1.1 leaves what was agreed out of the requester's M1.
  const agreed = since(version, '1.2') ? transcripts.vca : [];
  const parts = [...agreed, ...said, message.slice(0, decoded.value.length), unsigned];
  const suite = { version, hash, algorithm };
  const signature = signTranscript(crypto, suite, identity.key, PURPOSE.requesterChallengeAuth, parts);
  return signature === undefined
    ? fail('leaf-key-unsuitable', `the requester's key is none of ${algorithm}`)
    : ok(concat(unsigned, signature));
}
