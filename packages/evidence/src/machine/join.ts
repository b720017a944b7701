/**
 * One verdict for a machine: its VM's evidence and its devices', held together. Attestation of a device alone says that
 * such a device exists somewhere; here it must be fresh, be covered by the VM's own evidence, be one device and no other's,
 * and, to be bound, be locked to this VM.
 */
import { hex } from '@airlock/core/bytes.ts';
import { sameBytes } from '../bytes.ts';
import type { CheckId } from '../catalogue.ts';
import { type Appraisal, type Check, createChecklist, type Verdict, verdictOf } from '../check.ts';
import type { Crypto } from '../crypto.ts';
import { type BoundDevice, bindingDigests, deviceNonce } from './binding.ts';

/** Lowest first. */
export const IDENTITY_TIERS = ['location', 'claimed', 'measured', 'attested', 'bound'] as const;
export type IdentityTier = (typeof IDENTITY_TIERS)[number];

export interface JoinVm {
  readonly appraisal: Appraisal;
  /** REPORT_DATA, challenge or qualifying data, as the evidence states it. */
  readonly stated: Uint8Array;
  readonly form: 'report-data' | 'qualifying-data';
}

/** A device's evidence, appraised by whoever knows its kind. */
export interface JoinDevice extends BoundDevice {
  /** Null: nobody here knows how to judge it. */
  readonly appraisal: Appraisal | null;
  /** Digest of the key that signed, in hex; null when no signature is good. Two devices never have the same. */
  readonly identity: string | null;
  /** What else only one device has, in words: a serial number, a key that vouches for several of its keys. */
  readonly marks?: readonly string[];
  /** The requester's nonce that the evidence covers; null when it covers none. */
  readonly nonce: Uint8Array | null;
  /** Null: nobody compared the interface report with the function. */
  readonly interfaceAppraisal: Appraisal | null;
  /**
   * Who locked it, as the evidence records it: the platform’s TSM through the VM’s kernel, or a session that somebody in
   * the VM made, which anybody may relay. Null: nobody says.
   */
  readonly lockedBy: 'tsm' | 'requester' | null;
}

export interface JoinInput {
  readonly crypto: Crypto;
  readonly vms: readonly JoinVm[];
  /** Accepted or not: the VM’s evidence that states nothing itself, but vouches for a TPM that does. */
  readonly vouching?: readonly Appraisal[];
  readonly devices: readonly JoinDevice[];
  /** The verifier's own, not the one that the bundle says. */
  readonly nonce?: Uint8Array;
  /** Every device must have this; `attested` when not said. */
  readonly tier?: IdentityTier;
  /** Devices that were shown by other machines before, identity to whose: a relay shows. */
  readonly seen?: ReadonlyMap<string, string>;
  readonly allowed?: ReadonlySet<string>;
}

export interface DeviceVerdict {
  readonly name: string;
  readonly tier: IdentityTier;
  /** What keeps it from a higher one; empty when it is bound. */
  readonly because: readonly string[];
  readonly identity: string | null;
  readonly appraisal: Appraisal | null;
  /** Of its interface, where one is shown and somebody compared it. */
  readonly interface: Appraisal | null;
}

export interface MachineVerdict {
  readonly verdict: Verdict;
  readonly checks: readonly Check[];
  readonly devices: readonly DeviceVerdict[];
}

