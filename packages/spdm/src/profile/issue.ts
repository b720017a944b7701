/** Certificates and revocation lists of made-up makers, RFC 5280, for responders that stand in for a device. ECDSA P-384. */
import { asciiBytes, concat } from '@airlock/evidence/bytes.ts';
import { TAG } from '@airlock/evidence/x509/der.ts';
import { OID } from '../identity/extensions.ts';

export interface Signer {
  readonly name: string;
  /** DER SubjectPublicKeyInfo, P-384. */
  readonly spki: Uint8Array;
  /** ECDSA with SHA-384, DER. */
  sign(message: Uint8Array): Uint8Array;
}

export interface Extension {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Uint8Array;
}

export interface CertificateOrder {
  readonly subject: string;
  readonly spki: Uint8Array;
  readonly issuer: Signer;
  readonly serial: number;
  /** Milliseconds since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly authority: boolean;
  readonly extensions?: readonly Extension[];
}

function element(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concat(...parts);
  const { length } = content;
  const size =
    length < 0x80
      ? [length]
      : length < 0x100
        ? [0x81, length]
        : length < 0x1_0000
          ? [0x82, length >> 8, length & 0xff]
          : [0x83, length >> 16, (length >> 8) & 0xff, length & 0xff];
  return concat(Uint8Array.of(tag, ...size), content);
}

const sequence = (...parts: readonly Uint8Array[]) => element(TAG.sequence, ...parts);
const octets = (bytes: Uint8Array) => element(TAG.octetString, bytes);
const bits = (bytes: Uint8Array) => element(TAG.bitString, Uint8Array.of(0), bytes);
const truth = () => element(TAG.boolean, Uint8Array.of(0xff));

function integer(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let left = value; left > 0 || bytes.length === 0; left = Math.floor(left / 256)) bytes.unshift(left % 256);
  if ((bytes[0] ?? 0) >= 0x80) bytes.unshift(0);
  return element(TAG.integer, Uint8Array.from(bytes));
}

function oid(text: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  const septets = (arc: number): number[] => {
    const out = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) out.unshift((left % 128) | 0x80);
    return out;
  };
  return element(TAG.oid, Uint8Array.from([first * 40 + second, ...rest].flatMap(septets)));
}

/** UTCTime up to 2049, GeneralizedTime after it. */
function time(moment: number): Uint8Array {
  const digits = `${new Date(moment).toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`;
  const short = Number(digits.slice(0, 4)) < 2050;
  return element(short ? TAG.utcTime : TAG.generalizedTime, asciiBytes(short ? digits.slice(2) : digits));
}

const commonName = (text: string) =>
  sequence(element(TAG.set, sequence(oid('2.5.4.3'), element(TAG.utf8String, asciiBytes(text)))));
const ALGORITHM = sequence(oid('1.2.840.10045.4.3.3'));
const KEY_USAGE = '2.5.29.15';
const BASIC_CONSTRAINTS = '2.5.29.19';

function encodeExtension({ oid: id, critical, value }: Extension): Uint8Array {
  return sequence(oid(id), ...(critical ? [truth()] : []), octets(value));
}

function signed(tbs: Uint8Array, issuer: Signer): Uint8Array {
  return sequence(tbs, ALGORITHM, bits(issuer.sign(tbs)));
}

/** DER. Names are ASCII. */
export function issueCertificate(order: CertificateOrder): Uint8Array {
  const { authority, extensions = [] } = order;
  const all: readonly Extension[] = [
    { oid: BASIC_CONSTRAINTS, critical: true, value: sequence(...(authority ? [truth()] : [])) },
    // keyCertSign and cRLSign, or digitalSignature.
    {
      oid: KEY_USAGE,
      critical: true,
      value: element(TAG.bitString, authority ? Uint8Array.of(1, 0x06) : Uint8Array.of(7, 0x80)),
    },
    ...extensions,
  ];
  const tbs = sequence(
    element(0xa0, integer(2)),
    integer(order.serial),
    ALGORITHM,
    commonName(order.issuer.name),
    sequence(time(order.notBefore), time(order.notAfter)),
    commonName(order.subject),
    order.spki,
    element(0xa3, sequence(...all.map(encodeExtension))),
  );
  return signed(tbs, order.issuer);
}

/** DER, version 2. */
export function issueRevocationList(
  issuer: Signer,
  serials: readonly number[],
  thisUpdate: number,
  nextUpdate: number,
): Uint8Array {
  const entries = serials.map((serial) => sequence(integer(serial), time(thisUpdate)));
  const tbs = sequence(
    integer(1),
    ALGORITHM,
    commonName(issuer.name),
    time(thisUpdate),
    time(nextUpdate),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
  );
  return signed(tbs, issuer);
}

/** subjectAltName with the CMA name of a PCI function. */
export function cmaNameExtension(name: string): Extension {
  const other = element(0xa0, oid(OID.cma), element(0xa0, element(TAG.utf8String, asciiBytes(name))));
  return { oid: OID.subjectAltName, critical: false, value: sequence(other) };
}

/** extendedKeyUsage of a responder, and the mark of a hardware identity. */
export const RESPONDER_EXTENSIONS: readonly Extension[] = [
  { oid: OID.extendedKeyUsage, critical: true, value: sequence(oid(OID.responderAuth)) },
  { oid: OID.dmtfExtension, critical: false, value: sequence(sequence(oid(OID.hardwareIdentity))) },
];
