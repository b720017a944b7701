/** `airlock agent run`: the daemon that keeps devices as they are decided. */
import { stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import type { AgentPolicy } from '@airlock/gate/agent/agent-policy.ts';
import { parseDuration } from '@airlock/gate/agent/duration.ts';
import { runAgent } from '@airlock/gate/agent/node-agent.ts';
import { STATE } from '@airlock/gate/agent/state.ts';
import { worstOf } from '@airlock/gate/agent/status.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { loadPolicy } from '@airlock/policy/node-source.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import { report, rootOf } from '../agent-act.ts';
import { attestationFor } from '../agent-attestation.ts';
import { eventLine, paintFor, safe, statusText } from '../agent-view.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'agent run',
  summary: 'keep devices as they are decided: the daemon after the gate',
  usage: '[--enforce] [--policy FILE] [--once] [--every DURATION] [--json]',
  help: `
  --enforce      change what is not as decided; without it the agent only watches and tells
  --policy FILE  this policy, not the measured one that the gate left in /run/airlock
  --once         look (and with --enforce correct) once, show how it stands, and end
  --every DURATION  ask devices that have to prove who they are again, this long after the last time (10m, 1h)
  --json         events as one JSON object a line; with --once the status as one JSON value
  --root DIR     the machine below DIR; no program is run and nothing outside DIR is written

Nothing of this machine is changed unless --enforce is given and the policy's mode is enforce. Exit codes: 0 ended by a
signal (with --once: everything holds), 1 something does not hold, 2 usage or a policy with errors, 3 it cannot run.

  airlock agent run --policy policies/lab.yaml --once
`,
  options: {
    enforce: { type: 'boolean' },
    policy: { type: 'string' },
    once: { type: 'boolean' },
    every: { type: 'string' },
    json: { type: 'boolean' },
    root: { type: 'string' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`no argument expected, got ${positionals[0]}`);
  const json = values['json'] === true;
  const once = values['once'] === true;
  const root = rootOf(context, values);
  const folder = await stat(root).catch(() => undefined);
  if (folder?.isDirectory() !== true) {
    context.stderr(`airlock agent run: ${safe(root)}: not a directory\n`);
    return EXIT.environment;
  }
  const named = typeof values['policy'] === 'string' ? await readNamed(context, values['policy']) : undefined;
  if (named !== undefined && !named.ok) {
    for (const problem of named.problems) context.stderr(`${safe(formatProblem(problem))}\n`);
    context.stderr('airlock agent run: the policy has errors; nothing was started\n');
    return EXIT.usage;
  }
  const every = everyOf(values);
  const paint = paintFor(context.terminal);
  const notifySocket = context.env['NOTIFY_SOCKET'];
  const result = await runAgent({
    root,
    ...(named === undefined ? {} : { policy: named.policy }),
    enforce: values['enforce'] === true,
    once,
    attestation: (policy) =>
      attestationFor(context, root, policy, {
        folder: named === undefined ? join(root, STATE.anchors) : folderOf(context, policy),
        every,
      }),
    signal: context.signal,
    ...(notifySocket === undefined ? {} : { notifySocket }),
    event: (event) => {
      if (once) return;
      context.stdout(`${json ? JSON.stringify(event) : eventLine(event, paint)}\n`);
    },
    say: (text) => context.stderr(`airlock agent run: ${safe(text)}\n`),
  });
  if (!result.ok) {
    report(context, 'agent run', result.error, json);
    return EXIT.environment;
  }
  if (!once) return EXIT.fine;
  context.stdout(json ? `${JSON.stringify(result.value)}\n` : statusText(result.value, context.terminal));
  return worstOf(result.value) === 'failed' ? EXIT.findings : EXIT.fine;
}

/** Whatever file of the policy names them: what it refers to lies beside its main file. */
function folderOf(context: Context, { files }: Policy): string {
  return resolve(context.cwd, dirname(files[0] ?? '.'));
}

function everyOf(values: Values): number | undefined {
  const text = values['every'];
  if (typeof text !== 'string') return undefined;
  if (values['once'] === true) throw new UsageError('--every and --once exclude each other');
  const duration = parseDuration(text);
  if (!duration.ok) throw new UsageError(`--every: ${formatProblem(duration.error)}`);
  return duration.value;
}

type Named =
  | { readonly ok: true; readonly policy: AgentPolicy }
  | { readonly ok: false; readonly problems: readonly Problem[] };

async function readNamed(context: Context, file: string): Promise<Named> {
  const loaded = await loadPolicy(
    file.startsWith('/') || context.cwd === process.cwd() ? file : resolve(context.cwd, file),
  );
  const decoded = decodePolicy(loaded.documents);
  const problems = [...loaded.problems, ...decoded.problems];
  if (decoded.policy === undefined || problems.length > 0) return { ok: false, problems };
  return { ok: true, policy: { policy: decoded.policy, mode: decoded.policy.mode, problems: [] } };
}
