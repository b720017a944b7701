/**
 * `.signatures.json`: one JWT over the hash of every file, as OPA's bundle signing writes it.
 * https://www.openpolicyagent.org/docs/management-bundles#signing — stricter than OPA in four ways: no file may be
 * excluded, only SHA-2 hashes count, HMAC secrets must be as long as their hash (RFC 7518 §3.2), and an expiry is kept.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type CryptoKey, compactVerify, decodeProtectedHeader, importSPKI } from 'jose';
import { type Bundle, own, SIGNATURES, STRUCTURED } from './bundle.ts';
import { canonicalJson } from './canonical-json.ts';
import { printable } from './narrow.ts';

/** What a bundle may be signed with; `none` and whatever else a token claims is not among them. */
export const SIGNATURE_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'HS256',
  'HS384',
  'HS512',
  'EdDSA',
] as const;
export type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

export interface VerificationKey {
  /** Fixed by the policy; the token's own `alg` must be the same. */
  readonly algorithm: SignatureAlgorithm;
  /** A public key in PEM (`BEGIN PUBLIC KEY`), or the secret's bytes as they stand in its file for HMAC. */
  readonly key: string | Uint8Array;
}

export interface Verification {
  readonly key: VerificationKey;
  /** When given, the token's key id must be this one. */
  readonly keyId?: string;
  /** What the token's `scope` must be; a token without one has the scope ''. */
  readonly scope?: string;
  /** Seconds since 1970. Without it a token that carries an expiry is refused, since nothing could keep it. */
  readonly now?: number;
}

/** OPA's names of them, which are WebCrypto's too. It also knows MD5 and SHA-1; those prove nothing. */
const HASHES: readonly string[] = ['SHA-256', 'SHA-384', 'SHA-512'];
const TOKEN_LIMIT = 1 << 20;

/**
 * Every file of the bundle is what the key signed, and nothing that was signed is missing. A bundle without
 * signatures passes only where the policy names no key. Codes: `bundle-unsigned`, `bundle-key-missing`,
 * `bundle-key-malformed`, `bundle-signature-invalid`, `bundle-json-malformed`, `bundle-tampered`.
 */
export async function verifyBundle(bundle: Bundle, verification: Verification | null): Promise<Result<void>> {
  const signatures = bundle.files.get(SIGNATURES);
  if (verification === null) {
    if (signatures === undefined) return ok(undefined);
    return fail('bundle-key-missing', 'the bundle is signed, and the policy names no key to check it with', {
      hint: 'name the key in `external.verify`, or build the bundle without --signing-key',
    });
  }
  if (signatures === undefined) {
    return fail('bundle-unsigned', 'the policy asks for a signed bundle, and this one has no signature', {
      hint: 'sign it: opa build --bundle --signing-key KEY --signing-alg ALG',
    });
  }
  const token = readToken(signatures);
  if (!token.ok) return token;
  const payload = await verifyToken(token.value, verification);
  if (!payload.ok) return payload;
  const signed = readSignedFiles(payload.value);
  if (!signed.ok) return signed;
  return compareFiles(bundle, signed.value);
}

function invalid(message: string, hint?: string): Result<never> {
  return fail('bundle-signature-invalid', message, hint === undefined ? {} : { hint });
}

function readToken(bytes: Uint8Array): Result<string> {
  const text = canonicalJson(bytes, SIGNATURES);
  if (!text.ok) return text;
  const value: unknown = JSON.parse(text.value);
  if (typeof value !== 'object' || value === null) return invalid(`${SIGNATURES} is not an object`);
  const plugin = own(value, 'plugin');
  if (plugin !== undefined && plugin !== '' && plugin !== '_default') {
    return invalid(`${SIGNATURES} asks for a verification plugin of its own`);
  }
  const tokens = own(value, 'signatures');
  if (!Array.isArray(tokens) || tokens.length !== 1) return invalid(`${SIGNATURES} does not hold exactly one token`);
  const token: unknown = tokens[0];
  if (typeof token !== 'string' || token.length > TOKEN_LIMIT) return invalid(`${SIGNATURES}: the token is not a text`);
  return ok(token);
}

