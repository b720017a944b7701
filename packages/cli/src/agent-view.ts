/** What the agent says, as text for people: events as lines, status as tables, answers to acts. */
import type { Decision } from '@airlock/core/decision.ts';
import type { Event } from '@airlock/core/event.ts';
import type { Outcome, OutcomeStatus, Step } from '@airlock/core/plan.ts';
import { formatProblem } from '@airlock/core/result.ts';
import type { Answer } from '@airlock/gate/agent/control-protocol.ts';
import { formatDuration } from '@airlock/gate/agent/duration.ts';
import type { Status } from '@airlock/gate/agent/status.ts';

const COLOURS = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;
type Colour = keyof typeof COLOURS;
export type Paint = (text: string, colour: Colour) => string;

export function paintFor(terminal: boolean): Paint {
  return (text, colour) => (terminal ? `\x1b[${COLOURS[colour]}m${text}\x1b[0m` : text);
}

/** Nothing of a device, a policy or a file moves the cursor or turns the writing around. */
export function safe(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, '?');
}

/** One line, without its end: time, kind, device, what. */
export function eventLine(event: Event, paint: Paint): string {
  const { word, colour, device, what } = eventParts(event);
  const time = paint(eventTime(event.at), 'dim');
  const kind = colour === undefined ? word.padEnd(9) : paint(word.padEnd(9), colour);
  return `${time}  ${kind}  ${[device, what]
    .filter((part) => part !== '')
    .map(safe)
    .join('  ')}`;
}

