/** `airlock policy fmt`: one layout for all policies. */
import { rename, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { formatProblem, ok } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { formatPolicy } from '@airlock/policy/format.ts';
import { readText } from '@airlock/policy/node-source.ts';
import { policyTestSchema } from '@airlock/policy/schema.ts';
import { TEXT_LIMIT } from '@airlock/policy/yaml.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy fmt',
  summary: 'lay out policy files in the one way',
  usage: '[--write | --check] FILE...',
  help: `
Keys in the language's order, two blanks of indentation, comments and numbers as they were. Prints the result.

  --write  change the files instead
  --check  only tell which files are laid out otherwise; exit code 1 if any is

  airlock policy fmt --write policy.yaml policy.d/*.yaml
`,
  options: { write: { type: 'boolean' }, check: { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const write = values['write'] === true;
  const check = values['check'] === true;
  if (positionals.length === 0) throw new UsageError('which file?');
  if (write && check) throw new UsageError('--write and --check exclude each other');
  if (write && positionals.includes('-')) throw new UsageError('standard input cannot be written');
  if (!write && !check && positionals.length > 1) throw new UsageError('several files need --write or --check');
  let code: number = EXIT.fine;
  for (const name of positionals) {
    const path = resolve(context.cwd, name);
    const text = name === '-' ? ok(await context.readStdin()) : await readText(path, name, TEXT_LIMIT * 4);
    const schema = name.endsWith('.test.yaml') ? policyTestSchema() : undefined;
    const result = text.ok ? formatPolicy(text.value, name === '-' ? '<stdin>' : name, schema) : text;
    if (!result.ok || !text.ok) {
      if (!result.ok) context.stderr(`${printable(formatProblem(result.error))}\n`);
      code = EXIT.findings;
      continue;
    }
    if (!write && !check) context.stdout(result.value);
    else if (result.value !== text.value) {
      context.stdout(`${printable(name)}\n`);
      if (check) code = EXIT.findings;
      else if (!(await replace(context, path, result.value))) return EXIT.environment;
    }
  }
  return code;
}

/** Whole or not at all, with the mode that it had. */
async function replace(context: Context, path: string, text: string): Promise<boolean> {
  try {
    const { mode } = await stat(path);
    await writeFile(`${path}.new`, text, { mode: mode & 0o777 });
    await rename(`${path}.new`, path);
    return true;
  } catch (error) {
    context.stderr(`airlock policy fmt: ${path}: ${error instanceof Error ? error.message : 'not written'}\n`);
    return false;
  }
}
