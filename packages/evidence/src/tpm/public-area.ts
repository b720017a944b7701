/** Public keys as TPMs and `tpm2_readpublic -f tss` write them. TPM 2.0 Part 2 §12.2.4, §12.2.5. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat, u16be } from '../bytes.ts';
import { pointSpki } from '../cca/token.ts';
import { TPM_HASHES } from './quote.ts';
import { createTpmReader } from './reader.ts';
import { rsaSpki } from './rsa-spki.ts';

const RSA = 0x01;
const ECC = 0x23;
const NULL = 0x10;
const DIGEST_LIMIT = 64;
const AREA_LIMIT = 1024;
/** Bytes of a coordinate, by the number of the curve: NIST P-256, P-384, P-521. */
const CURVES: Readonly<Record<number, number>> = { 3: 32, 4: 48, 5: 66 };

/** Does this begin like TPMT_PUBLIC, or the same with its size in front? */
export function isPublicArea(given: Uint8Array): boolean {
  const bytes = withoutSize(given);
  const kind = u16be(bytes, 0);
  return (
    bytes.length > 60 &&
    bytes.length <= AREA_LIMIT &&
    (kind === RSA || kind === ECC) &&
    TPM_HASHES[u16be(bytes, 2)] !== undefined
  );
}

/** TPM2B: without the two bytes that say how many follow, where they do. */
export function withoutSize(bytes: Uint8Array): Uint8Array {
  return bytes.length > 2 && u16be(bytes, 0) === bytes.length - 2 ? bytes.subarray(2) : bytes;
}

/** TPMT_PUBLIC of an RSA or EC key as SubjectPublicKeyInfo. Codes: `tpm-structure-invalid`. */
export function readPublicArea(given: Uint8Array): Result<Uint8Array> {
  const reader = createTpmReader(withoutSize(given));
  const kind = reader.u16();
  reader.take(2 + 4);
  reader.sized(DIGEST_LIMIT);
  if (reader.u16() !== NULL) reader.take(4); // symmetric: bits and mode
  if (reader.u16() !== NULL) reader.take(2); // scheme: its hash
  let spki: Uint8Array = new Uint8Array();
  if (kind === RSA) {
    reader.take(2);
    const exponent = reader.u32();
    const modulus = reader.sized(512);
    const e = exponent === 0 ? 65537 : exponent;
    if (modulus.length >= 256)
      spki = rsaSpki(modulus, Uint8Array.of(e >>> 24, (e >> 16) & 0xff, (e >> 8) & 0xff, e & 0xff));
    else reader.refuse('a modulus of less than 2048 bits');
  } else if (kind === ECC) {
    const size = CURVES[reader.u16()];
    if (reader.u16() !== NULL) reader.take(2);
    const [x, y] = [reader.sized(66), reader.sized(66)];
    if (size === undefined || x.length > size || y.length > size)
      reader.refuse('a curve that is not P-256, P-384 or P-521');
    else {
      const padded = (part: Uint8Array) => concat(new Uint8Array(size - part.length), part);
      spki = pointSpki(concat(Uint8Array.of(4), padded(x), padded(y))) ?? new Uint8Array();
    }
  } else reader.refuse('a key that is neither RSA nor ECC');
  reader.finish();
  return reader.problem === null ? ok(spki) : fail('tpm-structure-invalid', `TPMT_PUBLIC: ${reader.problem}`);
}