/** Time of day, or for the gate (which has no clock) seconds since boot. */
function eventTime(at: number): string {
  if (at < 100_000_000_000) return `+${(at / 1000).toFixed(3)}s`.padEnd(8);
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const WAY = { answered: '', silent: 'no answer; ', unasked: 'not asked; ' } as const;

function eventParts(event: Event): { word: string; colour?: Colour; device: string; what: string } {
  switch (event.kind) {
    case 'gate-started':
      return {
        word: 'gate',
        device: '',
        what: `mode ${event.mode}, policy ${event.policy ?? 'none'}, kernel ${event.kernel}`,
      };
    case 'handed-over':
      return { word: 'gate', device: '', what: `handed over to ${event.to} after ${event.milliseconds} ms` };
    case 'agent-started':
      return {
        word: 'agent',
        device: '',
        what: `${event.enforcing ? 'enforces' : 'only watches'}, mode ${event.mode}, policy ${event.policy.join(', ') || 'built-in fallback'}, hears of changes by ${event.uevents}`,
      };
    case 'attested':
      return {
        word: 'asked',
        device: event.device,
        what: `${WAY[event.way] ?? ''}identity ${event.tier}: ${event.because} (${event.milliseconds} ms)`,
      };
    case 'mode-changed':
      return {
        word: 'mode',
        device: '',
        what: `${event.mode} from now on: ${event.because}${event.enforcing ? '' : '; the agent only watches'}`,
      };
    case 'agent-stopped':
      return { word: 'agent', device: '', what: `ended: ${event.because}` };
    case 'policy-problem':
      return { word: 'problem', colour: 'red', device: '', what: formatProblem(event.problem) };
    case 'device-added':
      return { word: 'added', device: event.device, what: event.what };
    case 'device-removed':
      return { word: 'removed', device: event.device, what: event.what };
    case 'device-changed':
      return { word: 'changed', device: event.device, what: event.what };
    case 'decided':
      return { word: 'decided', device: event.decision.device, what: decisionText(event.decision) };
    case 'step':
      return {
        word: 'step',
        ...(event.outcome.status === 'enforced' ? {} : { colour: colourOf(event.outcome.status) }),
        device: 'device' in event.step ? (event.step.device ?? '') : '',
        what: `${stepText(event.step)}: ${outcomeText(event.outcome)}`,
      };
    case 'enforced': {
      const worst = worstOf(event.outcomes);
      const first = event.outcomes.find(({ status }) => status === worst);
      return {
        word: worst === 'enforced' ? 'enforced' : worst === 'failed' ? 'failed' : 'hole',
        colour: colourOf(worst),
        device: event.device,
        what: first === undefined ? '' : outcomeText(first),
      };
    }
    case 'operator':
      return {
        word: 'operator',
        colour: 'bold',
        device: event.device,
        what: `${event.verb}${event.until === null ? '' : ` ${event.until}`}: ${event.result}`,
      };
    case 'violation':
      return {
        word: 'violation',
        colour: 'red',
        device: event.device,
        what: [
          ...(event.violation === undefined ? [] : [`${event.violation}: `]),
          event.rule === '' ? event.detail : `${event.detail} (rule ${event.rule})`,
          ...(event.answer === undefined ? [] : [`; answered with ${event.answer.join(', ')}`]),
        ].join(''),
      };
    case 'response':
      return {
        word: 'response',
        colour: colourOf(event.outcome.status),
        device: event.device,
        what: `${event.action} for ${event.violation}: ${outcomeText(event.outcome)}`,
      };
  }
}

function decisionText(decision: Decision): string {
  const pending = decision.pending.length === 0 ? '' : ' (provisional)';
  return `${decision.level}${pending}: ${decision.detail}${ruleText(decision)}`;
}

function ruleText({ rule }: Decision): string {
  return rule === null ? '' : ` [${rule.file}:${rule.line}]`;
}

function stepText(step: Step): string {
  switch (step.kind) {
    case 'autoprobe-off':
      return `autoprobe off on ${step.bus}`;
    case 'virtual-autoprobe-off':
      return `autoprobe off for the virtual functions of ${step.node}`;
    case 'load':
      return `load ${step.module}`;
    case 'authorize':
      return step.value ? 'authorize' : 'withdraw authorization';
    case 'remove':
      return `take ${step.node} off its bus`;
    case 'reset':
      return `reset ${step.node}`;
    case 'sysctl':
      return `${step.name} = ${step.value}`;
    default:
      return `${step.kind} ${step.node} ${step.kind === 'unbind' ? 'from' : 'to'} ${step.driver}`;
  }
}

function outcomeText(outcome: Outcome): string {
  return outcome.status === 'enforced'
    ? outcome.property
    : `${outcome.property}: ${outcome.status}${outcome.because === undefined ? '' : ` (${outcome.because})`}`;
}

function worstOf(outcomes: readonly Outcome[]): OutcomeStatus {
  const has = (status: OutcomeStatus) => outcomes.some((outcome) => outcome.status === status);
  return has('failed') ? 'failed' : has('not-enforceable') ? 'not-enforceable' : 'enforced';
}

function colourOf(status: OutcomeStatus): Colour {
  return status === 'enforced' ? 'green' : status === 'failed' ? 'red' : 'yellow';
}

const HOLDS: Readonly<Record<OutcomeStatus, string>> = {
  enforced: 'enforced',
  'not-enforceable': 'with a hole',
  failed: 'NOT ENFORCED',
};

/** The whole of `airlock status`. */
export function statusText(status: Status, terminal: boolean): string {
  const paint = paintFor(terminal);
  const parts = [headline(status, paint)];
  if (status.devices.length > 0) {
    const rows = status.devices.map((one) => [
      one.device,
      cut([one.what, ...one.interfaces.slice(0, 2)].join(', '), 64),
      one.level,
      one.rule === null ? `(${one.reason})` : (one.rule.split(' ')[0] ?? ''),
      HOLDS[one.status],
    ]);
    const colours = status.devices.map((one) => colourOf(one.status));
    parts.push(
      table(
        ['device', 'what it says it is', 'level', 'rule', 'state'],
        rows,
        (text, row) => paint(text, colours[row] ?? 'dim'),
        paint,
      ),
    );
  }
  const failed = notHolding(status, 'failed');
  if (failed.length > 0) parts.push(section('Does not hold', failed, paint));
  const holes = notHolding(status, 'not-enforceable');
  if (holes.length > 0) parts.push(section('Holes that this kernel leaves', holes, paint));
  if (status.holds.length > 0)
    parts.push(section('Kept out because they misbehaved', status.holds.map(holdText), paint));
  if (status.grants.length > 0) parts.push(section('Grants and blocks', status.grants.map(grantText), paint));
  if (status.problems.length > 0) parts.push(section('Problems', status.problems.map(formatProblem), paint));
  if (status.lostEvents > 0) parts.push(`${status.lostEvents} events did not reach the log.`);
  return `${parts.join('\n\n')}\n`;
}

function headline(status: Status, paint: Paint): string {
  const policy = status.policy.length === 0 ? 'built-in fallback (no usable policy)' : safe(status.policy.join(', '));
  const kernel = status.kernel === null ? '' : `, kernel ${safe(status.kernel)}`;
  if (status.from === 'none') {
    return `${paint('Nothing is enforced', 'red')}: no gate ran and no agent runs${kernel}.`;
  }
  if (status.from === 'gate') {
    return [
      `${paint('No agent runs', 'red')}: nobody watches, and what is plugged in from now on is not decided on.`,
      `What was decided at boot${status.mode === null ? '' : ` (mode ${safe(status.mode)})`}, read back now: policy ${policy}${kernel}`,
    ].join('\n');
  }
  const state = status.enforcing
    ? paint('Enforcing', 'green')
    : paint(`Only watching (mode ${safe(status.mode ?? '?')})`, 'yellow');
  const hears = status.uevents === 'polling' ? ', looks every few seconds (no uevents)' : '';
  const found = foundText(status.found);
  return `${state}: policy ${policy}${kernel}${hears}${found === '' ? '' : `\n${paint(found, 'yellow')}`}`;
}

/** One line: what stood open between the gate, or the agent before, and this agent. */
function foundText(found: Status['found']): string {
  const [first, ...more] = found;
  if (first === undefined) return '';
  const left = found.filter(({ corrected }) => !corrected).length;
  const others = more.length === 0 ? '' : `, and ${more.length} more`;
  const state = left === 0 ? 'put right' : `${left} of ${found.length} still so`;
  return safe(`Found when the agent started: ${first.device}: ${cut(first.what, 100)}${others}; ${state}.`);
}

/** One line a device; what many devices share is said once. */
function notHolding(status: Status, wanted: OutcomeStatus): string[] {
  const lines = status.machine.filter((one) => one.status === wanted).map((one) => `machine: ${explain(one)}`);
  const shared = new Map<string, string[]>();
  for (const device of status.devices) {
    const wrong = device.outcomes.filter((outcome) => outcome.status === wanted);
    if (wrong.length === 0) continue;
    const text = [...new Set(wrong.map((outcome) => outcome.because ?? outcome.property))].join('; ');
    shared.set(text, [...(shared.get(text) ?? []), device.device]);
  }
  for (const [text, devices] of shared) {
    lines.push(devices.length > 3 ? `${devices.length} devices: ${text}` : `${devices.join(', ')}: ${text}`);
  }
  return lines;
}

function explain(outcome: Outcome): string {
  return outcome.because === undefined ? outcome.property : `${outcome.property}: ${outcome.because}`;
}

function grantText(grant: Status['grants'][number]): string {
  const until =
    grant.kind === 'timed'
      ? grant.remaining === null
        ? 'until a time that cannot be told (no clock)'
        : `${formatDuration(grant.remaining)} left`
      : grant.kind === 'once'
        ? 'until it goes away'
        : grant.kept
          ? 'without an end'
          : 'until reboot';
  const what = grant.kind === 'block' ? 'blocked' : `granted ${grant.level}`;
  return `${grant.device}: ${what}, ${until}${grant.present ? '' : ' (not there now)'}`;
}

function holdText(hold: Status['holds'][number]): string {
  const age = hold.age === null ? '' : `, ${formatDuration(hold.age)} ago`;
  const until =
    hold.action === 'remove' || hold.action === 'halt'
      ? 'until revoked'
      : hold.action === 'quarantine'
        ? 'until it goes away or is revoked'
        : 'until it goes away or is allowed';
  const gone = hold.present ? '' : ' (not there now)';
  return `${hold.device}${gone}: ${hold.action}, ${hold.violation} (${hold.detail})${age}; ${until}: airlock allow ${hold.device} --revoke`;
}

function section(title: string, lines: readonly string[], paint: Paint): string {
  return [paint(title, 'bold'), ...lines.map((line) => `  ${safe(line)}`)].join('\n');
}

/** Left-aligned columns; `paintLast` colours the last one, after it was padded. */
function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  paintLast: (text: string, row: number) => string,
  paint: Paint,
): string {
  const clean = rows.map((row) => row.map(safe));
  const widths = head.map((title, i) => Math.max(title.length, ...clean.map((row) => (row[i] ?? '').length)));
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0));
  const lines = clean.map((row, r) => {
    const cells = line(row);
    const last = cells.length - 1;
    return [...cells.slice(0, last), paintLast((cells[last] ?? '').trimEnd(), r)].join('  ');
  });
  return [paint(line(head).join('  ').trimEnd(), 'dim'), ...lines].join('\n');
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 3)}...`;
}

/** What became of `airlock allow`, `block` and `reject`. */
export function answerText(answer: Answer, paint: Paint): string {
  const name = `${answer.device} (${answer.what})`;
  const lines = [`${paint(headlineOf(answer), answer.result === 'not-enforced' ? 'red' : 'green')}: ${safe(name)}`];
  if (answer.decision !== null) lines.push(`  ${answer.decision.level}: ${safe(answer.decision.detail)}`);
  for (const outcome of answer.enforcement?.outcomes ?? []) {
    lines.push(`  ${paint(HOLDS[outcome.status], colourOf(outcome.status))}  ${safe(outcomeText(outcome))}`);
  }
  for (const note of answer.notes) lines.push(`  ${safe(note)}`);
  return `${lines.join('\n')}\n`;
}

function headlineOf({ result, term }: Answer): string {
  switch (result) {
    case 'allowed':
      return term === null ? 'allowed' : `allowed ${termText(term)}`;
    case 'already-allowed':
      return 'allowed by the policy itself';
    case 'blocked':
      return term === null ? 'blocked until reboot' : 'blocked without an end';
    case 'rejected':
      return 'taken off its bus';
    case 'revoked':
      return 'the policy alone decides again';
    case 'not-enforced':
      return 'does not hold';
  }
}

function termText(term: NonNullable<Answer['term']>): string {
  if (term.kind === 'timed') return `for ${formatDuration(term.lasts)}`;
  return term.kind === 'once' ? 'until it goes away' : 'without an end';
}
