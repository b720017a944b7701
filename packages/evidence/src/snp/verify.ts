/** An SEV-SNP report against AMD's keys and what the verifier asks for. */
import { hex } from '@airlock/core/bytes.ts';
import { isZero, sameBytes } from '../bytes.ts';
import { type Appraisal, type Checklist, type Claim, createChecklist, verdictOf } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { checkMeasurement, checkNonce, checkRuntimeData } from '../expectations.ts';
import { type Certificate, keyOf } from '../x509/certificate.ts';
import { checkChain, type TrustedRoot } from '../x509/chain.ts';
import type { RevocationList } from '../x509/crl.ts';
import { hasReservedOne, platformBits, policyBits } from './bits.ts';
import { AMD_ROOTS, processorName, productOfCpu, type SnpProduct } from './product.ts';
import { SIGNED_SIZE, type SnpReport } from './report.ts';
import { partsBelow, readTcb, sameTcb, type Tcb, tcbText } from './tcb.ts';
import { isVcek, readVcek, type Vcek } from './vcek.ts';

export interface SnpInput {
  readonly crypto: Crypto;
  readonly report: SnpReport;
  /** VCEK or VLEK and whatever leads from it to AMD, in any order, from any source. */
  readonly certificates: readonly Certificate[];
  readonly revocationLists?: readonly RevocationList[];
  readonly asOf: number;
  /** At most 64 bytes; REPORT_DATA must be it, filled up with zeros. */
  readonly nonce?: Uint8Array;
  /** Azure’s runtime data, which REPORT_DATA must be the digest of; the nonce is then in the TPM’s quote. */
  readonly runtimeData?: Uint8Array;
  readonly requirements?: SnpRequirements;
  /** Check ids whose failure is not to reject. */
  readonly allowed?: ReadonlySet<string>;
  /** AMD's, unless a test brings its own. */
  readonly roots?: readonly TrustedRoot[];
}

export interface SnpRequirements {
  readonly minimumTcb?: Tcb;
  /** Any of these launch digests. */
  readonly measurements?: readonly Uint8Array[];
}

/** More than one certificate may be a signer's (another TCB's, another chip's): as many are tried. */
const SIGNER_LIMIT = 16;

export function verifySnp(input: SnpInput): Appraisal {
  const { report, crypto } = input;
  const list = createChecklist(input.allowed);
  const signer = chooseSigner(input);
  const vcek = signer === null ? null : readVcek(signer);
  const identity = vcek?.ok === true ? vcek.value : null;
  const fromCpu = report.cpu === null ? null : productOfCpu(report.cpu.family, report.cpu.model);
  const product = fromCpu ?? identity?.product ?? null;

  list.check('snp.version', report.version >= 2 && report.version <= 5, {
    expected: '2, 3, 4 or 5',
    found: String(report.version),
    where: { field: 'VERSION', bytes: [0, 4] },
  });
  checkSigner(list, input, signer, vcek);
  if (signer !== null) {
    const signed = report.signatureAlgorithm === 1;
    const good =
      signed &&
      (keyOf(crypto, signer)?.verify(
        { kind: 'ecdsa', hash: 'sha384', form: 'raw' },
        report.bytes.subarray(0, SIGNED_SIZE),
        report.signature,
      ) ??
        false);
    list.check('snp.signature', good, {
      expected: 'ECDSA P-384 over bytes 0 to 0x29f with the key of the certificate',
      found: good ? 'good' : signed ? 'wrong' : `algorithm ${report.signatureAlgorithm}`,
      where: { field: 'SIGNATURE', bytes: [0x2a0, 0x330] },
    });
    const chain = checkChain(list, {
      crypto,
      leaf: signer,
      pool: input.certificates,
      roots: input.roots ?? AMD_ROOTS,
      asOf: input.asOf,
      revocation: { lists: input.revocationLists ?? [], required: false, of: 'authorities' },
    });
    if (identity !== null) {
      const root = chain.root?.name.replace(/^ARK-/, '') ?? null;
      checkProduct(list, report, fromCpu, identity, root);
      checkChip(list, report, identity);
    }
  }
  if (product !== null) checkTcb(list, input, product, identity);
  checkPolicy(list, report);
  checkExpectations(list, input);
  let claims: Record<string, Claim> | null = null;
  return {
    kind: 'amd-sev-snp',
    title: `AMD SEV-SNP report, version ${report.version}${report.cpu === null ? (product === null ? '' : `, ${product}`) : `, ${processorName(report.cpu.family, report.cpu.model)}`}`,
    verdict: verdictOf(list.checks),
    checks: list.checks,
    // Most who verify a fleet read the verdict alone: what the report states is written out when it is asked for.
    get claims() {
      claims ??= claimsOf(report, product, identity);
      return claims;
    },
  };
}

