/** Certificate chains of made-up devices: real signatures, made-up makers. */

import { type Certificate, readCertificate } from '@airlock/evidence/x509/certificate.ts';
import { type Extra, issueDer, join, type Signer, signer } from '../../../evidence/test/support/authority.ts';
import { element, ia5, octets, oid, sequence, utf8 } from '../../../evidence/test/support/der.ts';
import { type CertificateChain, encodeCertificateChain, readCertificateChain } from '../../src/certificate-chain.ts';
import { OID } from '../../src/identity/extensions.ts';
import { nodeSpdmCrypto } from '../../src/node-crypto.ts';
import { must } from './must.ts';

export { type Extra, element, ia5, join, octets, oid, type Signer, sequence, signer, utf8 };

export const spdmCrypto = nodeSpdmCrypto();

const otherName = (id: string, value: Uint8Array) => element(0xa0, oid(id), element(0xa0, value));
export const names = (...parts: readonly Uint8Array[]): Extra => ({
  oid: OID.subjectAltName,
  value: sequence(...parts),
});
export const cmaName = (text: string): Extra => names(otherName(OID.cma, utf8(text)));
export const deviceInfo = (text: string): Uint8Array => otherName(OID.deviceInfo, utf8(text));
export const cmaPart = (text: string): Uint8Array => otherName(OID.cma, utf8(text));
export const uriPart = (text: string): Uint8Array => element(0x86, new TextEncoder().encode(text));
export const purposes = (...oids: readonly string[]): Extra => ({
  oid: OID.extendedKeyUsage,
  critical: true,
  value: sequence(...oids.map(oid)),
});
export const dmtf = (...oids: readonly string[]): Extra => ({
  oid: OID.dmtfExtension,
  value: sequence(...oids.map((one) => sequence(oid(one)))),
});

export interface DeviceOptions {
  readonly leaf?: readonly Extra[];
  readonly middle?: readonly Extra[];
  readonly leafUsage?: number;
  readonly leafAuthority?: boolean;
  readonly from?: string;
  readonly to?: string;
  readonly serial?: number;
  readonly root?: Signer;
  /** Leaves the root out of the chain. */
  readonly rootless?: boolean;
  /** In the order root, intermediate, leaf; gives the order that the chain has. */
  readonly arrange?: (certificates: readonly Uint8Array[]) => readonly Uint8Array[];
  /** Instead of the root’s digest. */
  readonly digestOf?: Uint8Array;
}

export interface Device {
  readonly root: Signer;
  readonly middle: Signer;
  readonly leaf: Signer;
  readonly rootCertificate: Certificate;
  readonly chain: CertificateChain;
}

export function makeDevice(options: DeviceOptions = {}): Device {
  const root = options.root ?? signer('Maker Root');
  const middle = signer('Maker Devices');
  const leaf = signer('Device');
  const rootDer = issueDer({ subject: root, issuer: root, authority: {}, keyUsage: 0x06 });
  const middleDer = issueDer({
    subject: middle,
    issuer: root,
    authority: {},
    keyUsage: 0x06,
    extensions: options.middle ?? [],
  });
  const leafDer = issueDer({
    subject: leaf,
    issuer: middle,
    keyUsage: options.leafUsage ?? 0x80,
    extensions: options.leaf ?? [],
    serial: options.serial ?? 77,
    ...(options.leafAuthority === true ? { authority: {} } : {}),
    ...(options.from === undefined ? {} : { from: options.from }),
    ...(options.to === undefined ? {} : { to: options.to }),
  });
  const all = options.rootless === true ? [middleDer, leafDer] : [rootDer, middleDer, leafDer];
  const bytes = encodeCertificateChain(
    spdmCrypto,
    '1.2',
    'sha384',
    options.digestOf ?? rootDer,
    options.arrange?.(all) ?? all,
  );
  return {
    root,
    middle,
    leaf,
    rootCertificate: must(readCertificate(rootDer)),
    chain: must(readCertificateChain(bytes, '1.2', 'sha384')),
  };
}
