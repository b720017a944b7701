/** GET_KEY_PAIR_INFO and KEY_PAIR_INFO, 1.3: which keys a responder has, and what they are for. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** Bytes of a mask of PQC algorithms. */
const PQC_MASK = 4;

export interface KeyPairInfo {
  readonly total: number;
  /** 1 to `total`. */
  readonly pair: number;
  readonly capabilities: number;
  readonly usageCapabilities: number;
  readonly usage: number;
  /** Masks of key kinds, not of signature algorithms: RSA 2048, 3072, 4096, ECC 256, 384, 521, SM2, Ed25519, Ed448. */
  readonly algorithmCapabilities: number;
  readonly algorithm: number;
  /** DER AlgorithmIdentifier of the key; may be empty. */
  readonly publicKeyInfo: Uint8Array;
  readonly slotMask: number;
  /** 1.4. */
  readonly pqcCapabilities: number;
  readonly pqcAlgorithm: number;
}

export function encodeGetKeyPairInfo({ version }: MessageContext, pair: number): Uint8Array {
  return concat(header(version, REQUEST.GET_KEY_PAIR_INFO), Uint8Array.of(pair));
}

/** Codes: `message-malformed`. */
export function decodeGetKeyPairInfo(bytes: Uint8Array, { version, padding }: MessageContext): Result<Decoded<number>> {
  const reader = new MessageReader(bytes, version, REQUEST.GET_KEY_PAIR_INFO);
  const pair = reader.u8('KeyPairID');
  if (pair === 0) reader.refuse('KeyPairID 0 is reserved');
  return reader.end(pair, padding);
}

export function encodeKeyPairInfo({ version }: MessageContext, info: KeyPairInfo): Uint8Array {
  return concat(
    header(version, RESPONSE.KEY_PAIR_INFO),
    Uint8Array.of(info.total, info.pair),
    le16(info.capabilities),
    le16(info.usageCapabilities),
    le16(info.usage),
    le32(info.algorithmCapabilities),
    le32(info.algorithm),
    le16(info.publicKeyInfo.length),
    Uint8Array.of(info.slotMask),
    info.publicKeyInfo,
    since(version, '1.4')
      ? concat(Uint8Array.of(PQC_MASK), le32(info.pqcCapabilities), Uint8Array.of(PQC_MASK), le32(info.pqcAlgorithm))
      : new Uint8Array(),
  );
}

/** Codes: `message-malformed`. */
export function decodeKeyPairInfo(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<KeyPairInfo>> {
  const reader = new MessageReader(bytes, version, RESPONSE.KEY_PAIR_INFO);
  const total = reader.u8('TotalKeyPairs');
  const pair = reader.u8('KeyPairID');
  const capabilities = reader.u16('Capabilities');
  const usageCapabilities = reader.u16('KeyUsageCapabilities');
  const usage = reader.u16('CurrentKeyUsage');
  const algorithmCapabilities = reader.u32('AsymAlgoCapabilities');
  const algorithm = reader.u32('CurrentAsymAlgo');
  const infoLength = reader.u16('PublicKeyInfoLen');
  const slotMask = reader.u8('AssocCertSlotMask');
  const publicKeyInfo = reader.take(infoLength, 'PublicKeyInfo');
  const pqcCapabilities = since(version, '1.4') ? readMask(reader, 'PqcAsymAlgoCapabilities') : 0;
  const pqcAlgorithm = since(version, '1.4') ? readMask(reader, 'CurrentPqcAsymAlgo') : 0;
  const message: KeyPairInfo = {
    total,
    pair,
    capabilities,
    usageCapabilities,
    usage,
    algorithmCapabilities,
    algorithm,
    publicKeyInfo,
    slotMask,
    pqcCapabilities,
    pqcAlgorithm,
  };
  return reader.end(message, padding);
}

/** A mask with a length before it; what goes beyond four bytes has no name yet. */
function readMask(reader: MessageReader, field: string): number {
  const mask = reader.take(reader.u8(`${field}Len`), field);
  return mask.subarray(0, PQC_MASK).reduce((sum, byte, index) => sum + byte * 2 ** (8 * index), 0);
}
