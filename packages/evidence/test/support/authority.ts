/** Certificate authorities for tests: real signatures, made-up vendors. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { type Certificate, readCertificate } from '../../src/x509/certificate.ts';
import type { TrustedRoot } from '../../src/x509/chain.ts';
import { type RevocationList, readRevocationList } from '../../src/x509/crl.ts';
import { bits, boolean, element, integer, join, octets, oid, sequence, time, utf8 } from './der.ts';

export function must<T>(result: { ok: true; value: T } | { ok: false; error: { code: string; message: string } }): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

export interface Signer {
  readonly name: string;
  readonly key: KeyObject;
  readonly spki: Uint8Array;
  readonly curve: 'P-256' | 'P-384';
  /** A whole name, as OIDs and texts, instead of the common name alone. */
  readonly attributes?: readonly (readonly [string, string])[];
}

export function signer(name: string, curve: Signer['curve'] = 'P-384'): Signer {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: curve });
  return { name, key: privateKey, spki: new Uint8Array(publicKey.export({ format: 'der', type: 'spki' })), curve };
}

export interface Extra {
  readonly oid: string;
  readonly value: Uint8Array;
  readonly critical?: boolean;
}

export interface Issue {
  readonly subject: Signer;
  readonly issuer: Signer;
  readonly serial?: number;
  readonly from?: string;
  readonly to?: string;
  /** Not an authority when absent. */
  readonly authority?: { readonly pathLength?: number } | undefined;
  readonly keyUsage?: number;
  readonly extensions?: readonly Extra[];
  /** Another name in the issuer field. */
  readonly issuerName?: string;
}

const name = ({ name: text, attributes }: Pick<Signer, 'name' | 'attributes'>) =>
  sequence(...(attributes ?? [['2.5.4.3', text]]).map(([id, value]) => element(0x31, sequence(oid(id), utf8(value)))));
const algorithm = (curve: Signer['curve']) =>
  sequence(oid(curve === 'P-384' ? '1.2.840.10045.4.3.3' : '1.2.840.10045.4.3.2'));

function signed(tbs: Uint8Array, by: Signer): Uint8Array {
  const signature = sign(by.curve === 'P-384' ? 'sha384' : 'sha256', tbs, by.key);
  return sequence(tbs, algorithm(by.curve), bits(new Uint8Array(signature)));
}

function extension({ oid: id, value, critical }: Extra): Uint8Array {
  return sequence(oid(id), ...(critical === true ? [boolean(true)] : []), octets(value));
}

export function issueDer(issue: Issue): Uint8Array {
  const { subject, issuer, authority, keyUsage } = issue;
  const extensions = [
    ...(authority === undefined
      ? []
      : [
          {
            oid: '2.5.29.19',
            critical: true,
            value: sequence(
              boolean(true),
              ...(authority.pathLength === undefined ? [] : [integer(authority.pathLength)]),
            ),
          },
        ]),
    ...(keyUsage === undefined
      ? []
      : [{ oid: '2.5.29.15', critical: true, value: element(0x03, Uint8Array.of(0, keyUsage)) }]),
    ...(issue.extensions ?? []),
  ];
  const tbs = sequence(
    element(0xa0, integer(2)),
    integer(issue.serial ?? 1),
    algorithm(issuer.curve),
    name(issue.issuerName === undefined ? issuer : { name: issue.issuerName }),
    sequence(time(issue.from ?? '2024-01-01'), time(issue.to ?? '2034-01-01')),
    name(subject),
    subject.spki,
    ...(extensions.length === 0 ? [] : [element(0xa3, sequence(...extensions.map(extension)))]),
  );
  return signed(tbs, issuer);
}

export const issue = (given: Issue): Certificate => must(readCertificate(issueDer(given)));

export interface Revoke {
  readonly issuer: Signer;
  readonly serials?: readonly number[];
  readonly from?: string;
  readonly to?: string;
  readonly extensions?: readonly Extra[];
  readonly issuerName?: string;
}

export function revokeDer({ issuer, serials = [], from, to, extensions = [], issuerName }: Revoke): Uint8Array {
  const entries = serials.map((serial) => sequence(integer(serial), time('2024-06-01')));
  const tbs = sequence(
    integer(1),
    algorithm(issuer.curve),
    name(issuerName === undefined ? issuer : { name: issuerName }),
    time(from ?? '2024-05-01'),
    time(to ?? '2034-05-01'),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    ...(extensions.length === 0 ? [] : [element(0xa0, sequence(...extensions.map(extension)))]),
  );
  return signed(tbs, issuer);
}

export const revoke = (given: Revoke): RevocationList => must(readRevocationList(revokeDer(given)));

export function rootOf(root: Signer, called: string = root.name): TrustedRoot {
  return { name: called, spki: createHash('sha384').update(root.spki).digest('hex') };
}

export { join };
