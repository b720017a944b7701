/** What came of a run: one plain value, made of what was read back from the guest. Pure. */
import type { ReasonCode } from '@airlock/core/decision.ts';
import { isConnected, type TrustLevel } from '@airlock/core/level.ts';
import type { Enforcement, OutcomeStatus } from '@airlock/core/plan.ts';
import type { Accelerator } from './accelerator.ts';
import type { GateSummary } from './airlock-state.ts';
import type { AttemptResult } from './attempts.ts';
import type { Kernel } from './cache.ts';
import type { BootProof, DriveTour, PluggedDevice, Shown } from './exhibit.ts';
import { deviceName } from './machine.ts';
import { driverOf, type View } from './view.ts';

export interface DeviceLine {
  readonly id: string;
  readonly name: string;
  readonly origin: 'boot' | 'hotplug';
  readonly level: TrustLevel;
  readonly rule: string | null;
  readonly reason: ReasonCode;
  readonly detail: string;
  /** What Airlock says. */
  readonly status: OutcomeStatus;
  /** Why not, for each outcome that is not `enforced`. */
  readonly because: readonly string[];
  /** What the guest's sysfs says. */
  readonly driver: string | null;
  /** The same device in the guest without the gate; absent without `--compare`. */
  readonly without?: string | null;
  /** Whether what Airlock says and what sysfs says go together. */
  readonly agrees: boolean;
}

export interface LabReport {
  readonly version: 1;
  readonly kernel: { readonly series: string; readonly release: string };
  readonly accelerator: Accelerator;
  readonly policy: string;
  /** Rules that came after the policy's own, for what was brought to the lab; YAML. */
  readonly added: string | null;
  readonly mode: string;
  readonly gateMilliseconds: number;
  readonly problems: GateSummary['problems'];
  /** What the gate says of the machine as a whole. */
  readonly machine: GateSummary['machine'];
  /** `null` when the agent answered, else its last words. */
  readonly agentFault: string | null;
  readonly devices: readonly DeviceLine[];
  readonly attempts: readonly AttemptResult[];
  /** PCI functions in the guest of which Airlock says nothing at all. */
  readonly undecided: readonly string[];
  /** What was brought to the lab; empty or null where nothing was. */
  readonly plugged: readonly PluggedDevice[];
  readonly drive: DriveTour | null;
  readonly proof: BootProof | null;
  /**
   * True when every denied device is without a driver, every allowed one has one, and Airlock says so; and when what was
   * brought to the lab behaved as it must.
   */
  readonly held: boolean;
  readonly seconds: number;
}

export interface ReportParts {
  readonly gate: GateSummary;
  readonly agent: string | null;
  readonly known: ReadonlySet<string>;
  readonly attempts: readonly AttemptResult[];
  readonly shown: readonly Shown[];
  readonly view: View;
  readonly enforcement: readonly Enforcement[];
  readonly without: View | undefined;
  readonly kernel: Pick<Kernel, 'series' | 'release'>;
  readonly accelerator: Accelerator;
  readonly policy: string;
  readonly added: string | null;
  readonly seconds: number;
}

export function reportOf(parts: ReportParts): LabReport {
  const names = new Map(parts.shown.flatMap((one) => [...(one.names ?? [])]));
  const devices = parts.enforcement
    .map((enforcement) => deviceLine(enforcement, parts, names))
    .sort((a, b) => order(a.id) - order(b.id) || (a.id < b.id ? -1 : 1));
  const decided = new Set(devices.map((device) => device.id));
  const plugged = parts.shown.flatMap((one) => one.plugged ?? []);
  const drive = parts.shown.find((one) => one.drive !== undefined)?.drive ?? null;
  const proof = parts.shown.find((one) => one.proof !== undefined)?.proof ?? null;
  const undecided = parts.view.pci.map((device) => device.id).filter((id) => !decided.has(id));
  return {
    version: 1,
    kernel: { series: parts.kernel.series, release: parts.kernel.release },
    accelerator: parts.accelerator,
    policy: parts.policy,
    added: parts.added,
    mode: parts.gate.mode,
    gateMilliseconds: parts.gate.milliseconds,
    problems: parts.gate.problems,
    machine: parts.gate.machine,
    agentFault: parts.agent,
    devices,
    attempts: parts.attempts,
    undecided,
    plugged,
    drive,
    proof,
    held:
      parts.agent === null &&
      undecided.length === 0 &&
      devices.every((device) => device.agrees && device.status !== 'failed') &&
      parts.attempts.every((attempt) => attempt.left.length === 0) &&
      plugged.every(({ id }) => id !== null) &&
      (drive?.acts ?? []).every((act) => act.asExpected) &&
      (proof?.verdicts ?? []).every((verdict) => verdict.asExpected),
    seconds: parts.seconds,
  };
}

function deviceLine(
  { decision, outcomes, status }: Enforcement,
  parts: ReportParts,
  names: ReadonlyMap<string, string>,
): DeviceLine {
  const driver = driverOf(parts.view, decision.device) ?? null;
  const pci = parts.view.pci.find((device) => device.id === decision.device);
  const touched = pci?.nodes.some((node) => node.driver !== null) ?? driver !== null;
  // A bridge is allowed without a driver of its own; whatever else is allowed must be usable.
  const asDecided = isConnected(decision.level) ? driver !== null || isBridge(pci?.ids.class) : !touched;
  return {
    id: decision.device,
    name: names.get(decision.device) ?? deviceName(decision.device),
    origin: pci !== undefined && !parts.known.has(decision.device) ? 'hotplug' : 'boot',
    level: decision.level,
    rule: decision.rule?.id ?? null,
    reason: decision.reason,
    detail: decision.detail,
    status,
    because: outcomes
      .filter((outcome) => outcome.status !== 'enforced')
      .map(({ property, because }) => because ?? property),
    driver,
    ...(parts.without ? { without: driverOf(parts.without, decision.device) ?? null } : {}),
    // Where Airlock itself says that this machine cannot hold it, the report is honest and the line agrees.
    agrees: asDecided || status !== 'enforced',
  };
}

function isBridge(pciClass: number | undefined): boolean {
  return pciClass !== undefined && pciClass >> 16 === 0x06;
}

/** PCI functions first. */
function order(id: string): number {
  return id.startsWith('pci:') ? 0 : 1;
}
