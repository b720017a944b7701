/** Observations, judged: what was found, what was fine, what could not be checked. Pure and total. */
import { printable } from '../attribute.ts';
import { CHECKS } from './catalogue.ts';
import { attestationInterfaces } from './checks/attestation.ts';
import type { Evidence } from './evidence.ts';
import { type Check, type Finding, SEVERITIES, type Severity } from './finding.ts';
import { identifyMachine, type Machine } from './machine.ts';
import { type PostureLine, postureOf } from './posture.ts';
import type { Observations } from './reading.ts';

export interface AuditReport {
  readonly version: 1;
  readonly machine: Machine & { readonly attestation: readonly string[] };
  readonly posture: readonly PostureLine[];
  /** Worst first; within a severity in the order of the catalogue. */
  readonly findings: readonly Finding[];
  readonly passed: readonly { readonly id: string; readonly evidence: readonly Evidence[] }[];
  /** What was looked for where, and why it could not be read. Neither a finding nor a pass. */
  readonly notChecked: readonly { readonly id: string; readonly path: string; readonly because: string }[];
  readonly notApplicable: readonly { readonly id: string; readonly because: string }[];
  readonly counts: Readonly<Record<Severity, number>>;
}

export interface JudgeOptions {
  /** Weigh in full although this is not known to be a confidential VM (an image that will run as one). */
  readonly asConfidential?: boolean;
}

export function judge(
  observations: Observations,
  options: JudgeOptions = {},
  checks: readonly Check[] = CHECKS,
): AuditReport {
  const machine = identifyMachine(observations, options.asConfidential);
  const findings: Finding[] = [];
  const passed: { id: string; evidence: readonly Evidence[] }[] = [];
  const notChecked: { id: string; path: string; because: string }[] = [];
  const notApplicable: { id: string; because: string }[] = [];
  for (const check of checks) {
    const severity = machine.judgedConfidential ? check.severity : check.elsewhere;
    if (severity === null) {
      notApplicable.push({ id: check.id, because: 'matters in a confidential VM only' });
      continue;
    }
    const verdict = check.run(observations, machine);
    if (verdict.state === 'unknown') {
      notChecked.push({ id: check.id, path: printable(verdict.path), because: printable(verdict.because) });
    } else if (verdict.state === 'passed') passed.push({ id: check.id, evidence: verdict.evidence });
    else if (verdict.state === 'not-applicable') notApplicable.push({ id: check.id, because: verdict.because });
    else {
      const { id, area, title, why, fix, reference } = check;
      const lowered = severity !== check.severity;
      findings.push({ id, area, severity, title, evidence: verdict.evidence, why, fix, reference, lowered });
    }
  }
  findings.sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  const count = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  return {
    version: 1,
    machine: { ...machine, attestation: attestationInterfaces(observations) },
    posture: postureOf(observations, machine),
    findings,
    passed,
    notChecked,
    notApplicable,
    counts: {
      critical: count('critical'),
      high: count('high'),
      medium: count('medium'),
      low: count('low'),
      info: count('info'),
    },
  };
}

/** Was anything of the machine readable at all? */
export function sawAnything(observations: Observations): boolean {
  return ['/proc/cmdline', '/proc/cpuinfo', '/proc/self/mountinfo', '/sys/kernel/security/lockdown'].some(
    (path) => observations.files[path]?.state === 'read',
  );
}

/** Findings at or above a severity. */
export function findingsFrom(report: AuditReport, least: Severity): readonly Finding[] {
  return report.findings.filter((finding) => SEVERITIES.indexOf(finding.severity) <= SEVERITIES.indexOf(least));
}
