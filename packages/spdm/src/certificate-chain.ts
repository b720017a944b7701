/** A slot's certificate chain as SPDM carries it: its length, the root's digest, certificates from the root to the leaf. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { DerReader, TAG } from '@airlock/evidence/x509/der.ts';
import { HASH_SIZE, type HashName, type SpdmVersion, since } from './algorithms.ts';
import type { SpdmCrypto } from './crypto.ts';
import { le16, le32 } from './little-endian.ts';

/** Bytes of a chain that are read. */
export const CHAIN_LIMIT = 256 * 1024;
const CERTIFICATE_COUNT_LIMIT = 16;
const HEADER = 4;

export interface CertificateChain {
  /** The whole of it, as digests and transcripts cover it. */
  readonly bytes: Uint8Array;
  /** Of the root certificate, which may or may not be the first of the chain. */
  readonly rootDigest: Uint8Array;
  /** DER, root first, leaf last. */
  readonly certificates: readonly Uint8Array[];
  /** DER SubjectPublicKeyInfo of the leaf. */
  readonly leafSpki: Uint8Array;
}

/** Codes: `certificate-chain-invalid`. */
export function readCertificateChain(
  bytes: Uint8Array,
  version: SpdmVersion,
  hash: HashName,
): Result<CertificateChain> {
  const refuse = (message: string) => fail('certificate-chain-invalid', message);
  const digestSize = HASH_SIZE[hash];
  if (bytes.length > CHAIN_LIMIT) return refuse(`a chain of ${bytes.length} bytes`);
  if (bytes.length < HEADER + digestSize) return refuse(`a chain of ${bytes.length} bytes is shorter than its header`);
  const [a = 0, b = 0, c = 0, d = 0] = bytes;
  // The length has four bytes from 1.4 on; before, the upper two are reserved.
  const length = since(version, '1.4') ? (a | (b << 8) | (c << 16) | (d << 24)) >>> 0 : a | (b << 8);
  if (length !== bytes.length) return refuse(`its Length says ${length} bytes, ${bytes.length} are there`);
  const certificates: Uint8Array[] = [];
  for (let at = HEADER + digestSize; at < bytes.length; ) {
    const size = elementSize(bytes, at);
    if (size === undefined) return refuse(`no certificate at byte ${at}`);
    if (certificates.length >= CERTIFICATE_COUNT_LIMIT)
      return refuse(`more than ${CERTIFICATE_COUNT_LIMIT} certificates`);
    certificates.push(bytes.slice(at, at + size));
    at += size;
  }
  const leaf = certificates.at(-1);
  if (leaf === undefined) return refuse('it holds no certificate');
  const leafSpki = readLeafKey(leaf);
  if (!leafSpki.ok) return leafSpki;
  return ok({
    bytes: bytes.slice(),
    rootDigest: bytes.slice(HEADER, HEADER + digestSize),
    certificates,
    leafSpki: leafSpki.value,
  });
}

/** `root` is the root certificate; where `certificates` does not begin with it, it is only digested. */
export function encodeCertificateChain(
  crypto: SpdmCrypto,
  version: SpdmVersion,
  hash: HashName,
  root: Uint8Array,
  certificates: readonly Uint8Array[],
): Uint8Array {
  const body = concat(crypto.hash(hash, root), ...certificates);
  const length = HEADER + body.length;
  return concat(since(version, '1.4') ? le32(length) : concat(le16(length & 0xffff), le16(0)), body);
}

/** Bytes of the DER SEQUENCE at `at`; `undefined` when there is none, or it goes beyond the end. */
function elementSize(bytes: Uint8Array, at: number): number | undefined {
  const [tag, first = 0, second = 0, third = 0, fourth = 0] = bytes.subarray(at, at + 5);
  if (tag !== TAG.sequence) return undefined;
  const size =
    first < 0x80
      ? 2 + first
      : first === 0x81
        ? 3 + second
        : first === 0x82
          ? 4 + ((second << 8) | third)
          : first === 0x83
            ? 5 + ((second << 16) | (third << 8) | fourth)
            : undefined;
  return size === undefined || at + size > bytes.length ? undefined : size;
}

/** The key alone: what else the certificate says is judged with the whole chain, by whoever trusts it. */
function readLeafKey(leaf: Uint8Array): Result<Uint8Array> {
  const outer = new DerReader(leaf);
  const certificate = outer.enter(TAG.sequence);
  const body = certificate.enter(TAG.sequence);
  if (body.peek() === 0xa0) body.take(0xa0);
  // Serial, signature algorithm, issuer, validity, subject.
  body.take(TAG.integer);
  for (let field = 0; field < 4; field++) body.take(TAG.sequence);
  const key = body.whole(TAG.sequence);
  return outer.problem === null
    ? ok(key.slice())
    : fail('certificate-chain-invalid', `its leaf: ${outer.problem.message}`);
}
