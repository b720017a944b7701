/** Is this a confidential VM, which one, and how do we know. */
import { isBound, type KernelFacts } from '@airlock/core/device.ts';
import { type Evidence, evidence } from './evidence.ts';
import { type Fact, fact, kernelLog, logIsWhole, names, type Observations } from './reading.ts';

export type Confidential = Exclude<KernelFacts['confidential'], null>;

export const CONFIDENTIAL_NAMES: Readonly<Record<Confidential, string>> = {
  sev: 'AMD SEV',
  'sev-es': 'AMD SEV-ES',
  'sev-snp': 'AMD SEV-SNP',
  tdx: 'Intel TDX',
  cca: 'Arm CCA',
  'secure-execution': 'IBM Secure Execution',
};

export interface Machine {
  readonly arch: 'x86' | 'arm64' | 's390x' | 'other' | null;
  readonly release: string | null;
  /** Under a hypervisor? `null`: not known. */
  readonly virtual: boolean | null;
  readonly hypervisor: string | null;
  /** `none`: seen not to be one. `unknown`: could not be told. */
  readonly confidential: Confidential | 'none' | 'unknown';
  /** What that rests on. */
  readonly how: readonly Evidence[];
  /** For `unknown`: what would tell, and why it does not. */
  readonly missing: { readonly path: string; readonly because: string } | null;
  /** Checks weigh in full: it is one, or may be one, or the caller asked for it. */
  readonly judgedConfidential: boolean;
}

const CPUINFO = '/proc/cpuinfo';
const PROT_VIRT = '/sys/firmware/uv/prot_virt_guest';
const REALM = '/sys/devices/platform/arm-cca-dev';
const REALM_FAUX = '/sys/devices/faux/arm-cca-dev';
const AUXILIARY = '/sys/bus/auxiliary/devices';
/** Made by the kernel in SEV-SNP guests only (snp_init_platform_device(), sev_sysfs_init()). */
const SNP_FOLDERS = ['/sys/devices/platform/sev-guest', '/sys/devices/system/cpu/sev'];
const VENDOR = '/sys/class/dmi/id/sys_vendor';

/**
 * Only what the running kernel says counts, never what firmware claims: a flag or device that the kernel makes after
 * it has seen the CPU's own answer (tdx_guest, sev-guest, arm-cca-dev, prot_virt_guest), or its log. SEV and SEV-ES show in
 * the log alone.
 */
export function identifyMachine(observations: Observations, asConfidential = false): Machine {
  const cpu = fact(observations, CPUINFO);
  const arch = archOf(cpu);
  const flags = cpu.state === 'read' ? cpuFlags(cpu.text) : new Set<string>();
  const log = kernelLog(observations);
  const shared = {
    arch,
    release: releaseOf(observations),
    virtual: arch === 'x86' ? flags.has('hypervisor') : null,
    hypervisor:
      log.state === 'read' ? (/\bHypervisor detected: ([\w .()/-]{1,40})$/m.exec(log.text)?.[1] ?? null) : null,
  };
  const sure = (confidential: Confidential, ...how: Evidence[]): Machine => ({
    ...shared,
    virtual: true,
    confidential,
    how,
    missing: null,
    judgedConfidential: true,
  });
  const none = (...how: Evidence[]): Machine => ({
    ...shared,
    confidential: 'none',
    how,
    missing: null,
    judgedConfidential: asConfidential,
  });
  const unsure = (path: string, because: string, ...how: Evidence[]): Machine => ({
    ...shared,
    confidential: 'unknown',
    how,
    missing: { path, because },
    judgedConfidential: true,
  });

  if (flags.has('tdx_guest')) return sure('tdx', evidence(CPUINFO, 'flags: tdx_guest'));
  const protectedVirtual = fact(observations, PROT_VIRT);
  if (protectedVirtual.state === 'read' && protectedVirtual.text.startsWith('1')) {
    return sure('secure-execution', evidence(PROT_VIRT, protectedVirtual.text));
  }
  const snp = SNP_FOLDERS.filter((folder) => names(observations, folder).state === 'listed');
  if (snp[0] !== undefined) return sure('sev-snp', ...snp.map((folder) => evidence(folder, 'present')));
  const realm = realmOf(observations);
  if (realm !== undefined) return sure('cca', realm);
  const logged = log.state === 'read' ? fromLog(log.text) : undefined;
  if (logged !== undefined) return sure(logged.kind, evidence(log.path, logged.line));

  if (arch === 'x86') return withoutProof(observations, cpu, flags, log, none, unsure);
  if (arch === 's390x') {
    return protectedVirtual.state === 'unknown'
      ? unsure(PROT_VIRT, protectedVirtual.because)
      : none(evidence(PROT_VIRT, protectedVirtual.state === 'read' ? protectedVirtual.text : 'absent'));
  }
  if (arch === 'arm64') {
    const platform = names(observations, REALM);
    return platform.state === 'absent'
      ? none(evidence(REALM, 'absent'))
      : unsure(REALM, platform.state === 'unknown' ? platform.because : 'not seen');
  }
  return unsure(CPUINFO, cpu.state === 'unknown' ? cpu.because : 'not an architecture that Airlock knows');
}

