/** `airlock lab up`: a real Linux guest behind a policy. */
import { existsSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { formatProblem, type Problem } from '@airlock/core/result.ts';
import { CHECKOUT, KERNELS, type KernelSeries } from '@airlock/lab/cache.ts';
import { TOUR_CONDUCTS } from '@airlock/lab/drive-tour.ts';
import { progressOn } from '@airlock/lab/progress.ts';
import { renderReport } from '@airlock/lab/render.ts';
import { runScenario } from '@airlock/lab/scenario.ts';
import { attachTerminal } from '@airlock/lab/terminal.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { loadPolicy } from '@airlock/policy/node-source.ts';
import { exhibitsOf } from '../lab-exhibits.ts';
import { type Context, EXIT, UsageError, type Values, type Verb } from '../verb.ts';

export const verb: Verb = {
  name: 'lab up',
  summary: 'boot a real Linux guest in QEMU behind a policy, and show what became of each device',
  usage: '[--kernel SERIES] [--policy FILE] [--compare | --device TYPE … --nvme tour --tpm] [--interactive] [--json]',
  help: `
Boots a Debian kernel with a root disk, a network card, a console, an entropy source, a balloon, a 9p share, a graphics
card, a keyboard and an NVMe drive; plugs in a second network card and a second NVMe drive; rescans; tries as root to
get at what is denied; then shows each device as the guest itself has it. Nothing of this touches this machine: the
guest has no network, a private folder, and ends with the command.

  --kernel SERIES    which kernel: 6.1, 6.12 or 7.2 (default 7.2)
  --policy FILE      which policy (default policies/lab.yaml)
  --compare          boot the same machine without the gate beside it
  --device TYPE[,transport=vfio-user|vhost-user|vduse][,OPTION=VALUE…]
                     plug in a device of ours, served as airlock device serve does it and with its options (a comma in a
                     value is doubled); may be repeated. What it needs and is not told, it gets to play with. With vduse it
                     is served within the guest, and its paths are there too
  --allow            with a rule for each such device that lets it in, after those of the policy
  --nvme CONDUCT[,CONDUCT…]
                     an NVMe drive that has to prove who it is over SPDM before it gets a driver: first honest, then
                     replaced by others. tour is wrong-measurement and relay. The rest:
                     ${TOUR_CONDUCTS.slice(0, 8).join(', ')},
                     ${TOUR_CONDUCTS.slice(8).join(', ')}
  --tpm              a software TPM, and firmware that measures: the guest proves its boot, judged outside by
                     airlock verify against what was started, and against what was not
  --interactive      then a root shell in the guest; Ctrl-] leaves
  --json             progress and report as JSON, one object a line; the report is the last

Exit codes: 0 the policy holds, 1 it does not or has errors, 2 usage, 3 no guest could be run.

  airlock lab up --compare
  airlock lab up --kernel 6.1 --policy my-policy.yaml --interactive
  airlock lab up --device block,file=disk.img --device entropy,transport=vhost-user --allow --interactive
  airlock lab up --nvme tour
  airlock lab up --tpm
`,
  options: {
    kernel: { type: 'string' },
    policy: { type: 'string' },
    compare: { type: 'boolean' },
    device: { type: 'string', multiple: true },
    allow: { type: 'boolean' },
    nvme: { type: 'string' },
    tpm: { type: 'boolean' },
    interactive: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  run,
};

async function run(context: Context, values: Values, positionals: readonly string[]): Promise<number> {
  if (positionals.length > 0) throw new UsageError(`no argument expected, got ${positionals[0]}`);
  const series = kernelSeries(values['kernel']);
  const json = values['json'] === true;
  const interactive = values['interactive'] === true;
  if (interactive && json) throw new UsageError('--interactive and --json do not go together');
  if (interactive && !process.stdin.isTTY) throw new UsageError('--interactive needs a terminal');
  const policy =
    typeof values['policy'] === 'string' ? resolve(context.cwd, values['policy']) : join(CHECKOUT, 'policies/lab.yaml');
  // As a person would write it: it stands in decisions and in the gate's summary.
  const near = relative(process.cwd(), policy);
  const shown = near.startsWith('..') ? policy : near;
  if (!existsSync(policy)) throw new UsageError(`no such policy: ${policy}`);

  const exhibits = await exhibitsOf(context, values, series);
  const problems = await policyProblems(shown);
  if (problems.length > 0) {
    if (json) context.stdout(`${JSON.stringify({ kind: 'policy', problems })}\n`);
    for (const problem of problems) context.stderr(`${formatProblem(problem)}\n`);
    context.stderr('airlock lab up: no guest was started: the policy has errors\n');
    return EXIT.findings;
  }
  const progress = json
    ? { tell: (event: object) => context.stdout(`${JSON.stringify(event)}\n`), end: () => {} }
    : progressOn(context.stderr, context.terminal, context.columns);
  let result: Awaited<ReturnType<typeof runScenario>>;
  try {
    result = await runScenario({
      series,
      policy: shown,
      compare: values['compare'] === true,
      exhibits,
      signal: context.signal,
      tell: progress.tell,
      async after(guest, report) {
        if (!interactive) return;
        progress.end();
        context.stdout(renderReport(report, context.terminal));
        context.stdout('\n  A root shell in the guest; Ctrl-] leaves.\n\n');
        const left = await attachTerminal(guest.shellSocket, process.stdin, process.stdout, context.signal);
        if (!left.ok) context.stderr(`airlock lab up: ${formatProblem(left.error)}\n`);
      },
    });
  } finally {
    progress.end();
  }
  if (!result.ok) {
    if (json) context.stdout(`${JSON.stringify({ kind: 'problem', problem: result.error })}\n`);
    else context.stderr(`airlock lab up: ${formatProblem(result.error)}\n`);
    return EXIT.environment;
  }
  if (json) context.stdout(`${JSON.stringify({ kind: 'report', report: result.value })}\n`);
  else if (!interactive) context.stdout(renderReport(result.value, context.terminal));
  return result.value.held ? EXIT.fine : EXIT.findings;
}

/** Before anything is built or booted: what is wrong with the policy. */
async function policyProblems(path: string): Promise<readonly Problem[]> {
  const loaded = await loadPolicy(path);
  return loaded.problems.length > 0 ? loaded.problems : decodePolicy(loaded.documents).problems;
}

function kernelSeries(value: Values[string]): KernelSeries {
  if (value === undefined) return '7.2';
  const series = KERNELS.find((known) => known === value);
  if (series === undefined) throw new UsageError(`--kernel: one of ${KERNELS.join(', ')}`);
  return series;
}
