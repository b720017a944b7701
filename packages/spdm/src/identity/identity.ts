/**
 * Is a slot’s certificate chain one that an identity can be taken from: DSP0274 1.3 (certificate chain format, leaf
 * certificate, identity provisioning) and PCIe 6.1 §6.31.3, as named checks. That the device has the leaf’s key is shown
 * by a signature, which is checked elsewhere.
 */
import { hex } from '@airlock/core/bytes.ts';
import type { Result } from '@airlock/core/result.ts';
import { ok } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import type { Checklist } from '@airlock/evidence/check.ts';
import type { Crypto } from '@airlock/evidence/crypto.ts';
import { type Certificate, isSignedBy, knownCertificate } from '@airlock/evidence/x509/certificate.ts';
import { type Chain, checkChain, keyDigest, nameOf, type TrustedRoot } from '@airlock/evidence/x509/chain.ts';
import type { RevocationList } from '@airlock/evidence/x509/crl.ts';
import type { HashName, SignatureName } from '../algorithms.ts';
import type { CertificateChain } from '../certificate-chain.ts';
import type { SpdmCrypto } from '../crypto.ts';
import { OID, readDeviceNames, readDmtfExtension, readPurposes, UNDERSTOOD } from './extensions.ts';
import { type PciIdentity, parsePciName, pciNameDifferences, pciNameText } from './pci-name.ts';

/** DSP0274 §Identity provisioning: whose key the leaf’s is. null: the device did not say. */
export type ChainModel = 'device' | 'alias' | 'generic';

export interface IdentityInput {
  readonly x509: Crypto;
  readonly spdm: SpdmCrypto;
  readonly chain: CertificateChain;
  readonly hash: HashName;
  readonly signature: SignatureName;
  /** Root certificates that the verifier trusts; whatever the device sends is trusted through them only. */
  readonly roots: readonly Certificate[];
  readonly asOf: number;
  readonly revocation: { readonly lists: readonly RevocationList[]; readonly required: boolean };
  readonly model: ChainModel | null;
  /** The function that was asked; null where it is no PCI function, or nobody knows which. */
  readonly function: PciIdentity | null;
  /** Whose word that is, where nobody here looked at the function. */
  readonly functionBy?: string;
}

export interface Identity {
  readonly leaf: Certificate;
  /** null: the chain leads to none that is trusted. */
  readonly root: TrustedRoot | null;
  /** Names that the leaf has: of the function, and `manufacturer:product:serial`. */
  readonly functionName: string | null;
  readonly deviceInfo: string | null;
  /**
   * What only one device has, as its certificates state it: two slots with different keys that share one of these are of
   * one device.
   */
  readonly marks: readonly string[];
}

const DIGITAL_SIGNATURE = 1;

/** Adds `chain.*`, `spdm.*` and `cma.*` checks. Codes, for a chain that cannot be read at all: `certificate-invalid`, `der-*`. */
export function checkIdentity(list: Checklist, input: IdentityInput): Result<Identity> {
  const certificates: Certificate[] = [];
  for (const der of input.chain.certificates) {
    const certificate = knownCertificate(der);
    if (!certificate.ok) return certificate;
    certificates.push(certificate.value);
  }
  const leaf = certificates.at(-1);
  if (leaf === undefined) return { ok: false, error: { code: 'certificate-chain-invalid', message: 'no certificate' } };
  const names = readDeviceNames(leaf);
  if (!names.ok) return names;

  const path = checkChain(list, {
    crypto: input.x509,
    leaf,
    pool: [...certificates, ...input.roots],
    roots: input.roots.map((root) => ({ name: nameOf(root), spki: keyDigest(input.x509, root) })),
    asOf: input.asOf,
    revocation: { ...input.revocation, of: 'all' },
    understood: UNDERSTOOD,
  });
  checkOrder(list, input, certificates, path);
  checkRootDigest(list, input, path);
  checkLeaf(list, input, leaf);
  const marked = readDmtfExtension(leaf);
  if (!marked.ok) return marked;
  const { cma, deviceInfo, uris } = names.value;
  const isDevice =
    marked.value.length + cma.length + deviceInfo.length > 0 || uris.some((uri) => parsePciName(uri) !== undefined);
  const purposes = checkPurposes(list, leaf, isDevice);
  if (!purposes.ok) return purposes;
  const model = checkModel(list, input, certificates);
  if (!model.ok) return model;
  // A name in a URI is an older way of writing it.
  const [functionName = null] = [
    ...names.value.cma,
    ...names.value.uris.filter((uri) => parsePciName(uri) !== undefined),
  ];
  checkName(list, input, leaf, functionName);
  const marks = marksOf(input, { leaf, hardware: model.value, functionName, deviceInfo: names.value.deviceInfo });
  return ok({ leaf, root: path.root, functionName, deviceInfo: names.value.deviceInfo[0] ?? null, marks });
}