/** The certificate that fits: by chip and TCB where one does, else one whose key verifies, else any. */
function chooseSigner(input: SnpInput): Certificate | null {
  const candidates = input.certificates.filter(isVcek).slice(0, SIGNER_LIMIT);
  if (candidates.length <= 1) return candidates[0] ?? null;
  const { report } = input;
  const fits = candidates.filter((one) => {
    const vcek = readVcek(one);
    if (!vcek.ok || vcek.value.kind !== report.signer) return false;
    const { hardwareId, product, tcb } = vcek.value;
    const sameChip = hardwareId === null || sameBytes(hardwareId, report.chipId.subarray(0, hardwareId.length));
    return sameChip && sameTcb(tcb, readTcb(report.reportedTcb, product));
  });
  const verifies = (one: Certificate) =>
    keyOf(input.crypto, one)?.verify(
      { kind: 'ecdsa', hash: 'sha384', form: 'raw' },
      report.bytes.subarray(0, SIGNED_SIZE),
      report.signature,
    ) ?? false;
  return (fits.length === 1 ? fits[0] : [...fits, ...candidates].find(verifies)) ?? fits[0] ?? candidates[0] ?? null;
}

function checkSigner(
  list: Checklist,
  { report }: SnpInput,
  signer: Certificate | null,
  vcek: ReturnType<typeof readVcek> | null,
): void {
  const where = { field: 'SIGNING_KEY, MASK_CHIP_KEY', bytes: [0x48, 0x4c] as const };
  if (report.signer === 'none' || report.signer === 'reserved' || report.maskChipKey) {
    list.check('snp.signer', false, {
      expected: 'signed with a VCEK or a VLEK',
      found: report.maskChipKey ? 'MASK_CHIP_KEY: the host had the key withheld' : `signer ${report.signer}`,
      hint: 'a report that no key signed proves nothing: have the host turn signing on',
      where,
    });
    return;
  }
  const name = report.signer.toUpperCase();
  list.check('snp.signer', signer !== null && vcek?.ok === true && vcek.value.kind === report.signer, {
    expected: `a ${name} certificate`,
    found:
      signer === null
        ? 'none among the files'
        : vcek?.ok === true
          ? `a ${vcek.value.kind.toUpperCase()} certificate`
          : (vcek?.error.message ?? 'unreadable'),
    where,
  });
}

function checkProduct(
  list: Checklist,
  report: SnpReport,
  fromCpu: SnpProduct | null,
  vcek: Vcek,
  root: string | null,
): void {
  const where = { field: 'CPUID_FAM_ID, CPUID_MOD_ID', bytes: [0x188, 0x18b] as const };
  const fits =
    (fromCpu === null || fromCpu === vcek.product) && (root === null || root === vcek.product || !isAmd(root));
  const cpu =
    report.cpu === null
      ? 'absent in version 2'
      : `family ${report.cpu.family}, model ${report.cpu.model}${fromCpu === null ? ' (not known)' : ` (${fromCpu})`}`;
  const detail = {
    expected: `${vcek.productName}, as the certificate says`,
    found: `CPUID ${cpu}${root === null ? '' : `, root ${root}`}`,
    where,
  };
  list.check('snp.product', fits, detail);
}

function isAmd(root: string): boolean {
  return AMD_ROOTS.some(({ name }) => name === `ARK-${root}`);
}

function checkChip(list: Checklist, report: SnpReport, { hardwareId }: Vcek): void {
  const where = { field: 'CHIP_ID', bytes: [0x1a0, 0x1e0] as const };
  if (hardwareId === null) return;
  if (isZero(report.chipId)) {
    list.note('snp.chip-id', {
      expected: hex(hardwareId),
      found: 'zero: the host masks it (MASK_CHIP_ID); the certificate’s signature alone ties report and chip',
      where,
    });
    return;
  }
  const size = hardwareId.length;
  const same = sameBytes(report.chipId.subarray(0, size), hardwareId) && isZero(report.chipId.subarray(size));
  list.check('snp.chip-id', same, { expected: hex(hardwareId), found: hex(report.chipId).slice(0, size * 2), where });
}

function checkTcb(list: Checklist, input: SnpInput, product: SnpProduct, vcek: Vcek | null): void {
  const { report } = input;
  const [current, reported, committed, launch] = [
    report.currentTcb,
    report.reportedTcb,
    report.committedTcb,
    report.launchTcb,
  ].map((raw) => readTcb(raw, product)) as [Tcb, Tcb, Tcb, Tcb];
  if (vcek !== null) {
    list.check('snp.tcb.certificate', sameTcb(vcek.tcb, reported), {
      expected: tcbText(vcek.tcb),
      found: tcbText(reported),
      where: { field: 'REPORTED_TCB', bytes: [0x180, 0x188] },
    });
  }
  const above = [
    ...partsBelow(current, reported).map((part) => `CURRENT below REPORTED: ${part}`),
    ...partsBelow(current, committed).map((part) => `CURRENT below COMMITTED: ${part}`),
    ...partsBelow(current, launch).map((part) => `CURRENT below LAUNCH: ${part}`),
  ];
  list.check('snp.tcb.order', above.length === 0, {
    expected: `no part above CURRENT_TCB, ${tcbText(current)}`,
    found: above.length === 0 ? 'none' : above.join('; '),
    where: { field: 'CURRENT_TCB', bytes: [0x38, 0x40] },
  });
  if (!sameTcb(current, committed)) {
    list.note('snp.tcb.committed', {
      expected: tcbText(current),
      found: `committed only ${tcbText(committed)}: the host can go back to that`,
      where: { field: 'COMMITTED_TCB', bytes: [0x1e0, 0x1e8] },
    });
  }
  const minimum = input.requirements?.minimumTcb;
  if (minimum !== undefined) {
    const below = partsBelow(reported, minimum);
    list.check('snp.tcb.minimum', below.length === 0, {
      expected: `at least ${tcbText(minimum)}`,
      found: below.length === 0 ? tcbText(reported) : below.join(', '),
      where: { field: 'REPORTED_TCB', bytes: [0x180, 0x188] },
    });
  }
}

