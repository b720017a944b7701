/** X.509 version 3 certificates, RFC 5280 §4, as far as attestation needs them. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { latin1, sameBytes } from '../bytes.ts';
import type { Crypto, PublicKey, SignatureScheme } from '../crypto.ts';
import { type Algorithm, readAlgorithm } from './algorithm.ts';
import { DerReader, TAG } from './der.ts';
import { type Name, readName } from './name.ts';

/** One that is signed with SLH-DSA-256f has 50 KB. */
export const CERTIFICATE_LIMIT = 64 * 1024;
const EXTENSION_LIMIT = 64;

export interface Extension {
  readonly critical: boolean;
  readonly value: Uint8Array;
}

export interface Certificate {
  readonly der: Uint8Array;
  /** What the signature covers. */
  readonly tbs: Uint8Array;
  /** Hex, as its INTEGER's octets. */
  readonly serial: string;
  readonly algorithm: Algorithm;
  readonly issuer: Name;
  readonly subject: Name;
  /** Milliseconds since 1970; both ends belong to the period. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** DER SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  readonly extensions: ReadonlyMap<string, Extension>;
  /** basicConstraints; a certificate without it is no authority. */
  readonly authority: boolean;
  readonly pathLength: number | null;
  /** keyUsage bits, bit 0 digitalSignature, 5 keyCertSign, 6 cRLSign; null without the extension. */
  readonly keyUsage: number | null;
  readonly signature: Uint8Array;
}

const BASIC_CONSTRAINTS = '2.5.29.19';
const KEY_USAGE = '2.5.29.15';
export const KEY_CERT_SIGN = 1 << 5;
export const CRL_SIGN = 1 << 6;

/** One certificate and nothing after it. Codes: `certificate-invalid`, `der-*`. */
export function readCertificate(bytes: Uint8Array): Result<Certificate> {
  if (bytes.length > CERTIFICATE_LIMIT) return fail('der-too-large', `a certificate of ${bytes.length} bytes`);
  // A copy of our own: what was read and what is verified must be the same.
  const der = bytes.slice();
  const outer = new DerReader(der);
  const reader = outer.enter(TAG.sequence);
  const tbs = reader.whole(TAG.sequence);
  const algorithmDer = reader.peek() === TAG.sequence ? reader.whole(TAG.sequence) : new Uint8Array();
  const signature = reader.octetsOfBits();
  reader.finish();
  outer.finish();
  if (outer.problem !== null) return { ok: false, error: outer.problem };

  const whole = outer.inside(tbs);
  const body = whole.enter(TAG.sequence);
  let version = 0;
  if (body.peek() === 0xa0) {
    const tagged = body.enter(0xa0);
    version = tagged.unsigned();
    tagged.finish();
  }
  const serial = hex(body.integerBytes());
  const innerAlgorithm = body.peek() === TAG.sequence ? body.whole(TAG.sequence) : new Uint8Array();
  const algorithm = readAlgorithm(body.inside(innerAlgorithm));
  const issuer = readName(body);
  const validity = body.enter(TAG.sequence);
  const notBefore = validity.time();
  const notAfter = validity.time();
  validity.finish();
  const subject = readName(body);
  const spki = body.whole(TAG.sequence);
  if (body.peek() === 0x81) body.take(0x81);
  if (body.peek() === 0x82) body.take(0x82);
  const extensions = body.peek() === 0xa3 ? readExtensions(body.enter(0xa3)) : new Map<string, Extension>();
  body.finish();
  const { authority, pathLength } = readBasicConstraints(body, extensions);
  const keyUsage = readKeyUsage(body, extensions);
  if (body.problem !== null) return { ok: false, error: body.problem };

  if (version !== 2) return fail('certificate-invalid', `version ${version + 1}, 3 is needed`);
  if (serial.length > 42) return fail('certificate-invalid', 'a serial number of more than 21 octets');
  if (!sameBytes(algorithmDer, innerAlgorithm))
    return fail('certificate-invalid', 'the signature algorithm inside and outside differ');
  if (notAfter < notBefore) return fail('certificate-invalid', 'it ends before it begins');
  return ok({
    ...{ der, tbs, serial, algorithm, issuer, subject, notBefore, notAfter, spki, extensions, authority, pathLength },
    ...{ keyUsage, signature },
  });
}

const KNOWN_LIMIT = 512;
const known = new Map<string, Certificate>();

/** As `readCertificate`, but the same object for the same bytes, so that its key and its signature cost once. */
export function knownCertificate(bytes: Uint8Array): Result<Certificate> {
  if (bytes.length > CERTIFICATE_LIMIT) return readCertificate(bytes);
  const name = latin1(bytes);
  const certificate = known.get(name);
  if (certificate !== undefined) return ok(certificate);
  const read = readCertificate(bytes);
  if (read.ok) {
    if (known.size >= KNOWN_LIMIT) known.clear();
    known.set(name, read.value);
  }
  return read;
}

