/** `airlock policy schema`: the JSON Schema of the language, for editors and other tools. */
import { policySchema, policyTestSchema } from '@airlock/policy/schema.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy schema',
  summary: 'the JSON Schema of the policy language',
  usage: '[--tests]',
  help: `
  --tests  the schema of *.test.yaml instead

Editors find it by a first line such as
  # yaml-language-server: $schema=policy.schema.json
`,
  options: { tests: { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError('no argument expected');
  const schema = values['tests'] === true ? policyTestSchema() : policySchema();
  context.stdout(`${JSON.stringify(schema, null, 2)}\n`);
  return EXIT.fine;
}
