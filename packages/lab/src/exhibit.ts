/** What a person brings to the lab beside its own machine (devices, a drive that proves who it is, a TPM), and what it showed. */
import type { Decision } from '@airlock/core/decision.ts';
import type { Result } from '@airlock/core/result.ts';
import type { SandboxLayer } from '@airlock/transport/sandbox.ts';
import type { Guest } from './guest.ts';
import type { Images } from './images.ts';
import type { MachineChange } from './machine.ts';
import type { DriveConduct } from './spdm-drive.ts';

export interface Exhibit {
  readonly step: 'devices' | 'drive' | 'proof';
  /** For a person: what happens when it is shown. */
  readonly title: string;
  /** Ports for hot-plug that it needs. */
  readonly ports: number;
  /** Before the guest boots; `ports` are the names of its own, `folder` is private and ends with the run. */
  prepare(ports: readonly string[], folder: string): Promise<Result<Contribution>>;
  /** In the guest, once the agent is up. */
  show(stage: Stage): Promise<Result<Shown>>;
  close(): Promise<void>;
}

/** What an exhibit changes before the guest boots. */
export interface Contribution {
  readonly machine?: MachineChange;
  /** Rules to come after those of the policy: items of a YAML list, indented by two. */
  readonly rules?: string;
  /** Files that these rules name. */
  readonly files?: Readonly<Record<string, string>>;
}

export interface Stage {
  readonly guest: Guest;
  readonly images: Images;
  /** What the guest booted with. */
  readonly initramfs: string;
  readonly cmdline: string;
  /** Path of the policy, with the rules that were added. */
  readonly policy: string;
  /** A line for whoever looks on. */
  readonly note: (text: string) => void;
}

/** Its part of the report. */
export interface Shown {
  /** What a person calls its devices, by Airlock's id. */
  readonly names?: ReadonlyMap<string, string>;
  readonly plugged?: readonly PluggedDevice[];
  readonly drive?: DriveTour;
  readonly proof?: BootProof;
}

/** A device of ours that was plugged in; what became of it is a line of the report's devices. */
export interface PluggedDevice {
  readonly type: string;
  readonly transport: string;
  /** As Airlock names it; null where the guest did not see it. */
  readonly id: string | null;
  /** What is served, in a few words. */
  readonly what: string;
  /** What confines its process, and what does not. */
  readonly sandbox: readonly SandboxLayer[];
  /** The rule of a policy that lets it in. */
  readonly rule: string;
  /** What its process complained of. */
  readonly complaints: readonly string[];
}

/** The same place in the guest, with one drive after the other in it. */
export interface DriveTour {
  readonly id: string;
  readonly acts: readonly DriveAct[];
}

export interface DriveAct {
  readonly conduct: DriveConduct;
  /** What the agent found out, and the checks that failed when `airlock device attest` asked once more. */
  readonly tier: string;
  readonly because: string;
  readonly failed: readonly FailedCheck[];
  readonly milliseconds: number;
  /** SPDM requests that were answered, by the drive or through the relay. */
  readonly answered: number;
  readonly decision: Pick<Decision, 'level' | 'reason' | 'detail'> & { readonly rule: string | null };
  /** What the guest's sysfs says. */
  readonly driver: string | null;
  /** Did it go as it must: in use when honest (or relayed, which cannot be told), kept out otherwise? */
  readonly asExpected: boolean;
}

/** By a check's name (docs/checks.md), or by the code of what ended the exchange. */
export interface FailedCheck {
  readonly id: string;
  /** Where there is more than one. */
  readonly subject: string | null;
  readonly expected: string;
  readonly found: string;
}

/** What the guest's TPM proves of its boot, judged outside. */
export interface BootProof {
  readonly cmdline: string;
  /** SHA-256 of the initramfs that was built. */
  readonly initramfs: string;
  readonly verdicts: readonly ProofVerdict[];
}

export interface ProofVerdict {
  /** What was expected of the boot. */
  readonly against: 'what was started' | 'another command line' | 'another policy' | 'another nonce';
  readonly accepted: boolean;
  /** Checks that failed, with what they found. */
  readonly failed: readonly string[];
  readonly asExpected: boolean;
}
