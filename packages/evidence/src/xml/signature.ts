/**
 * XML signatures (XMLDSig 1.1) of one form: enveloped, over the whole document, canonical XML 1.1, ECDSA. The form leaves
 * nothing to wrap: the signature is the only one, stands right below the root, and its only reference is the document
 * around it.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { fromBase64 } from '../bytes.ts';
import type { Hash, KeyKind } from '../crypto.ts';
import { type Certificate, knownCertificate } from '../x509/certificate.ts';
import { canonicalBytes } from './canonical.ts';
import { attributeOf, elementsOf, textOf, type XmlElement } from './document.ts';

export const DSIG = 'http://www.w3.org/2000/09/xmldsig#';
const C14N11 = 'http://www.w3.org/2006/12/xml-c14n11';
const ENVELOPED = `${DSIG}enveloped-signature`;
/** Maps, since names that others choose must not find what every object has. */
const METHODS: ReadonlyMap<string | null, { readonly hash: Hash; readonly key: KeyKind }> = new Map([
  ['http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256', { hash: 'sha256', key: 'p256' }],
  ['http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384', { hash: 'sha384', key: 'p384' }],
  ['http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512', { hash: 'sha512', key: 'p521' }],
]);
const DIGESTS: ReadonlyMap<string | null, Hash> = new Map([
  ['http://www.w3.org/2001/04/xmlenc#sha256', 'sha256'],
  ['http://www.w3.org/2001/04/xmldsig-more#sha384', 'sha384'],
  ['http://www.w3.org/2001/04/xmlenc#sha384', 'sha384'],
  ['http://www.w3.org/2001/04/xmlenc#sha512', 'sha512'],
]);
const CERTIFICATE_LIMIT = 8;

export interface XmlSignature {
  /** Canonical bytes of the document without the signature: what `digest` must be of. */
  readonly document: Uint8Array;
  readonly digestHash: Hash;
  readonly digest: Uint8Array;
  /** Canonical SignedInfo: what is signed. */
  readonly signedInfo: Uint8Array;
  readonly hash: Hash;
  /** The curve that the algorithm is used with. */
  readonly key: KeyKind;
  /** r || s. */
  readonly value: Uint8Array;
  /** As KeyInfo lists them; nothing says that they are to be trusted. */
  readonly certificates: readonly Certificate[];
}

/** Codes: `xml-signature-invalid`, those of certificates. */
export function readXmlSignature(root: XmlElement): Result<XmlSignature> {
  const wrong = (what: string) => fail('xml-signature-invalid', what);
  const signatures = elementsOf(root).filter(isSignature);
  const [signature] = signatures;
  if (signature === undefined) return wrong('no signature right below the root');
  if (countSignatures(root) !== 1) return wrong('more than one signature');
  const parts = partsOf(signature, ['SignedInfo', 'SignatureValue', 'KeyInfo']);
  if (parts === null) return wrong('not SignedInfo, SignatureValue, KeyInfo');
  const [info, valueElement, keyInfo] = parts as [XmlElement, XmlElement, XmlElement];

  const infoParts = partsOf(info, ['CanonicalizationMethod', 'SignatureMethod', 'Reference']);
  if (infoParts === null) return wrong('SignedInfo without one reference');
  const [canonicalization, method, reference] = infoParts as [XmlElement, XmlElement, XmlElement];
  if (attributeOf(canonicalization, 'Algorithm') !== C14N11) return wrong('SignedInfo is not in canonical XML 1.1');
  const algorithm = METHODS.get(attributeOf(method, 'Algorithm'));
  if (algorithm === undefined) return wrong('a signature method that is not ECDSA with SHA-2');
  if (attributeOf(reference, 'URI') !== '' || reference.attributes.length !== 1)
    return wrong('the reference is not the whole document');
  const referenceParts = partsOf(reference, ['Transforms', 'DigestMethod', 'DigestValue']);
  if (referenceParts === null) return wrong('the reference lacks a part');
  const [transforms, digestMethod, digestValue] = referenceParts as [XmlElement, XmlElement, XmlElement];
  const steps = partsOf(transforms, ['Transform', 'Transform']);
  const [first, second] = (steps ?? []).map((one) => attributeOf(one, 'Algorithm'));
  if (first !== ENVELOPED || second !== C14N11)
    return wrong('transforms other than enveloped signature, canonical XML 1.1');
  // An algorithm's parameters would be more to understand.
  if ([canonicalization, method, digestMethod, ...(steps ?? [])].some((one) => elementsOf(one).length > 0))
    return wrong('an algorithm with parameters');
  const digestHash = DIGESTS.get(attributeOf(digestMethod, 'Algorithm'));
  const digest = base64Of(digestValue);
  const value = base64Of(valueElement);
  if (digestHash === undefined || digest === null || value === null) return wrong('digest or signature value');

  const document = canonicalBytes(root, { without: signature });
  const signedInfo = canonicalBytes(info, { scope: new Map([...root.declared, ...signature.declared]) });
  if (document === null || signedInfo === null) return wrong('not ASCII');
  const certificates: Certificate[] = [];
  const data = partsOf(keyInfo, ['X509Data'])?.[0];
  const listed = data === undefined ? [] : elementsOf(data);
  if (listed.length === 0 || listed.length > CERTIFICATE_LIMIT) return wrong('KeyInfo without certificates');
  for (const one of listed) {
    const der = one.namespace === DSIG && one.local === 'X509Certificate' ? base64Of(one) : null;
    if (der === null) return wrong('KeyInfo holds what is no certificate');
    const certificate = knownCertificate(der);
    if (!certificate.ok) return certificate;
    certificates.push(certificate.value);
  }
  return ok({ document, digestHash, digest, signedInfo, ...algorithm, value, certificates });
}

function isSignature({ namespace, local }: XmlElement): boolean {
  return namespace === DSIG && local === 'Signature';
}

function countSignatures(element: XmlElement): number {
  return elementsOf(element).reduce((sum, one) => sum + countSignatures(one), isSignature(element) ? 1 : 0);
}

/** The elements of exactly these names in this order, all of XMLDSig, with blanks between them. */
function partsOf(element: XmlElement, names: readonly string[]): XmlElement[] | null {
  const found = elementsOf(element);
  const blank = element.children.every((one) => typeof one !== 'string' || /^[ \t\n]*$/.test(one));
  const fit =
    found.length === names.length && found.every((one, i) => one.namespace === DSIG && one.local === names[i]);
  return blank && fit ? found : null;
}

function base64Of(element: XmlElement): Uint8Array | null {
  const text = textOf(element)?.replace(/[ \t\n]+/g, '');
  const bytes = text === undefined || text === '' ? undefined : fromBase64(text);
  return bytes ?? null;
}
