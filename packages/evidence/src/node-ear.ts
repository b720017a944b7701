/** EAR claims as a signed JWT. */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { compactVerify, SignJWT } from 'jose';
import type { EarClaims } from './ear.ts';

export interface EarKey {
  readonly key: KeyObject;
  /** JWS algorithm (RFC 7518, RFC 8037). */
  readonly algorithm: string;
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };

/** A private key in PEM, or as a JWK. Codes: `ear-key-invalid`; the key itself is in no message. */
export function readEarKey(text: string): Result<EarKey> {
  let key: KeyObject;
  try {
    key = text.trimStart().startsWith('{')
      ? createPrivateKey({ key: JSON.parse(text), format: 'jwk' })
      : createPrivateKey(text);
  } catch {
    return fail('ear-key-invalid', 'not a private key in PEM or JWK, or one with a passphrase');
  }
  const details = key.asymmetricKeyDetails;
  const algorithm =
    key.asymmetricKeyType === 'ec'
      ? CURVES[details?.namedCurve ?? '']
      : key.asymmetricKeyType === 'ed25519'
        ? 'EdDSA'
        : key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= 2048
          ? 'PS256'
          : undefined;
  return algorithm === undefined
    ? fail('ear-key-invalid', 'a key that is neither P-256, P-384, P-521, Ed25519 nor RSA of at least 2048 bits')
    : ok({ key, algorithm });
}

/** Does this text look like a private key, of which nothing else may be made? */
export function isPrivateKey(text: string): boolean {
  const jwk = text.trimStart().startsWith('{') && /"d"\s*:\s*"/.test(text) && /"kty"\s*:/.test(text);
  return jwk || /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/.test(text);
}

/** A compact JWT with type `eat+jwt`, read back with the public key before it is given out. Codes: `ear-key-invalid`. */
export async function signEar(claims: EarClaims, { key, algorithm }: EarKey): Promise<Result<string>> {
  try {
    const token = await new SignJWT({ ...claims }).setProtectedHeader({ alg: algorithm, typ: 'eat+jwt' }).sign(key);
    await compactVerify(token, createPublicKey(key), { algorithms: [algorithm] });
    return ok(token);
  } catch (error) {
    return fail('ear-key-invalid', error instanceof Error ? error.message : 'signing failed');
  }
}
