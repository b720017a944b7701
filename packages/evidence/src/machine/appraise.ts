/** A machine's bundle from its bytes to one verdict. */
import { type AppraiseOptions, appraise } from '../appraise.ts';
import { fromHex } from '../bytes.ts';
import type { Appraisal, Report, ReportedAppraisal } from '../check.ts';
import type { Found } from '../item.ts';
import { HEADER_BESIDE, recognise, withoutHeaders } from '../recognise.ts';
import { timeText } from '../time.ts';
import { bindingDigests, deviceNonce } from './binding.ts';
import type { BundleDevice, MachineBundle } from './bundle.ts';
import { type IdentityTier, type JoinDevice, type JoinVm, joinMachine, type MachineVerdict } from './join.ts';

/** What somebody who knows the kind of device says of it. */
export type DeviceFindings = Pick<
  JoinDevice,
  'appraisal' | 'identity' | 'marks' | 'nonce' | 'interfaceAppraisal' | 'lockedBy'
>;

export interface MachineOptions extends AppraiseOptions {
  readonly tier?: IdentityTier;
  readonly seen?: ReadonlyMap<string, string>;
  /** For kinds that this room does not judge (SPDM), and for interface reports; null where it does not either. */
  readonly judgeDevice?: (device: BundleDevice, nonce: Uint8Array | null) => DeviceFindings | null;
}

export interface MachineReport extends MachineVerdict {
  readonly version: 1;
  readonly asOf: string;
  readonly vm: readonly Appraisal[];
  /** Parts that could not be read. */
  readonly problems: Report['problems'];
}

/** Evidence that states a digest of the verifier's choice. */
const STATED: Readonly<Record<string, { readonly claim: string; readonly form: JoinVm['form'] }>> = {
  'amd-sev-snp': { claim: 'report-data', form: 'report-data' },
  'intel-tdx': { claim: 'report-data', form: 'report-data' },
  'arm-cca': { claim: 'challenge', form: 'report-data' },
  'ibm-se': { claim: 'user-data', form: 'report-data' },
  'tpm-2.0': { claim: 'extra-data', form: 'qualifying-data' },
};

/**
 * `options.nonce` is the verifier's own; the bundle's is not looked at. Beside a TPM the hardware report vouches for the
 * TPM's key, and the TPM's quote is what is bound.
 */
export function appraiseMachine(
  bundle: MachineBundle,
  collateral: readonly Found[],
  options: MachineOptions,
): MachineReport {
  const { nonce, crypto } = options;
  const problems: { file: string; problem: Report['problems'][number]['problem'] }[] = [];
  const read = (name: string, bytes: Uint8Array): Found[] => {
    const { found, problems: wrong } = recognise(name, bytes);
    problems.push(...wrong.map((problem) => ({ file: name, problem })));
    const own = withoutHeaders(found);
    if (own.length < found.length) problems.push({ file: name, problem: HEADER_BESIDE });
    return [...own];
  };
  const parts = bundle.vm.flatMap(({ name, bytes }) => read(name, bytes));
  const digests = nonce === undefined ? null : bindingDigests(crypto, nonce, bundle.devices);
  const { nonce: _, ...withoutNonce } = options;
  const bound =
    digests === null ? withoutNonce : { ...options, nonce: digests.reportData, tpmNonce: digests.qualifyingData };
  const own = appraise(parts, collateral, bound);
  const vm = own?.appraisals ?? [];
  // A report that vouches for a TPM has the digest of the TPM's key where others state the binding.
  const vouching = vm.filter(({ checks }) => checks.some(({ id }) => id === 'azure.runtime-data'));
  const vms = vm.flatMap((appraisal): JoinVm[] => {
    const stated = STATED[appraisal.kind];
    const value = stated === undefined ? undefined : appraisal.claims[stated.claim];
    if (stated === undefined || typeof value !== 'string') return [];
    return vouching.includes(appraisal)
      ? []
      : [{ appraisal, stated: fromHex(value) ?? new Uint8Array(), form: stated.form }];
  });
  // What does not state the digest must be good all the same.
  const silent = vm.filter(({ verdict }) => verdict === 'rejected');
  const wanted = nonce === undefined ? null : deviceNonce(crypto, nonce);
  const devices = bundle.devices.map((device): JoinDevice => {
    const found = findingsOf(device, collateral, options, wanted, read);
    return { ...device, ...found };
  });
  const joined = joinMachine({ ...options, vms, vouching, devices });
  // Where there is more evidence than is looked at, what is left could be the one that is rejected.
  const whole = own === null || own.verdict === 'accepted';
  const sound = silent.length === 0 && whole && problems.length === 0;
  return {
    ...joined,
    verdict: sound ? joined.verdict : 'rejected',
    version: 1,
    asOf: timeText(options.asOf),
    vm,
    problems,
  };
}

