/** `SpdmCrypto` on node:crypto. */
import {
  type CipherGCMTypes,
  constants,
  createCipheriv,
  createDecipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  decapsulate,
  diffieHellman,
  encapsulate,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  type SignKeyObjectInput,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  AEAD_IV_SIZE,
  AEAD_KEY_SIZE,
  AEAD_TAG_SIZE,
  type AeadName,
  type DheGroup,
  EXCHANGE_SIZE,
  isKem,
  isPqcSignature,
  type KemName,
  SIGNATURE_SIZE,
  type SignatureName,
} from './algorithms.ts';
import type { SignatureForm, SigningKey, SpdmCrypto, StartedExchange, VerifyingKey } from './crypto.ts';
import { ffdhePrime } from './ffdhe.ts';

const KEY_LIMIT = 8192;

export interface NodeSpdmCryptoOptions {
  /** In place of the system's randomness, for tests that repeat an exchange. Key exchanges do not draw from it. */
  readonly random?: (length: number) => Uint8Array;
}

export function nodeSpdmCrypto({ random = randomBytes }: NodeSpdmCryptoOptions = {}): SpdmCrypto {
  return {
    random: (length) => new Uint8Array(random(length)),
    hash(name, ...parts) {
      const state = createHash(name);
      for (const part of parts) state.update(part);
      return new Uint8Array(state.digest());
    },
    hmac: (name, key, message) => new Uint8Array(createHmac(name, key).update(message).digest()),
    seal,
    open,
    same: (a, b) => a.length === b.length && timingSafeEqual(a, b),
    publicKey: importPublicKey,
    startExchange: (name) => (isKem(name) ? startKem(name) : startDhe(name)),
    answerExchange(name, peer) {
      if (peer.length !== EXCHANGE_SIZE[name].request) return undefined;
      if (isKem(name)) return answerKem(name, peer);
      const own = startDhe(name);
      const secret = own.finish(peer);
      return secret === undefined ? undefined : { data: own.data, secret };
    },
  };
}

/** A private key as PKCS #8 or SEC 1 in PEM, or PKCS #8 in DER. Code: `signing-key-invalid`. */
export function readSigningKey(file: Uint8Array): Result<SigningKey> {
  let key: KeyObject;
  try {
    const pem = file[0] === 0x2d;
    key = createPrivateKey(
      pem ? { key: Buffer.from(file), format: 'pem' } : { key: Buffer.from(file), format: 'der', type: 'pkcs8' },
    );
  } catch {
    return fail('signing-key-invalid', 'not a private key in PEM or PKCS #8');
  }
  return ok(signingKey(key));
}

export function signingKey(key: KeyObject): SigningKey {
  return {
    fits: (algorithm) => fits(key, algorithm),
    sign(form, message) {
      if (!fits(key, form.algorithm)) return undefined;
      const signature = sign(digestOf(form), message, inputOf(key, form));
      return signature.length === SIGNATURE_SIZE[form.algorithm] ? new Uint8Array(signature) : undefined;
    },
  };
}

