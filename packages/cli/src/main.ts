/** `airlock`: finds the verb, parses its options, runs it, turns what comes back into an exit code. */
import { parseArgs } from 'node:util';
import { nearest } from '@airlock/core/nearest.ts';
import { leave } from '@airlock/transport/leave.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from './verb.ts';

/** Loaded when used, so that `airlock list` does not pay for the lab. Order is that of the help text. */
const verbs: Readonly<Record<string, () => Promise<{ readonly verb: Verb }>>> = {
  list: () => import('./verb/list.ts'),
  info: () => import('./verb/info.ts'),
  audit: () => import('./verb/audit.ts'),
  verify: () => import('./verb/verify.ts'),
  'collateral bundle': () => import('./verb/collateral-bundle.ts'),
  'collateral show': () => import('./verb/collateral-show.ts'),
  'evidence collect': () => import('./verb/evidence-collect.ts'),
  'evidence reference': () => import('./verb/evidence-reference.ts'),
  'policy check': () => import('./verb/policy-check.ts'),
  'policy explain': () => import('./verb/policy-explain.ts'),
  'policy eval': () => import('./verb/policy-eval.ts'),
  'policy diff': () => import('./verb/policy-diff.ts'),
  'policy test': () => import('./verb/policy-test.ts'),
  'policy generate': () => import('./verb/policy-generate.ts'),
  'policy fmt': () => import('./verb/policy-fmt.ts'),
  'policy schema': () => import('./verb/policy-schema.ts'),
  'agent run': () => import('./verb/agent-run.ts'),
  status: () => import('./verb/status.ts'),
  watch: () => import('./verb/watch.ts'),
  allow: () => import('./verb/allow.ts'),
  block: () => import('./verb/block.ts'),
  reject: () => import('./verb/reject.ts'),
  'gate build': () => import('./verb/gate-build.ts'),
  'gate initrd': () => import('./verb/gate-initrd.ts'),
  'device serve': () => import('./verb/device-serve.ts'),
  'device probe': () => import('./verb/device-probe.ts'),
  'device bench': () => import('./verb/device-bench.ts'),
  'device attest': () => import('./verb/device-attest.ts'),
  'device evidence verify': () => import('./verb/device-evidence-verify.ts'),
  'spdm respond': () => import('./verb/spdm-respond.ts'),
  'lab up': () => import('./verb/lab-up.ts'),
};

export async function run(context: Context, args: readonly string[]): Promise<number> {
  const words = args.filter((_, i) => i < 3).slice(0, firstOption(args));
  if (words.length === 0) {
    const asked = args.some((arg) => arg === '--help' || arg === '-h');
    (asked ? context.stdout : context.stderr)(await overview());
    return asked ? EXIT.fine : EXIT.usage;
  }
  const name = [3, 2, 1].map((n) => words.slice(0, n).join(' ')).find((candidate) => Object.hasOwn(verbs, candidate));
  if (name === undefined) return unknownVerb(context, words);
  const load = verbs[name];
  if (load === undefined) return unknownVerb(context, words);
  const { verb } = await load();
  const rest = args.slice(name.split(' ').length);
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({
      args: [...rest],
      options: { ...verb.options, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
      strict: true,
    });
  } catch (error) {
    return usage(context, verb, misuse(error, verb));
  }
  if (parsed.values['help'] === true) {
    const help = verb.helpFor?.(parsed.positionals) ?? verb.help;
    const body = help.replace(/^\n+/, '').trimEnd(); // the first line keeps its indent
    context.stdout(`airlock ${verb.name} ${verb.usage}\n\n${verb.summary}\n\n${body}\n`);
    return EXIT.fine;
  }
  try {
    return await verb.run(context, parsed.values, parsed.positionals);
  } catch (error) {
    if (error instanceof UsageError) return usage(context, verb, error.message);
    throw error;
  }
}

function firstOption(args: readonly string[]): number {
  const index = args.findIndex((arg) => arg.startsWith('-'));
  return index === -1 ? args.length : index;
}

function usage(context: Context, verb: Verb, message: string): number {
  context.stderr(`airlock ${verb.name}: ${message}\nusage: airlock ${verb.name} ${verb.usage}\n`);
  return EXIT.usage;
}

/** parseArgs's own words, shortened, with the nearest option that exists. */
function misuse(error: unknown, verb: Verb): string {
  const text = error instanceof Error ? error.message : String(error);
  const unknown = /Unknown option '(--?[^']+)'/.exec(text)?.[1];
  if (unknown === undefined) return text;
  const near = nearest(unknown.replace(/^-+/, ''), Object.keys(verb.options));
  return `unknown option ${unknown}${near === undefined ? '' : `; did you mean --${near}?`}`;
}

function unknownVerb(context: Context, words: readonly string[]): number {
  const group = Object.keys(verbs).filter((name) => name.startsWith(`${words[0]} `));
  const asked = words.slice(0, group.length > 0 ? 2 : 1).join(' ');
  const near = nearest(asked, Object.keys(verbs));
  const hint = near === undefined ? '' : `; did you mean "airlock ${near}"?`;
  context.stderr(
    group.length > 0 && words.length === 1
      ? `airlock ${asked}: one of ${group.map((name) => name.split(' ').slice(1).join(' ')).join(', ')}\n`
      : `airlock: no such verb: ${asked}${hint}\nairlock --help lists them\n`,
  );
  return EXIT.usage;
}

async function overview(): Promise<string> {
  const lines = await Promise.all(
    Object.entries(verbs).map(async ([name, load]) => `  ${name.padEnd(22)} ${(await load()).verb.summary}`),
  );
  return `airlock: which I/O devices may this confidential VM use?\n\n${lines.join('\n')}\n\nairlock VERB --help tells more. Exit codes: 0 fine, 1 denied or findings, 2 usage, 3 environment.\n`;
}

async function readStdinBytes(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort(name));
  // A closed pipe (| head) is no error.
  process.stdout.on('error', () => process.exit(EXIT.fine));
  const context: Context = {
    stdout: (text) => void process.stdout.write(text),
    stderr: (text) => void process.stderr.write(text),
    terminal: process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined,
    columns: process.stdout.columns ?? 100,
    env: process.env,
    cwd: process.cwd(),
    readStdin: async () => (await readStdinBytes()).toString('utf8'),
    readStdinBytes,
    signal: stop.signal,
  };
  const code = await run(context, process.argv.slice(2));
  // Reads that the kernel holds must not hold us: leave once what was written is out.
  process.stdout.write('', () => leave(code));
}

if (import.meta.main) await main();
