/** One of each kind, all made here. */
import { createHash, sign } from 'node:crypto';
import { nodeCrypto } from '../src/node-crypto.ts';
import { revokeDer, rootOf, signer } from '../test/support/authority.ts';
import { cbor, map, tagged } from '../test/support/cbor.ts';
import { cpak, token } from '../test/support/cca-realm.ts';
import { nvidiaDevice, nvidiaRoots } from '../test/support/nvidia-device.ts';
import { rimRoots, rimText } from '../test/support/rim-maker.ts';
import { headerBytes, KEY, responseBytes } from '../test/support/se-machine.ts';
import { snpMachine } from '../test/support/snp-machine.ts';
import {
  identityJson,
  keys,
  lists,
  quoteBytes,
  rootCertificate,
  tcbCertificate,
  tcbInfoJson,
} from '../test/support/td-machine.ts';
import { attestBytes, bincode, eventLog, hclReport, makeTpm } from '../test/support/tpm-machine.ts';
import type { Target } from './campaign.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-15');
const pem = (...ders: readonly Uint8Array[]) =>
  new Uint8Array(
    Buffer.from(
      ders
        .map(
          (der) => `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`,
        )
        .join(''),
    ),
  );

function snp(product: 'Genoa' | 'Turin', version: number): Target {
  const machine = snpMachine({ product, version });
  const [vcek, ...chain] = machine.certificates.map(({ der }) => der);
  return {
    name: `SNP ${product}`,
    files: [machine.report.bytes, vcek ?? new Uint8Array(), pem(...chain), revokeDer({ issuer: machine.keys.ark })],
    options: { crypto, asOf, roots: machine.roots },
  };
}

function collateral(name: string, body: string): Uint8Array {
  const signature = sign('sha256', Buffer.from(body), { key: keys.tcbSigner.key, dsaEncoding: 'ieee-p1363' }).toString(
    'hex',
  );
  return new Uint8Array(Buffer.from(`{"${name}":${body},"signature":"${signature}"}`));
}

function tdx(version: 4 | 5): Target {
  const log = eventLog(
    [
      { register: 1, data: 'firmware' },
      { register: 2, data: 'kernel' },
    ],
    ['sha384'],
  );
  const quote = quoteBytes({
    version,
    edit: (td) => {
      for (const [register, value] of log.registers) td.set(value, 328 + (register - 1) * 48);
    },
  });
  return {
    name: `TDX ${version}`,
    files: [
      quote,
      log.bytes,
      collateral('tcbInfo', JSON.stringify(tcbInfoJson())),
      collateral('enclaveIdentity', JSON.stringify(identityJson())),
      pem(tcbCertificate.der, rootCertificate.der),
      ...lists.map(({ der }) => der),
    ],
    options: { crypto, asOf, roots: [rootOf(keys.root)] },
  };
}

function azure(): Target {
  const tpm = makeTpm();
  const { bytes, machine } = hclReport(tpm);
  const log = eventLog([
    { register: 0, data: 'firmware' },
    { register: 4, data: 'kernel' },
  ]);
  const pcrs = Array.from({ length: 24 }, (_, i) => log.registers.get(i) ?? new Uint8Array(32));
  const attest = attestBytes({ pcrs });
  const quote = bincode(attest, new Uint8Array(sign('sha256', attest, tpm.key)), pcrs);
  return {
    name: 'Azure',
    files: [quote, bytes, log.bytes, pem(...machine.certificates.map(({ der }) => der))],
    options: { crypto, asOf, roots: machine.roots, nonce: Uint8Array.of(1, 2, 3) },
  };
}

/** Only the driver's manifest: the report names no VBIOS. */
function nvidia(): Target {
  const gpu = nvidiaDevice();
  return {
    name: 'NVIDIA',
    files: [gpu.answer(new Uint8Array(32).fill(9)), gpu.certificates, new Uint8Array(Buffer.from(rimText()))],
    options: { crypto, asOf, roots: nvidiaRoots, rimRoots, allowed: new Set(['nvidia.reference']) },
  };
}

function secureExecution(): Target {
  return {
    name: 'Secure Execution',
    files: [responseBytes(), headerBytes()],
    options: { crypto, asOf, seRequestKey: KEY },
  };
}

/** A token of RMM 2.0 whose components a signed CoRIM vouches for. */
function cca(): Target {
  const maker = signer('maker', 'P-256');
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const part = (type: string) => map({ 1: type, 2: digest(type), 4: '1', 5: digest('signer') });
  const vouched = (type: string) =>
    map({
      0: 'cca.software-component',
      1: map({ 0: map({ 0: '1' }), 2: [['sha-256', digest(type)]], 11: type, 13: [tagged(560, digest('signer'))] }),
    });
  const configuration = map({
    0: 'cca.platform-config',
    1: map({ 4: tagged(563, [Buffer.alloc(4, 7), Buffer.alloc(4, 0xf0)]) }),
  });
  const environment = map({ 0: map({ 0: tagged(560, Buffer.alloc(32)) }) });
  const comid = map({
    1: map({ 0: 'c' }),
    4: map({ 0: [[environment, [vouched('BL'), vouched('RMM'), configuration]]] }),
  });
  const profile = tagged(32, 'tag:arm.com,2025:cca_platform#1.0.0');
  const payload = cbor(tagged(501, map({ 0: 'made', 1: [tagged(506, cbor(comid))], 3: profile })));
  const header = cbor(map({ 1: -7, 3: 'application/rim+cbor' }));
  const signature = sign('sha256', cbor(['Signature1', header, new Uint8Array(), payload]), {
    key: maker.key,
    dsaEncoding: 'ieee-p1363',
  });
  const platformClaims = [
    [2399, [part('BL'), part('RMM')]],
    [2401, Buffer.alloc(4, 7)],
  ] as const;
  return {
    name: 'CCA',
    files: [token({ tag: 907, platformClaims }), cbor(tagged(18, [header, new Map(), payload, signature]))],
    reference: true,
    options: { crypto, asOf, platformKeys: [cpak.spki], trustedKeys: [maker.spki] },
  };
}

/** As hexdump prints it. */
function dumped(): Target {
  const machine = snpMachine();
  const lines = (
    Buffer.from(machine.report.bytes)
      .toString('hex')
      .match(/.{1,32}/g) ?? []
  ).map(
    (line, i) =>
      `${(i * 16).toString(16).padStart(8, '0')}  ${line.replace(/../g, '$& ').padEnd(50)}|................|`,
  );
  return {
    name: 'SNP as text',
    files: [new Uint8Array(Buffer.from(lines.join('\n'))), pem(...machine.certificates.map(({ der }) => der))],
    options: { crypto, asOf, roots: machine.roots },
  };
}

export const makeTargets = (): Target[] => [
  ...[snp('Genoa', 3), snp('Turin', 5), tdx(4), tdx(5), azure()],
  ...[nvidia(), secureExecution(), cca(), dumped()],
];
