/** `airlock block`: keeps a device out, whatever the policy says. */
import { actOn, oneDevice } from '../agent-act.ts';
import type { Context, Values, Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'block',
  summary: 'keep a device out, whatever the policy says',
  usage: 'DEVICE [--permanent] [--json]',
  help: `
  --permanent  also after a reboot, once the agent runs (kept in /var/lib/airlock)
  --json       the answer as one JSON value
  --root DIR   the agent that runs below DIR

Unbinds the device at once and keeps it unbound until the machine reboots, or until airlock allow DEVICE. A block holds
for whatever stands in that place. It needs no permission of the policy. Mind what hangs on the device: a disk that is
mounted is gone with it.

Exit codes: 0 it is out (read back), 1 it does not hold, 2 usage or no such device, 3 no agent.

  airlock block eth1
`,
  options: { permanent: { type: 'boolean' }, json: { type: 'boolean' }, root: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const device = oneDevice(positionals);
  const permanent = values['permanent'] === true;
  return actOn(context, values, 'block', device, (id, expect) => ({ verb: 'block', device: id, permanent, expect }));
}
