/** `airlock policy explain`: why a device gets what it gets, and what would change it. */
import type { Decision } from '@airlock/core/decision.ts';
import type { Device, Inventory } from '@airlock/core/device.ts';
import { nearest } from '@airlock/core/nearest.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { show } from '@airlock/policy/explanation.ts';
import { alignRows, type Paint, paintFor, whatIs } from '../device-view.ts';
import { needOption } from '../policy-input.ts';
import { decideQuestion, needOnePolicy, QUESTION_OPTIONS, readQuestion } from '../policy-question.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy explain',
  summary: 'why a device gets the level that it gets, and what would change it',
  usage: '--device X --inventory FILE [--claims FILE] [--at-boot] [--after-bind] [--json] POLICY',
  help: `
  --device X        id of a device, or a part of one that only it has (00:03.0, vda)
  --inventory FILE  a machine, as airlock list --json prints it
  --claims FILE     what is known of identities: { "DEVICE": { "tier": "bound", "roots": ["a.pem"] } }
  --at-boot         as at the next boot: what is there was there when the gate looked first
  --after-bind      as after binding: what is still unknown counts against the device
  --json            the decision as JSON

  airlock list --json | airlock policy explain --device 00:03.0 --inventory - policy.yaml
`,
  options: { device: { type: 'string' }, ...QUESTION_OPTIONS },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const path = needOnePolicy(positionals);
  const wanted = needOption(values, 'device', 'X');
  const question = await readQuestion(context, 'policy explain', path, values);
  if (typeof question === 'number') return question;
  const device = findDevice(question.machine, wanted);
  const decisions = await decideQuestion(context, question);
  const decision = decisions.find((one) => one.device === device.id);
  if (decision === undefined) throw new UsageError(`no decision about ${device.id}`);
  context.stdout(
    values['json'] === true
      ? `${JSON.stringify(decision, null, 2)}\n`
      : explain(device, decision, paintFor(context.terminal)),
  );
  return EXIT.fine;
}

/** By id, by interface name (vda), or by a part of the id that is only in one. */
function findDevice(inventory: Inventory, wanted: string): Device {
  const exact = inventory.devices.find((device) => device.id === wanted || device.location === wanted);
  if (exact !== undefined) return exact;
  const named = inventory.devices.filter((device) =>
    device.interfaces.some((name) => name === wanted || name.slice(name.indexOf('/') + 1) === wanted),
  );
  const partly = inventory.devices.filter((device) => device.id.includes(wanted));
  const found = named.length > 0 ? named : partly;
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  if (found.length > 1) {
    const ids = found.slice(0, 5).map((device) => printable(device.id));
    throw new UsageError(
      `${found.length} devices have ${wanted} in their id: ${ids.join(', ')}${found.length > 5 ? ', ...' : ''}`,
    );
  }
  const near = nearest(
    wanted,
    inventory.devices.flatMap((device) => [device.id, device.location]),
  );
  throw new UsageError(
    `no device ${wanted} in the inventory${near === undefined ? '' : `; did you mean ${printable(near)}?`}`,
  );
}

export function explain(device: Device, decision: Decision, paint: Paint): string {
  const rule = decision.rule === null ? 'none' : `${decision.rule.id}, ${decision.rule.file}:${decision.rule.line}`;
  const level = `${decision.level}${decision.pending.length > 0 ? ' (provisional)' : ''}`;
  const protect = [
    decision.protect?.disk &&
      `disk ${decision.protect.disk.encryption}${decision.protect.disk.integrity === null ? '' : ` with ${decision.protect.disk.integrity}`}`,
    decision.protect?.network && `network ${decision.protect.network}`,
  ].filter((text) => text !== undefined);
  const facts = [
    ['level', level],
    ['rule', printable(rule)],
    ['reason', `${decision.reason}: ${printable(decision.detail)}`],
    ['identity', decision.tier],
    ['waits for', decision.pending.join(', ')],
    ['drivers', decision.drivers?.join(', ') ?? ''],
    ['protect', protect.join(', ')],
    ['operator', decision.grantable === decision.level ? '' : `may raise it to ${decision.grantable}`],
  ].filter(([, value]) => value !== '');
  const lines = [paint.bold(`${printable(device.id)}  ${printable(whatIs(device))}`)];
  for (const [name = '', value = ''] of facts) lines.push(`  ${name.padEnd(9)} ${value}`);
  if (decision.inputs.length > 0) {
    const rows = decision.inputs.map((input) => [
      `  ${input.holds === true ? '+' : input.holds === false ? '-' : '?'} ${input.field}`,
      printable(show(input.value)),
      input.wanted === undefined ? '' : printable(input.wanted),
    ]);
    const [header, ...table] = alignRows([['  what', 'is', 'asked for'], ...rows]);
    lines.push('', paint.dim(header ?? ''), ...table);
  }
  if (decision.changes.length > 0) {
    lines.push('', 'what would change it');
    for (const change of decision.changes) {
      const target =
        change.rule === null
          ? 'the rules decide'
          : `${change.level} by ${change.rule.id}, ${change.rule.file}:${change.rule.line}`;
      lines.push(`  ${printable(target)}`);
      for (const need of change.needs) lines.push(`    ${printable(need)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
