/** `Crypto` on node:crypto. */
import { constants, createPublicKey, hash, type KeyObject, verify } from 'node:crypto';
import type { Crypto, KeyKind, PublicKey, SignatureScheme } from './crypto.ts';

const CURVES: Readonly<Record<string, { readonly kind: KeyKind; readonly bits: number }>> = {
  prime256v1: { kind: 'p256', bits: 256 },
  secp384r1: { kind: 'p384', bits: 384 },
  secp521r1: { kind: 'p521', bits: 521 },
};

export interface NodeCryptoOptions {
  /** How many imported keys are remembered; 256 when not given, 0 for none. Importing costs a third of a verification. */
  readonly keys?: number;
}

export function nodeCrypto({ keys = 256 }: NodeCryptoOptions = {}): Crypto {
  const known = new Map<string, PublicKey | undefined>();
  return {
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

function importKey(spki: Uint8Array): PublicKey | undefined {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: Buffer.from(spki.buffer, spki.byteOffset, spki.length), format: 'der', type: 'spki' });
  } catch {
    return undefined;
  }
  const details = key.asymmetricKeyDetails;
  const curve = CURVES[details?.namedCurve ?? ''];
  const rsa = key.asymmetricKeyType === 'rsa' || key.asymmetricKeyType === 'rsa-pss';
  const kind: KeyKind = key.asymmetricKeyType === 'ec' && curve !== undefined ? curve.kind : rsa ? 'rsa' : 'other';
  return {
    kind,
    bits: curve?.bits ?? details?.modulusLength ?? 0,
    verify: (scheme, message, signature) => verifyWith(key, kind, scheme, message, signature),
  };
}

function verifyWith(
  key: KeyObject,
  kind: KeyKind,
  scheme: SignatureScheme,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if ((kind === 'rsa') !== (scheme.kind !== 'ecdsa') || kind === 'other') return false;
  try {
    switch (scheme.kind) {
      case 'ecdsa':
        return verify(
          scheme.hash,
          message,
          { key, dsaEncoding: scheme.form === 'raw' ? 'ieee-p1363' : 'der' },
          signature,
        );
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
