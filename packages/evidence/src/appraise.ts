/** Everything that was found in the files, put together: each piece of evidence with what the others say for it. */
import { hex } from '@airlock/core/bytes.ts';
import { type Appraisal, createChecklist, type Report, type ReportedAppraisal, verdictOf } from './check.ts';
import type { Crypto } from './crypto.ts';
import type { Found, Item } from './item.ts';
import { AMD_ROOTS } from './snp/product.ts';
import type { Tcb } from './snp/tcb.ts';
import { isVcek, readVcek } from './snp/vcek.ts';
import { verifySnp } from './snp/verify.ts';
import { INTEL_ROOTS, verifyTdx } from './tdx/verify.ts';
import { timeText } from './time.ts';
import type { Certificate } from './x509/certificate.ts';
import { checkChain, nameOf, type TrustedRoot } from './x509/chain.ts';

export interface AppraiseOptions {
  readonly crypto: Crypto;
  /** Milliseconds since 1970. */
  readonly asOf: number;
  readonly nonce?: Uint8Array;
  readonly measurements?: readonly Uint8Array[];
  readonly minimumTcb?: Tcb;
  readonly allowed?: ReadonlySet<string>;
  /** Instead of the vendors’ roots; for tests. */
  readonly roots?: readonly TrustedRoot[];
}

/** More than these would only make the report long: a machine has one of a kind. */
const EVIDENCE_LIMIT = 64;

type Of<K extends Item['kind']> = Extract<Item, { readonly kind: K }>;

/**
 * `found` is evidence and whatever stands beside it; `collateral` only supports. Without any evidence the certificates
 * are checked for themselves. Nothing at all gives `null`.
 */
export function appraise(
  found: readonly Found[],
  collateral: readonly Found[],
  options: AppraiseOptions,
): Omit<Report, 'files' | 'problems'> | null {
  const items = [...found, ...collateral].map(({ item }) => item);
  const all = <K extends Item['kind']>(kind: K): Of<K>[] => items.filter((item): item is Of<K> => item.kind === kind);
  const certificates = all('certificate').map(({ certificate }) => certificate);
  const revocationLists = all('revocation-list').map(({ list }) => list);
  const documents = all('collateral').map(({ document }) => document);
  const common = { ...options, certificates, revocationLists };

  const appraisals: ReportedAppraisal[] = [];
  for (const { item, source } of found) {
    if (appraisals.length >= EVIDENCE_LIMIT) break;
    if (item.kind === 'snp-report') {
      const requirements = {
        ...(options.minimumTcb === undefined ? {} : { minimumTcb: options.minimumTcb }),
        ...(options.measurements === undefined ? {} : { measurements: options.measurements }),
      };
      appraisals.push({ source, ...verifySnp({ ...common, report: item.report, requirements }) });
    } else if (item.kind === 'tdx-quote') {
      appraisals.push({ source, ...verifyTdx({ ...common, quote: item.quote, collateral: documents }) });
    }
  }
  if (appraisals.length === 0) {
    for (const { item, source } of found) {
      if (appraisals.length >= EVIDENCE_LIMIT) break;
      if (item.kind !== 'certificate' || isIssuerAmong(item.certificate, certificates)) continue;
      appraisals.push({ source, ...verifyCertificate(item.certificate, common) });
    }
  }
  if (appraisals.length === 0) return null;
  return {
    version: 1,
    verdict: appraisals.every(({ verdict }) => verdict === 'accepted') ? 'accepted' : 'rejected',
    asOf: timeText(options.asOf),
    appraisals,
  };
}

function isIssuerAmong(certificate: Certificate, certificates: readonly Certificate[]): boolean {
  const name = hex(certificate.subject.der);
  return certificates.some((one) => one !== certificate && hex(one.issuer.der) === name);
}

/** A certificate for itself: does it lead to a vendor? */
function verifyCertificate(
  leaf: Certificate,
  input: AppraiseOptions & {
    readonly certificates: readonly Certificate[];
    readonly revocationLists: Parameters<typeof checkChain>[1]['revocation']['lists'];
  },
): Appraisal {
  const list = createChecklist(input.allowed);
  const vcek = isVcek(leaf) ? readVcek(leaf) : null;
  const chain = checkChain(list, {
    crypto: input.crypto,
    leaf,
    pool: input.certificates,
    roots: input.roots ?? [...AMD_ROOTS, ...INTEL_ROOTS],
    asOf: input.asOf,
    revocation: { lists: input.revocationLists, required: false, of: vcek === null ? 'all' : 'authorities' },
  });
  if (vcek !== null) {
    const root = chain.root?.name ?? 'none';
    list.check('snp.product', vcek.ok && root === `ARK-${vcek.value.product}`, {
      expected: vcek.ok ? `ARK-${vcek.value.product}` : 'AMD’s extensions',
      found: vcek.ok ? root : vcek.error.message,
    });
  }
  return {
    kind: 'certificate',
    title: `certificate of ${nameOf(leaf)}${vcek?.ok === true ? `, ${vcek.value.productName}` : ''}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    claims: {
      subject: leaf.subject.text,
      issuer: leaf.issuer.text,
      serial: leaf.serial,
      'not-before': timeText(leaf.notBefore),
      'not-after': timeText(leaf.notAfter),
      ...(vcek?.ok === true
        ? {
            product: vcek.value.product,
            tcb: { ...vcek.value.tcb },
            'hardware-id': vcek.value.hardwareId === null ? null : hex(vcek.value.hardwareId),
            provider: vcek.value.provider,
          }
        : {}),
    },
  };
}

/** `TDX quote, version 4`: one line for a list of files. */
export function describe(item: Item): string {
  switch (item.kind) {
    case 'snp-report':
      return `SEV-SNP report, version ${item.report.version}`;
    case 'tdx-quote':
      return `TDX quote, version ${item.quote.version}`;
    case 'certificate':
      return `certificate of ${nameOf(item.certificate)}`;
    case 'revocation-list':
      return `revocation list of ${item.list.issuer.commonName ?? item.list.issuer.text}`;
    case 'collateral':
      return item.document.kind === 'tcb-info'
        ? `TCB info of FMSPC ${item.document.fmspc}`
        : `QE identity ${item.document.id.replace(/[^\x21-\x7e]/g, '?').slice(0, 16)}`;
  }
}
