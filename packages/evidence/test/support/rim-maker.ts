/** Manifests as NVIDIA writes them, signed by a made-up root. */
import { createHash, sign } from 'node:crypto';
import { canonicalBytes } from '../../src/xml/canonical.ts';
import { elementsOf, readXml } from '../../src/xml/document.ts';
import { issue, must, rootOf, type Signer, signer } from './authority.ts';

const SWID = 'http://standards.iso.org/iso/19770/-2/2015/schema.xsd';
const SHA384 = 'http://www.w3.org/2001/04/xmlenc#sha384';

export interface RimMeasurementText {
  readonly index: number;
  readonly active?: boolean;
  readonly values: readonly Uint8Array[];
}
export interface RimOptions {
  readonly product?: string;
  readonly version?: string;
  readonly measurements?: readonly RimMeasurementText[];
  /** Changes the document before it is signed. */
  readonly edit?: (xml: string) => string;
  /** Changes the signed text. */
  readonly after?: (xml: string) => string;
  readonly signedInfo?: (xml: string) => string;
}

export const rimRoot = signer('NVIDIA CoRIM signing Root CA');
export const rimSigner = signer('RIM L4 Signer');
export const rimRoots = [rootOf(rimRoot)];
const pem = (subject: Signer, by: Signer, authority: boolean) =>
  Buffer.from(
    issue({ subject, issuer: by, ...(authority ? { authority: {}, keyUsage: 0x06 } : { keyUsage: 0x80 }) }).der,
  ).toString('base64');
const chain = [pem(rimSigner, rimRoot, false), pem(rimRoot, rimRoot, true)];

export function rimText({
  product = 'GH100',
  version = '550.1',
  measurements = [{ index: 0, values: [new Uint8Array(48).fill(1)] }],
  edit = (xml) => xml,
  after = (xml) => xml,
  signedInfo = (xml) => xml,
}: RimOptions = {}): string {
  const rows = measurements.map(({ index, active = true, values }) => {
    const hashes = values.map((value, i) => `ns2:Hash${i}="${Buffer.from(value).toString('hex')}"`).join(' ');
    return `<ns0:Resource type="Measurement" index="${index}" active="${active ? 'True' : 'False'}" alternatives="${values.length}" ${hashes} name="Measurement_${index}" size="48"/>`;
  });
  const open = `<SoftwareIdentity xmlns="${SWID}" xmlns:ns0="${SWID}" xmlns:ns2="${SHA384}" name="${product}" tagId="1234" version="1.0">`;
  const body = edit(
    `${open}\n<ns0:Meta colloquialVersion="${version}" product="${product}"/>\n<ns0:Payload>${rows.join('\n')}</ns0:Payload>\n</SoftwareIdentity>`,
  );
  const digest = createHash('sha384')
    .update(must(canonical(body)))
    .digest('base64');
  const info = signedInfo(
    '<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/><ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"/></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>' +
      `<ds:DigestValue>${digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>`,
  );
  const scoped = `<x xmlns="${SWID}" xmlns:ns0="${SWID}" xmlns:ns2="${SHA384}" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">${info}</x>`;
  const outer = must(readXml(Buffer.from(scoped)));
  const [element] = elementsOf(outer);
  if (element === undefined) throw new Error('no SignedInfo');
  const bytes = canonicalBytes(element, { scope: outer.declared });
  const value = sign('sha384', bytes ?? new Uint8Array(), { key: rimSigner.key, dsaEncoding: 'ieee-p1363' });
  const certificates = chain.map((one) => `<ds:X509Certificate>${one}</ds:X509Certificate>`).join('');
  const signature = `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">${info}<ds:SignatureValue>${value.toString('base64')}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>${certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>`;
  return after(body.replace(/<\/SoftwareIdentity>$/, `${signature}</SoftwareIdentity>`));
}

function canonical(xml: string) {
  const read = readXml(Buffer.from(xml));
  return read.ok ? { ok: true as const, value: canonicalBytes(read.value) ?? new Uint8Array() } : read;
}
