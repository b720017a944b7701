/** GET_DIGESTS, GET_CERTIFICATE and CHALLENGE, answered. */
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { decodeGetCertificate, encodeCertificate } from '../messages/certificate.ts';
import { decodeChallenge, encodeChallengeAuth, NONCE_SIZE } from '../messages/challenge.ts';
import { decodeGetDigests, encodeDigests, KEY_USAGE } from '../messages/digests.ts';
import { PURPOSE, signTranscript } from '../signing.ts';
import { summaryHash } from './measure.ts';
import { ALL_USAGES, chainOf, usableSlot } from './slot.ts';
import { type Answer, type ResponderSession, type ResponderState, refuse, reply } from './state.ts';

const CERTIFICATE_HEADER = 16;

export function answerGetDigests(state: ResponderState, bytes: Uint8Array, session: ResponderSession | null): Answer {
  const { context, negotiated, options, transcripts } = state;
  if (negotiated === null) return refuse('UnexpectedRequest');
  if (options.slots.size === 0) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetDigests(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { signature } = negotiated;
  const slots = [...options.slots]
    .filter(([, { key }]) => signature !== null && key.fits(signature))
    .sort(([a], [b]) => a - b)
    .map(([slot, one]) => ({
      slot,
      digest: options.crypto.hash(negotiated.hash, chainOf(state, negotiated, one)),
      key: {
        pair: one.keyPair ?? 1,
        certificateModel: one.certificateModel ?? 1,
        usage: one.keyUsage ?? ALL_USAGES,
      },
    }));
  const supported = slots.reduce((mask, { slot }) => mask | (1 << slot), 0);
  const answer = encodeDigests(context, { supported, slots });
  transcripts.digests ??= answer;
  if (session === null) transcripts.identity.push(bytes.slice(0, decoded.value.length), answer);
  return reply(answer);
}

export function answerGetCertificate(
  state: ResponderState,
  bytes: Uint8Array,
  session: ResponderSession | null,
): Answer {
  const { context, negotiated, options, transcripts, peer, own } = state;
  if (negotiated === null) return refuse('UnexpectedRequest');
  const decoded = decodeGetCertificate(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { slot, offset, length, large, slotSize } = decoded.value.message;
  const found = options.slots.get(slot);
  if (found === undefined) return refuse('InvalidRequest');
  const chain = chainOf(state, negotiated, found);
  const model = negotiated.multiKey ? (found.certificateModel ?? 1) : 0;
  if (slotSize) {
    const remainder = large ? chain.length : Math.min(chain.length, 0xffff);
    return reply(encodeCertificate(context, { slot, large, model, portion: new Uint8Array(), remainder }));
  }
  if (offset >= chain.length || length === 0) return refuse('InvalidRequest');
  if (!large && chain.length > 0xffff) return refuse('Unspecified');
  // A whole chain goes in chunks where both sides have them; otherwise in portions of one transfer.
  const chunks = hasCapability((peer?.flags ?? 0) & own.flags, 'CHUNK');
  const most = chunks ? state.messageSize : Math.min(peer?.dataTransferSize ?? 0xffff, state.transferSize);
  const room = Math.min(length, Math.min(most, peer?.maxMessageSize ?? most) - CERTIFICATE_HEADER);
  const portion = chain.slice(offset, offset + (chunks ? room : Math.min(room, 0xffff)));
  const remainder = chain.length - offset - portion.length;
  const answer = encodeCertificate(context, { slot, large, model, portion, remainder });
  if (session === null) transcripts.identity.push(bytes.slice(0, decoded.value.length), answer);
  return reply(answer);
}

export function answerChallenge(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, negotiated, options, transcripts } = state;
  if (negotiated === null) return refuse('UnexpectedRequest');
  const { crypto } = options;
  const decoded = decodeChallenge(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { slot, summary, context: requesterContext } = decoded.value.message;
  const found = usableSlot(state, slot, KEY_USAGE.challenge);
  const { version, hash, signature: algorithm } = negotiated;
  if (found === undefined || algorithm === null) return refuse('InvalidRequest');
  const measured = summaryHash(state, negotiated, summary);
  if (measured === undefined) return refuse('InvalidRequest');
  const slotMask = [...options.slots.keys()].reduce((mask, one) => mask | (1 << one), 0);
  const unsigned = encodeChallengeAuth(context, {
    slot,
    mutual: false,
    slotMask,
    chainDigest: crypto.hash(hash, chainOf(state, negotiated, found)),
    nonce: crypto.random(NONCE_SIZE),
    summaryHash: measured,
    opaque: new Uint8Array(),
    context: since(version, '1.3') ? requesterContext : new Uint8Array(),
  });
  const parts = [...transcripts.vca, ...transcripts.identity, bytes.slice(0, decoded.value.length), unsigned];
  const signature = signTranscript(crypto, { version, hash, algorithm }, found.key, PURPOSE.challengeAuth, parts);
  transcripts.identity = [];
  return signature === undefined ? refuse('Unspecified') : reply(concat(unsigned, signature));
}
