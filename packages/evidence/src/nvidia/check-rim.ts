/** A report's measurements against NVIDIA's manifests: that of its driver and that of its VBIOS; of a switch, its BIOS alone. */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '../bytes.ts';
import type { Checklist } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { ranges } from '../ranges.ts';
import { type Certificate, keyOf } from '../x509/certificate.ts';
import { checkChain, nameOf, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import type { OcspResponse } from '../x509/ocsp.ts';
import { isSwitch, type NvidiaReport, nvdecDisabled, versionsOf } from './report.ts';
import type { Rim } from './rim.ts';

/** SHA-384 of the SubjectPublicKeyInfo of the root of NVIDIA's manifests. */
export const NVIDIA_RIM_ROOTS: readonly TrustedRoot[] = [
  {
    name: 'NVIDIA CoRIM signing Root CA',
    spki: '62d5dc52611222694c689eba235331cf73cd69308ea763720a4987eede99657c176e94274169a8063af5b11f8eba7990',
  },
];

export interface RimCheck {
  readonly list: Checklist;
  readonly crypto: Crypto;
  readonly report: NvidiaReport;
  /** The device certificate's common name, which begins with the chip. */
  readonly device: string | null;
  /** Of any device; those of this one are picked. */
  readonly rims: readonly Rim[];
  readonly certificates: readonly Certificate[];
  readonly revocationLists: readonly RevocationList[];
  readonly responses: readonly OcspResponse[];
  readonly asOf: number;
  readonly roots?: readonly TrustedRoot[];
}

/** What the driver extends when the video decoder is on; a report that says that it is off need not hold it. */
const NVDEC_MEASUREMENT = 35;
const RIM_LIMIT = 16;
const SHOWN = 8;

export function checkReference(check: RimCheck): void {
  const { list, report, device } = check;
  const { driver, vbios } = versionsOf(report);
  const wanted: readonly { readonly part: string; readonly version: string | null }[] = isSwitch(report, device)
    ? [{ part: 'BIOS', version: vbios }]
    : [
        { part: 'driver', version: driver },
        { part: 'VBIOS', version: vbios },
      ];
  const parts = wanted.map(({ part, version }) => ({ part, version, rim: pick(check, version) }));
  const missing = parts.filter(({ rim }) => rim === undefined);
  list.check('nvidia.reference', missing.length === 0, {
    expected: `NVIDIA’s manifests of ${wanted.map(({ part, version }) => `${part} ${version ?? '(the report does not say which)'}`).join(' and ')}${device === null ? '' : ` for ${chipOf(device)}`}`,
    found:
      missing.length === 0
        ? 'given'
        : `not given: ${missing.map(({ part, version }) => `${part} ${version ?? '?'}`).join(', ')}${missing.length === parts.length ? '; the measurements were compared with nothing' : ''}${othersText(check)}`,
  });
  const given = parts.flatMap(({ part, rim }) => (rim === undefined ? [] : [{ part, rim }]));
  for (const { part, rim } of given) checkRim(check, part, rim);
  if (given.length > 0) compare(check, given);
}

/** `; given are those of GH100 550.144.03`: somebody took the wrong ones. */
function othersText({ rims }: RimCheck): string {
  const names = [...new Set(rims.map(({ product, version }) => `${product} ${version}`))];
  return names.length === 0 ? '' : `; given are those of ${names.slice(0, SHOWN).join(', ')}`;
}

/** Those of the version and the chip; among several one whose signature is good. */
function pick(check: RimCheck, version: string | null): Rim | undefined {
  if (version === null) return undefined;
  const named = check.rims
    .filter((rim) => rim.version.toLowerCase() === version.toLowerCase() && fitsDevice(rim, check.device))
    .slice(0, RIM_LIMIT);
  return named.find((rim) => isIntact(check.crypto, rim)) ?? named[0];
}

/** Without a device certificate nothing says which chip it is; its signature has failed then. */
function fitsDevice(rim: Rim, device: string | null): boolean {
  return device === null || rim.product.toUpperCase() === chipOf(device);
}

/** `GH100 A01 GSP FMC LF` is GH100, `LS_10 A01 FSP FMC LF` LS10. */
function chipOf(device: string): string {
  return (device.split(' ')[0] ?? '').replaceAll('_', '').toUpperCase();
}

const intact = new WeakMap<Crypto, WeakMap<Rim, { readonly digest: boolean; readonly signed: boolean }>>();

/** Digest and signature of a manifest cost once. */
function proofOf(crypto: Crypto, rim: Rim): { readonly digest: boolean; readonly signed: boolean } {
  let known = intact.get(crypto);
  if (known === undefined) {
    known = new WeakMap();
    intact.set(crypto, known);
  }
  let proof = known.get(rim);
  if (proof === undefined) {
    const { signature } = rim;
    const [leaf] = signature.certificates;
    const key = leaf === undefined ? undefined : keyOf(crypto, leaf);
    proof = {
      digest: sameBytes(crypto.hash(signature.digestHash, signature.document), signature.digest),
      signed:
        key !== undefined &&
        key.kind === signature.key &&
        key.verify({ kind: 'ecdsa', hash: signature.hash, form: 'raw' }, signature.signedInfo, signature.value),
    };
    known.set(rim, proof);
  }
  return proof;
}

function isIntact(crypto: Crypto, rim: Rim): boolean {
  const { digest, signed } = proofOf(crypto, rim);
  return digest && signed;
}

function checkRim(check: RimCheck, part: string, rim: Rim): void {
  const { list, crypto } = check;
  const subject = `${part} ${rim.version}`;
  const { signature } = rim;
  const { digest, signed } = proofOf(crypto, rim);
  const [leaf] = signature.certificates;
  list.check('nvidia.rim.signature', digest && signed, {
    subject,
    expected: `ECDSA over the whole manifest with the key of ${leaf === undefined ? 'its signer' : nameOf(leaf)}`,
    found: !signed ? 'wrong' : digest ? 'good' : 'the manifest was altered: its digest is another',
  });
  if (leaf === undefined) return;
  checkChain(list, {
    crypto,
    leaf,
    pool: [...signature.certificates, ...check.certificates],
    roots: check.roots ?? NVIDIA_RIM_ROOTS,
    asOf: check.asOf,
    revocation: { lists: check.revocationLists, responses: check.responses, required: false, of: 'all' },
  });
}

function compare({ list, report }: RimCheck, given: readonly { readonly part: string; readonly rim: Rim }[]): void {
  const disabled = nvdecDisabled(report);
  const wrong: string[] = [];
  const owners = new Map<number, string>();
  const skipped: number[] = [];
  let compared = 0;
  for (const { part, rim } of given) {
    for (const { index, name, active, alternatives } of rim.measurements) {
      if (!active) continue;
      const owner = owners.get(index);
      if (owner !== undefined) {
        wrong.push(`${index} stands in both manifests, ${owner} and ${part}`);
        continue;
      }
      owners.set(index, part);
      if (index === NVDEC_MEASUREMENT && disabled) {
        skipped.push(index);
        continue;
      }
      const value = report.measurements.get(index + 1)?.value;
      compared++;
      if (value === undefined || !alternatives.some((one) => sameBytes(one, value))) {
        const found = value === undefined ? 'absent' : `${hex(value).slice(0, 16)}…`;
        wrong.push(`${index} (${part}, ${name}): ${found} is none of ${alternatives.length}`);
      }
    }
  }
  const more = wrong.length - SHOWN;
  list.check('nvidia.measurement', wrong.length === 0 && compared > 0, {
    expected: `${compared} measurements as ${given.map(({ part }) => part).join(' and ')} list them`,
    found:
      wrong.length === 0 ? 'the same' : [...wrong.slice(0, SHOWN), ...(more > 0 ? [`${more} more`] : [])].join('; '),
  });
  if (skipped.length > 0) {
    list.note('nvidia.measurement', {
      expected: `measurement ${NVDEC_MEASUREMENT} as listed`,
      found: `measurement ${NVDEC_MEASUREMENT} was not compared: the report says that the video decoder is off`,
    });
  }
  const silent = [...report.measurements]
    .filter(([block, { value }]) => !owners.has(block - 1) && value.some((byte) => byte !== 0))
    .map(([block]) => block - 1);
  if (silent.length > 0) {
    list.note('nvidia.measurement', {
      expected: 'a reference value for each measurement',
      found: `no manifest that was given lists measurements ${ranges(silent)}, which are set`,
    });
  }
}