/** x86 without any sign of confidential computing: is that enough to say no? */
function withoutProof(
  observations: Observations,
  cpu: Fact,
  flags: ReadonlySet<string>,
  log: Fact,
  none: (...how: Evidence[]) => Machine,
  unsure: (path: string, because: string, ...how: Evidence[]) => Machine,
): Machine {
  if (!flags.has('hypervisor')) return none(evidence(CPUINFO, 'flags: no hypervisor'));
  const seen = evidence(CPUINFO, 'flags: hypervisor, no tdx_guest');
  if (log.state === 'read' && logIsWhole(log.text)) {
    return none(seen, evidence(log.path, 'no "Memory Encryption Features active"'));
  }
  const intel = cpu.state === 'read' && /^vendor_id\s*: GenuineIntel$/m.test(cpu.text);
  const vendor = fact(observations, VENDOR);
  // Under Hyper-V a paravisor can hide TDX and SEV-SNP from the CPU's flags; only the log says so.
  if (intel && vendor.state !== 'unknown' && !(vendor.state === 'read' && vendor.text.startsWith('Microsoft'))) {
    return none(seen);
  }
  const bare = intel ? undefined : deviceWithoutAccessPlatform(observations);
  if (bare !== undefined) return none(seen, bare);
  return unsure(
    'kernel log',
    `${log.state === 'unknown' ? log.because : 'its beginning is lost'}; nothing else shows ${intel ? 'TDX behind a paravisor' : 'SEV and SEV-ES'}`,
    seen,
  );
}

/**
 * From 6.0 on the kernel refuses a virtio device without ACCESS_PLATFORM in every SEV guest (virtio_features_ok() with
 * virtio_require_restricted_mem_acc()), so one that works proves that this is none.
 */
function deviceWithoutAccessPlatform(observations: Observations): Evidence | undefined {
  const { inventory } = observations;
  if (inventory === null || !/^([6-9]|\d\d)\.\d/.test(releaseOf(observations) ?? '')) return undefined;
  const device = inventory.devices.find(
    (one) =>
      one.bus === 'virtio' &&
      isBound(one) &&
      one.features?.negotiated?.includes('VERSION_1') === true &&
      !one.features.negotiated.includes('ACCESS_PLATFORM'),
  );
  const node = device?.nodes[device.nodes.length - 1];
  return node === undefined
    ? undefined
    : evidence(
        `/sys/bus/virtio/devices/${node.name}/features`,
        'works without ACCESS_PLATFORM, which SEV guests refuse',
      );
}

function archOf(cpu: Fact): Machine['arch'] {
  if (cpu.state !== 'read') return null;
  if (/^flags\s*:/m.test(cpu.text)) return 'x86';
  if (/^vendor_id\s*: IBM\/S390/m.test(cpu.text)) return 's390x';
  return /^CPU implementer\s*:/m.test(cpu.text) ? 'arm64' : 'other';
}

export function cpuFlags(cpuinfo: string): ReadonlySet<string> {
  return new Set((/^flags\s*: (.*)$/m.exec(cpuinfo)?.[1] ?? '').split(' '));
}

function releaseOf(observations: Observations): string | null {
  const release = fact(observations, '/proc/sys/kernel/osrelease');
  return release.state === 'read' && /^[\w.+~-]{1,128}$/.test(release.text) ? release.text : null;
}

/** arch/arm64/kernel/rsi.c makes the platform device; newer kernels an auxiliary one. */
function realmOf(observations: Observations): Evidence | undefined {
  for (const path of [REALM, REALM_FAUX]) {
    if (names(observations, path).state === 'listed') return evidence(path, 'present');
  }
  const auxiliary = names(observations, AUXILIARY);
  if (auxiliary.state !== 'listed') return undefined;
  const name = auxiliary.names.find((one) => /arm[_-]cca/.test(one));
  return name === undefined ? undefined : evidence(`${AUXILIARY}/${name}`, 'present');
}

/** print_mem_encrypt_feature_info(), rsi.c, ms_hyperv_init_platform(). */
function fromLog(text: string): { kind: Confidential; line: string } | undefined {
  for (const line of text.split('\n', 20_000)) {
    const plain = line.replace(/^(<\d+>)?\[ *\d+\.\d+\] /, '');
    const features = /^Memory Encryption Features active: (.{1,80})$/.exec(plain)?.[1];
    if (features !== undefined) {
      const has = (word: string) => features.split(' ').includes(word);
      if (has('TDX')) return { kind: 'tdx', line: plain };
      if (has('SEV-SNP')) return { kind: 'sev-snp', line: plain };
      if (has('SEV-ES')) return { kind: 'sev-es', line: plain };
      if (has('SEV')) return { kind: 'sev', line: plain };
    }
    if (/^RSI: Using RSI version \d/.test(plain)) return { kind: 'cca', line: plain };
    const isolation = /^Hyper-V: Isolation Config: Group A 0x[0-9a-f]{1,8}, Group B 0x([0-9a-f]{1,8})$/.exec(
      plain,
    )?.[1];
    const kind = isolation === undefined ? 0 : Number.parseInt(isolation, 16) & 0xf;
    if (kind === 2) return { kind: 'sev-snp', line: plain };
    if (kind === 3) return { kind: 'tdx', line: plain };
  }
  return undefined;
}
