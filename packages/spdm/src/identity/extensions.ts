/** What device certificates say in their extensions beyond RFC 5280: names of functions, purposes, DMTF’s own. */
import { asciiText } from '@airlock/core/bytes.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import { DerReader, TAG } from '@airlock/evidence/x509/der.ts';

export const OID = {
  subjectAltName: '2.5.29.17',
  extendedKeyUsage: '2.5.29.37',
  /** PCI-SIG, CMA name. */
  cma: '2.23.147',
  /** id-DMTF-device-info, id-DMTF-hardware-identity, …: 1.3.6.1.4.1.412.274.n */
  deviceInfo: '1.3.6.1.4.1.412.274.1',
  hardwareIdentity: '1.3.6.1.4.1.412.274.2',
  responderAuth: '1.3.6.1.4.1.412.274.3',
  requesterAuth: '1.3.6.1.4.1.412.274.4',
  mutable: '1.3.6.1.4.1.412.274.5',
  dmtfExtension: '1.3.6.1.4.1.412.274.6',
} as const;

/** Critical extensions that are understood here. */
export const UNDERSTOOD: readonly string[] = [OID.subjectAltName, OID.extendedKeyUsage, OID.dmtfExtension];

const LIST_LIMIT = 32;
const OTHER_NAME = 0xa0;
const URI = 0x86;
const EXPLICIT = 0xa0;

export interface DeviceNames {
  /** Values of CMA names: `Vendor=1af4:Device=1041:…`. */
  readonly cma: readonly string[];
  /** `manufacturer:product:serial` of DSP0274. */
  readonly deviceInfo: readonly string[];
  readonly uris: readonly string[];
}

/** Names of a certificate’s subjectAltName; none where it has no such extension. Codes: `der-*`. */
export function readDeviceNames(certificate: Certificate): Result<DeviceNames> {
  const names: { cma: string[]; deviceInfo: string[]; uris: string[] } = { cma: [], deviceInfo: [], uris: [] };
  const extension = certificate.extensions.get(OID.subjectAltName);
  if (extension === undefined) return ok(names);
  const outer = new DerReader(extension.value);
  const list = outer.enter(TAG.sequence);
  for (let count = 0; list.more; count++) {
    if (count >= LIST_LIMIT) list.refuse('der-too-large', `more than ${LIST_LIMIT} names`);
    const tag = list.peek();
    if (tag === URI) names.uris.push(asciiText(list.take(URI)));
    else if (tag !== OTHER_NAME) list.any();
    else {
      const other = list.enter(OTHER_NAME);
      const oid = other.oid();
      const value = other.enter(EXPLICIT);
      if (oid !== OID.cma && oid !== OID.deviceInfo) value.any();
      else names[oid === OID.cma ? 'cma' : 'deviceInfo'].push(asciiText(value.take(TAG.utf8String)));
      value.finish();
      other.finish();
    }
  }
  outer.finish();
  return outer.problem === null ? ok(names) : { ok: false, error: outer.problem };
}

/** Purposes of extendedKeyUsage; null where the certificate does not restrict them. Codes: `der-*`. */
export function readPurposes(certificate: Certificate): Result<readonly string[] | null> {
  const extension = certificate.extensions.get(OID.extendedKeyUsage);
  if (extension === undefined) return ok(null);
  const outer = new DerReader(extension.value);
  const list = outer.enter(TAG.sequence);
  const purposes: string[] = [];
  while (list.more) {
    if (purposes.length >= LIST_LIMIT) list.refuse('der-too-large', `more than ${LIST_LIMIT} purposes`);
    purposes.push(list.oid());
  }
  outer.finish();
  return outer.problem === null ? ok(purposes) : { ok: false, error: outer.problem };
}

/** OIDs in id-DMTF-SPDM-extension: hardware identity, mutable certificate. Codes: `der-*`. */
export function readDmtfExtension(certificate: Certificate): Result<readonly string[]> {
  const extension = certificate.extensions.get(OID.dmtfExtension);
  if (extension === undefined) return ok([]);
  const outer = new DerReader(extension.value);
  const list = outer.enter(TAG.sequence);
  const oids: string[] = [];
  while (list.more) {
    if (oids.length >= LIST_LIMIT) list.refuse('der-too-large', `more than ${LIST_LIMIT} entries`);
    const entry = list.enter(TAG.sequence);
    oids.push(entry.oid());
    if (entry.more) entry.any();
    entry.finish();
  }
  outer.finish();
  return outer.problem === null ? ok(oids) : { ok: false, error: outer.problem };
}
