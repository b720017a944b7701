/** KEY_EXCHANGE, KEY_EXCHANGE_RSP, FINISH and FINISH_RSP. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16 } from '../little-endian.ts';
import { SUMMARY, type SummaryName, summaryOfCode } from './challenge.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { OPAQUE_LIMIT } from './opaque.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

export const RANDOM_SIZE = 32;

/** MutAuthRequested: how the responder wants to know the requester. */
export const MUTUAL = { none: 0, plain: 1, encapsulated: 2, withDigests: 4 } as const;

export interface KeyExchange {
  /** 0 to 7, or 15 for a public key that was given beforehand. */
  readonly slot: number;
  readonly summary: SummaryName;
  readonly sessionId: number;
  /** Bit 0: the responder may update itself without ending the session. Bit 1: all events (1.3). */
  readonly policy: number;
  readonly random: Uint8Array;
  readonly exchangeData: Uint8Array;
  readonly opaque: Uint8Array;
}

export interface KeyExchangeResponse {
  /** Seconds; 0 for no heartbeat. */
  readonly heartbeat: number;
  readonly sessionId: number;
  readonly mutual: number;
  /** The requester's slot that is asked for; 15 for its public key. */
  readonly requesterSlot: number;
  readonly random: Uint8Array;
  readonly exchangeData: Uint8Array;
  readonly summaryHash: Uint8Array;
  readonly opaque: Uint8Array;
  readonly signature: Uint8Array;
  /** Empty when the handshake is in the clear. */
  readonly verifyData: Uint8Array;
}

export function encodeKeyExchange({ version }: MessageContext, request: KeyExchange): Uint8Array {
  return concat(
    header(version, REQUEST.KEY_EXCHANGE, SUMMARY[request.summary], request.slot === 15 ? 0xff : request.slot),
    le16(request.sessionId),
    Uint8Array.of(since(version, '1.2') ? request.policy : 0, 0),
    request.random,
    request.exchangeData,
    le16(request.opaque.length),
    request.opaque,
  );
}

/** Codes: `message-malformed`. */
export function decodeKeyExchange(
  bytes: Uint8Array,
  { version, exchangeSize, padding }: MessageContext,
): Result<Decoded<KeyExchange>> {
  const reader = new MessageReader(bytes, version, REQUEST.KEY_EXCHANGE);
  const summary = summaryOfCode(reader.parameter1);
  const slot = reader.parameter2 === 0xff ? 15 : reader.parameter2;
  if (summary === undefined) reader.refuse(`HashType ${reader.parameter1} is reserved`);
  if (slot > 7 && slot !== 15) reader.refuse(`slot ${reader.parameter2}`);
  const sessionId = reader.u16('ReqSessionID');
  const policy = reader.u8('SessionPolicy');
  reader.skip(1);
  const random = reader.take(RANDOM_SIZE, 'RandomData');
  const exchangeData = reader.take(exchangeSize.request, 'ExchangeData');
  const opaque = takeOpaque(reader);
  const message: KeyExchange = {
    slot,
    summary: summary ?? 'none',
    sessionId,
    policy: since(version, '1.2') ? policy : 0,
    random,
    exchangeData,
    opaque,
  };
  return reader.end(message, padding);
}

/** Everything before the signature. */
export function encodeKeyExchangeResponse(
  { version }: MessageContext,
  answer: Omit<KeyExchangeResponse, 'signature' | 'verifyData'>,
): Uint8Array {
  return concat(
    header(version, RESPONSE.KEY_EXCHANGE_RSP, answer.heartbeat),
    le16(answer.sessionId),
    Uint8Array.of(answer.mutual, answer.requesterSlot),
    answer.random,
    answer.exchangeData,
    answer.summaryHash,
    le16(answer.opaque.length),
    answer.opaque,
  );
}

