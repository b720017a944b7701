/** The report as people read it: worst first, short, evidence before advice. */
import { wrapText } from '@airlock/core/wrap.ts';
import { printable } from '../attribute.ts';
import type { Evidence } from './evidence.ts';
import type { Finding, Severity } from './finding.ts';
import { CONFIDENTIAL_NAMES } from './machine.ts';
import type { AuditReport } from './report.ts';

export interface TextOptions {
  readonly colour: boolean;
  readonly columns: number;
  /** Also what passed, with its evidence, and what does not apply. */
  readonly verbose: boolean;
}

/** One finding with many devices shows this many; --json has them all. */
const EVIDENCE_SHOWN = 6;
/** Wide enough for the longest id. */
const LIST_INDENT = 32;
const HEAD_INDENT = 19;
const COLOURS: Readonly<Record<Severity, number>> = { critical: 31, high: 31, medium: 33, low: 36, info: 2 };

export function reportText(report: AuditReport, { colour, columns, verbose }: TextOptions): string {
  const width = Math.max(40, Math.min(columns, 120));
  const paint = (code: number, text: string) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
  const out: string[] = [...machineText(report, width)];

  let severity: Severity | undefined;
  for (const finding of report.findings) {
    if (finding.severity !== severity) {
      severity = finding.severity;
      out.push('', paint(COLOURS[severity], severity.toUpperCase()));
    }
    out.push(...findingText(finding, width, paint));
  }

  if (verbose) {
    out.push('', 'PASSED');
    for (const { id, evidence } of report.passed) {
      out.push(...labelled(id, evidence.slice(0, EVIDENCE_SHOWN).map(show).join('; '), width));
    }
  }
  if (report.notChecked.length > 0) {
    out.push('', 'NOT CHECKED');
    out.push(
      ...byReason(
        report.notChecked.map(({ id, path, because }) => [id, `${path}: ${because}`]),
        width,
      ),
    );
  }
  if (verbose && report.notApplicable.length > 0) {
    out.push('', 'DOES NOT APPLY HERE');
    out.push(
      ...byReason(
        report.notApplicable.map(({ id, because }) => [id, because]),
        width,
      ),
    );
  }
  out.push('', summary(report, verbose));
  return `${out.join('\n')}\n`;
}

function machineText({ machine, posture }: AuditReport, width: number): string[] {
  const { confidential, how, missing, hypervisor } = machine;
  const kind = machine.virtual === false ? 'bare metal' : machine.virtual === null ? 'machine' : 'virtual machine';
  const answer =
    confidential === 'none'
      ? `no, an ordinary ${kind}${hypervisor === null ? '' : ` (${hypervisor})`}`
      : confidential === 'unknown'
        ? `not known${missing === null ? '' : ` (${missing.path}: ${missing.because})`}`
        : `yes, ${CONFIDENTIAL_NAMES[confidential]}`;
  const lines = [
    ...labelled('confidential VM', answer, width, HEAD_INDENT),
    ...(how.length === 0 ? [] : labelled('  seen in', how.map(show).join('; '), width, HEAD_INDENT)),
  ];
  if (machine.release !== null) lines.push(...labelled('kernel', printable(machine.release), width, HEAD_INDENT));
  for (const { name, value } of posture) lines.push(...labelled(name, printable(value), width, HEAD_INDENT));
  if (machine.attestation.length > 0) {
    lines.push(...labelled('attestation', machine.attestation.join(', '), width, HEAD_INDENT));
  }
  const weighed =
    confidential === 'none'
      ? machine.judgedConfidential
        ? 'as a confidential VM, as asked for'
        : 'as an ordinary machine: its host is trusted (--confidential weighs it as a confidential VM)'
      : confidential === 'unknown'
        ? 'as a confidential VM, since it may be one'
        : undefined;
  if (weighed !== undefined) lines.push(...labelled('weighed', weighed, width, HEAD_INDENT));
  return lines;
}

function findingText(finding: Finding, width: number, paint: (code: number, text: string) => string): string[] {
  const shown = finding.evidence.slice(0, EVIDENCE_SHOWN);
  const left = finding.evidence.length - shown.length;
  return [
    `  ${paint(1, finding.title)}  [${finding.id}]`,
    ...shown.flatMap((one) =>
      wrapText(show(one), width - 6).map((line, i) => `${i === 0 ? '    | ' : '    |   '}${line}`),
    ),
    ...(left > 0 ? [`    | ... and ${left} more (--json lists them)`] : []),
    ...(finding.severity === 'info' ? [] : labelled('    why', finding.why, width, 8)),
    ...labelled('    fix', finding.fix, width, 8),
    ...(finding.severity === 'info' ? [] : labelled('    see', finding.reference, width, 8)),
  ];
}

/** A reason that holds for several checks stands once. */
function byReason(pairs: readonly (readonly [id: string, reason: string])[], width: number): string[] {
  const reasons = new Map<string, string[]>();
  for (const [id, reason] of pairs) reasons.set(reason, [...(reasons.get(reason) ?? []), id]);
  return [...reasons].flatMap(([reason, ids]) => {
    const [first = '', ...more] = ids;
    if (more.length === 0) return labelled(first, reason, width);
    return [...labelled('', reason, width, 2), ...labelled('', ids.join(', '), width, 6)];
  });
}

function summary({ counts, findings, passed, notChecked, notApplicable }: AuditReport, verbose: boolean): string {
  const worst = (['critical', 'high', 'medium', 'low', 'info'] as const)
    .filter((severity) => counts[severity] > 0)
    .map((severity) => `${counts[severity]} ${severity}`);
  const found = findings.length === 0 ? 'Nothing found' : `Found ${worst.join(', ')}`;
  const rest = [
    `${passed.length} passed`,
    `${notChecked.length} not checked`,
    `${notApplicable.length} not applicable`,
  ];
  return `${found}; ${rest.join(', ')}.${verbose ? '' : ' --verbose shows what passed.'}`;
}

function show({ path, value }: Evidence): string {
  return `${path}: ${value}`;
}

/** A label and a text beside it, wrapped with a hanging indent. */
function labelled(label: string, text: string, width: number, indent = LIST_INDENT): string[] {
  const head = (indent === LIST_INDENT ? `  ${label}` : label).padEnd(indent);
  const lines = wrapText(text, width - indent);
  const [first = '', ...more] = lines;
  return head.length > indent || !head.endsWith(' ')
    ? [head, ...lines.map((line) => `${' '.repeat(indent)}${line}`)]
    : [`${head}${first}`.trimEnd(), ...more.map((line) => `${' '.repeat(indent)}${line}`)];
}
