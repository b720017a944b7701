/** CHALLENGE: the responder proves that it holds the key of a slot, and that what was agreed is what it agreed to. */
import { fail, ok } from '@airlock/core/result.ts';
import { concat, sameBytes } from '@airlock/evidence/bytes.ts';
import {
  decodeChallengeAuth,
  encodeChallenge,
  NONCE_SIZE,
  REQUESTER_CONTEXT_SIZE,
  type SummaryName,
} from '../messages/challenge.ts';
import { RESPONSE } from '../messages/codes.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import { PURPOSE, type Purpose, type SigningSuite, verifyTranscript } from '../signing.ts';
import { peerKey } from './certificates.ts';
import type { Connection } from './connection.ts';
import { serveEncapsulated } from './encapsulated.ts';
import type { Procedure } from './procedure.ts';

/** Something that was signed, with all that it takes to verify it again elsewhere. */
export interface Statement {
  readonly purpose: Purpose;
  readonly suite: SigningSuite;
  readonly slot: number;
  /** All that the signature covers, without the prefix of 1.2. */
  readonly transcript: Uint8Array;
  /** The same, message by message. */
  readonly messages: readonly Uint8Array[];
  readonly signature: Uint8Array;
}

export interface Authentication {
  readonly statement: Statement;
  readonly nonce: Uint8Array;
  /** The responder's own. */
  readonly responderNonce: Uint8Array;
  /** Of the measurements that were asked for; empty for none. */
  readonly summaryHash: Uint8Array;
  readonly opaque: Uint8Array;
  readonly slotMask: number;
}

export interface ChallengeOptions {
  /** `none` when not given; others need a responder with measurements. */
  readonly summary?: SummaryName;
  /** 32 bytes; random when not given. */
  readonly nonce?: Uint8Array;
}

/**
 * Needs the slot's chain, which `getCertificate` brought. Codes: `signature-wrong`, `chain-digest-mismatch`,
 * `slot-mismatch`, `context-mismatch`, `capability-missing`, `state-wrong`, `session-refused` (the responder asks who the
 * requester is, which is nobody), `message-*`, `peer-*`.
 */
export function* challenge(
  connection: Connection,
  slot: number,
  { summary = 'none', nonce = connection.crypto.random(NONCE_SIZE) }: ChallengeOptions = {},
): Procedure<Authentication> {
  const needed = connection.need('CHAL');
  if (!needed.ok) return needed;
  const suite = connection.signingSuite(needed.value);
  const peer = peerKey(connection, slot, KEY_USAGE.challenge);
  if (suite === undefined || peer === undefined) return fail('state-wrong', `no trusted key of slot ${slot} for this`);
  if (summary !== 'none' && needed.value.measurementHash === null)
    return fail('capability-missing', 'a summary of measurements, which the responder has not');
  if (nonce.length !== NONCE_SIZE)
    return fail('state-wrong', `a nonce of ${nonce.length} bytes, ${NONCE_SIZE} are needed`);
  const { context, transcripts, crypto } = connection;
  const requesterContext = crypto.random(REQUESTER_CONTEXT_SIZE);
  const request = encodeChallenge(context, { slot, summary, nonce, context: requesterContext });
  const bytes = yield* connection.exchange(request, RESPONSE.CHALLENGE_AUTH, null);
  if (!bytes.ok) return bytes;
  const decoded = decodeChallengeAuth(bytes.value, context, summary !== 'none');
  if (!decoded.ok) return decoded;
  const { message, length } = decoded.value;
  if (message.slot !== slot) return fail('slot-mismatch', `CHALLENGE_AUTH is of slot ${message.slot}, not ${slot}`);
  if (slot !== 15 && (message.slotMask & (1 << slot)) === 0)
    return fail('slot-mismatch', `CHALLENGE_AUTH says that slot ${slot} has no chain`);
  if (!sameBytes(message.chainDigest, peer.digest))
    return fail('chain-digest-mismatch', 'CHALLENGE_AUTH is of another chain than the one that was trusted');
  if (context.version !== '1.1' && context.version !== '1.2' && !sameBytes(message.context, requesterContext))
    return fail('context-mismatch', 'CHALLENGE_AUTH carries another RequesterContext');
  if (message.mutual && connection.options.identity === undefined)
    return fail('session-refused', 'CHALLENGE_AUTH asks who the requester is, which has no identity');
  const covered = bytes.value.slice(0, length - message.signature.length);
  const parts = [...transcripts.vca, ...transcripts.identity, request, covered];
  transcripts.identity = [];
  if (!verifyTranscript(crypto, suite, peer.key, PURPOSE.challengeAuth, parts, message.signature))
    return fail('signature-wrong', 'CHALLENGE_AUTH: its signature does not verify over what was said');
  if (message.mutual) {
    const served = yield* serveEncapsulated(connection, null, false);
    if (!served.ok) return served;
  }
  return ok({
    statement: {
      purpose: PURPOSE.challengeAuth,
      suite,
      slot,
      transcript: concat(...parts),
      messages: parts,
      signature: message.signature,
    },
    nonce,
    responderNonce: message.nonce,
    summaryHash: message.summaryHash,
    opaque: message.opaque,
    slotMask: message.slotMask,
  });
}
