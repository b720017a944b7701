/** TPM 2.0 quotes: TPMS_ATTEST and TPMT_SIGNATURE. TPM 2.0 Part 2 §10.12.8, §11.3.4. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, u32le } from '../bytes.ts';
import type { Hash, HashedScheme } from '../crypto.ts';
import { createTpmReader } from './reader.ts';

export const TPM_GENERATED = 0xff544347;
const ATTEST_QUOTE = 0x8018;
export const TPM_HASHES: Readonly<Record<number, Hash>> = { 4: 'sha1', 11: 'sha256', 12: 'sha384', 13: 'sha512' };
const RSASSA = 0x14;
const RSAPSS = 0x16;
const ECDSA = 0x18;
const BANK_LIMIT = 16;

export interface PcrSelection {
  readonly bank: Hash | null;
  /** Numbers, rising. */
  readonly pcrs: readonly number[];
}

export interface TpmAttest {
  /** All of it, a copy: what is signed. */
  readonly bytes: Uint8Array;
  readonly generated: boolean;
  readonly quote: boolean;
  /** The nonce that it was asked for with. */
  readonly extraData: Uint8Array;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly clockSafe: boolean;
  readonly selections: readonly PcrSelection[];
  readonly pcrDigest: Uint8Array;
}

/** Does this begin like something that a TPM attests? */
export function isAttest(bytes: Uint8Array): boolean {
  return bytes.length > 40 && bytes[0] === 0xff && bytes[1] === 0x54 && bytes[2] === 0x43 && bytes[3] === 0x47;
}

/** TPMS_ATTEST of a quote and nothing after it. Codes: `tpm-structure-invalid`. */
export function readAttest(given: Uint8Array): Result<TpmAttest> {
  const bytes = given.slice();
  const reader = createTpmReader(bytes);
  const magic = reader.u32();
  const type = reader.u16();
  reader.sized(68); // qualifiedSigner: a name is a hash algorithm and its digest, or a handle
  const extraData = reader.sized(66);
  reader.take(8); // clock
  const resetCount = reader.u32();
  const restartCount = reader.u32();
  const safe = reader.u8();
  if (safe > 1) reader.refuse('a yes or no that is neither');
  reader.take(8); // firmwareVersion
  if (type !== ATTEST_QUOTE && reader.problem === null)
    return fail('tpm-structure-invalid', `type 0x${type.toString(16)}; a quote is 0x8018`);
  const count = reader.u32();
  if (count > BANK_LIMIT) reader.refuse(`${count} PCR banks`);
  const selections: PcrSelection[] = [];
  for (let i = 0; i < count && reader.problem === null; i++) {
    const bank = TPM_HASHES[reader.u16()] ?? null;
    const size = reader.u8();
    if (size > 4) reader.refuse(`a PCR bitmap of ${size} bytes`);
    const bitmap = reader.take(size);
    const pcrs: number[] = [];
    for (let pcr = 0; pcr < bitmap.length * 8; pcr++)
      if ((((bitmap[pcr >> 3] ?? 0) >> (pcr & 7)) & 1) === 1) pcrs.push(pcr);
    selections.push({ bank, pcrs });
  }
  const pcrDigest = reader.sized(64);
  reader.finish();
  if (reader.problem !== null) return fail('tpm-structure-invalid', `TPMS_ATTEST: ${reader.problem}`);
  return ok({
    bytes,
    generated: magic === TPM_GENERATED,
    quote: true,
    extraData,
    resetCount,
    restartCount,
    clockSafe: safe === 1,
    selections,
    pcrDigest,
  });
}

export interface TpmSignature {
  readonly scheme: HashedScheme;
  readonly bytes: Uint8Array;
}

/** SEQUENCE { INTEGER, INTEGER } of a curve up to P-521, as `tpm2_quote -f plain` writes ECDSA. */
export function isDerSignature(bytes: Uint8Array): boolean {
  const long = bytes[1] === 0x81 ? 1 : 0;
  return (
    bytes.length > 60 &&
    bytes.length < 144 &&
    bytes[0] === 0x30 &&
    bytes[1 + long] === bytes.length - 2 - long &&
    bytes[2 + long] === 0x02 &&
    bytes[4 + long + (bytes[3 + long] ?? 0)] === 0x02
  );
}

/**
 * TPMT_SIGNATURE, or the bare bytes of an RSASSA or ECDSA signature with SHA-256, as Azure's tools and `-f plain` hand it out.
 * Codes: `tpm-structure-invalid`.
 */