export function joinMachine(input: JoinInput): MachineVerdict {
  const { crypto, vms, devices, nonce } = input;
  const list = createChecklist(input.allowed);
  const good = vms.filter(({ appraisal }) => appraisal.verdict === 'accepted');
  list.check('machine.vm', vms.length > 0 && good.length === vms.length, {
    expected: 'evidence of the VM, accepted',
    found:
      vms.length === 0 ? 'none' : vms.map(({ appraisal }) => `${appraisal.title}: ${appraisal.verdict}`).join('; '),
  });
  const covered = nonce === undefined ? false : checkBinding(input, list, nonce);
  if (nonce === undefined) {
    list.check('machine.binding', false, {
      expected: 'a nonce of the verifier’s, from which what binds the evidence together is made',
      found: 'none was given',
      hint: 'give the nonce that the evidence was collected with: --nonce',
    });
  }
  const vmGood = vms.length > 0 && good.length === vms.length && covered;
  const wanted = nonce === undefined ? null : deviceNonce(crypto, nonce);
  const repeated = repetitions(crypto, devices);
  const launch = !vmGood
    ? 'the VM’s evidence does not vouch for it'
    : (waivedIn([...vms.map(({ appraisal }) => appraisal), ...(input.vouching ?? [])]) ??
      (knownSoftware(vms, input.vouching ?? [])
        ? null
        : 'nobody compared what the VM runs, and any guest can say that its device is locked'));
  const verdicts = devices.map((device) => judge(input, list, device, { vmGood, wanted, repeated, launch }));
  return { verdict: verdictOf(list.checks), checks: list.checks, devices: verdicts };
}

type List = ReturnType<typeof createChecklist>;

/** Evidence of hardware that keeps a VM's memory from its host. */
const CONFIDENTIAL: readonly string[] = ['amd-sev-snp', 'intel-tdx', 'arm-cca', 'ibm-se'];

/** What was waived of the VM, in words: a host that may debug or move it changes what it says. */
function waivedIn(appraisals: readonly Appraisal[]): string | null {
  const waived = appraisals.flatMap(({ checks }) =>
    checks.filter(({ status }) => status === 'allowed').map(({ id }) => id),
  );
  return waived.length === 0 ? null : `of the VM it was allowed that ${[...new Set(waived)].join(', ')} fails`;
}

/**
 * Does the verifier know which software says what the statement says? What a kernel writes about its devices is worth as
 * much as the kernel: a confidential VM whose launch was compared, down to the kernel; or one that vouches for the TPM
 * whose PCRs of the kernel were compared, besides its own launch.
 */
function knownSoftware(vms: readonly JoinVm[], vouching: readonly Appraisal[]): boolean {
  const known = (one: Appraisal) => CONFIDENTIAL.includes(one.kind) && launchCompared(one) && kernelCompared(one);
  if (vms.some(({ appraisal }) => known(appraisal))) return true;
  const vouchers = vouching.filter(({ kind }) => CONFIDENTIAL.includes(kind));
  const good = vouchers.length > 0 && vouchers.every((one) => one.verdict === 'accepted' && launchCompared(one));
  return good && vms.some(({ appraisal }) => appraisal.kind === 'tpm-2.0' && kernelCompared(appraisal));
}

/**
 * Where the kernel is measured when the launch digest is that of the firmware alone, which loads any kernel that the host
 * puts on its disk: a TD's RTMRs, a TPM's PCR 4 and what holds command line and initramfs. The values that a set of
 * reference values compared are told in its check.
 */
const KERNEL: Readonly<Partial<Record<string, readonly RegExp[]>>> = {
  'intel-tdx': [/\brtmr1\b/, /\brtmr2\b/],
  'tpm-2.0': [/\bpcr4\b/, /\bpcr(?:8|9|11|12)\b/],
};

function kernelCompared({ kind, checks }: Appraisal): boolean {
  const wanted = KERNEL[kind] ?? [];
  const compared = checks.filter(({ id, status }) => id === 'reference.value' && status === 'passed');
  return wanted.every((value) => compared.some(({ found }) => value.test(found)));
}

/** Kinds that always say whether their launch digest was compared; of Secure Execution se.measurement says it. */
const BY_SET: readonly string[] = ['amd-sev-snp', 'intel-tdx', 'arm-cca'];

