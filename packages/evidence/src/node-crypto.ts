/** `Crypto` on node:crypto. */
import {
  constants,
  createDecipheriv,
  createPublicKey,
  hash,
  type JsonWebKey,
  type KeyObject,
  verify,
} from 'node:crypto';
import type { Crypto, KeyKind, PublicKey, SignatureScheme } from './crypto.ts';

const CURVES: Readonly<Record<string, KeyKind>> = { prime256v1: 'p256', secp384r1: 'p384', secp521r1: 'p521' };
const CURVE_BITS: Readonly<Partial<Record<KeyKind, number>>> = { p256: 256, p384: 384, p521: 521 };
/**
 * SubjectPublicKeyInfo up to an uncompressed point, and of RSA up to the modulus' size: asking OpenSSL for the details of a
 * key costs half as much as taking it in.
 */
const PREFIXES: readonly { readonly kind: KeyKind; readonly start: Buffer; readonly size: number }[] = [
  { kind: 'p256', start: Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex'), size: 91 },
  { kind: 'p384', start: Buffer.from('3076301006072a8648ce3d020106052b8104002203620004', 'hex'), size: 120 },
  { kind: 'p521', start: Buffer.from('30819b301006072a8648ce3d020106052b810400230381860004', 'hex'), size: 158 },
];
const RSA_ALGORITHM = Buffer.from('300d06092a864886f70d0101010500', 'hex');

export interface NodeCryptoOptions {
  /** How many imported keys are remembered; 256 when not given, 0 for none. Importing costs a third of a verification. */
  readonly keys?: number;
}

export function nodeCrypto({ keys = 256 }: NodeCryptoOptions = {}): Crypto {
  const known = new Map<string, PublicKey | undefined>();
  return {
    openAesGcm,
    hash: (name, bytes) => new Uint8Array(hash(name, bytes, 'buffer')),
    publicKey(spki) {
      if (keys === 0 || spki.length > 1024) return importKey(spki);
      const name = Buffer.from(spki.buffer, spki.byteOffset, spki.length).toString('latin1');
      if (!known.has(name)) {
        if (known.size >= keys) known.clear();
        known.set(name, importKey(spki));
      }
      return known.get(name);
    },
  };
}

function openAesGcm(
  key: Uint8Array,
  iv: Uint8Array,
  aad: Uint8Array,
  sealed: Uint8Array,
  tag: Uint8Array,
): Uint8Array | null {
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: 16 });
    decipher.setAAD(aad);
    decipher.setAuthTag(tag);
    return new Uint8Array(Buffer.concat([decipher.update(sealed), decipher.final()]));
  } catch {
    return null;
  }
}

function importKey(spki: Uint8Array): PublicKey | undefined {
  let key: KeyObject;
  const bytes = Buffer.from(spki.buffer, spki.byteOffset, spki.length);
  const numbers = numbersOf(bytes);
  try {
    key = createPublicKey(
      numbers === null ? { key: bytes, format: 'der', type: 'spki' } : { key: numbers, format: 'jwk' },
    );
  } catch {
    return undefined;
  }
  const kind = kindOf(spki) ?? kindFromDetails(key);
  return {
    kind,
    get bits() {
      return CURVE_BITS[kind] ?? key.asymmetricKeyDetails?.modulusLength ?? 0;
    },
    verify: (scheme, message, signature) => verifyWith(key, kind, scheme, message, signature),
  };
}

const JWK_CURVES: Readonly<Partial<Record<KeyKind, string>>> = { p256: 'P-256', p384: 'P-384', p521: 'P-521' };
/** Behind the algorithm of a usual RSA key: BIT STRING { SEQUENCE { INTEGER modulus … } }, each with two octets of length. */
const RSA_NUMBERS_AT = 4 + RSA_ALGORITHM.length;
const RSA_HEAD = 13;
const RSA_EXPONENT = Buffer.from('0203010001', 'hex');

/**
 * The numbers of a key in the one encoding that DER has for them, null for any other: from numbers OpenSSL makes a key that
 * is ready for use, from DER one that its first verification has to convert, which costs half a verification with RSA.
 */
