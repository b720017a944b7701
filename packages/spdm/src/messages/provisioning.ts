/** GET_CSR, CSR, SET_CERTIFICATE and SET_CERTIFICATE_RSP, 1.2: giving a device its certificates. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { OPAQUE_LIMIT } from './opaque.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const CSR_LIMIT = 0xffff;
const ERASE = 0x80;

export interface CsrRequest {
  /** 1.3 with several keys; 0 otherwise. */
  readonly keyPair: number;
  readonly certificateModel: number;
  /** Of a request that a reset interrupted; 0 for a new one. */
  readonly trackingTag: number;
  readonly overwrite: boolean;
  /** A DER CertificationRequestInfo, or empty. */
  readonly requesterInfo: Uint8Array;
  readonly opaque: Uint8Array;
}

export function encodeGetCsr({ version }: MessageContext, request: CsrRequest): Uint8Array {
  const attributes = (request.certificateModel & 7) | ((request.trackingTag & 7) << 3) | (request.overwrite ? 0x80 : 0);
  const since13 = since(version, '1.3');
  return concat(
    header(version, REQUEST.GET_CSR, since13 ? request.keyPair : 0, since13 ? attributes : 0),
    le16(request.requesterInfo.length),
    le16(request.opaque.length),
    request.requesterInfo,
    request.opaque,
  );
}

/** Codes: `message-malformed`. */
export function decodeGetCsr(bytes: Uint8Array, { version, padding }: MessageContext): Result<Decoded<CsrRequest>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_CSR);
  const infoLength = reader.u16('RequesterInfoLength');
  const opaqueLength = reader.u16('OpaqueDataLength');
  if (opaqueLength > OPAQUE_LIMIT) reader.refuse(`OpaqueDataLength ${opaqueLength}, at most ${OPAQUE_LIMIT}`);
  const requesterInfo = reader.take(infoLength, 'RequesterInfo');
  const opaque = reader.take(opaqueLength, 'OpaqueData');
  const attributes = since(version, '1.3') ? reader.parameter2 : 0;
  return reader.end(
    {
      keyPair: since(version, '1.3') ? reader.parameter1 : 0,
      certificateModel: attributes & 7,
      trackingTag: (attributes >> 3) & 7,
      overwrite: (attributes & 0x80) !== 0,
      requesterInfo,
      opaque,
    },
    padding,
  );
}

/** `csr` is a DER CertificationRequest of at most 65,535 bytes. */
export function encodeCsr({ version }: MessageContext, csr: Uint8Array): Uint8Array {
  return concat(header(version, RESPONSE.CSR), le16(csr.length & CSR_LIMIT), le16(0), csr);
}

/** Codes: `message-malformed`. */
export function decodeCsr(bytes: Uint8Array, { version, padding }: MessageContext): Result<Decoded<Uint8Array>> {
  const reader = new MessageReader(bytes, version, RESPONSE.CSR);
  const length = reader.u16('CSRLength');
  reader.skip(2);
  if (length === 0) reader.refuse('an empty CSR');
  return reader.end(reader.take(length, 'CSR'), padding);
}

export interface CertificateUpload {
  readonly slot: number;
  readonly certificateModel: number;
  readonly keyPair: number;
  /** Empty: the slot is erased (1.3). Padding of the transport stays at its end. */
  readonly chain: Uint8Array;
}

export function encodeSetCertificate({ version }: MessageContext, upload: CertificateUpload): Uint8Array {
  const { slot, certificateModel, keyPair, chain } = upload;
  const since13 = since(version, '1.3');
  const attributes = since13 ? ((certificateModel & 7) << 4) | (chain.length === 0 ? ERASE : 0) : 0;
  return concat(header(version, REQUEST.SET_CERTIFICATE, (slot & 0xf) | attributes, since13 ? keyPair : 0), chain);
}

/** Codes: `message-malformed`. */
export function decodeSetCertificate(
  bytes: Uint8Array,
  { version }: MessageContext,
): Result<Decoded<CertificateUpload>> {
  const reader = new MessageReader(bytes, version, REQUEST.SET_CERTIFICATE);
  const since13 = since(version, '1.3');
  const slot = reader.parameter1 & 0xf;
  if (slot > 7) reader.refuse(`slot ${slot}`);
  const erase = since13 && (reader.parameter1 & ERASE) !== 0;
  const rest = reader.rest();
  if (!erase && rest.length === 0) reader.refuse('no chain');
  return reader.end(
    {
      slot,
      certificateModel: since13 ? (reader.parameter1 >> 4) & 7 : 0,
      keyPair: since13 ? reader.parameter2 : 0,
      chain: erase ? new Uint8Array() : rest,
    },
    0,
  );
}

export function encodeSetCertificateResponse({ version }: MessageContext, slot: number): Uint8Array {
  return header(version, RESPONSE.SET_CERTIFICATE_RSP, slot);
}
