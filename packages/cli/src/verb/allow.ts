/** `airlock allow`: lets a device in for a while, as far as the policy leaves that to an operator. */

import type { Result } from '@airlock/core/result.ts';
import type { Answer, Term } from '@airlock/gate/agent/control-protocol.ts';
import { parseDuration } from '@airlock/gate/agent/duration.ts';
import { askAgent } from '@airlock/gate/agent/node-control-client.ts';
import { actOn, oneDevice, report, socketOf } from '../agent-act.ts';
import { answerText, paintFor } from '../agent-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'allow',
  summary: 'let a device in for a while, as far as the policy leaves that to an operator',
  usage: 'DEVICE [--once | --for DURATION | --permanent | --revoke] [--json]',
  help: `
  --once          until the device goes away (the default)
  --for DURATION  for 90s, 10m, 2h, 1h30m or 1d; counted from now by the time since boot, whatever the clock says
  --permanent     without an end, also after a reboot (kept in /var/lib/airlock)
  --revoke        take back what was allowed or blocked, and end a quarantine: the policy alone decides again
  --json          the answer as one JSON value
  --root DIR      the agent that runs below DIR

DEVICE is an id (pci:0000:00:03.0), an address (00:03.0) or another of its names (virtio1, eth0, vda). A grant is bound
to the device as it is now: another one in its place does not inherit it. It never goes beyond the rule that decided on
the device ("grant: LEVEL"); the answer says which rule that is. A grant survives a restart of the agent, and only a
permanent one a reboot. It also lifts a block, but never the quarantine of a device that misbehaved: --revoke does.

Exit codes: 0 it is let in (read back), 1 the policy says no or it does not hold, 2 usage or no such device, 3 no agent.

  airlock allow 00:05.0 --for 10m
  airlock allow eth1 --revoke
`,
  options: {
    once: { type: 'boolean' },
    for: { type: 'string' },
    permanent: { type: 'boolean' },
    revoke: { type: 'boolean' },
    json: { type: 'boolean' },
    root: { type: 'string' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const device = oneDevice(positionals);
  const given = ['once', 'for', 'permanent', 'revoke'].filter((name) => values[name] !== undefined);
  if (given.length > 1) throw new UsageError(`${given.map((name) => `--${name}`).join(' and ')} exclude each other`);
  if (values['revoke'] === true) return revoke(context, values, device);
  const term = termOf(values);
  return actOn(context, values, 'allow', device, (id, expect) => ({ verb: 'allow', device: id, term, expect }));
}

function termOf(values: Values): Term {
  if (values['permanent'] === true) return { kind: 'permanent' };
  const text = values['for'];
  if (typeof text !== 'string') return { kind: 'once' };
  const lasts = parseDuration(text);
  if (lasts.ok) return { kind: 'timed', lasts: lasts.value };
  throw new UsageError(
    `--for: ${lasts.error.message}${lasts.error.hint === undefined ? '' : ` (${lasts.error.hint})`}`,
  );
}

/** What it takes back is the operator's own act, so it is not asked which device stands there now. */
async function revoke(context: Context, values: Values, device: string): Promise<number> {
  const json = values['json'] === true;
  const answer = (await askAgent(socketOf(context, values), { verb: 'revoke', device })) as Result<Answer>;
  if (!answer.ok) return report(context, 'allow', answer.error, json);
  context.stdout(json ? `${JSON.stringify(answer.value)}\n` : answerText(answer.value, paintFor(context.terminal)));
  return answer.value.result === 'not-enforced' ? EXIT.findings : EXIT.fine;
}