function importPublicKey(spki: Uint8Array): VerifyingKey | undefined {
  if (spki.length > KEY_LIMIT) return undefined;
  let key: KeyObject;
  try {
    key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
  return {
    fits: (algorithm) => fits(key, algorithm),
    verify(form, message, signature) {
      if (!fits(key, form.algorithm) || signature.length !== SIGNATURE_SIZE[form.algorithm]) return false;
      try {
        return verify(digestOf(form), message, inputOf(key, form), signature);
      } catch {
        return false;
      }
    },
  };
}

const CURVE_OF: Readonly<Partial<Record<SignatureName, string>>> = {
  'ecdsa-p256': 'prime256v1',
  'ecdsa-p384': 'secp384r1',
  'ecdsa-p521': 'secp521r1',
};

function fits(key: KeyObject, algorithm: SignatureName): boolean {
  const type: string | undefined = key.asymmetricKeyType;
  const details = key.asymmetricKeyDetails;
  const curve = CURVE_OF[algorithm];
  if (curve !== undefined) return type === 'ec' && details?.namedCurve === curve;
  if (algorithm.startsWith('rsa')) return type === 'rsa' && details?.modulusLength === SIGNATURE_SIZE[algorithm] * 8;
  return type === algorithm;
}

function digestOf({ algorithm, hash }: SignatureForm): string | null {
  return algorithm === 'ed25519' || algorithm === 'ed448' || isPqcSignature(algorithm) ? null : hash;
}

function inputOf(key: KeyObject, { algorithm, context }: SignatureForm): SignKeyObjectInput {
  if (algorithm.startsWith('ecdsa')) return { key, dsaEncoding: 'ieee-p1363' };
  if (algorithm.startsWith('rsassa')) return { key, padding: constants.RSA_PKCS1_PADDING };
  if (algorithm.startsWith('rsapss')) {
    return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  }
  return algorithm === 'ed25519' ? { key } : { key, context };
}

function seal(aead: AeadName, key: Uint8Array, iv: Uint8Array, associated: Uint8Array, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv(aead as CipherGCMTypes, key, iv, { authTagLength: AEAD_TAG_SIZE });
  cipher.setAAD(associated, { plaintextLength: plain.length });
  const head = cipher.update(plain);
  const tail = cipher.final();
  const sealed = new Uint8Array(plain.length + AEAD_TAG_SIZE);
  sealed.set(head);
  sealed.set(tail, head.length);
  sealed.set(cipher.getAuthTag(), plain.length);
  return sealed;
}

function open(
  aead: AeadName,
  key: Uint8Array,
  iv: Uint8Array,
  associated: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | undefined {
  const length = sealed.length - AEAD_TAG_SIZE;
  if (length < 0 || key.length !== AEAD_KEY_SIZE[aead] || iv.length !== AEAD_IV_SIZE) return undefined;
  const decipher = createDecipheriv(aead as CipherGCMTypes, key, iv, { authTagLength: AEAD_TAG_SIZE });
  decipher.setAAD(associated, { plaintextLength: length });
  decipher.setAuthTag(sealed.subarray(length));
  const plain = new Uint8Array(length);
  plain.set(decipher.update(sealed.subarray(0, length)));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}

const ECDH_CURVE: Readonly<Record<string, string>> = {
  secp256r1: 'prime256v1',
  secp384r1: 'secp384r1',
  secp521r1: 'secp521r1',
};

function startDhe(group: DheGroup): StartedExchange {
  const size = EXCHANGE_SIZE[group].request;
  const curve = ECDH_CURVE[group];
  if (curve !== undefined) {
    const own = createECDH(curve);
    // X || Y, without the octet that says uncompressed.
    const data = new Uint8Array(own.generateKeys().subarray(1));
    return {
      data,
      finish(peer) {
        if (peer.length !== size) return undefined;
        try {
          return new Uint8Array(own.computeSecret(Buffer.concat([Buffer.of(4), peer])));
        } catch {
          return undefined;
        }
      },
    };
  }
  return startFfdhe(size);
}

/** Node has `dh`; @types/node only knows it of the asynchronous form. */
const generateDhPair = generateKeyPairSync as unknown as (
  type: 'dh',
  options: { prime: Buffer; generator: number },
) => { publicKey: KeyObject; privateKey: KeyObject };

/** Through key objects: a DiffieHellman object would test the prime anew each time, for seconds. */
function startFfdhe(size: number): StartedExchange {
  const prime = ffdhePrime(size * 8);
  const { publicKey, privateKey } = generateDhPair('dh', { prime: Buffer.from(prime), generator: 2 });
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  // SEQUENCE { SEQUENCE { OID, parameters }, BIT STRING { 0, INTEGER } }
  const parameters = spki.subarray(4, 8 + spki.readUInt16BE(6));
  const bits = contentOf(spki.subarray(4 + parameters.length));
  const data = padded(withoutZeros(contentOf(bits.subarray(1))), size);
  return {
    data,
    finish(peer) {
      if (peer.length !== size) return undefined;
      try {
        const key = createPublicKey({ key: ffdheSpki(parameters, peer), format: 'der', type: 'spki' });
        return padded(diffieHellman({ privateKey, publicKey: key }), size);
      } catch {
        return undefined;
      }
    },
  };
}

/** What a DER element of our own OpenSSL's making holds. */
function contentOf(element: Uint8Array): Uint8Array {
  const form = element[1] ?? 0;
  return element.subarray(form < 0x80 ? 2 : 2 + (form & 0x7f));
}

function ffdheSpki(parameters: Uint8Array, peer: Uint8Array): Buffer<ArrayBuffer> {
  const value = withoutZeros(peer);
  const integer = sized(0x02, Buffer.concat([Buffer.alloc((value[0] ?? 0x80) >= 0x80 ? 1 : 0), value]));
  return sized(0x30, Buffer.concat([parameters, sized(0x03, Buffer.concat([Buffer.alloc(1), integer]))]));
}

/** A DER element with a length of up to two bytes. */
function sized(tag: number, body: Uint8Array): Buffer<ArrayBuffer> {
  const { length } = body;
  const head = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(tag, ...head), body]);
}

function withoutZeros(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first < 0 ? bytes.subarray(bytes.length) : bytes.subarray(first);
}

function padded(bytes: Uint8Array, size: number): Uint8Array {
  const whole = new Uint8Array(size);
  whole.set(bytes, size - bytes.length);
  return whole;
}

/** SubjectPublicKeyInfo of an ML-KEM key up to its bytes, RFC 9935 (OIDs 2.16.840.1.101.3.4.4.1 to 3, no parameters). */
function kemPrefix(name: KemName): Uint8Array {
  const size = EXCHANGE_SIZE[name].request;
  const level = { 'ml-kem-512': 1, 'ml-kem-768': 2, 'ml-kem-1024': 3 }[name];
  const outer = size + 18;
  const inner = size + 1;
  return Uint8Array.of(
    ...[0x30, 0x82, outer >> 8, outer & 0xff],
    ...[0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x04, level],
    ...[0x03, 0x82, inner >> 8, inner & 0xff, 0x00],
  );
}

function startKem(name: KemName): StartedExchange {
  const { publicKey, privateKey } = generateKem(name);
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  return {
    data: new Uint8Array(spki.subarray(spki.length - EXCHANGE_SIZE[name].request)),
    finish(peer) {
      if (peer.length !== EXCHANGE_SIZE[name].response) return undefined;
      try {
        return new Uint8Array(decapsulate(privateKey, peer));
      } catch {
        return undefined;
      }
    },
  };
}

function generateKem(name: KemName): { publicKey: KeyObject; privateKey: KeyObject } {
  switch (name) {
    case 'ml-kem-512':
      return generateKeyPairSync('ml-kem-512');
    case 'ml-kem-768':
      return generateKeyPairSync('ml-kem-768');
    case 'ml-kem-1024':
      return generateKeyPairSync('ml-kem-1024');
  }
}

function answerKem(name: KemName, peer: Uint8Array): { data: Uint8Array; secret: Uint8Array } | undefined {
  try {
    const key = createPublicKey({ key: Buffer.concat([kemPrefix(name), peer]), format: 'der', type: 'spki' });
    const { sharedKey, ciphertext } = encapsulate(key);
    return { data: new Uint8Array(ciphertext), secret: new Uint8Array(sharedKey) };
  } catch {
    return undefined;
  }
}