/** RFC 5280 §4.1.2.9; also for revocation lists. No extension may stand twice. */
export function readExtensions(outer: DerReader): Map<string, Extension> {
  const found = new Map<string, Extension>();
  const list = outer.enter(TAG.sequence);
  while (list.more) {
    const one = list.enter(TAG.sequence);
    const oid = one.oid();
    let critical = false;
    if (one.peek() === TAG.boolean) {
      critical = one.boolean();
      if (!critical) one.refuse('der-not-canonical', 'a default that is written out');
    }
    const value = one.take(TAG.octetString);
    one.finish();
    if (found.has(oid)) one.refuse('der-value-invalid', `extension ${oid} stands twice`);
    if (found.size >= EXTENSION_LIMIT) one.refuse('der-too-large', `more than ${EXTENSION_LIMIT} extensions`);
    found.set(oid, { critical, value });
  }
  outer.finish();
  return found;
}

function readBasicConstraints(
  outer: DerReader,
  extensions: ReadonlyMap<string, Extension>,
): { authority: boolean; pathLength: number | null } {
  const extension = extensions.get(BASIC_CONSTRAINTS);
  if (extension === undefined) return { authority: false, pathLength: null };
  const holder = outer.inside(extension.value);
  const reader = holder.enter(TAG.sequence);
  const authority = reader.peek() === TAG.boolean ? reader.boolean() : false;
  const pathLength = reader.peek() === TAG.integer ? reader.unsigned() : null;
  reader.finish();
  holder.finish();
  return { authority, pathLength };
}

function readKeyUsage(outer: DerReader, extensions: ReadonlyMap<string, Extension>): number | null {
  const extension = extensions.get(KEY_USAGE);
  if (extension === undefined) return null;
  const reader = outer.inside(extension.value);
  const usage = reader.flags();
  reader.finish();
  return usage;
}

const EXTENDED_KEY_USAGE = '2.5.29.37';

/** The purposes that a certificate's key is for, as OIDs; null where it does not say, or not in that form. RFC 5280 §4.2.1.12. */
export function purposesOf({ extensions }: Certificate): readonly string[] | null {
  const value = extensions.get(EXTENDED_KEY_USAGE)?.value;
  if (value === undefined) return null;
  const outer = new DerReader(value);
  const list = outer.enter(TAG.sequence);
  const purposes: string[] = [];
  while (list.more) purposes.push(list.oid());
  outer.finish();
  return outer.problem === null ? purposes : null;
}

interface Signed {
  readonly tbs: Uint8Array;
  readonly algorithm: Algorithm;
  readonly signature: Uint8Array;
}

/** What was found out about one certificate or list, which nothing can change. */
interface Memory {
  key: PublicKey | null | undefined;
  readonly signedBy: { readonly issuer: Certificate; readonly good: boolean }[];
}

const SIGNED_BY_LIMIT = 16;
const memories = new WeakMap<Crypto, WeakMap<object, Memory>>();

function memoryOf(crypto: Crypto, of: object): Memory {
  let known = memories.get(crypto);
  if (known === undefined) {
    known = new WeakMap();
    memories.set(crypto, known);
  }
  let memory = known.get(of);
  if (memory === undefined) {
    memory = { key: undefined, signedBy: [] };
    known.set(of, memory);
  }
  return memory;
}

/** The certificate's key, taken in once: that costs a third of a verification. `undefined` for a key that is none. */
export function keyOf(crypto: Crypto, certificate: Certificate): PublicKey | undefined {
  const memory = memoryOf(crypto, certificate);
  if (memory.key === undefined) memory.key = crypto.publicKey(certificate.spki) ?? null;
  return memory.key ?? undefined;
}

/**
 * Does `issuer`'s key verify what `signed` is signed with? Names, dates and constraints are not looked at. Remembered
 * for the same objects: a chain costs once what it costs.
 */
export function isSignedBy(crypto: Crypto, signed: Signed, issuer: Certificate): boolean {
  const { scheme } = signed.algorithm;
  return (
    scheme !== undefined &&
    isVerifiedBy(crypto, signed, issuer, { scheme, message: signed.tbs, signature: signed.signature })
  );
}

/** The same for anything that nothing can change, `signed`, which is what is remembered. */
export function isVerifiedBy(
  crypto: Crypto,
  signed: object,
  issuer: Certificate,
  what: { readonly scheme: SignatureScheme; readonly message: Uint8Array; readonly signature: Uint8Array },
): boolean {
  const { signedBy } = memoryOf(crypto, signed);
  const known = signedBy.find((one) => one.issuer === issuer);
  if (known !== undefined) return known.good;
  const good = keyOf(crypto, issuer)?.verify(what.scheme, what.message, what.signature) ?? false;
  if (signedBy.length >= SIGNED_BY_LIMIT) signedBy.length = 0;
  signedBy.push({ issuer, good });
  return good;
}
