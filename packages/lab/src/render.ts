/** A report as a person likes to read it. Pure; colour only when asked for. */
import { isConnected } from '@airlock/core/level.ts';
import { wrapText } from '@airlock/core/wrap.ts';
import { type Paint, painter, safe, seconds } from './paint.ts';
import { exhibitLines } from './render-exhibits.ts';
import type { DeviceLine, LabReport } from './report.ts';

/** One cell: what stands there, and how. Widths count the text alone. */
interface Cell {
  readonly text: string;
  readonly paint?: (text: string) => string;
}

export function renderReport(report: LabReport, colour: boolean): string {
  const paint = painter(colour);
  const compare = report.devices.some((device) => device.without !== undefined);
  // What was plugged in is looked for in the table, whatever its bus.
  const brought = new Set(report.plugged.map(({ id }) => id));
  const shown = (device: DeviceLine) => device.id.startsWith('pci:') || brought.has(device.id);
  const rows = report.devices.filter(shown);
  const others = report.devices.filter((device) => !shown(device));
  const lines = [
    '',
    ...table(rows, compare, paint),
    ...(others.length > 0 ? ['', ...otherLines(others, paint)] : []),
    '',
    ...exhibitLines(report, paint),
    ...attemptLines(report, paint),
    ...weakLines(report, paint),
    ...verdict(report, compare, paint),
  ];
  return `${lines.join('\n')}\n`;
}

function table(devices: readonly DeviceLine[], compare: boolean, paint: Paint): string[] {
  const head = (words: readonly string[], how: (text: string) => string): Cell[] =>
    [...words, ...(compare ? [words === TITLES ? 'driver' : 'without it'] : [])].map((text) => ({ text, paint: how }));
  const rows = devices.map((device) => row(device, compare, paint));
  return columns([head(['', '', 'with the gate', '', '', ''], paint.bold), head(TITLES, paint.dim), ...rows]);
}

const TITLES: readonly string[] = ['device', 'where', 'level', 'rule', 'enforced', 'driver'];

function row(device: DeviceLine, compare: boolean, paint: Paint): Cell[] {
  const allowed = isConnected(device.level);
  const how = allowed ? paint.good : paint.dim;
  return [
    { text: safe(device.name) },
    { text: safe(device.id.replace(/^(pci:0000|vdpa):/, '')), paint: paint.dim },
    { text: device.level, paint: how },
    { text: safe(ruleWords(device)), ...(device.rule === null ? { paint: paint.dim } : {}) },
    enforcedCell(device, paint),
    { text: safe(device.driver ?? '-'), paint: how },
    ...(compare
      ? [
          {
            text: safe(device.without ?? '-'),
            ...(device.without !== null && !allowed ? { paint: paint.bad } : {}),
          },
        ]
      : []),
  ];
}

/** The rule, and the reason where it is not simply that the rule matched. */
function ruleWords({ rule, reason }: DeviceLine): string {
  if (rule === null) return reason === 'default' ? 'none matches' : reason;
  if (reason === 'rule-matched') return rule;
  return `${rule}: ${reason === 'requirement-failed' ? 'not met' : reason}`;
}

function enforcedCell({ agrees, status }: DeviceLine, paint: Paint): Cell {
  if (!agrees) return { text: 'not so', paint: paint.bad };
  if (status === 'enforced') return { text: 'yes' };
  return status === 'failed' ? { text: 'failed', paint: paint.bad } : { text: 'cannot', paint: paint.warn };
}

function columns(rows: readonly (readonly Cell[])[]): string[] {
  const widths: number[] = [];
  for (const cells of rows.slice(1)) {
    cells.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.text.length);
    });
  }
  return rows.map((cells) => {
    const parts = cells.map((cell, i) => {
      const padding = ' '.repeat(Math.max(0, (widths[i] ?? 0) - cell.text.length));
      return `${cell.paint && cell.text !== '' ? cell.paint(cell.text) : cell.text}${padding}`;
    });
    return `  ${parts.join('  ')}`.trimEnd();
  });
}

function otherLines(devices: readonly DeviceLine[], paint: Paint): string[] {
  const words = (chosen: readonly DeviceLine[]) => {
    const counts = new Map<string, number>();
    for (const { name } of chosen) counts.set(name, (counts.get(name) ?? 0) + 1);
    return [...counts].map(([name, count]) => (count > 1 ? `${count} × ${safe(name)}` : safe(name))).join(', ');
  };
  const allowed = devices.filter((device) => isConnected(device.level));
  const denied = devices.filter((device) => !isConnected(device.level));
  return [
    ...(allowed.length > 0 ? [`  ${paint.dim('also in use  ')} ${words(allowed)}`] : []),
    ...(denied.length > 0 ? [`  ${paint.dim('also denied  ')} ${words(denied)}`] : []),
  ];
}

