/**
 * OCSP responses (RFC 6960) that somebody fetched before: the basic form, signed by the issuer itself or by a responder
 * that the issuer certified for it. Nonces are not looked at: an answer that is given as a file was asked for by others.
 */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '../bytes.ts';
import type { Crypto, Hash } from '../crypto.ts';
import { type Algorithm, readAlgorithm } from './algorithm.ts';
import { type Certificate, isSignedBy, knownCertificate, purposesOf, readExtensions } from './certificate.ts';
import { DerReader, TAG } from './der.ts';

export const OCSP_LIMIT = 256 * 1024;
const RESPONSE_LIMIT = 256;
const CERTIFICATE_LIMIT = 8;
const BASIC = '1.3.6.1.5.5.7.48.1.1';
const OCSP_SIGNING = '1.3.6.1.5.5.7.3.9';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const HASHES: Readonly<Record<string, Hash>> = {
  '1.3.14.3.2.26': 'sha1',
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
};

export interface OcspAnswer {
  /** How the issuer's name and key are named. */
  readonly hash: Hash;
  readonly nameHash: Uint8Array;
  readonly keyHash: Uint8Array;
  /** Hex of its INTEGER. */
  readonly serial: string;
  readonly status: 'good' | 'revoked' | 'unknown';
  /** Milliseconds since 1970; null unless revoked. */
  readonly revokedAt: number | null;
  /** A revocation that its issuer may take back (certificateHold). */
  readonly onHold: boolean;
  readonly thisUpdate: number;
  /** Null: newer answers are always there, so that this one proves only its moment. */
  readonly nextUpdate: number | null;
}

export interface OcspResponse {
  readonly der: Uint8Array;
  /** ResponseData: what is signed. */
  readonly tbs: Uint8Array;
  readonly algorithm: Algorithm;
  readonly signature: Uint8Array;
  readonly producedAt: number;
  readonly answers: readonly OcspAnswer[];
  readonly certificates: readonly Certificate[];
}

/** Does this begin like a successful OCSPResponse: SEQUENCE { ENUMERATED 0, [0] … }? */
export function isOcspResponse(bytes: Uint8Array): boolean {
  const first = bytes[1] ?? 0;
  const at = first < 0x80 ? 2 : 2 + (first & 0x7f);
  return (
    bytes[0] === 0x30 && bytes[at] === 0x0a && bytes[at + 1] === 1 && bytes[at + 2] === 0 && bytes[at + 3] === 0xa0
  );
}

/** Codes: `ocsp-invalid`, `der-*`, those of certificates. */
export function readOcspResponse(given: Uint8Array): Result<OcspResponse> {
  if (given.length > OCSP_LIMIT) return fail('der-too-large', `an OCSP response of ${given.length} bytes`);
  const der = given.slice();
  const outer = new DerReader(der);
  const whole = outer.enter(TAG.sequence);
  const status = whole.unsigned(TAG.enumerated);
  if (status !== 0 && outer.problem === null) return fail('ocsp-invalid', `status ${status}: no answer`);
  const tagged = whole.enter(0xa0);
  const typed = tagged.enter(TAG.sequence);
  const type = typed.oid();
  const basicBytes = typed.take(TAG.octetString);
  typed.finish();
  tagged.finish();
  whole.finish();
  outer.finish();
  if (outer.problem !== null) return { ok: false, error: outer.problem };
  if (type !== BASIC) return fail('ocsp-invalid', 'not a basic response');

  const basicOuter = outer.inside(basicBytes);
  const basic = basicOuter.enter(TAG.sequence);
  const tbs = basic.whole(TAG.sequence);
  const algorithm = readAlgorithm(basic);
  const signature = basic.octetsOfBits();
  const listed: Uint8Array[] = [];
  if (basic.peek() === 0xa0) {
    const wrapped = basic.enter(0xa0);
    const list = wrapped.enter(TAG.sequence);
    while (list.more && listed.length < CERTIFICATE_LIMIT) listed.push(list.whole(TAG.sequence));
    list.finish();
    wrapped.finish();
  }
  basic.finish();
  basicOuter.finish();

  const data = outer.inside(tbs).enter(TAG.sequence);
  if (data.peek() === 0xa0) data.refuse('der-value-invalid', 'a version that is not 1');
  // Who answers is found out from the signature; the name that it gives itself says nothing more.
  if (data.peek() === 0xa1) data.take(0xa1);
  else data.take(0xa2);
  const producedAt = data.time();
  const responses = data.enter(TAG.sequence);
  const answers: OcspAnswer[] = [];
  while (responses.more) {
    if (answers.length >= RESPONSE_LIMIT) responses.refuse('der-too-large', `more than ${RESPONSE_LIMIT} answers`);
    const answer = readAnswer(responses.enter(TAG.sequence));
    if (answer !== null) answers.push(answer);
  }
  if (data.peek() === 0xa1) refuseCritical(data.enter(0xa1));
  data.finish();
  if (outer.problem !== null) return { ok: false, error: outer.problem };
  const certificates: Certificate[] = [];
  for (const one of listed) {
    const read = knownCertificate(one);
    if (!read.ok) return read;
    certificates.push(read.value);
  }
  return ok({ der, tbs, algorithm, signature, producedAt, answers, certificates });
}

