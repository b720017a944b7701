/** `airlock policy diff`: what a change of policy would do to recorded machines. */
import { formatProblem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { type Difference, diffPolicies, type RecordedMachine } from '@airlock/policy/diff.ts';
import { alignRows, paintFor } from '../device-view.ts';
import { atBoot, needPolicy, noteExternal, noteUnseenBoot, onceStdin, readInventoryFile } from '../policy-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy diff',
  summary: 'which devices of recorded machines a new policy would treat otherwise',
  usage: 'OLD NEW --inventory FILE... [--at-boot] [--json]',
  help: `
  --inventory FILE  a machine, as airlock list --json prints it; may be given several times
  --at-boot         as at the next boot: what is there was there when the gate looked first
  --json            one device a line, with both decisions

Exit code 1 when any device would gain or lose access; another rule that gives the same level is only shown.

  airlock policy diff policy.yaml new.yaml --inventory web1.json --inventory web2.json
`,
  options: { inventory: { type: 'string', multiple: true }, json: { type: 'boolean' }, 'at-boot': { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [before, after, ...rest] = positionals;
  if (before === undefined || after === undefined) throw new UsageError('two policies are needed: OLD NEW');
  // `--inventory a.json b.json` reads as one option and a positional; take both as meant.
  const given = Array.isArray(values['inventory']) ? values['inventory'] : [];
  const files = [...given.map(String), ...rest];
  if (files.length === 0) throw new UsageError('--inventory FILE is needed: on which machines?');
  onceStdin(before, after, ...files);
  const old = await needPolicy(context, 'policy diff', before);
  const now = await needPolicy(context, 'policy diff', after);
  if (old === null || now === null) return EXIT.findings;
  for (const one of [old, now]) noteExternal(context, 'policy diff', one);
  const machines: RecordedMachine[] = [];
  for (const name of files) {
    const inventory = await readInventoryFile(context, name);
    if (!inventory.ok) {
      context.stderr(`airlock policy diff: ${printable(formatProblem(inventory.error))}\n`);
      return EXIT.usage;
    }
    const machine = values['at-boot'] === true ? atBoot(inventory.value) : inventory.value;
    noteUnseenBoot(context, 'policy diff', machine);
    machines.push({ name, inventory: machine });
  }
  const differences = diffPolicies(old, now, machines);
  const moved = differences.filter((one) => one.change !== 'same-level');
  if (values['json'] === true) {
    for (const one of differences) context.stdout(`${JSON.stringify(one)}\n`);
    return moved.length > 0 ? EXIT.findings : EXIT.fine;
  }
  const paint = paintFor(context.terminal);
  const rows = differences.map((one) => [
    one.change === 'gains' ? '+' : one.change === 'loses' ? '-' : '~',
    files.length > 1 ? printable(one.inventory) : '',
    printable(one.device),
    printable(one.what),
    one.before.level === one.after.level ? one.after.level : `${one.before.level} -> ${one.after.level}`,
    arrow(ruleOf(one, 'before'), ruleOf(one, 'after')),
  ]);
  const [, ...lines] = alignRows([['', '', '', '', '', ''], ...rows]);
  for (const [index, line] of lines.entries()) {
    const change = differences[index]?.change;
    const colour = change === 'loses' ? paint.red : change === 'gains' ? paint.yellow : paint.dim;
    context.stdout(`${colour(line)}\n`);
  }
  const devices = machines.reduce((sum, { inventory }) => sum + inventory.devices.length, 0);
  const count = (change: Difference['change']) => differences.filter((one) => one.change === change).length;
  context.stdout(
    differences.length === 0
      ? `no device of ${devices} is treated otherwise\n`
      : `${devices} devices: ${count('gains')} would gain, ${count('loses')} would lose, ${count('same-level')} keep their level by another rule or reason\n`,
  );
  return moved.length > 0 ? EXIT.findings : EXIT.fine;
}

function ruleOf(one: Difference, which: 'before' | 'after'): string {
  const decision = one[which];
  const rule = decision.rule?.id ?? 'no rule';
  return decision.reason === 'rule-matched' || decision.reason === 'default' ? rule : `${rule} (${decision.reason})`;
}

function arrow(before: string, after: string): string {
  return before === after ? after : `${before} -> ${after}`;
}
