/**
 * The algorithms of DSP0274 by name, with their bits and sizes. A name stands for exactly one bit of one field, so that
 * a selection is a name and an offer is a list of names; bits without a name here (SM2, SM3, SM4, what later versions
 * add) are never offered and never accepted.
 */

export const SPDM_VERSIONS = ['1.1', '1.2', '1.3', '1.4'] as const;
export type SpdmVersion = (typeof SPDM_VERSIONS)[number];

/** The byte that starts every message of a version: major in the high nibble, minor in the low. */
export const VERSION_BYTE: Readonly<Record<SpdmVersion, number>> = {
  '1.1': 0x11,
  '1.2': 0x12,
  '1.3': 0x13,
  '1.4': 0x14,
};

/** Is `version` the named one or a later one? */
export function since(version: SpdmVersion, first: SpdmVersion): boolean {
  return VERSION_BYTE[version] >= VERSION_BYTE[first];
}

export function versionOfByte(byte: number): SpdmVersion | undefined {
  return SPDM_VERSIONS.find((version) => VERSION_BYTE[version] === byte);
}

/** In the order of their bits, weakest first within a family. */
export const HASHES = ['sha256', 'sha384', 'sha512', 'sha3-256', 'sha3-384', 'sha3-512'] as const;
export type HashName = (typeof HASHES)[number];

/** Bytes of a digest. */
export const HASH_SIZE: Readonly<Record<HashName, number>> = {
  sha256: 32,
  sha384: 48,
  sha512: 64,
  'sha3-256': 32,
  'sha3-384': 48,
  'sha3-512': 64,
};

/** BaseHashAlgo, DSP0274, NEGOTIATE_ALGORITHMS. */
export const HASH_BIT: Readonly<Record<HashName, number>> = {
  sha256: 1 << 0,
  sha384: 1 << 1,
  sha512: 1 << 2,
  'sha3-256': 1 << 3,
  'sha3-384': 1 << 4,
  'sha3-512': 1 << 5,
};

/** MeasurementHashAlgo has one more bit in front: the responder only has raw bit streams. */
export const RAW_MEASUREMENTS_BIT = 1;

export const BASE_SIGNATURES = [
  'rsassa-2048',
  'rsapss-2048',
  'rsassa-3072',
  'rsapss-3072',
  'rsassa-4096',
  'rsapss-4096',
  'ecdsa-p256',
  'ecdsa-p384',
  'ecdsa-p521',
  'ed25519',
  'ed448',
] as const;
export type BaseSignature = (typeof BASE_SIGNATURES)[number];

export const PQC_SIGNATURES = [
  'ml-dsa-44',
  'ml-dsa-65',
  'ml-dsa-87',
  'slh-dsa-sha2-128s',
  'slh-dsa-shake-128s',
  'slh-dsa-sha2-128f',
  'slh-dsa-shake-128f',
  'slh-dsa-sha2-192s',
  'slh-dsa-shake-192s',
  'slh-dsa-sha2-192f',
  'slh-dsa-shake-192f',
  'slh-dsa-sha2-256s',
  'slh-dsa-shake-256s',
  'slh-dsa-sha2-256f',
  'slh-dsa-shake-256f',
] as const;
export type PqcSignature = (typeof PQC_SIGNATURES)[number];
export type SignatureName = BaseSignature | PqcSignature;

/** BaseAsymAlgo and ReqBaseAsymAlg, DSP0274, NEGOTIATE_ALGORITHMS. */
export const BASE_SIGNATURE_BIT: Readonly<Record<BaseSignature, number>> = {
  'rsassa-2048': 1 << 0,
  'rsapss-2048': 1 << 1,
  'rsassa-3072': 1 << 2,
  'rsapss-3072': 1 << 3,
  'ecdsa-p256': 1 << 4,
  'rsassa-4096': 1 << 5,
  'rsapss-4096': 1 << 6,
  'ecdsa-p384': 1 << 7,
  'ecdsa-p521': 1 << 8,
  ed25519: 1 << 10,
  ed448: 1 << 11,
};

/** PqcAsymAlgo and ReqPqcAsymAlg, DSP0274 1.4. */
export const PQC_SIGNATURE_BIT: Readonly<Record<PqcSignature, number>> = bitsInOrder(PQC_SIGNATURES);

