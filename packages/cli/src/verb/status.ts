/** `airlock status`: what is really enforced now. */
import type { Result } from '@airlock/core/result.ts';
import { askAgent } from '@airlock/gate/agent/node-control-client.ts';
import { readStanding } from '@airlock/gate/agent/standing.ts';
import { type Status, worstOf } from '@airlock/gate/agent/status.ts';
import { nodeFiles } from '@airlock/linux/node-files.ts';
import { report, rootOf, socketOf } from '../agent-act.ts';
import { statusText } from '../agent-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'status',
  summary: 'what is really enforced now, read back from the kernel',
  usage: '[--json] [--strict]',
  help: `
  --json      everything as one JSON value
  --strict    what this kernel cannot enforce counts as a finding too
  --root DIR  the machine below DIR

Asks the agent, which looks at every device anew before it answers. Where no agent runs it says so, and reads back what
the gate decided. Exit codes: 0 what the policy asks for holds, 1 something does not or nobody enforces it, 2 usage,
3 it cannot be told.
`,
  options: { json: { type: 'boolean' }, strict: { type: 'boolean' }, root: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`no argument expected, got ${positionals[0]}`);
  const json = values['json'] === true;
  let status = (await askAgent(socketOf(context, values), { verb: 'status' })) as Result<Status>;
  if (!status.ok && (status.error.code === 'agent-missing' || status.error.code === 'control-lost')) {
    status = await readStanding(nodeFiles({ root: rootOf(context, values) }));
  }
  if (!status.ok) {
    report(context, 'status', status.error, json);
    return EXIT.environment;
  }
  context.stdout(json ? `${JSON.stringify(status.value)}\n` : statusText(status.value, context.terminal));
  const worst = worstOf(status.value);
  const holds = worst === 'enforced' || (worst === 'not-enforceable' && values['strict'] !== true);
  return status.value.from === 'agent' && status.value.enforcing && holds ? EXIT.fine : EXIT.findings;
}
