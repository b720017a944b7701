/** `airlock policy check`: is this a policy, and does it do what its author meant? */
import { dirname, resolve } from 'node:path';
import type { Inventory } from '@airlock/core/device.ts';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { checkPolicy, type Finding } from '@airlock/policy/check.ts';
import { openExternal } from '@airlock/policy/external/node-external.ts';
import type { OpaBundle, Policy } from '@airlock/policy/policy.ts';
import { alignRows, type Paint, paintFor } from '../device-view.ts';
import { besidePolicy, onceStdin, readInventoryFile, readPolicy } from '../policy-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy check',
  summary: 'find what is wrong with a policy',
  usage: 'FILE... [--kernel-from INVENTORY] [--quiet] [--json]',
  help: `
Every FILE is the main file of one policy; its drop-ins (FILE without .yaml, plus .d/*.yaml) are read after it, in byte
order of their names. Prints the files and rules in the order in which they count, then the findings.

  --kernel-from INVENTORY  also what the kernel of a recorded machine (airlock list --json) cannot enforce
  --quiet                  only problems and findings
  --json                   one JSON object a policy

Exit code 1 for problems, errors and warnings; notes alone are fine.

  airlock policy check policy.yaml
  airlock list --json | airlock policy check policy.yaml --kernel-from -
`,
  options: { 'kernel-from': { type: 'string' }, quiet: { type: 'boolean' }, json: { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length === 0) throw new UsageError('which policy? give its file');
  const from = typeof values['kernel-from'] === 'string' ? values['kernel-from'] : undefined;
  onceStdin(...positionals, from);
  let machine: Inventory | undefined;
  if (from !== undefined) {
    const read = await readInventoryFile(context, from);
    if (!read.ok) {
      context.stderr(`airlock policy check: ${printable(formatProblem(read.error))}\n`);
      return EXIT.usage;
    }
    machine = read.value;
  }
  const paint = paintFor(context.terminal);
  let found = false;
  for (const [index, path] of positionals.entries()) {
    const { loaded, policy, problems } = await readPolicy(context, path);
    const beside = await besidePolicy(context, path);
    const findings =
      policy === undefined
        ? []
        : checkPolicy(policy, {
            ...(machine === undefined ? {} : { machine }),
            ...(beside === undefined ? {} : { beside }),
            ...(policy.external === undefined || path === '-'
              ? {}
              : { externalProblem: await tryExternal(policy.external, resolve(context.cwd, dirname(path))) }),
          });
    const bad = problems.length > 0 || findings.some((finding) => finding.severity !== 'note');
    found ||= bad;
    if (values['json'] === true) {
      const rules = policy?.rules.map(({ id, at, level }) => ({ id, file: at.file, line: at.line, level })) ?? [];
      const { files, ignored } = loaded;
      context.stdout(`${JSON.stringify({ policy: path, ok: !bad, files, ignored, rules, problems, findings })}\n`);
      continue;
    }
    if (index > 0) context.stdout('\n');
    const whole = values['quiet'] !== true;
    if (whole && policy !== undefined) context.stdout(outline(policy, loaded.ignored, paint));
    context.stdout(report(path, problems, findings, paint, policy?.rules.length ?? 0));
  }
  return found ? EXIT.findings : EXIT.fine;
}

/** Opens the engine as the agent would, and closes it again. */
async function tryExternal(external: OpaBundle, folder: string): Promise<Problem | null> {
  const { engine, problem } = await openExternal(external, folder);
  await engine.close();
  return problem;
}

/** Files and rules in the order in which they count. */
function outline(policy: Policy, ignored: readonly string[], paint: Paint): string {
  const lines: string[] = [];
  if (policy.files.length > 1 || ignored.length > 0) {
    lines.push(paint.bold('files, in this order'));
    for (const [index, file] of policy.files.entries()) lines.push(`  ${index + 1}. ${printable(file)}`);
    for (const name of ignored) lines.push(paint.dim(`  not read: ${printable(name)}`));
    lines.push('');
  }
  if (policy.rules.length > 0) {
    const rows = policy.rules.map((rule, index) => [
      `  ${index + 1}.`,
      rule.id,
      rule.otherwise === undefined ? rule.level : `${rule.level}, otherwise ${rule.otherwise.level}`,
      policy.bootCritical.some((one) => one.name === rule.id) ? 'boot-critical' : '',
      printable(`${rule.at.file}:${rule.at.line}`),
    ]);
    lines.push(paint.bold('rules, the first that matches decides'));
    const [, ...aligned] = alignRows([['', '', '', '', ''], ...rows, ['', 'default', policy.default, '', '']]);
    lines.push(...aligned, '');
  }
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

function report(
  path: string,
  problems: readonly Problem[],
  findings: readonly Finding[],
  paint: Paint,
  rules: number,
): string {
  const colour = { error: paint.red, warning: paint.yellow, note: paint.dim };
  const lines = problems.map((problem) => {
    const at = place(problem);
    return `${at}${paint.red('error')}: ${printable(problem.message)} [${problem.code}]${hint(problem, paint)}`;
  });
  for (const finding of findings) {
    const severity = colour[finding.severity](finding.severity);
    lines.push(`${place(finding)}${severity}: ${printable(finding.message)} [${finding.code}]${hint(finding, paint)}`);
  }
  const count = (severity: Finding['severity']) => findings.filter((one) => one.severity === severity).length;
  const errors = problems.length + count('error');
  const parts = [plural(errors, 'error'), plural(count('warning'), 'warning'), plural(count('note'), 'note')];
  const said = parts.filter((part) => part !== '').join(', ');
  const size = problems.length > 0 ? 'not usable' : plural(rules, 'rule') || 'no rules';
  lines.push(`${printable(path)}: ${size}, ${said === '' ? 'nothing wrong found' : said}`);
  return `${lines.join('\n')}\n`;
}

function place(item: Problem | Finding): string {
  return item.at === undefined ? '' : `${printable(item.at.file)}:${item.at.line}:${item.at.column}: `;
}

function hint(item: Problem | Finding, paint: Paint): string {
  return item.hint === undefined ? '' : `\n    ${paint.dim(printable(item.hint))}`;
}

function plural(count: number, word: string): string {
  return count === 0 ? '' : `${count} ${word}${count === 1 ? '' : 's'}`;
}
