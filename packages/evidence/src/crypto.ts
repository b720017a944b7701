/** The cryptography that verification needs, passed in: this room computes nothing of the sort itself. */

export const HASHES = ['sha1', 'sha256', 'sha384', 'sha512'] as const;
export type Hash = (typeof HASHES)[number];

/** Bytes of a digest. */
export const HASH_SIZE: Readonly<Record<Hash, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 };

export type SignatureScheme =
  /** `raw` is r || s in big-endian, each as long as the curve; `der` is SEQUENCE { r, s }. */
  | { readonly kind: 'ecdsa'; readonly hash: Hash; readonly form: 'raw' | 'der' }
  | { readonly kind: 'rsa-pss'; readonly hash: Hash; readonly saltLength: number }
  | { readonly kind: 'rsa-pkcs1'; readonly hash: Hash }
  /** An algorithm that hashes by itself: `ed25519`, `ml-dsa-65`, `slh-dsa-sha2-128s`; without a context. */
  | { readonly kind: 'pure'; readonly algorithm: string };

/** Those that sign a digest which the scheme names. */
export type HashedScheme = Exclude<SignatureScheme, { readonly kind: 'pure' }>;

export type KeyKind = 'p256' | 'p384' | 'p521' | 'rsa' | 'other';

/** A public key that was taken in once, for any number of verifications. */
export interface PublicKey {
  readonly kind: KeyKind;
  /** Bits of the modulus or of the curve. */
  readonly bits: number;
  /** Never throws; a signature of a wrong form or for another kind of key is `false`. */
  verify(scheme: SignatureScheme, message: Uint8Array, signature: Uint8Array): boolean;
}

export interface Crypto {
  /** AES-256-GCM; null when the tag is wrong. Only IBM Secure Execution needs it. */
  openAesGcm?(key: Uint8Array, iv: Uint8Array, aad: Uint8Array, sealed: Uint8Array, tag: Uint8Array): Uint8Array | null;
  hash(name: Hash, bytes: Uint8Array): Uint8Array;
  /** DER SubjectPublicKeyInfo; `undefined` for a key that is none: a point off its curve, an unknown algorithm. */
  publicKey(spki: Uint8Array): PublicKey | undefined;
}
