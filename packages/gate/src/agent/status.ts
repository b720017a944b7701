/** What is really enforced, as one value. Pure. */
import type { Inventory } from '@airlock/core/device.ts';
import type { TrustLevel } from '@airlock/core/level.ts';
import type { Enforcement, Outcome, OutcomeStatus } from '@airlock/core/plan.ts';
import type { Problem } from '@airlock/core/result.ts';
import type { GrantKind } from '@airlock/policy/grant.ts';
import { describe } from './changes.ts';
import type { GrantRecord } from './grants.ts';
import type { Hold } from './holds.ts';

export interface GrantStatus {
  readonly device: string;
  readonly kind: GrantKind;
  readonly level: TrustLevel;
  /** Milliseconds until it ends; null when no time ends it. */
  readonly remaining: number | null;
  readonly kept: boolean;
  /** Is the device there now? */
  readonly present: boolean;
}

export interface HoldStatus {
  readonly device: string;
  readonly action: Hold['action'];
  readonly violation: string;
  readonly detail: string;
  /** Milliseconds; null when no clock can be read. */
  readonly age: number | null;
  readonly present: boolean;
}

/** One thing that was otherwise. */
export interface Found {
  /** Or `bus:NAME`. */
  readonly device: string;
  readonly what: string;
  /** Was it put right by the end of the first turn? */
  readonly corrected: boolean;
}

export interface DeviceStatus {
  readonly device: string;
  readonly what: string;
  readonly interfaces: readonly string[];
  readonly level: TrustLevel;
  readonly rule: string | null;
  readonly reason: string;
  readonly detail: string;
  readonly status: OutcomeStatus;
  readonly outcomes: readonly Outcome[];
}

export interface Status {
  readonly version: 1;
  /** Who says so. `gate`: no agent runs, and this is what the gate left, read back now; `none`: nobody enforces anything. */
  readonly from: 'agent' | 'gate' | 'none';
  readonly mode: string | null;
  /** Does anything keep it so from now on? */
  readonly enforcing: boolean;
  readonly policy: readonly string[];
  readonly kernel: string | null;
  /** `netlink`, `polling`; null without an agent. */
  readonly uevents: string | null;
  readonly devices: readonly DeviceStatus[];
  /** What holds of the machine as a whole, holes included. */
  readonly machine: readonly Outcome[];
  readonly grants: readonly GrantStatus[];
  /** Devices that misbehaved and are kept out. */
  readonly holds: readonly HoldStatus[];
  /** What the agent found at its start otherwise than the gate, or the agent before it, had left it. */
  readonly found: readonly Found[];
  readonly problems: readonly Problem[];
  /** Events that did not reach the log file. */
  readonly lostEvents: number;
}

export function deviceStatuses(enforcements: readonly Enforcement[], inventory: Inventory | undefined): DeviceStatus[] {
  const devices = new Map(inventory?.devices.map((device) => [device.id, device]));
  return enforcements.map(({ decision, outcomes, status }) => {
    const device = devices.get(decision.device);
    return {
      device: decision.device,
      what: device === undefined ? 'not there now' : describe(device),
      interfaces: device?.interfaces ?? [],
      level: decision.level,
      rule: decision.rule === null ? null : `${decision.rule.id} (${decision.rule.file}:${decision.rule.line})`,
      reason: decision.reason,
      detail: decision.detail,
      status,
      outcomes,
    };
  });
}

/** `uptime` in milliseconds since boot; null when it is not known. */
export function grantStatuses(
  grants: readonly GrantRecord[],
  inventory: Inventory | undefined,
  uptime: number | null,
): GrantStatus[] {
  const present = new Set(inventory?.devices.map(({ id }) => id));
  return grants.map(({ device, kind, level, until, kept }) => ({
    device,
    kind,
    level,
    remaining: until === undefined || uptime === null ? null : Math.max(0, until - uptime),
    kept: kept === true,
    present: present.has(device),
  }));
}

export function holdStatuses(
  holds: readonly Hold[],
  inventory: Inventory | undefined,
  uptime: number | null,
): HoldStatus[] {
  const present = new Set(inventory?.devices.map(({ id }) => id));
  return holds.map(({ device, action, violation, detail, since }) => ({
    device,
    action,
    violation,
    detail,
    age: uptime === null ? null : Math.max(0, uptime - since),
    present: present.has(device),
  }));
}

/** Does everything that the policy asks for hold? `not-enforceable` is a hole that the kernel leaves, and said as such. */
export function worstOf(status: Status): OutcomeStatus {
  const all = [...status.devices.map((device) => device.status), ...status.machine.map((outcome) => outcome.status)];
  return all.includes('failed') ? 'failed' : all.includes('not-enforceable') ? 'not-enforceable' : 'enforced';
}
