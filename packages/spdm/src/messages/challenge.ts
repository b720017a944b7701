/** CHALLENGE and CHALLENGE_AUTH. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { OPAQUE_LIMIT } from './opaque.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

export const NONCE_SIZE = 32;
export const REQUESTER_CONTEXT_SIZE = 8;

/** Which measurements a summary hash covers. */
export const SUMMARY = { none: 0, tcb: 1, all: 0xff } as const;
export type SummaryName = keyof typeof SUMMARY;

export function summaryOfCode(code: number): SummaryName | undefined {
  return code === 0 ? 'none' : code === 1 ? 'tcb' : code === 0xff ? 'all' : undefined;
}

export interface Challenge {
  /** 0 to 7, or 15 for a public key that was given beforehand. */
  readonly slot: number;
  readonly summary: SummaryName;
  readonly nonce: Uint8Array;
  /** 1.3. */
  readonly context: Uint8Array;
}

export interface ChallengeAuth {
  readonly slot: number;
  /** Basic mutual authentication is asked for; deprecated from 1.2 on. */
  readonly mutual: boolean;
  readonly slotMask: number;
  readonly chainDigest: Uint8Array;
  readonly nonce: Uint8Array;
  /** Empty when none was asked for. */
  readonly summaryHash: Uint8Array;
  readonly opaque: Uint8Array;
  readonly context: Uint8Array;
  readonly signature: Uint8Array;
}

/** The byte that names a slot in Param1: a key that was given beforehand has 0xff. */
function slotByte(slot: number): number {
  return slot === 15 ? 0xff : slot;
}

export function encodeChallenge({ version }: MessageContext, { slot, summary, nonce, context }: Challenge): Uint8Array {
  return concat(
    header(version, REQUEST.CHALLENGE, slotByte(slot), SUMMARY[summary]),
    nonce,
    since(version, '1.3') ? context : new Uint8Array(),
  );
}

/** Codes: `message-malformed`. */
export function decodeChallenge(bytes: Uint8Array, { version, padding }: MessageContext): Result<Decoded<Challenge>> {
  const reader = new MessageReader(bytes, version, REQUEST.CHALLENGE);
  const slot = reader.parameter1 === 0xff ? 15 : reader.parameter1;
  const summary = summaryOfCode(reader.parameter2);
  if (slot > 7 && slot !== 15) reader.refuse(`slot ${reader.parameter1}`);
  if (summary === undefined) reader.refuse(`HashType ${reader.parameter2} is reserved`);
  const nonce = reader.take(NONCE_SIZE, 'Nonce');
  const context = reader.take(since(version, '1.3') ? REQUESTER_CONTEXT_SIZE : 0, 'RequesterContext');
  return reader.end({ slot, summary: summary ?? 'none', nonce, context }, padding);
}

/** Everything before the signature. */
export function encodeChallengeAuth({ version }: MessageContext, answer: Omit<ChallengeAuth, 'signature'>): Uint8Array {
  const mutual = answer.mutual ? 0x80 : 0;
  return concat(
    header(version, RESPONSE.CHALLENGE_AUTH, (answer.slot & 0xf) | mutual, answer.slotMask),
    answer.chainDigest,
    answer.nonce,
    answer.summaryHash,
    le16(answer.opaque.length),
    answer.opaque,
    since(version, '1.3') ? answer.context : new Uint8Array(),
  );
}

/** `summary`: was a summary hash asked for? The signature is the end of it. Codes: `message-malformed`. */
export function decodeChallengeAuth(
  bytes: Uint8Array,
  { version, hashSize, signatureSize, padding }: MessageContext,
  summary: boolean,
): Result<Decoded<ChallengeAuth>> {
  const reader = new MessageReader(bytes, version, RESPONSE.CHALLENGE_AUTH);
  const chainDigest = reader.take(hashSize, 'CertChainHash');
  const nonce = reader.take(NONCE_SIZE, 'Nonce');
  const summaryHash = reader.take(summary ? hashSize : 0, 'MeasurementSummaryHash');
  const opaqueLength = reader.u16('OpaqueDataLength');
  if (opaqueLength > OPAQUE_LIMIT) reader.refuse(`OpaqueDataLength ${opaqueLength}, at most ${OPAQUE_LIMIT}`);
  const opaque = reader.take(opaqueLength, 'OpaqueData');
  const context = reader.take(since(version, '1.3') ? REQUESTER_CONTEXT_SIZE : 0, 'RequesterContext');
  const signature = reader.take(signatureSize, 'Signature');
  const message: ChallengeAuth = {
    slot: reader.parameter1 & 0xf,
    mutual: (reader.parameter1 & 0x80) !== 0,
    slotMask: reader.parameter2,
    chainDigest,
    nonce,
    summaryHash,
    opaque,
    context,
    signature,
  };
  return reader.end(message, padding);
}
