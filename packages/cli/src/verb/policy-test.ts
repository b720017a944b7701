/** `airlock policy test`: does the policy still decide what its author expects? */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Inventory } from '@airlock/core/device.ts';
import { ok, type Problem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import { readText } from '@airlock/policy/node-source.ts';
import { decodeTests, type PolicyTests } from '@airlock/policy/test-file.ts';
import { runTests, type TestRun } from '@airlock/policy/test-run.ts';
import { readYaml, TEXT_LIMIT } from '@airlock/policy/yaml.ts';
import { type Paint, paintFor } from '../device-view.ts';
import { noteExternal, printProblems, readInventoryFile, readPolicy } from '../policy-input.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'policy test',
  summary: 'run the cases of *.test.yaml against their policies',
  usage: '[PATH...] [--verbose] [--full-coverage] [--json]',
  help: `
PATH is a *.test.yaml, a policy (its cases are beside it: policy.yaml, policy.test.yaml) or a folder of such; the current
folder when none is given. Prints what failed, and how many of each policy's rules the cases reach.

  --verbose        also the cases that passed, and the rules that no case reaches
  --full-coverage  a rule that no case reaches is a failure
  --json           one JSON object a test file

Exit code 1 when a case fails.
`,
  options: { verbose: { type: 'boolean' }, 'full-coverage': { type: 'boolean' }, json: { type: 'boolean' } },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  const files: string[] = [];
  for (const path of positionals.length === 0 ? ['.'] : positionals) files.push(...(await testFiles(context, path)));
  const paint = paintFor(context.terminal);
  let code: number = EXIT.fine;
  for (const file of files) {
    const result = await runFile(context, file);
    if ('problems' in result) {
      printProblems(context, result.problems);
      code = EXIT.findings;
      continue;
    }
    const failed = result.run.cases.filter((one) => one.wrong.length > 0);
    const unreached = [...result.run.coverage].filter(([, count]) => count === 0).map(([id]) => id);
    const rules = unreached.filter((id) => id !== 'default');
    if (failed.length > 0 || (values['full-coverage'] === true && rules.length > 0)) code = EXIT.findings;
    if (values['json'] === true) context.stdout(`${JSON.stringify(asJson(file, result.policy, result.run))}\n`);
    else
      context.stdout(
        report(file, result.run, rules, values['verbose'] === true, values['full-coverage'] === true, paint),
      );
  }
  return code;
}

async function testFiles(context: Context, path: string): Promise<string[]> {
  const real = resolve(context.cwd, path);
  const found = await stat(real).catch(() => undefined);
  if (found === undefined) throw new UsageError(`no such file or folder: ${path}`);
  if (found.isDirectory()) {
    const names = (await readdir(real)).filter((name) => name.endsWith('.test.yaml')).sort();
    if (names.length === 0) throw new UsageError(`no *.test.yaml in ${path}`);
    return names.map((name) => join(path, name));
  }
  if (path.endsWith('.test.yaml')) return [path];
  const beside = path.replace(/\.yaml$/, '.test.yaml');
  const there = beside !== path && (await stat(resolve(context.cwd, beside)).catch(() => undefined)) !== undefined;
  if (!there) throw new UsageError(`${path} has no ${basename(beside)} beside it`);
  return [beside];
}

async function runFile(
  context: Context,
  file: string,
): Promise<{ readonly run: TestRun; readonly policy: string } | { readonly problems: readonly Problem[] }> {
  const text = await readText(resolve(context.cwd, file), file, TEXT_LIMIT * 4);
  if (!text.ok) return { problems: [text.error] };
  const { node, problems } = readYaml(text.value, file);
  if (node === undefined) return { problems };
  const { tests, problems: wrong } = decodeTests(node);
  if (tests === undefined) return { problems: wrong };
  const path = join(dirname(file), tests.policy ?? basename(file).replace(/\.test\.yaml$/, '.yaml'));
  const read = await readPolicy(context, path);
  if (read.policy === undefined) return { problems: read.problems };
  const recorded = await recordedBy(context, file, tests);
  if (!recorded.ok) return { problems: [recorded.error] };
  const policy = compilePolicy(read.policy);
  noteExternal(context, 'policy test', policy);
  return { run: runTests(policy, tests, recorded.value), policy: path };
}

async function recordedBy(context: Context, file: string, tests: PolicyTests) {
  if (tests.inventory === undefined) return ok<Inventory | undefined>(undefined);
  return readInventoryFile(context, join(dirname(file), tests.inventory));
}

function report(
  file: string,
  run: TestRun,
  unreached: readonly string[],
  verbose: boolean,
  full: boolean,
  paint: Paint,
): string {
  const lines: string[] = [];
  for (const { test, wrong, decision } of run.cases) {
    if (wrong.length === 0) {
      if (verbose) lines.push(`  ${paint.dim('ok')}    ${printable(test.name)}`);
      continue;
    }
    lines.push(`  ${paint.red('wrong')} ${printable(test.name)}  ${paint.dim(printable(`${file}:${test.at.line}`))}`);
    for (const one of wrong) lines.push(`          ${printable(one)}`);
    if (decision !== undefined) lines.push(`          ${paint.dim(printable(decision.detail))}`);
  }
  const failed = run.cases.filter((one) => one.wrong.length > 0).length;
  const total = run.coverage.size - 1;
  const reached = total - unreached.length;
  if (unreached.length > 0 && (verbose || full)) {
    lines.push(`  ${full ? paint.red('no case reaches') : 'no case reaches'} ${unreached.join(', ')}`);
  }
  const verdict = failed === 0 ? `${run.cases.length} cases passed` : `${failed} of ${run.cases.length} cases failed`;
  lines.unshift(`${paint.bold(printable(file))}: ${verdict}, ${reached} of ${total} rules reached`);
  return `${lines.join('\n')}\n`;
}

function asJson(file: string, policy: string, run: TestRun) {
  return {
    file,
    policy,
    passed: run.cases.filter((one) => one.wrong.length === 0).length,
    failed: run.cases.filter((one) => one.wrong.length > 0).length,
    cases: run.cases.map(({ test, wrong, decision }) => ({
      name: test.name,
      line: test.at.line,
      wrong,
      level: decision?.level,
      rule: decision?.rule?.id ?? null,
      reason: decision?.reason,
    })),
    coverage: Object.fromEntries(run.coverage),
  };
}