function checkPolicy(list: Checklist, report: SnpReport): void {
  const policy = policyBits(report.policy, report.version);
  const platform = platformBits(report.platformInfo, report.version);
  const where = { field: 'POLICY', bytes: [0x08, 0x10] as const };
  const shown = `0x${report.policy.toString(16)}`;
  list.check('snp.policy.debug', policy.values['debug-allowed'] !== true, {
    expected: 'DEBUG, bit 19, is zero',
    found: policy.values['debug-allowed'] === true ? `POLICY ${shown}: DEBUG is set` : 'zero',
    where,
  });
  list.check('snp.policy.migration', policy.values['migration-agent-allowed'] !== true, {
    expected: 'MIGRATE_MA, bit 18, is zero',
    found: policy.values['migration-agent-allowed'] === true ? `POLICY ${shown}: MIGRATE_MA is set` : 'zero',
    where,
  });
  list.check('snp.vmpl', report.vmpl <= 3, {
    expected: '0 to 3',
    found:
      report.vmpl <= 3 ? String(report.vmpl) : `0x${report.vmpl.toString(16)}: the host asked for it, not the guest`,
    where: { field: 'VMPL', bytes: [0x30, 0x34] },
  });
  const unknown = [
    ...policy.unknown.map((bit) => `POLICY bit ${bit}`),
    ...platform.unknown.map((bit) => `PLATFORM_INFO bit ${bit}`),
    ...report.reservedSet.map(([from, to]) => `bytes 0x${from.toString(16)} to 0x${(to - 1).toString(16)}`),
    ...(hasReservedOne(report.policy) ? [] : ['POLICY bit 17 is zero']),
  ];
  if (unknown.length > 0) list.note('snp.bits', { expected: 'zero', found: `not known: ${unknown.join(', ')}` });
}

function checkExpectations(list: Checklist, input: SnpInput): void {
  const { report, nonce } = input;
  const where = { field: 'REPORT_DATA', bytes: [0x50, 0x90] as const };
  if (input.runtimeData !== undefined)
    checkRuntimeData(list, input.crypto, input.runtimeData, report.reportData, where);
  if (input.runtimeData === undefined || nonce !== undefined) checkNonce(list, nonce, report.reportData, where);
  checkMeasurement(list, input.requirements?.measurements, report.measurement, {
    field: 'MEASUREMENT',
    bytes: [0x90, 0xc0],
  });
}

function claimsOf(report: SnpReport, product: SnpProduct | null, vcek: Vcek | null): Record<string, Claim> {
  const tcb = (raw: Uint8Array): Claim => (product === null ? hex(raw) : { ...readTcb(raw, product) });
  return {
    product,
    processor: report.cpu === null ? 'absent' : { ...report.cpu },
    signer: report.signer,
    provider: vcek?.provider ?? null,
    measurement: hex(report.measurement),
    'report-data': hex(report.reportData),
    'host-data': hex(report.hostData),
    'guest-svn': report.guestSvn,
    vmpl: report.vmpl,
    policy: {
      raw: `0x${report.policy.toString(16)}`,
      'minimum-abi': `${Number((report.policy >> 8n) & 0xffn)}.${Number(report.policy & 0xffn)}`,
      ...policyBits(report.policy, report.version).values,
    },
    platform: {
      raw: `0x${report.platformInfo.toString(16)}`,
      ...platformBits(report.platformInfo, report.version).values,
    },
    tcb: {
      reported: tcb(report.reportedTcb),
      current: tcb(report.currentTcb),
      committed: tcb(report.committedTcb),
      launch: tcb(report.launchTcb),
    },
    'tcb-bytes': {
      reported: hex(report.reportedTcb),
      current: hex(report.currentTcb),
      committed: hex(report.committedTcb),
      launch: hex(report.launchTcb),
    },
    firmware: { current: report.currentFirmware, committed: report.committedFirmware },
    mitigations:
      report.mitigations === null
        ? 'absent'
        : {
            launch: `0x${report.mitigations.launch.toString(16)}`,
            current: `0x${report.mitigations.current.toString(16)}`,
          },
    'chip-id': hex(report.chipId),
    'family-id': hex(report.familyId),
    'image-id': hex(report.imageId),
    'id-key-digest': hex(report.idKeyDigest),
    'author-key-digest': report.authorKey ? hex(report.authorKeyDigest) : null,
    'report-id': hex(report.reportId),
    'report-id-ma': hex(report.reportIdMa),
  };
}
