/** A report as people read it: the verdict, then every reason, then what was proven. */
import { formatProblem } from '@airlock/core/result.ts';
import { CHECKS, type CheckId } from './catalogue.ts';
import type { Check, CheckStatus, Claim, Report, ReportedAppraisal } from './check.ts';

export interface TextOptions {
  readonly colour: boolean;
  readonly columns: number;
  /** Also each check that passed, and every claim. */
  readonly verbose: boolean;
}

type Paint = (code: number, text: string) => string;

const RED = 31;
const GREEN = 32;
const YELLOW = 33;
const DIM = 2;
const BOLD = 1;
const MARKS: Readonly<Record<CheckStatus, { readonly mark: string; readonly colour: number }>> = {
  failed: { mark: '✗', colour: RED },
  allowed: { mark: '!', colour: YELLOW },
  unchecked: { mark: '?', colour: YELLOW },
  noted: { mark: 'i', colour: YELLOW },
  passed: { mark: '✓', colour: GREEN },
};
/** What most people look for; the rest is in --verbose and --json. */
const SHOWN: readonly string[] = [
  'measurement',
  'mrtd',
  'report-data',
  'extra-data',
  'tcb',
  'policy',
  'attributes',
  'pcrs',
  'devices',
];

export function reportText(report: Report, { colour, columns, verbose }: TextOptions): string {
  const width = Math.max(60, Math.min(columns, 120));
  const paint: Paint = (code, text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
  const good = report.verdict === 'accepted';
  const out = [`${paint(good ? GREEN : RED, paint(BOLD, report.verdict.toUpperCase()))}  as of ${report.asOf}`];
  const open = good ? openQuestions(report) : [];
  if (open.length > 0)
    out.push(...wrap(`Not asked, so not known: ${open.join('; ')}.`, 0, width).map((line) => paint(YELLOW, line)));
  for (const appraisal of report.appraisals) out.push('', ...appraisalText(appraisal, width, verbose, paint));
  for (const { file, problem } of report.problems) {
    out.push('', `${paint(RED, '✗')} ${file}`, ...wrap(formatProblem(problem), 4, width));
  }
  return `${out.map(plain).join('\n')}\n`;
}

/** What an accepted verdict does not say, because nobody asked: it is easily read into the word. */
const OPEN: Readonly<Partial<Record<CheckId, string>>> = {
  'freshness.nonce': 'whether it is fresh, and this machine’s (--nonce)',
  'reference.used': 'what evidence of another kind says, that reference values were given for (reference.used)',
  'launch.measurement': 'what runs there (--measurement, --reference)',
};

function openQuestions({ appraisals }: Report): string[] {
  const unchecked = new Set(
    appraisals.flatMap(({ checks }) => checks.filter(({ status }) => status === 'unchecked').map(({ id }) => id)),
  );
  return [...unchecked].flatMap((id) => OPEN[id] ?? []);
}

function appraisalText(appraisal: ReportedAppraisal, width: number, verbose: boolean, paint: Paint): string[] {
  const good = appraisal.verdict === 'accepted';
  const out = [
    `${paint(good ? GREEN : RED, appraisal.verdict)}  ${paint(BOLD, appraisal.title)}`,
    paint(DIM, `          from ${appraisal.source}`),
  ];
  for (const status of ['failed', 'allowed', 'unchecked', 'noted'] as const) {
    for (const check of appraisal.checks)
      if (check.status === status) out.push(...checkText(check, width, verbose, paint));
  }
  const passed = appraisal.checks.filter(({ status }) => status === 'passed');
  if (verbose) for (const check of passed) out.push(...checkText(check, width, verbose, paint));
  else if (passed.length > 0) out.push(...passedText(passed, width, paint));
  const claims = Object.entries(appraisal.claims).filter(([name]) => verbose || SHOWN.includes(name));
  if (claims.length > 0) {
    out.push('', good ? '  it states' : '  it states (not to be believed)');
    for (const [name, claim] of claims) out.push(...claimText(name, claim, width));
  }
  return out;
}

function checkText(check: Check, width: number, verbose: boolean, paint: Paint): string[] {
  const { mark, colour } = MARKS[check.status];
  const subject = check.subject === undefined ? '' : `  ${check.subject}`;
  const head = `  ${paint(colour, mark)} ${paint(BOLD, check.id)}${paint(DIM, subject)}`;
  // What rejects nothing is told in short.
  if (!verbose && (check.status === 'unchecked' || check.status === 'noted')) {
    const said =
      check.status === 'noted'
        ? check.found
        : `not checked: no ${check.expected.replace(/^(a|an|the) /, '')} was given`;
    return [head, ...wrap(check.hint === undefined ? said : `${said}; ${check.hint}`, 4, width)];
  }
  const out = [head];
  if (check.status === 'failed') out.push(...wrap(CHECKS[check.id].rule, 4, width).map((line) => paint(DIM, line)));
  out.push(...labelled('expected', check.expected, width), ...labelled('found', check.found, width));
  if (check.where !== undefined) {
    const { field, bytes } = check.where;
    const range =
      bytes === undefined ? undefined : `bytes 0x${bytes[0].toString(16)} to 0x${(bytes[1] - 1).toString(16)}`;
    out.push(...labelled('where', [field, range].filter((part) => part !== undefined).join(', '), width));
  }
  if (check.hint !== undefined) out.push(...labelled('to do', check.hint, width));
  return out;
}

function passedText(passed: readonly Check[], width: number, paint: Paint): string[] {
  const times = new Map<string, number>();
  for (const { id } of passed) times.set(id, (times.get(id) ?? 0) + 1);
  const names = [...times].map(([id, count]) => (count === 1 ? id : `${id} ×${count}`)).join(', ');
  const [first, ...rest] = wrap(
    `${passed.length} ${passed.length === 1 ? 'check' : 'checks'} passed: ${names}`,
    4,
    width,
  );
  return [`  ${paint(GREEN, MARKS.passed.mark)} ${(first ?? '').trimStart()}`, ...rest];
}

function claimText(name: string, claim: Claim, width: number): string[] {
  if (name === 'devices' && typeof claim === 'object' && claim !== null && !Array.isArray(claim))
    return Object.entries(claim).flatMap(([device, tier]) => labelled(device, claimLine(tier), width, 20));
  if (name === 'events' && typeof claim === 'object' && claim !== null && !Array.isArray(claim))
    return Object.entries(claim).flatMap(([pcr, events]) =>
      (Array.isArray(events) ? (events as readonly Claim[]) : []).flatMap((event) =>
        labelled(`in PCR ${pcr}`, claimLine(event), width, 20),
      ),
    );
  if (name !== 'pcrs' || typeof claim !== 'object' || claim === null || Array.isArray(claim))
    return labelled(name, claimLine(claim), width, 20);
  // One a line; those that were never extended say nothing.
  const used = Object.entries(claim).filter(([, value]) => !/^(0+|f+)$/.test(String(value)));
  return used.flatMap(([pcr, value]) => labelled(`PCR ${pcr}`, claimLine(value), width, 20));
}

/** Flags that are off are left out; numbers and texts are not. */
function claimLine(claim: Claim): string {
  if (Array.isArray(claim)) return claim.length === 0 ? 'none' : claim.map(claimLine).join(' ');
  if (claim === null) return 'none';
  if (typeof claim !== 'object') return String(claim);
  const unknown = Object.keys(claim).filter((name) => (claim as Readonly<Record<string, Claim>>)[name] === 'absent');
  const parts = Object.entries(claim).flatMap(([name, value]) => {
    if (value === false || value === 'absent') return [];
    if (value === true) return [name];
    const text = claimLine(value);
    return [
      typeof value === 'object' && value !== null && !Array.isArray(value) ? `${name} (${text})` : `${name} ${text}`,
    ];
  });
  const said = parts.length === 0 ? 'none' : parts.join(', ');
  return unknown.length === 0 ? said : `${said} (not in this version: ${unknown.join(', ')})`;
}

function labelled(label: string, text: string, width: number, indent = 14): string[] {
  const [first, ...rest] = wrap(text, indent, width);
  return [`    ${label.padEnd(indent - 5)} ${(first ?? '').trimStart()}`, ...rest];
}

/** Long digests are broken where the line ends. */
function wrap(text: string, indent: number, width: number): string[] {
  const room = width - indent;
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
    while (line.length > room) {
      lines.push(line.slice(0, room));
      line = line.slice(room);
    }
  }
  lines.push(line);
  return lines.map((one) => ' '.repeat(indent) + one);
}

/** Nothing of what a host or a device wrote reaches the terminal but printable characters; our own colours do. */
function plain(line: string): string {
  let out = '';
  for (let i = 0; i < line.length; i++) {
    const code = line.charCodeAt(i);
    const colour = code === 0x1b ? /^\x1b\[\d{1,2}m/.exec(line.slice(i, i + 6))?.[0] : undefined;
    if (colour !== undefined) {
      out += colour;
      i += colour.length - 1;
    } else out += code < 0x20 || (code >= 0x7f && code < 0xa0) ? `\\x${code.toString(16).padStart(2, '0')}` : line[i];
  }
  return out;
}