function launchCompared(appraisal: Appraisal): boolean {
  const { checks } = appraisal;
  // A set of reference values with the launch digest in it takes the unchecked one away.
  const bySet =
    BY_SET.includes(appraisal.kind) &&
    passed(appraisal, 'reference.value') &&
    !checks.some(({ id }) => id === 'launch.measurement');
  const byPolicy = checks.some(
    ({ id, status, subject }) => id === 'policy.platform' && subject === 'measurements' && status === 'passed',
  );
  return passed(appraisal, 'launch.measurement') || passed(appraisal, 'se.measurement') || bySet || byPolicy;
}

function passed({ checks }: Appraisal, id: CheckId): boolean {
  return checks.some((check) => check.id === id && check.status === 'passed');
}

function checkBinding({ crypto, vms, devices }: JoinInput, list: List, nonce: Uint8Array): boolean {
  const digests = bindingDigests(crypto, nonce, devices);
  const wrong = vms.filter(({ stated, form }) => {
    const digest = form === 'report-data' ? digests.reportData : digests.qualifyingData;
    return !sameBytes(stated, digest);
  });
  const covered = vms.length > 0 && wrong.length === 0;
  list.check('machine.binding', covered, {
    expected: `the digest over the nonce and ${devices.length} devices: REPORT_DATA ${hex(digests.reportData).slice(0, 32)}…, or a quote’s data ${hex(digests.qualifyingData).slice(0, 32)}…`,
    found: covered
      ? 'the same'
      : wrong.map(({ stated }) => `${hex(stated).slice(0, 32)}…`).join(', ') || 'no VM evidence',
  });
  return covered;
}

/**
 * Names of devices that show the same key, evidence or mark as another: which one, and what. Two slots of one device with
 * keys of their own, and nothing in their certificates that both have, cannot be told from two devices.
 */
function repetitions(crypto: Crypto, devices: readonly JoinDevice[]): ReadonlyMap<string, Repetition> {
  const first = new Map<string, string>();
  const repeated = new Map<string, Repetition>();
  for (const { name, identity, evidence, marks = [] } of devices) {
    const ids = [
      `evidence ${hex(crypto.hash('sha384', evidence))}`,
      ...(identity === null ? [] : [`key ${identity}`]),
      ...marks,
    ];
    for (const id of ids) {
      const before = first.get(id);
      if (before === undefined) first.set(id, name);
      else if (before !== name) {
        const what = marks.includes(id) ? `: both have ${id.slice(0, MARK_SHOWN)}` : '';
        if (!repeated.has(name)) repeated.set(name, { other: before, what });
        if (!repeated.has(before)) repeated.set(before, { other: name, what });
      }
    }
  }
  return repeated;
}

const MARK_SHOWN = 96;

interface Repetition {
  readonly other: string;
  /** Nothing to say where key or evidence are the same. */
  readonly what: string;
}

interface Around {
  readonly vmGood: boolean;
  readonly wanted: Uint8Array | null;
  readonly repeated: ReadonlyMap<string, Repetition>;
  /** Why the software that speaks of interfaces cannot be believed; null where it can. */
  readonly launch: string | null;
}