function marksOf(
  { x509 }: IdentityInput,
  found: {
    readonly leaf: Certificate;
    readonly hardware: Certificate | null;
    readonly functionName: string | null;
    readonly deviceInfo: readonly string[];
  },
): string[] {
  const { leaf, hardware, functionName, deviceInfo } = found;
  const named = functionName === null ? undefined : parsePciName(functionName);
  const subject = /(?:^|, )serialNumber=([^,]+)/.exec(leaf.subject.text)?.[1];
  return [
    ...(hardware === null ? [] : [`the hardware identity ${keyDigest(x509, hardware)}`]),
    ...(typeof named?.serial === 'string'
      ? [`the serial number ${named.serial} of vendor ${named.vendor.toString(16).padStart(4, '0')}`]
      : []),
    // Manufacturer, product and serial number: without the last it is a kind of device.
    ...deviceInfo.filter((info) => /^[^:]+:[^:]+:[^:]+$/.test(info)).map((info) => `the name ${info}`),
    ...(subject === undefined ? [] : [`the serial number ${subject} of ${leaf.issuer.text}`]),
  ];
}

function checkOrder(list: Checklist, input: IdentityInput, certificates: readonly Certificate[], path: Chain): void {
  const broken = certificates.findIndex((certificate, i) => {
    const before = certificates[i - 1];
    return (
      before !== undefined &&
      !(sameBytes(certificate.issuer.der, before.subject.der) && isSignedBy(input.x509, certificate, before))
    );
  });
  const unused = certificates.find((certificate) => !path.certificates.includes(certificate));
  list.check('spdm.chain-order', broken === -1 && unused === undefined, {
    expected: `${certificates.length} certificates, each issued by the one before it`,
    found:
      broken !== -1
        ? `certificate ${broken + 1} is not issued by certificate ${broken}`
        : unused === undefined
          ? 'as expected'
          : `${nameOf(unused)} is no part of the way to the root`,
  });
}

function checkRootDigest(list: Checklist, input: IdentityInput, path: Chain): void {
  const last = path.certificates.at(-1);
  const digest = last === undefined ? new Uint8Array() : input.spdm.hash(input.hash, last.der);
  const same = input.spdm.same(digest, input.chain.rootDigest);
  list.check('spdm.root-digest', same, {
    subject: last === undefined ? undefined : nameOf(last),
    expected: `${input.hash} ${hex(digest)}`,
    found: same ? 'the same' : hex(input.chain.rootDigest),
  });
}

function checkLeaf(list: Checklist, { spdm, signature }: IdentityInput, leaf: Certificate): void {
  const key = spdm.publicKey(leaf.spki);
  const fits = key?.fits(signature) === true;
  list.check('spdm.leaf-key', fits, {
    subject: nameOf(leaf),
    expected: signature,
    found: fits ? 'as expected' : key === undefined ? 'no key that is known' : 'a key of another algorithm or size',
  });
  const signs = leaf.keyUsage === null || (leaf.keyUsage & DIGITAL_SIGNATURE) !== 0;
  list.check('spdm.leaf-usage', !leaf.authority && signs, {
    subject: nameOf(leaf),
    expected: 'no authority; digitalSignature',
    found: leaf.authority ? 'an authority' : signs ? 'as expected' : 'keyUsage without digitalSignature',
  });
}

