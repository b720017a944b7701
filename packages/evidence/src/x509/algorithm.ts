/** AlgorithmIdentifier: the signature algorithms that attestation vendors sign with, and no others. */
import type { Hash, SignatureScheme } from '../crypto.ts';
import { type DerReader, TAG } from './der.ts';

const PLAIN: Readonly<Record<string, { readonly name: string; readonly scheme: SignatureScheme }>> = {
  '1.2.840.10045.4.3.2': { name: 'ecdsa-with-SHA256', scheme: { kind: 'ecdsa', hash: 'sha256', form: 'der' } },
  '1.2.840.10045.4.3.3': { name: 'ecdsa-with-SHA384', scheme: { kind: 'ecdsa', hash: 'sha384', form: 'der' } },
  '1.2.840.10045.4.3.4': { name: 'ecdsa-with-SHA512', scheme: { kind: 'ecdsa', hash: 'sha512', form: 'der' } },
  '1.2.840.113549.1.1.11': { name: 'sha256WithRSAEncryption', scheme: { kind: 'rsa-pkcs1', hash: 'sha256' } },
  '1.2.840.113549.1.1.12': { name: 'sha384WithRSAEncryption', scheme: { kind: 'rsa-pkcs1', hash: 'sha384' } },
  '1.2.840.113549.1.1.13': { name: 'sha512WithRSAEncryption', scheme: { kind: 'rsa-pkcs1', hash: 'sha512' } },
};

/** RFC 8410, RFC 9881 and RFC 9909: one identifier for key and signature, without parameters. */
const PURE: Readonly<Record<string, string>> = {
  '1.3.101.112': 'ed25519',
  '1.3.101.113': 'ed448',
  '2.16.840.1.101.3.4.3.17': 'ml-dsa-44',
  '2.16.840.1.101.3.4.3.18': 'ml-dsa-65',
  '2.16.840.1.101.3.4.3.19': 'ml-dsa-87',
  '2.16.840.1.101.3.4.3.20': 'slh-dsa-sha2-128s',
  '2.16.840.1.101.3.4.3.21': 'slh-dsa-sha2-128f',
  '2.16.840.1.101.3.4.3.22': 'slh-dsa-sha2-192s',
  '2.16.840.1.101.3.4.3.23': 'slh-dsa-sha2-192f',
  '2.16.840.1.101.3.4.3.24': 'slh-dsa-sha2-256s',
  '2.16.840.1.101.3.4.3.25': 'slh-dsa-sha2-256f',
  '2.16.840.1.101.3.4.3.26': 'slh-dsa-shake-128s',
  '2.16.840.1.101.3.4.3.27': 'slh-dsa-shake-128f',
  '2.16.840.1.101.3.4.3.28': 'slh-dsa-shake-192s',
  '2.16.840.1.101.3.4.3.29': 'slh-dsa-shake-192f',
  '2.16.840.1.101.3.4.3.30': 'slh-dsa-shake-256s',
  '2.16.840.1.101.3.4.3.31': 'slh-dsa-shake-256f',
};

const RSASSA_PSS = '1.2.840.113549.1.1.10';
const MGF1 = '1.2.840.113549.1.1.8';
const HASH_OIDS: Readonly<Record<string, Hash>> = {
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
};

export interface Algorithm {
  readonly oid: string;
  /** For people; the OID where Airlock does not know it. */
  readonly name: string;
  /** Absent for algorithms that are not accepted in a signature: SHA-1, MD5, unknown ones. */
  readonly scheme?: SignatureScheme;
}

/** Reads `SEQUENCE { OID, parameters }`; parameters of unknown algorithms are skipped. */
export function readAlgorithm(outer: DerReader): Algorithm {
  const reader = outer.enter(TAG.sequence);
  const oid = reader.oid();
  if (oid === RSASSA_PSS) return readPss(reader);
  const pure = PURE[oid];
  if (pure !== undefined) {
    reader.finish();
    return { oid, name: pure, scheme: { kind: 'pure', algorithm: pure } };
  }
  const plain = PLAIN[oid];
  if (plain === undefined) {
    if (reader.more) reader.any();
    reader.finish();
    return { oid, name: oid };
  }
  // RFC 4055 §5: RSA has NULL parameters; RFC 5758 §3.2: ECDSA has none.
  if (plain.scheme.kind === 'rsa-pkcs1' && reader.take(TAG.null).length > 0) reader.refuse('der-value-invalid', 'NULL');
  reader.finish();
  return { oid, ...plain };
}

/** RSASSA-PSS-params, RFC 4055 §3.1, with hash and mask of the same SHA-2; AMD writes the default trailer out. */
function readPss(reader: DerReader): Algorithm {
  const unknown: Algorithm = { oid: RSASSA_PSS, name: 'RSASSA-PSS with SHA-1 or other defaults' };
  const parameters = reader.enter(TAG.sequence);
  let hash: Hash | undefined;
  let mask: Hash | undefined;
  let saltLength = 20;
  let trailer = 1;
  if (parameters.peek() === 0xa0) hash = readHash(parameters.enter(0xa0));
  if (parameters.peek() === 0xa1) {
    const outer = parameters.enter(0xa1);
    const generator = outer.enter(TAG.sequence);
    if (generator.oid() === MGF1) mask = readHash(generator);
    else if (generator.more) generator.any();
    generator.finish();
    outer.finish();
  }
  if (parameters.peek() === 0xa2) saltLength = readWrapped(parameters.enter(0xa2));
  if (parameters.peek() === 0xa3) trailer = readWrapped(parameters.enter(0xa3));
  parameters.finish();
  reader.finish();
  if (hash === undefined || hash !== mask || trailer !== 1 || saltLength > 64) return unknown;
  return { oid: RSASSA_PSS, name: `RSASSA-PSS-${hash}`, scheme: { kind: 'rsa-pss', hash, saltLength } };
}

function readHash(outer: DerReader): Hash | undefined {
  const reader = outer.enter(TAG.sequence);
  const oid = reader.oid();
  if (reader.more) reader.take(TAG.null);
  reader.finish();
  outer.finish();
  return HASH_OIDS[oid];
}

function readWrapped(reader: DerReader): number {
  const value = reader.unsigned();
  reader.finish();
  return value;
}