async function verifyToken(token: string, verification: Verification): Promise<Result<object>> {
  const key = await importKey(verification.key);
  if (!key.ok) return key;
  const { algorithm } = verification.key;
  try {
    const header = decodeProtectedHeader(token);
    if (header.alg !== algorithm) {
      return invalid(`the signature is ${printable(String(header.alg))}, the policy's key is for ${algorithm}`);
    }
    const { payload: bytes } = await compactVerify(token, key.value, { algorithms: [algorithm] });
    const text = canonicalJson(bytes, 'the signed token');
    if (!text.ok) return text;
    const payload: unknown = JSON.parse(text.value);
    if (typeof payload !== 'object' || payload === null) return invalid('the signed token holds no object');
    const keyId = header.kid ?? own(payload, 'keyid') ?? '';
    if (verification.keyId !== undefined && keyId !== verification.keyId) {
      return fail('bundle-key-missing', `the bundle was signed with the key "${printable(String(keyId))}"`, {
        hint: `the policy knows the key "${verification.keyId}"`,
      });
    }
    const scope = own(payload, 'scope') ?? '';
    if (scope !== (verification.scope ?? '')) {
      return invalid(
        `the signature's scope is "${printable(String(scope))}", the policy asks for "${verification.scope ?? ''}"`,
      );
    }
    return keepsExpiry(payload, verification.now);
  } catch {
    return invalid(
      'the signature does not fit the bundle and the key',
      'was it signed with the other half of this key?',
    );
  }
}

function keepsExpiry(payload: object, now: number | undefined): Result<object> {
  const expiry = own(payload, 'exp');
  if (expiry === undefined) return ok(payload);
  if (typeof expiry !== 'number') return invalid('the expiry of the signature is not a number');
  if (now === undefined) return invalid('the signature has an expiry, and there is no clock here to keep it');
  return now < expiry ? ok(payload) : invalid('the signature has expired');
}

async function importKey({ algorithm, key }: VerificationKey): Promise<Result<CryptoKey | Uint8Array>> {
  const malformed = (message: string) => fail('bundle-key-malformed', `the verification key ${message}`);
  if (algorithm.startsWith('HS')) {
    const secret = typeof key === 'string' ? new TextEncoder().encode(key) : key;
    const least = Number(algorithm.slice(2)) / 8;
    // A public key that is taken for a secret would let everybody sign.
    if (hasPemHeader(secret)) return malformed(`is a PEM file, which is no secret for ${algorithm}`);
    return secret.length < least ? malformed(`has fewer than the ${least} bytes that ${algorithm} needs`) : ok(secret);
  }
  try {
    const pem = typeof key === 'string' ? key : new TextDecoder('utf-8', { fatal: true }).decode(key);
    return ok(await importSPKI(pem.trim(), algorithm));
  } catch {
    return malformed(`is not a PEM public key for ${algorithm}`);
  }
}

function hasPemHeader(secret: Uint8Array): boolean {
  return String.fromCharCode(...secret.subarray(0, 64)).includes('-----BEGIN ');
}

interface SignedFile {
  readonly hash: string;
  readonly algorithm: string;
}

function readSignedFiles(payload: object): Result<Map<string, SignedFile>> {
  const list = own(payload, 'files');
  if (!Array.isArray(list)) return invalid('the signed token lists no files');
  const files = new Map<string, SignedFile>();
  for (const item of list as unknown[]) {
    if (typeof item !== 'object' || item === null) return invalid('a signed file is not an object');
    const [name, hash, algorithm] = [own(item, 'name'), own(item, 'hash'), own(item, 'algorithm')];
    if (typeof name !== 'string' || typeof hash !== 'string' || typeof algorithm !== 'string') {
      return invalid('a signed file lacks its name, hash or algorithm');
    }
    if (!HASHES.includes(algorithm)) return invalid(`${printable(name)} is hashed with ${printable(algorithm)}`);
    const plain = name.replace(/^\//, '');
    if (files.has(plain)) return invalid(`${printable(plain)} is signed twice`);
    files.set(plain, { hash: hash.toLowerCase(), algorithm });
  }
  return ok(files);
}

async function compareFiles(bundle: Bundle, signed: Map<string, SignedFile>): Promise<Result<void>> {
  const left = new Map(signed);
  for (const [path, bytes] of bundle.files) {
    if (path === SIGNATURES) continue;
    const entry = left.get(path);
    if (entry === undefined) return fail('bundle-tampered', `${path} is not among the files that were signed`);
    left.delete(path);
    const content = STRUCTURED.includes(path) ? canonicalJson(bytes, path) : ok(bytes);
    if (!content.ok) return content;
    const hashed = typeof content.value === 'string' ? new TextEncoder().encode(content.value) : content.value;
    const digest = new Uint8Array(await crypto.subtle.digest(entry.algorithm, new Uint8Array(hashed)));
    if (hex(digest) !== entry.hash) return fail('bundle-tampered', `${path} is not what was signed`);
  }
  const missing = [...left.keys()][0];
  if (missing !== undefined)
    return fail('bundle-tampered', `${printable(missing)} was signed and is not in the bundle`);
  return ok(undefined);
}
