/**
 * Host key documents of IBM Secure Execution: certificates of the keys that requests and images are sealed for. IBM's key
 * signing service signs them with a key whose own certificate is a code signing one, below a public root, and no authority:
 * so who signed is known by its name in that certificate, as IBM writes it. s390-tools, `--host-key-document`.
 */
import { hex } from '@airlock/core/bytes.ts';
import { concat, sameBytes } from '../bytes.ts';
import type { Checklist } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { timeText } from '../time.ts';
import { type Certificate, isSignedBy } from '../x509/certificate.ts';
import { checkChain, nameOf, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import { attributesOf, type Name } from '../x509/name.ts';

/** P-521 as SubjectPublicKeyInfo: 23 bytes and 0x04 up to the point's numbers. */
const SPKI_SIZE = 158;
const POINT_AT = 26;
const COORDINATE = 66;
/** In a request each number fills so many bytes. */
const PADDED = 80;
const IBM = 'International Business Machines Corporation';
const SERVICE = 'Key Signing Service';
const CANDIDATE_LIMIT = 8;
const LIST_LIMIT = 32;

export interface HostKeyInput {
  readonly crypto: Crypto;
  readonly certificates: readonly Certificate[];
  readonly revocationLists: readonly RevocationList[];
  /** Of the authority that certifies IBM's key signing service: the verifier's own choice. */
  readonly roots: readonly TrustedRoot[];
  readonly asOf: number;
}

/** By its key's curve and by who says to have issued it. */
export function isHostKey(certificate: Certificate): boolean {
  const { spki, authority, issuer } = certificate;
  return !authority && spki.length === SPKI_SIZE && spki[POINT_AT - 1] === 4 && isSigningService(issuer);
}

/** SHA-256 of the key's numbers, each of 80 bytes, in hex: how requests, images and responses name a host key. */
export function hostKeyHash(crypto: Crypto, { spki }: Certificate): string {
  const padding = new Uint8Array(PADDED - COORDINATE);
  const [x, y] = [spki.subarray(POINT_AT, POINT_AT + COORDINATE), spki.subarray(POINT_AT + COORDINATE)];
  return hex(crypto.hash('sha256', concat(padding, x, padding, y)));
}

/** Adds the checks of one document and of the key that signed it; is it IBM's? */
export function checkHostKey(list: Checklist, document: Certificate, input: HostKeyInput): boolean {
  const { crypto, asOf } = input;
  const subject = `host key ${hostKeyHash(crypto, document).slice(0, 16)}…`;
  const services = input.certificates.filter(({ subject: name }) => isSigningService(name)).slice(0, CANDIDATE_LIMIT);
  const signer = services.find((one) => isSignedBy(crypto, document, one)) ?? services[0];
  const signed = signer !== undefined && isSignedBy(crypto, document, signer) && isSameService(document, signer);
  const good: boolean[] = [];
  good.push(
    list.check('se.host-key-signature', signed, {
      subject,
      expected: 'signed by IBM’s key signing service',
      found: signed ? 'good' : signer === undefined ? 'no certificate of that service was given' : 'wrong',
    }),
    list.check('se.host-key-validity', document.notBefore <= asOf && asOf <= document.notAfter, {
      subject,
      expected: `${timeText(asOf)} within ${timeText(document.notBefore)}..${timeText(document.notAfter)}`,
      found:
        asOf < document.notBefore
          ? `not valid until ${timeText(document.notBefore)}`
          : asOf > document.notAfter
            ? `expired on ${timeText(document.notAfter)}`
            : 'valid',
    }),
  );
  if (signer === undefined) return false;
  const before = list.checks.length;
  checkChain(list, {
    ...{ crypto, leaf: signer, pool: input.certificates, roots: input.roots, asOf },
    revocation: { lists: input.revocationLists, required: false, of: 'all' },
  });
  const chain = list.checks.slice(before);
  good.push(chain.every(({ status }) => status !== 'failed'));
  const service = nameOf(signer);
  // By the name as it is encoded: IBM's authorities have one common name.
  const told = input.revocationLists.some(({ issuer }) => sameBytes(issuer.der, signer.issuer.der));
  good.push(
    list.check('se.host-key-revocation', told, {
      subject: service,
      expected: 'a revocation list of its issuer',
      found: told ? 'it was looked at' : 'none was given',
    }),
    checkRevoked(list, document, signer, input, subject),
  );
  return good.every(Boolean);
}

/** On whatever genuine list it stands; and one of them must be current. By signature: IBM's names of the issuer vary. */
function checkRevoked(
  list: Checklist,
  document: Certificate,
  signer: Certificate,
  { crypto, revocationLists, asOf }: HostKeyInput,
  subject: string,
): boolean {
  const own = revocationLists.filter(({ issuer }) => isSigningService(issuer));
  const genuine = own.slice(0, LIST_LIMIT).filter((one) => isSignedBy(crypto, one, signer));
  const current = genuine.find((one) => one.thisUpdate <= asOf && asOf <= one.nextUpdate);
  const revokedAt = genuine.map(({ revoked }) => revoked.get(document.serial)).find((at) => at !== undefined);
  if (revokedAt !== undefined) {
    const expected = `serial ${document.serial} on no list`;
    return list.check('se.host-key-revoked', false, { subject, expected, found: `revoked on ${timeText(revokedAt)}` });
  }
  const latest = genuine[0];
  return list.check('se.host-key-revocation', current !== undefined && own.length <= LIST_LIMIT, {
    subject,
    expected: `a revocation list of IBM’s key signing service, current on ${timeText(asOf)}`,
    found:
      current !== undefined
        ? own.length > LIST_LIMIT
          ? `${own.length} lists, among which one could be hidden`
          : 'not revoked'
        : latest !== undefined
          ? `one of ${timeText(latest.thisUpdate)} to ${timeText(latest.nextUpdate)}`
          : own.length > 0
            ? 'its signature is wrong'
            : 'none was given',
  });
}

/** The host key signing service of IBM Z and LinuxONE; its place has been Poughkeepsie and Armonk. */
function isSigningService(name: Name): boolean {
  const attributes = attributesOf(name);
  const all = (label: string) => attributes.filter(([one]) => one === label).map(([, value]) => value);
  return (
    all('O').join() === IBM &&
    all('CN').join() === IBM &&
    all('C').join() === 'US' &&
    all('OU').some((one) => one.endsWith(SERVICE))
  );
}

/** The document names the service that signed it, but for the place. */
function isSameService(document: Certificate, signer: Certificate): boolean {
  const plain = (name: Name) =>
    attributesOf(name)
      .filter(([label]) => label !== 'L')
      .map(([label, value]) => `${label}=${value}`)
      .sort()
      .join('\n');
  return plain(document.issuer) === plain(signer.subject);
}