/** Null for one whose hash is not known. */
function readAnswer(one: DerReader): OcspAnswer | null {
  const id = one.enter(TAG.sequence);
  const algorithm = id.enter(TAG.sequence);
  const hash = HASHES[algorithm.oid()];
  if (algorithm.more) algorithm.take(TAG.null);
  algorithm.finish();
  const nameHash = id.take(TAG.octetString);
  const keyHash = id.take(TAG.octetString);
  const serial = hex(id.integerBytes());
  id.finish();
  let status: OcspAnswer['status'] = 'unknown';
  let revokedAt: number | null = null;
  let onHold = false;
  if (one.peek() === 0x80) {
    one.take(0x80);
    status = 'good';
  } else if (one.peek() === 0xa1) {
    const info = one.enter(0xa1);
    revokedAt = info.time();
    if (info.peek() === 0xa0) {
      const reason = info.enter(0xa0);
      onHold = reason.unsigned(TAG.enumerated) === 6;
      reason.finish();
    }
    info.finish();
    status = 'revoked';
  } else one.take(0x82);
  const thisUpdate = one.time();
  let nextUpdate: number | null = null;
  if (one.peek() === 0xa0) {
    const next = one.enter(0xa0);
    nextUpdate = next.time();
    next.finish();
  }
  if (one.peek() === 0xa1) refuseCritical(one.enter(0xa1));
  one.finish();
  return hash === undefined
    ? null
    : { hash, nameHash, keyHash, serial, status, revokedAt, onHold, thisUpdate, nextUpdate };
}

function refuseCritical(extensions: DerReader): void {
  const critical = [...readExtensions(extensions)].find(([, one]) => one.critical)?.[0];
  if (critical !== undefined) extensions.refuse('der-value-invalid', `critical extension ${critical}`);
}

/** All that a response says of a certificate. */
export function answersFor(
  crypto: Crypto,
  response: OcspResponse,
  certificate: Certificate,
  issuer: Certificate,
): readonly OcspAnswer[] {
  const same = response.answers.filter(({ serial }) => serial === certificate.serial);
  if (same.length === 0) return same;
  const key = publicKeyBits(issuer);
  return same.filter(
    (one) =>
      sameBytes(one.nameHash, crypto.hash(one.hash, issuer.subject.der)) &&
      sameBytes(one.keyHash, crypto.hash(one.hash, key)),
  );
}

/** Signed by the issuer, or by a responder that the issuer certified for this and that is valid on the date. */
export function isAuthentic(crypto: Crypto, response: OcspResponse, issuer: Certificate, asOf: number): boolean {
  if (isSignedBy(crypto, response, issuer)) return true;
  return response.certificates.some(
    (one) =>
      sameBytes(one.issuer.der, issuer.subject.der) &&
      mayAnswer(one) &&
      one.notBefore <= asOf &&
      asOf <= one.notAfter &&
      isSignedBy(crypto, one, issuer) &&
      isSignedBy(crypto, response, one),
  );
}

/** RFC 6960 §4.2.2.2: id-kp-OCSPSigning must stand in the certificate. */
function mayAnswer(certificate: Certificate): boolean {
  if ([...certificate.extensions].some(([oid, one]) => one.critical && !KNOWN.includes(oid))) return false;
  return purposesOf(certificate)?.includes(OCSP_SIGNING) === true;
}

const KNOWN: readonly string[] = ['2.5.29.15', '2.5.29.19', EXTENDED_KEY_USAGE];

/** The BIT STRING's content, without the octet of unused bits: what issuerKeyHash is of. */
function publicKeyBits(certificate: Certificate): Uint8Array {
  const reader = new DerReader(certificate.spki).enter(TAG.sequence);
  reader.any();
  return reader.octetsOfBits();
}
