/** What a check is and what it can say. */
import { type Evidence, evidence } from './evidence.ts';
import type { Machine } from './machine.ts';
import type { Observations, Unknown } from './reading.ts';

/** Worst first. */
export const SEVERITIES = ['critical', 'high', 'medium', 'low', 'info'] as const;
export type Severity = (typeof SEVERITIES)[number];

export const AREAS = [
  'memory',
  'devices',
  'drivers',
  'hot-plug',
  'storage',
  'console',
  'host-input',
  'kernel',
  'iommu',
  'time-and-entropy',
  'attestation',
] as const;
export type Area = (typeof AREAS)[number];

export type Verdict =
  | { readonly state: 'found'; readonly evidence: readonly [Evidence, ...Evidence[]] }
  | { readonly state: 'passed'; readonly evidence: readonly Evidence[] }
  | Unknown
  | { readonly state: 'not-applicable'; readonly because: string };

/** One thing that is looked at. Every check ends in exactly one verdict. */
export interface Check {
  /** Stable: scripts and exceptions name it. */
  readonly id: string;
  readonly area: Area;
  /** What is wrong, when it is found. */
  readonly title: string;
  /** In a confidential VM. */
  readonly severity: Severity;
  /** Anywhere else; `null` where it does not matter there. */
  readonly elsewhere: Severity | null;
  readonly looksAt: readonly string[];
  readonly why: string;
  readonly fix: string;
  readonly reference: string;
  readonly run: (observations: Observations, machine: Machine) => Verdict;
}

export interface Finding {
  readonly id: string;
  readonly area: Area;
  readonly severity: Severity;
  readonly title: string;
  readonly evidence: readonly Evidence[];
  readonly why: string;
  readonly fix: string;
  readonly reference: string;
  /** It would weigh more in a confidential VM. */
  readonly lowered: boolean;
}

const EVIDENCE_LIMIT = 32;

/** Found when there is any evidence, else passed with what was seen instead. */
export function verdictOf(found: readonly Evidence[], otherwise: readonly Evidence[]): Verdict {
  const [first, ...rest] = found;
  if (first === undefined) return { state: 'passed', evidence: otherwise.slice(0, EVIDENCE_LIMIT) };
  const shown = rest.slice(0, EVIDENCE_LIMIT - 1);
  const left = rest.length - shown.length;
  return { state: 'found', evidence: [first, ...shown, ...(left > 0 ? [evidence('...', `${left} more`)] : [])] };
}

export function passed(...seen: readonly Evidence[]): Verdict {
  return { state: 'passed', evidence: seen };
}

export function found(first: Evidence, ...more: readonly Evidence[]): Verdict {
  return verdictOf([first, ...more], []);
}

export function notApplicable(because: string): Verdict {
  return { state: 'not-applicable', because };
}

export function unknown(path: string, because: string): Unknown {
  return { state: 'unknown', path, because };
}

/** Kernel documents and Intel's, by the names they have. */
export const REFERENCES = {
  threatModel: 'Documentation/security/snp-tdx-threat-model.rst',
  parameters: 'Documentation/admin-guide/kernel-parameters.txt',
  intelCommandLine: 'Intel TDX Linux Guest Kernel Security Specification, "Kernel command line"',
  intelVirtio: 'Intel TDX Linux Guest Kernel Security Specification, "VirtIO and shared memory"',
  intelStorage: 'Intel TDX Linux Guest Kernel Security Specification, "Storage protection"',
  intelTime: 'Intel TDX Linux Guest Kernel Security Specification, "TSC and other timers"',
  intelRandomness: 'Intel TDX Linux Guest Kernel Security Specification, "Randomness inside TDX guest"',
  intelAcpi: 'Intel TDX Linux Guest Kernel Security Specification, "BIOS-supplied ACPI tables and mappings"',
  intelFilter: 'Intel TDX Linux Guest Kernel Security Specification, "Device filter mechanism"',
} as const;
