/** The cryptography that SPDM needs, passed in: this room computes nothing of the sort itself. */
import type { AeadName, ExchangeName, HashName, SignatureName } from './algorithms.ts';

/** What is signed, and how. */
export interface SignatureForm {
  readonly algorithm: SignatureName;
  /** The negotiated hash; RSA and ECDSA hash the message with it, EdDSA and the PQC algorithms do not. */
  readonly hash: HashName;
  /** For algorithms that take a context (Ed448, ML-DSA, SLH-DSA); empty where there is none. */
  readonly context: Uint8Array;
}

/** A public key that was taken in once, for any number of verifications. */
export interface VerifyingKey {
  /** Is the key one that `algorithm` signs with: its kind, and its size? */
  fits(algorithm: SignatureName): boolean;
  /** Never throws; a signature of a wrong form, or of a key that does not fit, is `false`. */
  verify(form: SignatureForm, message: Uint8Array, signature: Uint8Array): boolean;
}

/** A private key, of which only what it does is seen. */
export interface SigningKey {
  fits(algorithm: SignatureName): boolean;
  /** `undefined` when the key does not fit. Bytes as SPDM carries them (`SIGNATURE_SIZE`). */
  sign(form: SignatureForm, message: Uint8Array): Uint8Array | undefined;
}

/** One end's half of an exchange that waits for the other half. */
export interface StartedExchange {
  /** ExchangeData of the request. */
  readonly data: Uint8Array;
  /** The shared secret; `undefined` for data that are no key of the group, or no ciphertext. */
  finish(peer: Uint8Array): Uint8Array | undefined;
}

export interface SpdmCrypto {
  /** Bytes that nobody can predict. */
  random(length: number): Uint8Array;
  hash(name: HashName, ...parts: readonly Uint8Array[]): Uint8Array;
  hmac(name: HashName, key: Uint8Array, message: Uint8Array): Uint8Array;
  /** Ciphertext || tag of 16 bytes. */
  seal(aead: AeadName, key: Uint8Array, iv: Uint8Array, associated: Uint8Array, plain: Uint8Array): Uint8Array;
  /** `undefined` when the tag is wrong or the bytes are shorter than a tag. */
  open(
    aead: AeadName,
    key: Uint8Array,
    iv: Uint8Array,
    associated: Uint8Array,
    sealed: Uint8Array,
  ): Uint8Array | undefined;
  /** In a time that does not depend on where the bytes differ. */
  same(a: Uint8Array, b: Uint8Array): boolean;
  /** DER SubjectPublicKeyInfo; `undefined` for a key that is none: a point off its curve, an unknown algorithm. */
  publicKey(spki: Uint8Array): VerifyingKey | undefined;
  startExchange(name: ExchangeName): StartedExchange;
  /** The responder's half: its ExchangeData and the shared secret; `undefined` for data that are no key. */
  answerExchange(
    name: ExchangeName,
    peer: Uint8Array,
  ): { readonly data: Uint8Array; readonly secret: Uint8Array } | undefined;
}