function numbersOf(spki: Buffer): JsonWebKey | null {
  const curve = PREFIXES.find(
    ({ start, size }) => spki.length === size && spki.compare(start, 0, start.length, 0, start.length) === 0,
  );
  if (curve !== undefined) {
    const size = (curve.size - curve.start.length) / 2;
    const at = curve.start.length;
    const [x, y] = [spki.subarray(at, at + size), spki.subarray(at + size)].map((one) => one.toString('base64url'));
    return { kty: 'EC', crv: JWK_CURVES[curve.kind] ?? '', x: x ?? '', y: y ?? '' };
  }
  const at = RSA_NUMBERS_AT;
  const end = spki.length - RSA_EXPONENT.length;
  const modulusAt = at + RSA_HEAD;
  if (end - modulusAt < 128 || spki[0] !== 0x30 || spki[1] !== 0x82 || spki.readUInt16BE(2) !== spki.length - 4)
    return null;
  const whole =
    spki.subarray(4, at).equals(RSA_ALGORITHM) &&
    spki.readUInt16BE(at) === 0x0382 &&
    spki.readUInt16BE(at + 2) === spki.length - at - 4 &&
    spki.readUIntBE(at + 4, 3) === 0x003082 &&
    spki.readUInt16BE(at + 7) === spki.length - at - 9 &&
    spki.readUInt16BE(at + 9) === 0x0282 &&
    spki.readUInt16BE(at + 11) === end - modulusAt &&
    spki[modulusAt] === 0 &&
    (spki[modulusAt + 1] ?? 0) >= 0x80 &&
    spki.subarray(end).equals(RSA_EXPONENT);
  return whole ? { kty: 'RSA', n: spki.toString('base64url', modulusAt + 1, end), e: 'AQAB' } : null;
}

/** By the encoding, where it is one of the usual ones. */
function kindOf(spki: Uint8Array): KeyKind | null {
  const bytes = Buffer.from(spki.buffer, spki.byteOffset, spki.length);
  for (const { kind, start, size } of PREFIXES)
    if (bytes.length === size && bytes.compare(start, 0, start.length, 0, start.length) === 0) return kind;
  // SEQUENCE with two octets of length, as all RSA keys from 1024 bits on have.
  const rsa =
    bytes[0] === 0x30 && bytes[1] === 0x82 && bytes.subarray(4, 4 + RSA_ALGORITHM.length).equals(RSA_ALGORITHM);
  return rsa ? 'rsa' : null;
}

function kindFromDetails(key: KeyObject): KeyKind {
  const type = key.asymmetricKeyType;
  if (type === 'rsa' || type === 'rsa-pss') return 'rsa';
  return (type === 'ec' ? CURVES[key.asymmetricKeyDetails?.namedCurve ?? ''] : undefined) ?? 'other';
}

const COORDINATE: Readonly<Partial<Record<KeyKind, number>>> = { p256: 32, p384: 48, p521: 66 };

/**
 * r || s as SEQUENCE { r, s }: given the raw form, node:crypto spends a fifteenth of a P-384 verification on this.
 * `undefined` for a length that is not the curve's.
 */
function derSignature(raw: Uint8Array, kind: KeyKind): Uint8Array | undefined {
  const size = COORDINATE[kind];
  if (size === undefined || raw.length !== 2 * size) return undefined;
  const starts = [0, size].map((start) => {
    let at = start;
    while (at < start + size - 1 && raw[at] === 0) at++;
    return at;
  });
  const [r = 0, s = size] = starts;
  const padR = (raw[r] ?? 0) >= 0x80 ? 1 : 0;
  const padS = (raw[s] ?? 0) >= 0x80 ? 1 : 0;
  const [sizeR, sizeS] = [size - r + padR, 2 * size - s + padS];
  const content = 4 + sizeR + sizeS;
  const head = content < 0x80 ? 2 : 3;
  const out = new Uint8Array(head + content);
  out[0] = 0x30;
  if (head === 3) out[1] = 0x81;
  out[head - 1] = content;
  out[head] = 0x02;
  out[head + 1] = sizeR;
  out.set(raw.subarray(r, size), head + 2 + padR);
  const at = head + 2 + sizeR;
  out[at] = 0x02;
  out[at + 1] = sizeS;
  out.set(raw.subarray(s), at + 2 + padS);
  return out;
}

function verifyWith(
  key: KeyObject,
  kind: KeyKind,
  scheme: SignatureScheme,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  try {
    if (scheme.kind === 'pure')
      return key.asymmetricKeyType === scheme.algorithm && verify(null, message, key, signature);
    if ((kind === 'rsa') !== (scheme.kind !== 'ecdsa') || kind === 'other') return false;
    switch (scheme.kind) {
      case 'ecdsa': {
        const der = scheme.form === 'raw' ? derSignature(signature, kind) : signature;
        return der !== undefined && verify(scheme.hash, message, key, der);
      }
      case 'rsa-pss':
        return verify(
          scheme.hash,
          message,
          { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: scheme.saltLength },
          signature,
        );
      case 'rsa-pkcs1':
        return verify(scheme.hash, message, { key, padding: constants.RSA_PKCS1_PADDING }, signature);
    }
  } catch {
    return false;
  }
}
