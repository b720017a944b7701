/** `airlock device probe SOCKET`: what does this back-end offer, and is it sane? */
import { nearest } from '@airlock/core/nearest.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import type { ProbeFinding } from '@airlock/transport/vhost-user/probe/check.ts';
import { type ProbeReport, probeBackEnd } from '@airlock/transport/vhost-user/probe/probe.ts';
import { type Paint, paintFor, safe } from '../agent-view.ts';
import { readSocket, readSpan } from '../device-socket.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'device probe',
  summary: 'what a vhost-user back-end offers, and whether it is sane',
  usage: 'SOCKET [--type TYPE] [--hostile] [--timeout MS] [--json]',
  help: `
Connects as a driver would and looks; nothing that the device stores is changed. Nobody else may use the back-end
meanwhile: most serve one front-end at a time.

  --type TYPE    what the device is (${Object.keys(VIRTIO_TYPES).slice(0, 5).join(', ')}, ...); vhost-user does not
                 say it, and only some types can be told by what they offer
  --hostile      also send what no driver sends: buffers outside of memory, chains without end, half messages. A
                 back-end that is not careful may end
  --timeout MS   how long an answer may take, 10 to 600000; 5000
  --json         one JSON value: type, features, protocolFeatures, queues, memorySlots, config, checks, sane

Exit codes: 0 sane, 1 findings, 2 usage, 3 it cannot be reached.

  airlock device probe /run/vm1/disk.sock
  airlock device probe /run/vm1/share.sock --type fs --hostile
`,
  options: {
    type: { type: 'string' },
    hostile: { type: 'boolean' },
    timeout: { type: 'string' },
    json: { type: 'boolean' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const socket = readSocket(context, positionals);
  const type = readType(values['type']);
  const timeout = readSpan(values, 'timeout', 5000, 10, 600_000);
  const calls = await loadSystemCalls();
  const report = calls.ok
    ? probeBackEnd(socket, {
        calls: calls.value,
        timeout,
        hostile: values['hostile'] === true,
        ...(type === undefined ? {} : { type }),
      })
    : calls;
  if (!report.ok) {
    context.stderr(`airlock device probe: ${safe(formatProblem(report.error))}\n`);
    return EXIT.environment;
  }
  const found = report.value;
  context.stdout(
    values['json'] === true ? `${JSON.stringify(found, null, 2)}\n` : reportText(found, paintFor(context.terminal)),
  );
  return found.sane ? EXIT.fine : EXIT.findings;
}

function readType(value: Values[string]): VirtioTypeName | undefined {
  if (value === undefined) return undefined;
  const names = Object.keys(VIRTIO_TYPES) as VirtioTypeName[];
  const type = names.find((name) => name === value);
  if (type !== undefined) return type;
  const near = nearest(String(value), names);
  throw new UsageError(
    `--type ${safe(String(value))}: ${near === undefined ? `one of ${names.join(', ')}` : `did you mean ${near}?`}`,
  );
}

function reportText(report: ProbeReport, paint: Paint): string {
  const rows: [string, string][] = [
    ['type', typeText(report)],
    ['features', report.features.join(' ') || 'none'],
    ['protocol', report.protocolFeatures.join(' ') || 'none'],
    ['queues', queuesText(report)],
    ['memory slots', report.memorySlots === null ? '8, by table' : String(report.memorySlots)],
  ];
  const config = Object.entries(report.config ?? {});
  if (config.length > 0) rows.push(['configuration', config.map(([name, value]) => `${name}=${value}`).join(' ')]);
  const head = rows.map(([name, text]) => `${name.padEnd(14)}${safe(text)}`).join('\n');
  const checks = report.checks.map((finding) => checkLines(finding, paint)).join('\n');
  const failed = report.checks.filter(({ outcome }) => outcome === 'fail').length;
  const notes = report.checks.filter(({ outcome }) => outcome === 'note').length;
  const verdict = failed === 0 ? paint('sane', 'green') : paint(`${failed} finding${failed === 1 ? '' : 's'}`, 'red');
  return `${head}\n\n${checks}\n\n${verdict}${notes === 0 ? '' : `, ${notes} noted`}\n`;
}

function typeText({ type, typeFrom, fitting }: ProbeReport): string {
  if (typeFrom === 'given') return `${type} (as you say)`;
  if (type !== null) return `${type} (only that fits what is offered)`;
  return fitting.length === 0
    ? 'none that the standard has fits what is offered'
    : `cannot be told; what is offered fits ${fitting.join(', ')} (say --type)`;
}

function queuesText({ queues, queueNames }: ProbeReport): string {
  const count = queues === null ? 'the back-end does not say' : String(queues);
  const most = 6;
  const names = queueNames.length > most ? [...queueNames.slice(0, most), '...'] : queueNames;
  return names.length === 0 ? count : `${count}: ${names.join(' ')}`;
}

const OUTCOMES = { pass: 'ok', fail: 'FAIL', note: 'note', skipped: '-' } as const;
const COLOURS = { pass: 'green', fail: 'red', note: 'yellow', skipped: 'dim' } as const;

function checkLines({ id, outcome, expected, found, clause, code }: ProbeFinding, paint: Paint): string {
  const word = paint(OUTCOMES[outcome].padEnd(5), COLOURS[outcome]);
  const line = `${word} ${id.padEnd(21)} ${safe(found)}`;
  if (outcome === 'pass' || outcome === 'skipped') return line;
  return `${line}${code === undefined ? '' : ` [${code}]`}\n${' '.repeat(28)}expected: ${expected} (${clause})`;
}
