/** Asking the requester who it is: GET_DIGESTS and GET_CERTIFICATE within the answers of a session's handshake. */
import { concat, sameBytes } from '@airlock/evidence/bytes.ts';
import { CHAIN_LIMIT, readCertificateChain } from '../certificate-chain.ts';
import { decodeCertificate, encodeGetCertificate } from '../messages/certificate.ts';
import { REQUEST } from '../messages/codes.ts';
import { decodeDigests, encodeGetDigests } from '../messages/digests.ts';
import {
  decodeEncapsulated,
  type EncapsulatedAck,
  encodeEncapsulatedAck,
  encodeEncapsulatedRequest,
} from '../messages/encapsulated.ts';
import { MUTUAL } from '../messages/key-exchange.ts';
import type { MessageContext } from '../messages/reader.ts';
import { decodeBare } from '../messages/session.ts';
import type { Negotiated } from '../negotiate.ts';
import {
  type Answer,
  type MutualHandshake,
  type ResponderSession,
  type ResponderState,
  refuse,
  reply,
} from './state.ts';

const CERTIFICATE_HEADER = 16;
/** The requester's slot that is asked for. */
const SLOT = 0;

/** Null when the requester is not asked: no wish, or no capability of either side. */
export function startMutual(
  state: ResponderState,
  negotiated: Negotiated,
): { asked: number; handshake: MutualHandshake } | null {
  const { mutual } = state.options;
  if (mutual === undefined || negotiated.requesterSignature === null) return null;
  const handshake: MutualHandshake = {
    slot: SLOT,
    waiting: mutual.mode === 'encapsulated' ? 'ask' : mutual.mode === 'digests' ? 'digests' : 'done',
    requestId: 0,
    digest: new Uint8Array(),
    digests: null,
    parts: [],
    chain: null,
    key: null,
  };
  if (mutual.mode !== 'plain')
    return { asked: mutual.mode === 'digests' ? MUTUAL.withDigests : MUTUAL.encapsulated, handshake };
  if (mutual.known === undefined || !acceptRequester(state, negotiated, handshake, mutual.known)) return null;
  return { asked: MUTUAL.plain, handshake };
}

/** Reads and judges the requester's chain; false where it is not accepted. */
export function acceptRequester(
  state: ResponderState,
  negotiated: Negotiated,
  handshake: MutualHandshake,
  chain: Uint8Array,
): boolean {
  const { mutual, crypto } = state.options;
  const read = readCertificateChain(chain, negotiated.version, negotiated.hash);
  if (mutual === undefined || !read.ok || !mutual.trust(read.value).ok) return false;
  const key = crypto.publicKey(read.value.leafSpki);
  if (key === undefined || negotiated.requesterSignature === null || !key.fits(negotiated.requesterSignature))
    return false;
  handshake.digest = crypto.hash(negotiated.hash, chain);
  handshake.chain = chain;
  handshake.key = key;
  handshake.waiting = 'done';
  return true;
}

/** The session whose handshake an encapsulated message belongs to. */
function handshakeOf(state: ResponderState, within: ResponderSession | null): ResponderSession | null {
  const session = within ?? state.clearSession;
  return session !== null && session.phase === 'handshake' && session.clear === (within === null) ? session : null;
}

export function answerGetEncapsulatedRequest(
  state: ResponderState,
  bytes: Uint8Array,
  within: ResponderSession | null,
): Answer {
  const { context } = state;
  const decoded = decodeBare(bytes, context, REQUEST.GET_ENCAPSULATED_REQUEST);
  if (!decoded.ok) return refuse('InvalidRequest');
  const session = handshakeOf(state, within);
  const mutual = session?.mutual ?? null;
  if (mutual === null || mutual.waiting !== 'ask') return refuse('UnexpectedRequest');
  mutual.waiting = 'digests';
  mutual.requestId = 1;
  return reply(encodeEncapsulatedRequest(context, { requestId: 1, message: encodeGetDigests(context) }));
}

export function answerDeliverEncapsulated(
  state: ResponderState,
  bytes: Uint8Array,
  within: ResponderSession | null,
): Answer {
  const { context, negotiated } = state;
  const session = handshakeOf(state, within);
  const mutual = session?.mutual ?? null;
  if (negotiated === null || session === null || mutual === null) return refuse('UnexpectedRequest');
  const decoded = decodeEncapsulated(bytes, context, REQUEST.DELIVER_ENCAPSULATED_RESPONSE);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { requestId, message } = decoded.value.message;
  if (requestId !== mutual.requestId) return refuse('InvalidRequest');
  const own: MessageContext = { ...context, multiKey: negotiated.requesterMultiKey, padding: 3 };
  if (mutual.waiting === 'digests') {
    const digests = decodeDigests(message, own);
    if (!digests.ok) return refuse('InvalidResponseCode');
    const found = digests.value.message.slots.find(({ slot }) => slot === mutual.slot);
    if (found === undefined) return refuse('InvalidRequest');
    mutual.digests = message.slice(0, digests.value.length);
    mutual.digest = found.digest;
    mutual.waiting = 'certificate';
    return reply(askCertificate(state, mutual, requestId));
  }
  if (mutual.waiting !== 'certificate') return refuse('UnexpectedRequest');
  const portion = decodeCertificate(message, own);
  if (!portion.ok) return refuse('InvalidResponseCode');
  const { slot, portion: part, remainder } = portion.value.message;
  const had = mutual.parts.reduce((sum, one) => sum + one.length, 0);
  if (slot !== mutual.slot || part.length === 0 || had + part.length + remainder > CHAIN_LIMIT)
    return refuse('InvalidRequest');
  mutual.parts.push(part);
  if (remainder > 0) return reply(askCertificate(state, mutual, requestId));
  const chain = concat(...mutual.parts);
  const digest = state.options.crypto.hash(negotiated.hash, chain);
  if (!sameBytes(digest, mutual.digest) || !acceptRequester(state, negotiated, mutual, chain))
    return refuse('InvalidRequest');
  const ack: EncapsulatedAck = { requestId: 0, answered: requestId, payload: { kind: 'slot', slot: mutual.slot } };
  return reply(encodeEncapsulatedAck(context, ack));
}

function askCertificate(state: ResponderState, mutual: MutualHandshake, answered: number): Uint8Array {
  const { context, transferSize } = state;
  const offset = mutual.parts.reduce((sum, one) => sum + one.length, 0);
  const length = Math.min(transferSize - CERTIFICATE_HEADER - 8, 0xffff);
  mutual.requestId = (answered + 1) & 0xff;
  const message = encodeGetCertificate(context, { slot: mutual.slot, offset, length, large: false, slotSize: false });
  return encodeEncapsulatedAck(context, {
    requestId: mutual.requestId,
    answered,
    payload: { kind: 'request', message },
  });
}