/** `summary`: was a summary hash asked for? `verified`: is there ResponderVerifyData? Codes: `message-malformed`. */
export function decodeKeyExchangeResponse(
  bytes: Uint8Array,
  { version, exchangeSize, hashSize, signatureSize, padding }: MessageContext,
  summary: boolean,
  verified: boolean,
): Result<Decoded<KeyExchangeResponse>> {
  const reader = new MessageReader(bytes, version, RESPONSE.KEY_EXCHANGE_RSP);
  const sessionId = reader.u16('RspSessionID');
  const mutual = reader.u8('MutAuthRequested');
  const requesterSlot = reader.u8('SlotIDParam') & 0xf;
  if (![MUTUAL.none, MUTUAL.plain, 1 | MUTUAL.encapsulated, 1 | MUTUAL.withDigests, 2, 4].includes(mutual & 7))
    reader.refuse(`MutAuthRequested ${mutual}`);
  const random = reader.take(RANDOM_SIZE, 'RandomData');
  const exchangeData = reader.take(exchangeSize.response, 'ExchangeData');
  const summaryHash = reader.take(summary ? hashSize : 0, 'MeasurementSummaryHash');
  const opaque = takeOpaque(reader);
  const signature = reader.take(signatureSize, 'Signature');
  const verifyData = reader.take(verified ? hashSize : 0, 'ResponderVerifyData');
  const message: KeyExchangeResponse = {
    heartbeat: reader.parameter1,
    sessionId,
    mutual: mutual & 7,
    requesterSlot,
    random,
    exchangeData,
    summaryHash,
    opaque,
    signature,
    verifyData,
  };
  return reader.end(message, padding);
}

export interface Finish {
  /** The requester's slot; only with a signature. */
  readonly slot: number;
  /** 1.4. */
  readonly opaque: Uint8Array;
  /** Empty without mutual authentication. */
  readonly signature: Uint8Array;
  readonly verifyData: Uint8Array;
}

/** Everything before the signature. */
export function encodeFinish(
  { version }: MessageContext,
  { slot, opaque, signed }: { slot: number; opaque: Uint8Array; signed: boolean },
): Uint8Array {
  const slotByte = slot === 15 ? 0xff : slot;
  return concat(
    header(version, REQUEST.FINISH, signed ? 1 : 0, signed ? slotByte : 0),
    encodeOpaque14(version, opaque),
  );
}

/** Codes: `message-malformed`. */
export function decodeFinish(
  bytes: Uint8Array,
  { version, hashSize, requesterSignatureSize, padding }: MessageContext,
): Result<Decoded<Finish>> {
  const reader = new MessageReader(bytes, version, REQUEST.FINISH);
  const signed = (reader.parameter1 & 1) !== 0;
  const opaque = takeOpaque14(reader, version);
  const signature = reader.take(signed ? requesterSignatureSize : 0, 'Signature');
  const verifyData = reader.take(hashSize, 'RequesterVerifyData');
  const slot = reader.parameter2 === 0xff ? 15 : reader.parameter2;
  return reader.end({ slot, opaque, signature, verifyData }, padding);
}

/** Everything before ResponderVerifyData. */
export function encodeFinishResponse({ version }: MessageContext, opaque: Uint8Array): Uint8Array {
  return concat(header(version, RESPONSE.FINISH_RSP), encodeOpaque14(version, opaque));
}

/** `verified`: is there ResponderVerifyData, because the handshake is in the clear? Codes: `message-malformed`. */
export function decodeFinishResponse(
  bytes: Uint8Array,
  { version, hashSize, padding }: MessageContext,
  verified: boolean,
): Result<Decoded<{ opaque: Uint8Array; verifyData: Uint8Array }>> {
  const reader = new MessageReader(bytes, version, RESPONSE.FINISH_RSP);
  const opaque = takeOpaque14(reader, version);
  const verifyData = reader.take(verified ? hashSize : 0, 'ResponderVerifyData');
  return reader.end({ opaque, verifyData }, padding);
}

function takeOpaque(reader: MessageReader): Uint8Array {
  const length = reader.u16('OpaqueDataLength');
  if (length > OPAQUE_LIMIT) reader.refuse(`OpaqueDataLength ${length}, at most ${OPAQUE_LIMIT}`);
  return reader.take(length, 'OpaqueData');
}

/** Opaque data that FINISH and PSK_FINISH have from 1.4 on. */
export function takeOpaque14(reader: MessageReader, version: MessageContext['version']): Uint8Array {
  return since(version, '1.4') ? takeOpaque(reader) : new Uint8Array();
}

export function encodeOpaque14(version: MessageContext['version'], opaque: Uint8Array): Uint8Array {
  return since(version, '1.4') ? concat(le16(opaque.length), opaque) : new Uint8Array();
}