export function readTpmSignature(given: Uint8Array): Result<TpmSignature> {
  const bytes = given.slice();
  if (bytes.length === 256 || bytes.length === 384 || bytes.length === 512)
    return ok({ scheme: { kind: 'rsa-pkcs1', hash: 'sha256' }, bytes });
  if (isDerSignature(bytes)) return ok({ scheme: { kind: 'ecdsa', hash: 'sha256', form: 'der' }, bytes });
  const reader = createTpmReader(bytes);
  const algorithm = reader.u16();
  const hash = TPM_HASHES[reader.u16()];
  if (reader.problem === null && (hash === undefined || hash === 'sha1'))
    return fail('tpm-structure-invalid', 'TPMT_SIGNATURE: a hash that is not accepted');
  const strong = hash ?? 'sha256';
  let signature: TpmSignature | null = null;
  if (algorithm === RSASSA || algorithm === RSAPSS) {
    const value = reader.sized(512);
    const scheme: HashedScheme =
      algorithm === RSASSA
        ? { kind: 'rsa-pkcs1', hash: strong }
        : { kind: 'rsa-pss', hash: strong, saltLength: { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }[strong] };
    signature = { scheme, bytes: value };
  } else if (algorithm === ECDSA) {
    const [r, s] = [reader.sized(66), reader.sized(66)];
    const size = Math.max(r.length, s.length) > 48 ? 66 : Math.max(r.length, s.length) > 32 ? 48 : 32;
    const padded = (part: Uint8Array) => concat(new Uint8Array(Math.max(0, size - part.length)), part);
    signature = { scheme: { kind: 'ecdsa', hash: strong, form: 'raw' }, bytes: concat(padded(r), padded(s)) };
  } else reader.refuse(`algorithm 0x${algorithm.toString(16)}`);
  reader.finish();
  return signature !== null && reader.problem === null
    ? ok(signature)
    : fail('tpm-structure-invalid', `TPMT_SIGNATURE: ${reader.problem ?? 'unknown'}`);
}

/** Values of one bank, by number. */
export interface PcrValues {
  readonly bank: Hash;
  readonly values: ReadonlyMap<number, Uint8Array>;
}

/** A quote with what came beside it. */
export interface TpmQuote {
  readonly attest: TpmAttest;
  readonly signature: TpmSignature;
  /** As they were handed over; null where there are none. */
  readonly pcrs: PcrValues | null;
}

const PCR_BANKS: Readonly<Record<number, Hash>> = { 20: 'sha1', 32: 'sha256', 48: 'sha384', 64: 'sha512' };

/** Up to 32 values of one length, by number. Codes: `quote-wrapper-invalid`. */
export function readPcrs(values: ReadonlyMap<number, Uint8Array>): Result<PcrValues> {
  const [first] = values.values();
  const bank = PCR_BANKS[first?.length ?? 0];
  const fits = [...values].every(([pcr, { length }]) => pcr >= 0 && pcr < 32 && length === first?.length);
  if (bank === undefined || !fits)
    return fail('quote-wrapper-invalid', 'the PCR values are not up to 32 digests of one length');
  return ok({ bank, values: new Map([...values].map(([pcr, value]) => [pcr, value.slice()])) });
}

const SCALED_LIMIT = 4096;

/**
 * Azure's tools write a quote as bincode: signature, message and PCR values, each list with its length in eight bytes.
 * Codes: `quote-wrapper-invalid`, those of the parts.
 */
export function readBincodeQuote(bytes: Uint8Array): Result<TpmQuote> {
  const wrong = (what: string) => fail('quote-wrapper-invalid', what);
  let at = 0;
  const list = (): Uint8Array | null => {
    const length = at + 8 <= bytes.length && u32le(bytes, at + 4) === 0 ? u32le(bytes, at) : SCALED_LIMIT + 1;
    if (length > SCALED_LIMIT || at + 8 + length > bytes.length) return null;
    at += 8 + length;
    return bytes.subarray(at - length, at);
  };
  const [signature, message] = [list(), list()];
  if (signature === null || message === null) return wrong('signature or message is cut off');
  if (at + 8 > bytes.length || u32le(bytes, at + 4) !== 0) return wrong('the PCR values are cut off');
  const count = u32le(bytes, at);
  at += 8;
  if (count > 32 || bytes.length !== at + count * 32) return wrong('the PCR values are cut off, or something follows');
  const pcrs = Array.from({ length: count }, (_, i) => [i, bytes.subarray(at + i * 32, at + (i + 1) * 32)] as const);
  return joinQuote(message, signature, new Map(pcrs));
}

/** Does this begin like such a file: a signature's length, then a quote? */
export function isBincodeQuote(bytes: Uint8Array): boolean {
  const length = u32le(bytes, 0);
  return (
    (length === 256 || length === 384 || length === 512) &&
    u32le(bytes, 4) === 0 &&
    isAttest(bytes.subarray(8 + length + 8))
  );
}

/** Codes: those of the parts. */
export function joinQuote(
  message: Uint8Array,
  signature: Uint8Array,
  pcrs: ReadonlyMap<number, Uint8Array>,
): Result<TpmQuote> {
  const attest = readAttest(message);
  if (!attest.ok) return attest;
  const signed = readTpmSignature(signature);
  if (!signed.ok) return signed;
  if (pcrs.size === 0) return ok({ attest: attest.value, signature: signed.value, pcrs: null });
  const values = readPcrs(pcrs);
  return values.ok ? ok({ attest: attest.value, signature: signed.value, pcrs: values.value }) : values;
}
