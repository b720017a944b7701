/** `airlock policy eval`: what a policy decides about every device of a recorded machine. */
import type { Decision } from '@airlock/core/decision.ts';
import { isConnected } from '@airlock/core/level.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { alignRows, paintFor, whatIs } from '../device-view.ts';
import { decideQuestion, needOnePolicy, QUESTION_OPTIONS, readQuestion } from '../policy-question.ts';
import { type Context, EXIT, type Values, type Verb } from '../verb.ts';

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
  options: QUESTION_OPTIONS,
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const path = needOnePolicy(positionals);
  const question = await readQuestion(context, 'policy eval', path, values);
  if (typeof question === 'number') return question;
  const decisions = await decideQuestion(context, question);
  if (values['json'] === true) {
    for (const decision of decisions) context.stdout(`${JSON.stringify(decision)}\n`);
    return EXIT.fine;
  }
  const paint = paintFor(context.terminal);
  const devices = question.machine.devices;
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
