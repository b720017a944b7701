/** `airlock watch`: the agent's events as they happen. */
import { watchAgent } from '@airlock/gate/agent/node-control-client.ts';
import { report, socketOf } from '../agent-act.ts';
import { eventLine, paintFor } from '../agent-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'watch',
  summary: 'what happens to devices, as it happens',
  usage: '[--recent] [--since NUMBER] [--json]',
  help: `
  --recent        first what the agent still remembers (its last 1000 events at most)
  --since NUMBER  the same, from the event after that number on
  --json          one JSON object a line
  --root DIR      the agent that runs below DIR

Ends with Ctrl-C. Exit codes: 0 ended by you, 2 usage, 3 no agent, or it ended.

  airlock watch --json | jq 'select(.kind == "violation")'
`,
  options: {
    recent: { type: 'boolean' },
    since: { type: 'string' },
    json: { type: 'boolean' },
    root: { type: 'string' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`no argument expected, got ${positionals[0]}`);
  const json = values['json'] === true;
  const paint = paintFor(context.terminal);
  const watched = await watchAgent(socketOf(context, values), sinceOf(values), context.signal, (event) => {
    context.stdout(`${json ? JSON.stringify(event) : eventLine(event, paint)}\n`);
  });
  if (watched.ok) return EXIT.fine;
  report(context, 'watch', watched.error, json);
  return EXIT.environment;
}

function sinceOf(values: Values): number | undefined {
  const text = values['since'];
  if (text === undefined) return values['recent'] === true ? 0 : undefined;
  if (typeof text !== 'string' || !/^[0-9]{1,15}$/.test(text)) throw new UsageError('--since: the number of an event');
  return Number(text);
}