function attemptLines(report: LabReport, paint: Paint): string[] {
  const denied = report.attempts[0]?.tried ?? 0;
  if (denied === 0) return [];
  const width = Math.max(...report.attempts.map((attempt) => attempt.title.length));
  return [
    `  ${paint.bold(`Root in the guest against the ${denied} denied PCI functions`)}`,
    ...report.attempts.map((attempt) => {
      const said =
        attempt.left.length > 0
          ? paint.bad(
              `${attempt.left.length} still bound: ${attempt.left.map((id) => id.replace(/^pci:0000:/, '')).join(', ')}`,
            )
          : attempt.bound.length > 0
            ? paint.warn(
                `${attempt.bound.length} bound for a moment, taken away again after ${seconds(attempt.settledMilliseconds ?? 0)}`,
              )
            : paint.good('nothing was bound');
      return `  ${attempt.title.padEnd(width)}  ${said}`;
    }),
    '',
  ];
}

/** What Airlock says that this kernel cannot hold, each reason once. */
function weakLines(report: LabReport, paint: Paint): string[] {
  const reasons = new Map<string, string[]>();
  for (const outcome of report.machine) {
    if (outcome.status !== 'enforced') reasons.set(`${outcome.property}: ${outcome.because ?? outcome.status}`, []);
  }
  for (const device of report.devices) {
    for (const because of device.because) reasons.set(because, [...(reasons.get(because) ?? []), device.name]);
  }
  if (reasons.size === 0) return [];
  return [
    `  ${paint.bold('Not enforceable on this machine')}`,
    ...[...reasons].map(([because, names]) => {
      const whose = names.length > 0 ? ` (${[...new Set(names)].join(', ')})` : '';
      const [first = '', ...rest] = wrapText(`${safe(because)}${whose}`, 92);
      return [`  ${paint.warn('!')} ${first}`, ...rest.map((line) => `    ${line}`)].join('\n');
    }),
    '',
  ];
}

function verdict(report: LabReport, compare: boolean, paint: Paint): string[] {
  const pci = report.devices.filter((device) => device.id.startsWith('pci:'));
  const bound = pci.filter((device) => device.driver !== null).length;
  const plain = pci.filter((device) => typeof device.without === 'string').length;
  const wrong = report.devices.filter((device) => !device.agrees);
  const failed = report.devices.filter((device) => device.agrees && device.status === 'failed');
  const counted = compare
    ? `${bound} of ${pci.length} PCI functions have a driver; without the gate ${plain} have.`
    : `${bound} of ${pci.length} PCI functions have a driver.`;
  const faults = [
    ...(report.agentFault === null ? [] : [`the agent does not run: ${safe(report.agentFault)}`]),
    ...(wrong.length > 0 ? [`not as decided: ${wrong.map((device) => device.name).join(', ')}`] : []),
    ...(failed.length > 0 ? [`failed: ${failed.map((device) => device.name).join(', ')}`] : []),
    ...(report.undecided.length > 0 ? [`nothing decided for ${report.undecided.join(', ')}`] : []),
    ...report.attempts.filter((attempt) => attempt.left.length > 0).map((attempt) => `did not hold: ${attempt.title}`),
    ...report.plugged.filter(({ id }) => id === null).map(({ type }) => `the guest did not see our ${type}`),
    ...(report.drive?.acts ?? [])
      .filter((act) => !act.asExpected)
      .map(({ conduct }) => `the drive, ${conduct}: not as it must be`),
    ...(report.proof?.verdicts ?? [])
      .filter((one) => !one.asExpected)
      .map(({ against }) => `the proof, against ${against}: not as it must be`),
    ...report.problems.map((problem) => `${safe(problem.message)} [${safe(problem.code)}]`),
  ];
  const cannot = [...report.devices, ...report.machine].some(({ status }) => status === 'not-enforceable');
  return [
    `  ${report.held ? paint.good(cannot ? 'The policy holds, but for what this machine cannot hold (above).' : 'The policy holds.') : paint.bad('The policy does not hold.')} ${counted}`,
    ...faults.map((fault) => `  ${paint.bad('!!')} ${fault}`),
    ...wrapText(
      `Drivers are what the guest's own sysfs says, read with busybox. The gate took ${seconds(report.gateMilliseconds)} of the boot; all of this ${seconds(report.seconds * 1000)}.`,
      96,
    ).map((line) => `  ${paint.dim(line)}`),
  ];
}
