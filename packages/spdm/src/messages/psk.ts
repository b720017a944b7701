/** PSK_EXCHANGE, PSK_EXCHANGE_RSP, PSK_FINISH and PSK_FINISH_RSP. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16 } from '../little-endian.ts';
import { SUMMARY, type SummaryName, summaryOfCode } from './challenge.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { encodeOpaque14, takeOpaque14 } from './key-exchange.ts';
import { OPAQUE_LIMIT } from './opaque.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** Bytes of a hint, and of a context, that are read. */
const HINT_LIMIT = 1024;

export interface PskExchange {
  readonly summary: SummaryName;
  readonly policy: number;
  readonly sessionId: number;
  readonly hint: Uint8Array;
  /** As long as a digest, or longer. */
  readonly context: Uint8Array;
  readonly opaque: Uint8Array;
}

export interface PskExchangeResponse {
  /** Seconds; 0 for no heartbeat. */
  readonly heartbeat: number;
  readonly sessionId: number;
  readonly summaryHash: Uint8Array;
  readonly context: Uint8Array;
  readonly opaque: Uint8Array;
  readonly verifyData: Uint8Array;
}

export function encodePskExchange({ version }: MessageContext, request: PskExchange): Uint8Array {
  const { hint, context, opaque } = request;
  return concat(
    header(version, REQUEST.PSK_EXCHANGE, SUMMARY[request.summary], since(version, '1.2') ? request.policy : 0),
    le16(request.sessionId),
    le16(hint.length),
    le16(context.length),
    le16(opaque.length),
    hint,
    context,
    opaque,
  );
}

/** Codes: `message-malformed`. */
export function decodePskExchange(bytes: Uint8Array, context: MessageContext): Result<Decoded<PskExchange>> {
  const { version, hashSize, padding } = context;
  const reader = new MessageReader(bytes, version, REQUEST.PSK_EXCHANGE);
  const summary = summaryOfCode(reader.parameter1);
  if (summary === undefined) reader.refuse(`HashType ${reader.parameter1} is reserved`);
  const sessionId = reader.u16('ReqSessionID');
  const [hintLength, contextLength, opaqueLength] = readLengths(reader, true);
  if (contextLength < hashSize) reader.refuse(`a context of ${contextLength} bytes, at least ${hashSize}`);
  const hint = reader.take(hintLength, 'PSKHint');
  const own = reader.take(contextLength, 'RequesterContext');
  const opaque = reader.take(opaqueLength, 'OpaqueData');
  const policy = since(version, '1.2') ? reader.parameter2 : 0;
  return reader.end({ summary: summary ?? 'none', policy, sessionId, hint, context: own, opaque }, padding);
}

/** Everything before ResponderVerifyData. */
export function encodePskExchangeResponse(
  { version }: MessageContext,
  answer: Omit<PskExchangeResponse, 'verifyData'>,
): Uint8Array {
  return concat(
    header(version, RESPONSE.PSK_EXCHANGE_RSP, answer.heartbeat),
    le16(answer.sessionId),
    le16(0),
    le16(answer.context.length),
    le16(answer.opaque.length),
    answer.summaryHash,
    answer.context,
    answer.opaque,
  );
}

/** `summary`: was a summary hash asked for? Codes: `message-malformed`. */
export function decodePskExchangeResponse(
  bytes: Uint8Array,
  { version, hashSize, padding }: MessageContext,
  summary: boolean,
): Result<Decoded<PskExchangeResponse>> {
  const reader = new MessageReader(bytes, version, RESPONSE.PSK_EXCHANGE_RSP);
  const sessionId = reader.u16('RspSessionID');
  reader.skip(2);
  const [, contextLength, opaqueLength] = readLengths(reader, false);
  const summaryHash = reader.take(summary ? hashSize : 0, 'MeasurementSummaryHash');
  const context = reader.take(contextLength, 'ResponderContext');
  const opaque = reader.take(opaqueLength, 'OpaqueData');
  const verifyData = reader.take(hashSize, 'ResponderVerifyData');
  return reader.end({ heartbeat: reader.parameter1, sessionId, summaryHash, context, opaque, verifyData }, padding);
}

function readLengths(reader: MessageReader, hinted: boolean): [number, number, number] {
  const hint = hinted ? reader.u16('PSKHintLength') : 0;
  const context = reader.u16('ContextLength');
  const opaque = reader.u16('OpaqueDataLength');
  if (hint > HINT_LIMIT || context > HINT_LIMIT || opaque > OPAQUE_LIMIT)
    reader.refuse(`lengths of ${hint}, ${context} and ${opaque} bytes`);
  return [hint, context, opaque];
}

/** Everything before RequesterVerifyData. */
export function encodePskFinish({ version }: MessageContext, opaque: Uint8Array): Uint8Array {
  return concat(header(version, REQUEST.PSK_FINISH), encodeOpaque14(version, opaque));
}

/** Codes: `message-malformed`. */
export function decodePskFinish(
  bytes: Uint8Array,
  { version, hashSize, padding }: MessageContext,
): Result<Decoded<{ opaque: Uint8Array; verifyData: Uint8Array }>> {
  const reader = new MessageReader(bytes, version, REQUEST.PSK_FINISH);
  const opaque = takeOpaque14(reader, version);
  const verifyData = reader.take(hashSize, 'RequesterVerifyData');
  return reader.end({ opaque, verifyData }, padding);
}

export function encodePskFinishResponse({ version }: MessageContext, opaque: Uint8Array): Uint8Array {
  return concat(header(version, RESPONSE.PSK_FINISH_RSP), encodeOpaque14(version, opaque));
}

/** Codes: `message-malformed`. */
export function decodePskFinishResponse(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<{ opaque: Uint8Array }>> {
  const reader = new MessageReader(bytes, version, RESPONSE.PSK_FINISH_RSP);
  return reader.end({ opaque: takeOpaque14(reader, version) }, padding);
}