/**
 * DSP0274 1.2 and later: the purposes are optional, and a leaf for requesters is not one for responders. Of other purposes
 * it says nothing, and RFC 5280 §4.2.1.12 that a certificate is good for the stated ones only: `isDevice` tells one of a
 * device, that says so by other means, from a web server's below the same root.
 */
function checkPurposes(list: Checklist, leaf: Certificate, isDevice: boolean): Result<void> {
  const purposes = readPurposes(leaf);
  if (!purposes.ok) return purposes;
  const subject = nameOf(leaf);
  const expected = `id-DMTF-eku-responder-auth (${OID.responderAuth}), or no purpose of SPDM at all`;
  const stated = purposes.value;
  if (stated === null) list.note('spdm.leaf-purpose', { subject, expected, found: 'no extended key usage' });
  else if (stated.includes(OID.responderAuth))
    list.check('spdm.leaf-purpose', true, { subject, expected, found: 'stated' });
  else if (stated.includes(OID.requesterAuth))
    list.check('spdm.leaf-purpose', false, { subject, expected, found: 'for requesters only' });
  else {
    const found = `purposes of other protocols only: ${stated.slice(0, 4).join(', ')}`;
    // Certificates from before DSP0274 named its purposes state those of TLS.
    if (isDevice) list.note('spdm.leaf-purpose', { subject, expected, found });
    else
      list.check('spdm.leaf-purpose', false, {
        subject,
        expected,
        found: `${found}; and nothing says it is a device’s`,
      });
  }
  return ok(undefined);
}

/** Gives the certificate that states the hardware identity, where one does and may. */
function checkModel(
  list: Checklist,
  { model }: IdentityInput,
  certificates: readonly Certificate[],
): Result<Certificate | null> {
  const marked: number[] = [];
  for (const [index, certificate] of certificates.entries()) {
    const oids = readDmtfExtension(certificate);
    if (!oids.ok) return oids;
    if (!oids.value.includes(OID.hardwareIdentity)) continue;
    marked.push(index);
    if (oids.value.includes(OID.mutable)) {
      list.check('spdm.hardware-identity', false, {
        subject: nameOf(certificate),
        expected: 'an identity that cannot change',
        found: 'marked as hardware identity and as mutable',
      });
      return ok(null);
    }
  }
  const leaf = certificates.length - 1;
  const expected =
    model === 'alias'
      ? 'in a certificate above the leaf'
      : model === 'device'
        ? 'in the leaf'
        : 'in at most one certificate';
  const where =
    marked.length === 0 ? 'no certificate states it' : marked.map((at) => `certificate ${at + 1}`).join(', ');
  const detail = { expected, found: where };
  if (marked.length > 1 || (model === 'alias' && marked.includes(leaf)))
    list.check('spdm.hardware-identity', false, detail);
  else if (marked.length === 0 || model === null || model === 'generic') list.note('spdm.hardware-identity', detail);
  else list.check('spdm.hardware-identity', model === 'alias' || marked.includes(leaf), detail);
  return ok(marked.length === 1 ? (certificates[marked[0] ?? -1] ?? null) : null);
}

function checkName(list: Checklist, input: IdentityInput, leaf: Certificate, name: string | null): void {
  const subject = nameOf(leaf);
  const found = input.function;
  if (found === null) {
    list.unchecked('cma.function', {
      subject,
      expected: 'a PCI function to compare with',
      found: name ?? 'no name',
      hint: name === null ? 'the certificate names none either' : `the certificate is for ${name}`,
    });
    return;
  }
  const by = input.functionBy === undefined ? '' : `, ${input.functionBy}`;
  const expected = `${pciNameText(found)}${by}`;
  const named = name === null ? undefined : parsePciName(name);
  list.check('cma.name', named !== undefined, {
    subject,
    expected: 'Vendor=…:Device=…:CC=…:REV=…',
    found: name ?? 'no name',
  });
  if (named === undefined) return;
  const differences = pciNameDifferences(named, found);
  list.check('cma.function', differences.length === 0, {
    subject,
    expected,
    found: differences.length === 0 ? (name ?? '') : differences.join(', '),
  });
}
