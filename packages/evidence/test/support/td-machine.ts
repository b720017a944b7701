/** A made-up TDX platform with its own Intel: quotes of both versions, PCK chain and collateral, all signed. */
import { createHash, sign } from 'node:crypto';
import { nodeCrypto } from '../../src/node-crypto.ts';
import { type QeIdentity, readCollateral, readQeIdentity, type TcbInfo } from '../../src/tdx/collateral.ts';
import { readQuote } from '../../src/tdx/quote.ts';
import type { TdxInput } from '../../src/tdx/verify.ts';
import { readCertificate } from '../../src/x509/certificate.ts';
import { type Extra, issue, issueDer, must, revoke, rootOf, type Signer, signer } from './authority.ts';
import { element, integer, join, octets, oid, sequence } from './der.ts';

const SGX = '1.2.840.113741.1.13.1';
const SIGN = 0x06;
/** Intel's own, since it is known by heart where there is no collateral. */
const MRSIGNER = 'dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5';
export const FMSPC = 'a0b1c2d3e4f5';

const root = signer('Intel SGX Root CA', 'P-256');
const platform = signer('Intel SGX PCK Platform CA', 'P-256');
const pck = signer('Intel SGX PCK Certificate', 'P-256');
const tcbSigner = signer('Intel SGX TCB Signing', 'P-256');
const attestation = signer('attestation key', 'P-256');

export const keys = { root, platform, pck, tcbSigner, attestation };
const rootDer = issueDer({ subject: root, issuer: root, authority: { pathLength: 1 }, keyUsage: SIGN });
const platformDer = issueDer({
  subject: platform,
  issuer: root,
  authority: { pathLength: 0 },
  keyUsage: SIGN,
  serial: 20,
});
export const tcbCertificate = issue({ subject: tcbSigner, issuer: root, keyUsage: 0x80, serial: 21 });
export const rootCertificate = issue({ subject: root, issuer: root, authority: { pathLength: 1 }, keyUsage: SIGN });
export const lists = [revoke({ issuer: root }), revoke({ issuer: platform })];

export const pckExtension = (components: readonly number[], pceSvn: number, fmspc = FMSPC): Extra => ({
  oid: SGX,
  value: sequence(
    sequence(oid(`${SGX}.1`), octets(new Uint8Array(16))),
    sequence(
      oid(`${SGX}.2`),
      sequence(
        ...components.map((svn, i) => sequence(oid(`${SGX}.2.${i + 1}`), integer(svn))),
        sequence(oid(`${SGX}.2.17`), integer(pceSvn)),
        sequence(oid(`${SGX}.2.18`), octets(new Uint8Array(16))),
      ),
    ),
    sequence(oid(`${SGX}.3`), octets(new Uint8Array(2))),
    sequence(oid(`${SGX}.4`), octets(Buffer.from(fmspc, 'hex'))),
    sequence(oid(`${SGX}.5`), element(0x0a, Uint8Array.of(1))),
  ),
});

