/** ERROR and RESPOND_IF_READY. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import type { SpdmVersion } from '../algorithms.ts';
import { ERROR_CODE, REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const EXTENDED_LIMIT = 32;

export interface ErrorMessage {
  readonly code: number;
  readonly data: number;
  readonly extended: Uint8Array;
}

/** ExtendedErrorData of ResponseNotReady. */
export interface NotReady {
  /** The answer will be there after 2 to this many microseconds. */
  readonly exponent: number;
  readonly request: number;
  readonly token: number;
  /** It is dropped after as many times that. */
  readonly multiplier: number;
}

/** `version` null: before a version is agreed on, ERROR is of 1.0. */
export function encodeError(
  version: SpdmVersion | null,
  code: number,
  data = 0,
  extended: Uint8Array = new Uint8Array(),
): Uint8Array {
  return concat(header(version, RESPONSE.ERROR, code, data), extended);
}

/** Padding cannot be told from ExtendedErrorData, and stays in it. Codes: `message-malformed`. */
export function decodeError(bytes: Uint8Array, version: SpdmVersion | null): Result<Decoded<ErrorMessage>> {
  const reader = new MessageReader(bytes, version, RESPONSE.ERROR);
  const extended = reader.rest();
  if (extended.length > EXTENDED_LIMIT + 3) reader.refuse(`ExtendedErrorData of ${extended.length} bytes`);
  return reader.end({ code: reader.parameter1, data: reader.parameter2, extended }, 0);
}

export function encodeNotReady({ exponent, request, token, multiplier }: NotReady): Uint8Array {
  return Uint8Array.of(exponent, request, token, multiplier);
}

/** `undefined` when the error is another one, or its data are missing. */
export function notReadyOf({ code, extended }: ErrorMessage): NotReady | undefined {
  const [exponent, request, token, multiplier] = extended;
  if (code !== ERROR_CODE.ResponseNotReady || exponent === undefined || request === undefined) return undefined;
  if (token === undefined || multiplier === undefined) return undefined;
  return { exponent, request, token, multiplier };
}

export function encodeRespondIfReady({ version }: MessageContext, { request, token }: NotReady): Uint8Array {
  return header(version, REQUEST.RESPOND_IF_READY, request, token);
}

/** Codes: `message-malformed`. */
export function decodeRespondIfReady(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<{ request: number; token: number }>> {
  const reader = new MessageReader(bytes, version, REQUEST.RESPOND_IF_READY);
  return reader.end({ request: reader.parameter1, token: reader.parameter2 }, padding);
}
