/** `airlock policy eval`: what a policy decides about every device of a recorded machine. */
import type { Decision } from '@airlock/core/decision.ts';
import { isConnected } from '@airlock/core/level.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { alignRows, paintFor, whatIs } from '../device-view.ts';
import {
  atBoot,
  decideAll,
  needOption,
  needPolicy,
  noteUnseenBoot,
  onceStdin,
  readClaimsFile,
  readInventoryFile,
} from '../policy-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy eval',
  summary: 'what a policy decides about every device of a recorded machine',
  usage: '--inventory FILE [--claims FILE] [--at-boot] [--after-bind] [--json] POLICY',
  help: `
  --inventory FILE  a machine, as airlock list --json prints it
  --claims FILE     what is known of identities: { "DEVICE": { "tier": "bound", "roots": ["a.pem"] } }
  --at-boot         as at the next boot: what is there was there when the gate looked first
  --after-bind      as after binding: what is still unknown counts against a device
  --json            one decision a line, with all inputs

A level with * is provisional: it stands only until the facts beside it can be seen. Changes nothing anywhere.

  airlock list --json | airlock policy eval --inventory - policy.yaml
`,
  options: {
    inventory: { type: 'string' },
    claims: { type: 'string' },
    'after-bind': { type: 'boolean' },
    'at-boot': { type: 'boolean' },
    json: { type: 'boolean' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const [path, extra] = positionals;
  if (path === undefined || extra !== undefined) throw new UsageError('one policy is needed');
  const from = needOption(values, 'inventory', 'FILE');
  const claimsFrom = typeof values['claims'] === 'string' ? values['claims'] : undefined;
  onceStdin(path, from, claimsFrom);
  const policy = await needPolicy(context, 'policy eval', path);
  if (policy === null) return EXIT.findings;
  const inventory = await readInventoryFile(context, from);
  const claims = claimsFrom === undefined ? undefined : await readClaimsFile(context, claimsFrom);
  for (const read of [inventory, claims]) {
    if (read === undefined || read.ok) continue;
    context.stderr(`airlock policy eval: ${printable(formatProblem(read.error))}\n`);
    return EXIT.usage;
  }
  if (!inventory.ok) return EXIT.usage;
  const machine = values['at-boot'] === true ? atBoot(inventory.value) : inventory.value;
  noteUnseenBoot(context, 'policy eval', machine);
  const decisions = await decideAll(
    context,
    path,
    policy,
    machine,
    claims?.ok ? claims.value : {},
    values['after-bind'] === true ? 'after-bind' : 'before-bind',
  );
  if (values['json'] === true) {
    for (const decision of decisions) context.stdout(`${JSON.stringify(decision)}\n`);
    return EXIT.fine;
  }
  const paint = paintFor(context.terminal);
  const devices = machine.devices;
  const rows = decisions.map((decision, index) => {
    const device = devices[index];
    return [
      printable(decision.device),
      device === undefined ? '' : printable(whatIs(device)),
      `${decision.level}${decision.pending.length > 0 ? '*' : ''}`,
      decision.rule?.id ?? '',
      why(decision),
    ];
  });
  const [header, ...lines] = alignRows([['device', 'what', 'level', 'rule', 'reason'], ...rows]);
  const text = lines.map((line, index) => {
    const decision = decisions[index];
    return decision === undefined || isConnected(decision.level) ? line : paint.dim(line);
  });
  const connected = decisions.filter((decision) => isConnected(decision.level)).length;
  const summary = `${decisions.length} devices: ${connected} connected, ${decisions.length - connected} disconnected`;
  context.stdout(`${decisions.length === 0 ? '' : `${paint.bold(header ?? '')}\n${text.join('\n')}\n`}${summary}\n`);
  return EXIT.fine;
}

/** The reason, unless the rule's name says it all. */
function why(decision: Decision): string {
  if (decision.pending.length > 0) return `until ${decision.pending.join(', ')} can be seen`;
  return decision.reason === 'rule-matched' ? '' : decision.reason;
}