function findingsOf(
  device: BundleDevice,
  collateral: readonly Found[],
  options: MachineOptions,
  nonce: Uint8Array | null,
  read: (name: string, bytes: Uint8Array) => Found[],
): DeviceFindings {
  const judged = options.judgeDevice?.(device, nonce) ?? null;
  const none = { appraisal: null, identity: null, nonce: null };
  const nothing: DeviceFindings = { ...none, interfaceAppraisal: null, lockedBy: null };
  if (judged !== null && device.kind !== 'nvidia') return judged;
  if (device.kind !== 'nvidia') return nothing;
  // Nothing else that lies in a device's evidence may stand for the device.
  const found = [
    ...read(`${device.name}: evidence`, device.evidence),
    ...(device.certificates.length === 0 ? [] : read(`${device.name}: certificates`, device.certificates)),
  ].filter(({ item }) => item.kind === 'nvidia-report' || item.kind === 'certificate');
  const reports = found.filter(({ item }) => item.kind === 'nvidia-report');
  const [first] = reports;
  // More than one report under one name: which of them would count?
  if (first?.item.kind !== 'nvidia-report' || reports.length > 1) return nothing;
  const { nonce: _, ...withoutNonce } = options;
  const given = nonce === null ? withoutNonce : { ...options, nonce };
  const [appraisal] = appraise(found, collateral, given)?.appraisals ?? [];
  if (appraisal === undefined) return nothing;
  return {
    appraisal,
    identity: appraisal.identity ?? null,
    nonce: first.item.report.nonce,
    interfaceAppraisal: judged?.interfaceAppraisal ?? null,
    lockedBy: judged?.lockedBy ?? null,
  };
}

/** The same as one report, the machine last: what prints and signs reports needs no other form. */
export function reportOfMachine(machine: MachineReport, source: string): Report {
  const devices = machine.devices.flatMap(({ name, identity, appraisal, interface: its }): ReportedAppraisal[] => {
    const from = `${source}: ${name}`;
    return [
      ...(appraisal === null ? [] : [{ ...appraisal, source: from, ...(identity === null ? {} : { identity }) }]),
      ...(its === null ? [] : [{ ...its, source: from }]),
    ];
  });
  const tiers = Object.fromEntries(
    machine.devices.map(({ name, tier, because }) => [
      name,
      because.length === 0 ? tier : `${tier}: ${because.join('; ')}`,
    ]),
  );
  const whole: ReportedAppraisal = {
    kind: 'machine',
    title: `machine with ${machine.devices.length} ${machine.devices.length === 1 ? 'device' : 'devices'}`,
    verdict: machine.verdict,
    checks: machine.checks,
    claims: { devices: tiers },
    source,
  };
  return {
    version: 1,
    verdict: machine.verdict,
    asOf: machine.asOf,
    appraisals: [...machine.vm.map((one) => ({ ...one, source: `${source}: vm` })), ...devices, whole],
    files: [{ file: source, holds: [`evidence of a machine with ${machine.devices.length} devices`] }],
    problems: machine.problems,
  };
}
