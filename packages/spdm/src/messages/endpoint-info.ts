/** GET_ENDPOINT_INFO and ENDPOINT_INFO, 1.3. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { le32 } from '../little-endian.ts';
import { NONCE_SIZE } from './challenge.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** SubCode: the only one there is. */
export const DEVICE_CLASS_IDENTIFIER = 1;
const SIGN = 1;

export interface EndpointInfoRequest {
  readonly subCode: number;
  /** What a signed answer must carry; null asks for none. */
  readonly sign: { readonly nonce: Uint8Array; readonly slot: number } | null;
}

export interface EndpointInfo {
  readonly slot: number;
  readonly nonce: Uint8Array;
  readonly info: Uint8Array;
  readonly signature: Uint8Array;
}

export function encodeGetEndpointInfo({ version }: MessageContext, { subCode, sign }: EndpointInfoRequest): Uint8Array {
  return concat(
    header(version, REQUEST.GET_ENDPOINT_INFO, subCode, sign === null ? 0 : sign.slot & 0xf),
    Uint8Array.of(sign === null ? 0 : SIGN, 0, 0, 0),
    sign === null ? new Uint8Array() : sign.nonce,
  );
}

/** Codes: `message-malformed`. */
export function decodeGetEndpointInfo(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<EndpointInfoRequest>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_ENDPOINT_INFO);
  const signed = (reader.u8('RequestAttributes') & SIGN) !== 0;
  reader.skip(3);
  const slot = reader.parameter2 & 0xf;
  if (signed && slot > 7 && slot !== 15) reader.refuse(`slot ${slot}`);
  const sign = signed ? { nonce: reader.take(NONCE_SIZE, 'Nonce'), slot } : null;
  return reader.end({ subCode: reader.parameter1, sign }, padding);
}

/** Everything before the signature; `nonce` is empty in an answer without one. */
export function encodeEndpointInfo({ version }: MessageContext, answer: Omit<EndpointInfo, 'signature'>): Uint8Array {
  return concat(
    header(version, RESPONSE.ENDPOINT_INFO, 0, answer.slot & 0xf),
    le32(0),
    answer.nonce,
    le32(answer.info.length),
    answer.info,
  );
}

/** Codes: `message-malformed`. */
export function decodeEndpointInfo(
  bytes: Uint8Array,
  { version, signatureSize, padding }: MessageContext,
  signed: boolean,
): Result<Decoded<EndpointInfo>> {
  const reader = new MessageReader(bytes, version, RESPONSE.ENDPOINT_INFO);
  reader.skip(4);
  const nonce = reader.take(signed ? NONCE_SIZE : 0, 'Nonce');
  const info = reader.take(reader.u32('EPInfoLen'), 'EPInfo');
  const signature = reader.take(signed ? signatureSize : 0, 'Signature');
  return reader.end({ slot: reader.parameter2 & 0xf, nonce, info, signature }, padding);
}