const pem = (der: Uint8Array) =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`;
const raw = (bytes: Uint8Array, by: Signer) =>
  new Uint8Array(sign('sha256', bytes, { key: by.key, dsaEncoding: 'ieee-p1363' }));
const u16 = (value: number) => Uint8Array.of(value & 0xff, value >> 8);
const u32 = (value: number) => join(u16(value & 0xffff), u16(value >>> 16));

export interface QuoteOptions {
  readonly version?: 4 | 5;
  readonly generation?: '1.0' | '1.5';
  /** Changes header and TD report before they are signed. */
  readonly edit?: (td: Uint8Array, header: Uint8Array) => void;
  readonly editEnclave?: (report: Uint8Array) => void;
  readonly components?: readonly number[];
  readonly pceSvn?: number;
  readonly fmspc?: string;
  readonly trailing?: Uint8Array;
  /** Instead of the PEM chain; given the PCK's certificate. */
  readonly certification?: (pck: Uint8Array) => { readonly type: number; readonly data: Uint8Array };
}

/** TEE_TCB_SVN 5, 1, 7: module version 1, SVN 5. */
export function quoteBytes(options: QuoteOptions = {}): Uint8Array {
  const {
    version = 4,
    generation = version === 4 ? '1.0' : '1.5',
    components = new Array<number>(16).fill(9),
    pceSvn = 13,
  } = options;
  const header = new Uint8Array(48);
  header.set([version, 0, 2, 0, 0x81]);
  header.set(Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex'), 12);
  const td = new Uint8Array(generation === '1.0' ? 584 : 648);
  td.set([5, 1, 7]);
  td.set([0, 0, 0, 0x10], 120);
  td.fill(0x33, 136, 184);
  options.edit?.(td, header);
  const descriptor = version === 5 ? join(u16(generation === '1.0' ? 2 : 3), u32(td.length)) : new Uint8Array();
  const signed = join(header, descriptor, td);
  const point = attestation.spki.subarray(-64);
  const authentication = Uint8Array.from({ length: 32 }, (_, i) => i);
  const enclave = new Uint8Array(384);
  enclave.set([0x11], 48);
  enclave.set(Buffer.from(MRSIGNER, 'hex'), 128);
  enclave.set([2, 0, 4, 0], 256);
  enclave.set(createHash('sha256').update(point).update(authentication).digest(), 320);
  options.editEnclave?.(enclave);
  const pckDer = issueDer({
    subject: pck,
    issuer: platform,
    serial: 22,
    extensions: [pckExtension(components, pceSvn, options.fmspc)],
  });
  const chain = new TextEncoder().encode(`${pem(pckDer)}${pem(platformDer)}${pem(rootDer)}\0`);
  const certification = options.certification?.(pckDer) ?? { type: 5, data: chain };
  const inner = join(
    enclave,
    raw(enclave, pck),
    u16(authentication.length),
    authentication,
    u16(certification.type),
    u32(certification.data.length),
    certification.data,
  );
  const signature = join(raw(signed, attestation), point, u16(6), u32(inner.length), inner);
  return join(signed, u32(signature.length), signature, options.trailing ?? new Uint8Array());
}

/** Of another machine: the same maker's, for another key. */
export const otherPck = () =>
  must(
    readCertificate(
      issueDer({
        subject: signer('another PCK', 'P-256'),
        issuer: platform,
        serial: 23,
        extensions: [pckExtension(new Array<number>(16).fill(9), 13)],
      }),
    ),
  );
/** Of the CA that issued the PCK. */
export const platformCertificate = () => must(readCertificate(platformDer));

type Json = Record<string, unknown>;

const parts = (svn: number) => Array.from({ length: 16 }, () => ({ svn }));
export const tcbLevel = (svn: number, status: string, date: string, more: Json = {}): Json => ({
  tcb: {
    sgxtcbcomponents: parts(svn),
    pcesvn: 13,
    tdxtcbcomponents: [...parts(0).slice(0, 2), { svn: Math.min(svn, 7) }, ...parts(0).slice(3)],
  },
  tcbDate: date,
  tcbStatus: status,
  ...more,
});
const dates = { issueDate: '2026-01-01T00:00:00Z', nextUpdate: '2026-02-01T00:00:00Z', tcbEvaluationDataNumber: 18 };
const enclaveLevel = (isvsvn: number, tcbStatus = 'UpToDate'): Json => ({
  tcb: { isvsvn },
  tcbDate: '2025-05-01T00:00:00Z',
  tcbStatus,
});

export function tcbInfoJson(changes: Json = {}): Json {
  return {
    id: 'TDX',
    version: 3,
    ...dates,
    fmspc: FMSPC.toUpperCase(),
    pceId: '0000',
    tcbType: 0,
    tdxModule: { mrsigner: '00'.repeat(48), attributes: '00'.repeat(8), attributesMask: 'FF'.repeat(8) },
    tdxModuleIdentities: [
      {
        id: 'TDX_01',
        mrsigner: '00'.repeat(48),
        attributes: '00'.repeat(8),
        attributesMask: 'FF'.repeat(8),
        tcbLevels: [enclaveLevel(5), enclaveLevel(2, 'OutOfDate')],
      },
    ],
    tcbLevels: [
      tcbLevel(9, 'UpToDate', '2025-05-01T00:00:00Z'),
      tcbLevel(5, 'OutOfDate', '2024-05-01T00:00:00Z', { advisoryIDs: ['INTEL-SA-1'] }),
    ],
    ...changes,
  };
}

export function identityJson(changes: Json = {}): Json {
  return {
    id: 'TD_QE',
    version: 2,
    ...dates,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: '11'.padEnd(32, '0'),
    attributesMask: 'FB'.padEnd(16, 'F').padEnd(32, '0'),
    mrsigner: MRSIGNER.toUpperCase(),
    isvprodid: 2,
    tcbLevels: [enclaveLevel(4), enclaveLevel(2, 'OutOfDate')],
    ...changes,
  };
}

export function tcbInfo(changes: Json = {}, by: Signer = tcbSigner): TcbInfo {
  const body = JSON.stringify(tcbInfoJson(changes));
  const signature = Buffer.from(raw(Buffer.from(body), by)).toString('hex');
  const read = must(readCollateral(`{"tcbInfo":${body},"signature":"${signature}"}`));
  if (read.kind !== 'tcb-info') throw new Error(read.kind);
  return read;
}

export function identity(changes: Json = {}, by: Signer = tcbSigner): QeIdentity {
  const body = JSON.stringify(identityJson(changes));
  return must(readQeIdentity(body, Buffer.from(raw(Buffer.from(body), by)).toString('hex')));
}

export function tdInput(quote: Uint8Array = quoteBytes(), changes: Partial<TdxInput> = {}): TdxInput {
  return {
    crypto: nodeCrypto(),
    quote: must(readQuote(quote)),
    certificates: [tcbCertificate, rootCertificate],
    revocationLists: lists,
    collateral: [tcbInfo(), identity()],
    asOf: Date.parse('2026-01-15'),
    roots: [rootOf(root)],
    ...changes,
  };
}
