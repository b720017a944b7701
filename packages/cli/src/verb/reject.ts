/** `airlock reject`: unbinds a device, takes it off its bus, and keeps it out when it comes back. */
import { actOn, oneDevice } from '../agent-act.ts';
import type { Context, Values, Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'reject',
  summary: 'unbind a device and take it off its bus',
  usage: 'DEVICE [--json]',
  help: `
  --json      the answer as one JSON value
  --root DIR  the agent that runs below DIR

As airlock block, and the PCI function is removed from the bus besides. A rescan may find it again; it stays blocked
until the machine reboots or airlock allow DEVICE. Devices that are not PCI functions are unbound and blocked only. A
bridge with devices behind it is left alone: reject those first.

Exit codes: 0 it is gone (read back), 1 it is not, 2 usage or no such device, 3 no agent.

  airlock reject 00:07.0
`,
  options: { json: { type: 'boolean' }, root: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const device = oneDevice(positionals);
  return actOn(context, values, 'reject', device, (id, expect) => ({ verb: 'reject', device: id, expect }));
}
