/** GET_CERTIFICATE and CERTIFICATE: a chain in portions. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const LARGE = 0x80;

export interface CertificateRequest {
  readonly slot: number;
  readonly offset: number;
  readonly length: number;
  /** Offsets and lengths of four bytes, 1.4. */
  readonly large: boolean;
  /** Asks for the size of the slot in place of its chain, 1.3. */
  readonly slotSize: boolean;
}

export interface CertificatePortion {
  readonly slot: number;
  readonly large: boolean;
  /** CertModel of the slot, 1.3 with several keys. */
  readonly model: number;
  readonly portion: Uint8Array;
  readonly remainder: number;
}

export function encodeGetCertificate({ version }: MessageContext, request: CertificateRequest): Uint8Array {
  const { slot, offset, length, large, slotSize } = request;
  return concat(
    header(version, REQUEST.GET_CERTIFICATE, slot | (large ? LARGE : 0), slotSize ? 1 : 0),
    le16(large ? 0 : offset),
    le16(large ? 0 : length),
    large ? concat(le32(offset), le32(length)) : new Uint8Array(),
  );
}

/** Codes: `message-malformed`. */
export function decodeGetCertificate(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<CertificateRequest>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_CERTIFICATE);
  const large = since(version, '1.4') && (reader.parameter1 & LARGE) !== 0;
  const slot = reader.parameter1 & 0xf;
  if (slot > 7) reader.refuse(`slot ${slot}`);
  let offset = reader.u16('Offset');
  let length = reader.u16('Length');
  if (large) {
    offset = reader.u32('LargeOffset');
    length = reader.u32('LargeLength');
  }
  const slotSize = since(version, '1.3') && (reader.parameter2 & 1) !== 0;
  return reader.end({ slot, offset, length, large, slotSize }, padding);
}

export function encodeCertificate({ version }: MessageContext, answer: CertificatePortion): Uint8Array {
  const { slot, large, model, portion, remainder } = answer;
  return concat(
    header(version, RESPONSE.CERTIFICATE, slot | (large ? LARGE : 0), since(version, '1.3') ? model : 0),
    le16(large ? 0 : portion.length),
    le16(large ? 0 : remainder),
    large ? concat(le32(portion.length), le32(remainder)) : new Uint8Array(),
    portion,
  );
}

/** Codes: `message-malformed`. */
export function decodeCertificate(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<CertificatePortion>> {
  const reader = new MessageReader(bytes, version, RESPONSE.CERTIFICATE);
  const large = since(version, '1.4') && (reader.parameter1 & LARGE) !== 0;
  let length = reader.u16('PortionLength');
  let remainder = reader.u16('RemainderLength');
  if (large) {
    length = reader.u32('LargePortionLength');
    remainder = reader.u32('LargeRemainderLength');
  }
  const portion = reader.take(length, 'CertChain');
  const model = since(version, '1.3') ? reader.parameter2 & 7 : 0;
  return reader.end({ slot: reader.parameter1 & 0xf, large, model, portion, remainder }, padding);
}
