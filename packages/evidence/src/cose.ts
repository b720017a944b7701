/** COSE_Sign1, RFC 9052 §4.2: one signature, the algorithm in the protected header, the payload within. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { asciiBytes, concat } from './bytes.ts';
import { type Cbor, cborBytes, isTag, readCbor } from './cbor.ts';
import type { KeyKind, PublicKey, SignatureScheme } from './crypto.ts';

export interface CoseSign1 {
  readonly scheme: SignatureScheme;
  /** The algorithm's curve. */
  readonly key: KeyKind;
  /** `ES384` */
  readonly name: string;
  /** The protected header. */
  readonly header: ReadonlyMap<number | string, Cbor>;
  readonly payload: Uint8Array;
  /** Sig_structure: what is signed. */
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
}

const SIGN1 = 18;
const ALGORITHM = 1;
const CRITICAL = 2;
const ALGORITHMS: Readonly<
  Record<number, { readonly name: string; readonly key: KeyKind; readonly hash: 'sha256' | 'sha384' | 'sha512' }>
> = {
  [-7]: { name: 'ES256', key: 'p256', hash: 'sha256' },
  [-35]: { name: 'ES384', key: 'p384', hash: 'sha384' },
  [-36]: { name: 'ES512', key: 'p521', hash: 'sha512' },
};

/** Codes: `cose-invalid`, `cbor-invalid`. */
export function readCoseSign1(bytes: Uint8Array): Result<CoseSign1> {
  const read = readCbor(bytes);
  if (!read.ok) return read;
  const parts: Cbor = isTag(read.value, SIGN1) ? read.value.value : read.value;
  if (!Array.isArray(parts) || parts.length !== 4) return fail('cose-invalid', 'not four parts');
  const [header, , payload, signature] = parts as readonly Cbor[];
  if (!(header instanceof Uint8Array) || !(payload instanceof Uint8Array) || !(signature instanceof Uint8Array))
    return fail('cose-invalid', 'header, payload or signature is no byte string');
  const protectedHeader = readCbor(header);
  if (!protectedHeader.ok) return protectedHeader;
  const fields = protectedHeader.value;
  if (!(fields instanceof Map) || fields.has(CRITICAL))
    return fail('cose-invalid', 'a protected header that is no map, or is critical');
  const algorithm = fields.get(ALGORITHM);
  const known = typeof algorithm === 'number' ? ALGORITHMS[algorithm] : undefined;
  if (known === undefined) return fail('cose-invalid', 'an algorithm that is not ES256, ES384 or ES512');
  const signed = concat(
    Uint8Array.of(0x84, 0x6a),
    asciiBytes('Signature1'),
    cborBytes(header),
    Uint8Array.of(0x40),
    cborBytes(payload),
  );
  return ok({
    scheme: { kind: 'ecdsa', hash: known.hash, form: 'raw' },
    key: known.key,
    name: known.name,
    header: fields,
    payload,
    signed,
    signature,
  });
}

export function verifyCose(key: PublicKey | undefined, message: CoseSign1): boolean {
  return key !== undefined && key.kind === message.key && key.verify(message.scheme, message.signed, message.signature);
}
