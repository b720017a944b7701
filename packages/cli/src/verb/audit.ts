/** `airlock audit`: what this machine leaves open to its host and its devices. Reads only. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { AREA_TITLES, CHECKS } from '@airlock/linux/audit/catalogue.ts';
import { SEVERITIES, type Severity } from '@airlock/linux/audit/finding.ts';
import { observe } from '@airlock/linux/audit/observe.ts';
import { findingsFrom, judge, sawAnything } from '@airlock/linux/audit/report.ts';
import { reportText } from '@airlock/linux/audit/text.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { nodeCommands } from '@airlock/linux/node-commands.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'audit',
  summary: 'what this machine leaves open to its host and its devices',
  usage: '[--json] [--verbose] [--fail-on SEVERITY] [--confidential] [--root DIR] | --list [--json]',
  help: `
Looks at /proc, /sys, /etc and the kernel's log; writes nothing. Needs no root: what only root can read is listed as not
checked. docs/audit.md tells of every check.

  --json              the whole report as one JSON value
  --verbose, -v       also what passed, with what was seen, and what does not apply
  --fail-on SEVERITY  exit 1 for findings of this severity and above: critical, high, medium, low (default), info, never
  --confidential      weigh findings as in a confidential VM, even where this is none (an image that will run as one)
  --root DIR          look at the files below DIR instead of / (the kernel's log is then not read)
  --list              every check: id, severity in a confidential VM and elsewhere, title

Exit codes: 0 nothing found at --fail-on or above, 1 something found, 2 usage, 3 nothing of this machine could be read.

  airlock audit
  sudo airlock audit --json | jq '.findings[] | {id, severity}'
  airlock audit --fail-on high
`,
  options: {
    json: { type: 'boolean' },
    verbose: { type: 'boolean', short: 'v' },
    'fail-on': { type: 'string' },
    confidential: { type: 'boolean' },
    root: { type: 'string' },
    list: { type: 'boolean' },
  },
  run: runAudit,
};

async function runAudit(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`unexpected ${positionals.join(' ')}`);
  const failOn = severityOf(values['fail-on']);
  if (values['list'] === true) {
    context.stdout(values['json'] === true ? catalogueJson() : catalogueText());
    return EXIT.fine;
  }
  const root = typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
  const folder = await stat(root).catch(() => undefined);
  if (folder?.isDirectory() !== true) {
    context.stderr(`airlock audit: ${root}: not a directory\n`);
    return EXIT.environment;
  }

  const files = nodeFiles({ root });
  const inventory = await readInventory(files);
  const observations = await observe(files, root === '/' ? { commands: nodeCommands(), inventory } : { inventory });
  if (!sawAnything(observations)) {
    const below = root === '/' ? 'here' : `below ${root}`;
    context.stderr(`airlock audit: neither /proc nor /sys could be read ${below}; nothing was checked\n`);
    return EXIT.environment;
  }
  const report = judge(observations, { asConfidential: values['confidential'] === true });
  context.stdout(
    values['json'] === true
      ? `${JSON.stringify(report, null, 2)}\n`
      : reportText(report, {
          colour: context.terminal,
          columns: context.columns,
          verbose: values['verbose'] === true,
        }),
  );
  return failOn !== 'never' && findingsFrom(report, failOn).length > 0 ? EXIT.findings : EXIT.fine;
}

function severityOf(value: Values[string]): Severity | 'never' {
  if (value === undefined) return 'low';
  if (value === 'never') return value;
  const severity = SEVERITIES.find((one) => one === value);
  if (severity === undefined) throw new UsageError(`--fail-on ${value}: one of ${SEVERITIES.join(', ')}, never`);
  return severity;
}

function catalogueText(): string {
  const width = Math.max(...CHECKS.map(({ id }) => id.length));
  const head = `${'ID'.padEnd(width)}  CONFIDENTIAL  ELSEWHERE  TITLE\n`;
  let area = '';
  const lines = CHECKS.flatMap((check) => {
    const heading = check.area === area ? [] : [`\n${AREA_TITLES[check.area]}`];
    area = check.area;
    const row = `${check.id.padEnd(width)}  ${check.severity.padEnd(12)}  ${(check.elsewhere ?? '-').padEnd(9)}  ${check.title}`;
    return [...heading, row];
  });
  return `${head}${lines.join('\n')}\n`;
}

function catalogueJson(): string {
  return `${JSON.stringify(
    CHECKS.map(({ run: _, ...check }) => check),
    null,
    2,
  )}\n`;
}
