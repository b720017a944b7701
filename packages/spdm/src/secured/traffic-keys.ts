/** From a direction’s secret to the key and IV of its records, and on to the next secret: DSP0274 1.2 §12. */
import { asciiBytes, concat } from '@airlock/evidence/bytes.ts';
import {
  AEAD_IV_SIZE,
  AEAD_KEY_SIZE,
  type AeadName,
  HASH_SIZE,
  type HashName,
  type SpdmVersion,
} from '../algorithms.ts';
import type { SpdmCrypto } from '../crypto.ts';
import { le16 } from '../little-endian.ts';

/** What was negotiated, as far as records depend on it. */
export interface RecordSuite {
  readonly version: SpdmVersion;
  readonly hash: HashName;
  readonly aead: AeadName;
}

export interface TrafficKeys {
  readonly key: Uint8Array;
  readonly iv: Uint8Array;
}

/** BinConcat, DSP0274 §12.1: length, `spdm1.2 `, label and context. */
export function binConcat(
  version: SpdmVersion,
  length: number,
  label: string,
  context: Uint8Array = new Uint8Array(),
): Uint8Array {
  return concat(le16(length), asciiBytes(`spdm${version} `), asciiBytes(label), context);
}

/** HKDF-Expand, RFC 5869 §2.3; `length` is at most 255 digests. */
export function expand(
  crypto: SpdmCrypto,
  hash: HashName,
  secret: Uint8Array,
  info: Uint8Array,
  length: number,
): Uint8Array {
  const whole = new Uint8Array(length);
  let block = new Uint8Array();
  for (let at = 0, count = 1; at < length; count++) {
    block = new Uint8Array(crypto.hmac(hash, secret, concat(block, info, Uint8Array.of(count))));
    whole.set(block.subarray(0, Math.min(block.length, length - at)), at);
    at += block.length;
  }
  block.fill(0);
  return whole;
}

/** EncryptionKey and IV of a major secret (bin_str5, bin_str6). */
export function trafficKeys(crypto: SpdmCrypto, { version, hash, aead }: RecordSuite, secret: Uint8Array): TrafficKeys {
  const size = AEAD_KEY_SIZE[aead];
  return {
    key: expand(crypto, hash, secret, binConcat(version, size, 'key'), size),
    iv: expand(crypto, hash, secret, binConcat(version, AEAD_IV_SIZE, 'iv'), AEAD_IV_SIZE),
  };
}

/** The major secret after a key update (bin_str9). */
export function updatedSecret(crypto: SpdmCrypto, { version, hash }: RecordSuite, secret: Uint8Array): Uint8Array {
  const size = HASH_SIZE[hash];
  return expand(crypto, hash, secret, binConcat(version, size, 'traffic upd'), size);
}