/** Bytes of a signature as SPDM carries it: ECDSA as r || s, each as long as the curve. */
export const SIGNATURE_SIZE: Readonly<Record<SignatureName, number>> = {
  'rsassa-2048': 256,
  'rsapss-2048': 256,
  'rsassa-3072': 384,
  'rsapss-3072': 384,
  'rsassa-4096': 512,
  'rsapss-4096': 512,
  'ecdsa-p256': 64,
  'ecdsa-p384': 96,
  'ecdsa-p521': 132,
  ed25519: 64,
  ed448: 114,
  'ml-dsa-44': 2420,
  'ml-dsa-65': 3309,
  'ml-dsa-87': 4627,
  'slh-dsa-sha2-128s': 7856,
  'slh-dsa-shake-128s': 7856,
  'slh-dsa-sha2-128f': 17088,
  'slh-dsa-shake-128f': 17088,
  'slh-dsa-sha2-192s': 16224,
  'slh-dsa-shake-192s': 16224,
  'slh-dsa-sha2-192f': 35664,
  'slh-dsa-shake-192f': 35664,
  'slh-dsa-sha2-256s': 29792,
  'slh-dsa-shake-256s': 29792,
  'slh-dsa-sha2-256f': 49856,
  'slh-dsa-shake-256f': 49856,
};

export function isPqcSignature(name: SignatureName): name is PqcSignature {
  return (PQC_SIGNATURES as readonly string[]).includes(name);
}

export const DHE_GROUPS = ['ffdhe2048', 'ffdhe3072', 'ffdhe4096', 'secp256r1', 'secp384r1', 'secp521r1'] as const;
export type DheGroup = (typeof DHE_GROUPS)[number];
/** DHE of KEY_EXCHANGE, DSP0274, NEGOTIATE_ALGORITHMS. */
export const DHE_BIT: Readonly<Record<DheGroup, number>> = bitsInOrder(DHE_GROUPS);

export const KEMS = ['ml-kem-512', 'ml-kem-768', 'ml-kem-1024'] as const;
export type KemName = (typeof KEMS)[number];
/** KEMAlg, DSP0274 1.4. */
export const KEM_BIT: Readonly<Record<KemName, number>> = bitsInOrder(KEMS);

/** How two ends come to a secret. */
export type ExchangeName = DheGroup | KemName;

/** Bytes of ExchangeData: what the requester sends, and what the responder answers. */
export const EXCHANGE_SIZE: Readonly<Record<ExchangeName, { readonly request: number; readonly response: number }>> = {
  ffdhe2048: { request: 256, response: 256 },
  ffdhe3072: { request: 384, response: 384 },
  ffdhe4096: { request: 512, response: 512 },
  secp256r1: { request: 64, response: 64 },
  secp384r1: { request: 96, response: 96 },
  secp521r1: { request: 132, response: 132 },
  'ml-kem-512': { request: 800, response: 768 },
  'ml-kem-768': { request: 1184, response: 1088 },
  'ml-kem-1024': { request: 1568, response: 1568 },
};

export function isKem(name: ExchangeName): name is KemName {
  return (KEMS as readonly string[]).includes(name);
}

export const AEADS = ['aes-128-gcm', 'aes-256-gcm', 'chacha20-poly1305'] as const;
export type AeadName = (typeof AEADS)[number];
/** AEADCipherSuite, DSP0274, NEGOTIATE_ALGORITHMS. */
export const AEAD_BIT: Readonly<Record<AeadName, number>> = bitsInOrder(AEADS);
/** Bytes of a key; every suite has an IV of 12 and a tag of 16. */
export const AEAD_KEY_SIZE: Readonly<Record<AeadName, number>> = {
  'aes-128-gcm': 16,
  'aes-256-gcm': 32,
  'chacha20-poly1305': 32,
};
export const AEAD_IV_SIZE = 12;
export const AEAD_TAG_SIZE = 16;

/** The mask of an offer. */
export function maskOf<Name extends string>(bits: Readonly<Record<Name, number>>, names: readonly Name[]): number {
  return names.reduce((mask, name) => (mask | bits[name]) >>> 0, 0);
}

/** The names in a mask; bits that have no name are left out. */
export function namesIn<Name extends string>(bits: Readonly<Record<Name, number>>, mask: number): Name[] {
  return (Object.keys(bits) as Name[]).filter((name) => (mask & bits[name]) !== 0);
}

/** The name of a selection: exactly one bit, and one that has a name. */
export function nameOfBit<Name extends string>(bits: Readonly<Record<Name, number>>, mask: number): Name | undefined {
  return (Object.keys(bits) as Name[]).find((name) => bits[name] === mask);
}

function bitsInOrder<Name extends string>(names: readonly Name[]): Record<Name, number> {
  const bits: Partial<Record<Name, number>> = {};
  for (const [index, name] of names.entries()) bits[name] = 1 << index;
  return bits as Record<Name, number>;
}