function judge(input: JoinInput, list: List, device: JoinDevice, around: Around): DeviceVerdict {
  const { name, appraisal, identity } = device;
  const because: string[] = [];
  const accepted = appraisal?.verdict === 'accepted' && identity !== null;
  list.check('machine.device', accepted, {
    subject: name,
    expected: 'evidence that is accepted, signed with the device’s key',
    found: accepted
      ? (appraisal?.title ?? '')
      : appraisal === null
        ? 'evidence of a kind that nothing here judges'
        : appraisal.verdict === 'accepted'
          ? 'no key that signed it'
          : failuresOf(appraisal),
  });
  if (!accepted) because.push(appraisal === null ? 'its evidence was not judged' : 'its own evidence is rejected');
  const fresh = around.wanted !== null && device.nonce !== null && sameBytes(around.wanted, device.nonce);
  list.check('machine.nonce', fresh, {
    subject: name,
    expected: around.wanted === null ? 'the verifier’s nonce' : `${hex(around.wanted)}, made from the verifier’s nonce`,
    found: fresh ? 'the same' : device.nonce === null ? 'its evidence covers no nonce' : hex(device.nonce),
  });
  if (!fresh) because.push('its evidence is not fresh: it covers another nonce');
  const other = around.repeated.get(name);
  list.check('machine.distinct', other === undefined, {
    subject: name,
    expected: 'a device of its own',
    found: other === undefined ? 'shown once' : `the device that is shown as ${other.other}, too${other.what}`,
  });
  if (other !== undefined) because.push(`it is shown as ${other.other}, too`);
  const owner = identity === null ? undefined : input.seen?.get(identity);
  if (input.seen !== undefined) {
    list.check('machine.relay', owner === undefined, {
      subject: name,
      expected: 'a device that no other machine shows',
      found: owner === undefined ? 'not seen elsewhere' : `shown by ${owner}`,
    });
    if (owner !== undefined) because.push(`${owner} shows it, too: one of the two relays`);
  }
  if (!around.vmGood) because.push('the VM’s evidence does not vouch for it');
  const attested = because.length === 0;
  const bound = attested && isBound(list, device, around.launch, because);
  const tier: IdentityTier = bound ? 'bound' : attested ? 'attested' : 'claimed';
  const least = input.tier ?? 'attested';
  list.check('machine.tier', IDENTITY_TIERS.indexOf(tier) >= IDENTITY_TIERS.indexOf(least), {
    subject: name,
    expected: `${least} or more`,
    found: because.length === 0 ? tier : `${tier}: ${because.join('; ')}`,
  });
  return { name, tier, because, identity, appraisal, interface: device.interfaceAppraisal };
}

/** Locked to this VM: adds to `because` what is not so. */
function isBound(list: List, device: JoinDevice, launch: string | null, because: string[]): boolean {
  const { name, interface: locked, interfaceAppraisal, lockedBy } = device;
  if (locked === null) {
    because.push(
      'it is not locked to this VM (no TDISP): another device may do its DMA, and its evidence may be relayed',
    );
    return false;
  }
  const byTsm = lockedBy === 'tsm';
  list.check('machine.lock', byTsm, {
    subject: name,
    expected: 'the VM’s kernel says that the platform’s TSM locked it',
    found: byTsm
      ? 'it does'
      : lockedBy === null
        ? 'nobody says who locked it'
        : 'a session that somebody in the VM made',
  });
  if (!byTsm) because.push('the platform’s TSM did not lock it: another device may do its DMA');
  const runs = { subject: name, expected: 'a confidential VM whose launch was compared, down to its kernel' };
  // What keeps it from being bound need not keep it from being attested.
  if (launch === null) list.check('machine.launch', true, { ...runs, found: 'compared' });
  else {
    list.unchecked('machine.launch', { ...runs, found: launch });
    because.push(launch);
  }
  const { state } = locked;
  const running = state === 'RUN';
  list.check('machine.tdisp', running, {
    subject: name,
    expected: 'RUN: the interface is locked and started',
    found: state,
  });
  if (!running) because.push(`its interface is in ${state}, not in RUN`);
  const compared = interfaceAppraisal?.verdict === 'accepted' && passed(interfaceAppraisal, 'tdisp.ranges');
  list.check('machine.interface', compared, {
    subject: name,
    expected: 'an interface report that fits the function',
    found:
      interfaceAppraisal === null
        ? 'nobody compared it'
        : compared
          ? 'it fits'
          : interfaceAppraisal.verdict === 'accepted'
            ? 'it was compared with nothing'
            : failuresOf(interfaceAppraisal),
  });
  if (!compared) because.push('its interface report was not found to fit');
  return byTsm && launch === null && running && compared;
}

function failuresOf({ checks }: Appraisal): string {
  return [...new Set(checks.filter(({ status }) => status === 'failed').map(({ id }) => id))].join(', ') || 'rejected';
}
