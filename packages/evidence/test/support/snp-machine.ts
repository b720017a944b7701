/** A made-up SNP machine with its own root: any version, product, signer, TCB, all signed. */
import { sign } from 'node:crypto';
import type { SnpProduct } from '../../src/snp/product.ts';
import { readSnpReport, type SnpReport } from '../../src/snp/report.ts';
import { type Tcb, type TcbPart, tcbLayout } from '../../src/snp/tcb.ts';
import type { Certificate } from '../../src/x509/certificate.ts';
import { type Extra, issue, must, rootOf, type Signer, signer } from './authority.ts';
import { ia5, integer } from './der.ts';

const AMD = '1.3.6.1.4.1.3704.1';
const SPL: Readonly<Record<TcbPart, string>> = {
  bootloader: '3.1',
  tee: '3.2',
  snp: '3.3',
  microcode: '3.8',
  fmc: '3.9',
};
export const CERT_SIGN = 0x06;
/** The TCB of machines that say nothing else. */
export const DEFAULT_TCB: Tcb = { fmc: 1, bootloader: 4, tee: 1, snp: 24, microcode: 200 };

export interface SnpMachine {
  readonly report: SnpReport;
  readonly certificates: readonly Certificate[];
  readonly roots: readonly ReturnType<typeof rootOf>[];
  readonly keys: { readonly ark: Signer; readonly ask: Signer; readonly vcek: Signer };
}

export interface SnpOptions {
  readonly version?: number;
  readonly product?: SnpProduct;
  readonly kind?: 'vcek' | 'vlek';
  readonly tcb?: Tcb;
  readonly certificateTcb?: Tcb;
  readonly certificateProduct?: string;
  readonly hardwareId?: Uint8Array;
  /** Changes the report before it is signed. */
  readonly edit?: (bytes: Uint8Array) => void;
}

const CPU: Readonly<Record<SnpProduct, readonly [number, number]>> = {
  Milan: [0x19, 1],
  Genoa: [0x19, 0x11],
  Turin: [0x1a, 2],
};

export function snpMachine(options: SnpOptions = {}): SnpMachine {
  const { version = 3, product = 'Genoa', kind = 'vcek', tcb = DEFAULT_TCB } = options;
  const keys = {
    ark: signer(`ARK-${product}`),
    ask: signer(kind === 'vcek' ? `SEV-${product}` : `SEV-VLEK-${product}`),
    vcek: signer(kind === 'vcek' ? 'SEV-VCEK' : 'SEV-VLEK'),
  };
  const layout = tcbLayout(product);
  const idSize = product === 'Turin' ? 8 : 64;
  const hardwareId = options.hardwareId ?? new Uint8Array(idSize).fill(0x5a);
  const certificateTcb = options.certificateTcb ?? tcb;
  const extensions: Extra[] = [
    { oid: `${AMD}.1`, value: integer(0) },
    { oid: `${AMD}.2`, value: ia5(options.certificateProduct ?? product) },
    ...Object.keys(layout).map((part) => ({
      oid: `${AMD}.${SPL[part as TcbPart]}`,
      value: integer(certificateTcb[part as TcbPart] ?? 0),
    })),
    kind === 'vcek' ? { oid: `${AMD}.4`, value: hardwareId } : { oid: `${AMD}.5`, value: ia5('some cloud') },
  ];
  const certificates = [
    issue({ subject: keys.vcek, issuer: keys.ask, extensions }),
    issue({ subject: keys.ask, issuer: keys.ark, authority: { pathLength: 0 }, keyUsage: CERT_SIGN, serial: 7 }),
    issue({ subject: keys.ark, issuer: keys.ark, authority: {}, keyUsage: CERT_SIGN, serial: 8 }),
  ];

  const bytes = new Uint8Array(1184);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, version, true);
  view.setBigUint64(8, 0x3001fn, true);
  view.setUint32(0x34, 1, true);
  view.setUint32(0x48, (kind === 'vlek' ? 1 : 0) << 2, true);
  bytes.fill(0x77, 0x90, 0xc0);
  for (const at of [0x38, 0x180, 0x1e0, 0x1f0])
    for (const [part, offset] of Object.entries(layout)) bytes[at + (offset ?? 0)] = tcb[part as TcbPart] ?? 0;
  if (version >= 3) bytes.set([...CPU[product], 1], 0x188);
  if (kind === 'vcek') bytes.set(hardwareId, 0x1a0);
  options.edit?.(bytes);
  return { report: must(readSnpReport(signReport(bytes, keys.vcek))), certificates, roots: [rootOf(keys.ark)], keys };
}

/** AMD writes r and s little-endian, 72 bytes each. */
export function signReport(bytes: Uint8Array, by: Signer): Uint8Array {
  const out = bytes.slice();
  const signature = sign('sha384', out.subarray(0, 0x2a0), { key: by.key, dsaEncoding: 'ieee-p1363' });
  out.set(signature.subarray(0, 48).reverse(), 0x2a0);
  out.set(signature.subarray(48).reverse(), 0x2e8);
  return out;
}
