/** `airlock policy generate`: a first policy from a machine as it is. */
import { formatProblem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { readInventory } from '@airlock/linux/inventory.ts';
import { generatePolicy } from '@airlock/policy/generate.ts';
import { MODES } from '@airlock/policy/policy.ts';
import { deviceFiles } from '../device-files.ts';
import { readInventoryFile } from '../policy-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy generate',
  summary: 'a first policy from a machine as it is',
  usage: '[--from INVENTORY] [--mode audit|learn|enforce]',
  help: `
What has a driver now may be used, nothing else; each rule says which device it was made for. It is a draft: read it.

  --from INVENTORY  a recorded machine (airlock list --json); this machine when not given
  --mode MODE       audit when not given: the policy reports and changes nothing

  airlock policy generate > policy.yaml
`,
  options: { from: { type: 'string' }, mode: { type: 'string' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`no argument expected; --from ${positionals[0]} reads an inventory`);
  const mode = values['mode'] === undefined ? 'audit' : MODES.find((one) => one === values['mode']);
  if (mode === undefined) throw new UsageError(`--mode is one of ${MODES.join(', ')}`);
  const from = values['from'];
  const inventory =
    typeof from === 'string' ? await readInventoryFile(context, from) : await readInventory(deviceFiles(context, {}));
  if (!inventory.ok) {
    context.stderr(`airlock policy generate: ${printable(formatProblem(inventory.error))}\n`);
    return typeof from === 'string' ? EXIT.usage : EXIT.environment;
  }
  context.stdout(generatePolicy(inventory.value, { mode }));
  return EXIT.fine;
}
