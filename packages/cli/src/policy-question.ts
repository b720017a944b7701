/** What `policy eval` and `policy explain` both are asked: one policy, a recorded machine, and what is known of it. */
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { CompiledPolicy } from '@airlock/policy/compile.ts';
import type { Phase } from '@airlock/policy/verdict.ts';
import {
  atBoot,
  decideAll,
  needOption,
  needPolicy,
  noteUnseenBoot,
  onceStdin,
  readClaimsFile,
  readInventoryFile,
} from './policy-input.ts';
import { type Context, EXIT, UsageError, type Values } from './verb.ts';

export interface PolicyQuestion {
  /** Of the policy, as it was given. */
  readonly path: string;
  readonly policy: CompiledPolicy;
  readonly machine: Inventory;
  readonly claims: Claims;
  readonly phase: Phase;
}

export const QUESTION_OPTIONS = {
  inventory: { type: 'string' },
  claims: { type: 'string' },
  'after-bind': { type: 'boolean' },
  'at-boot': { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

/** The path of the one policy that is given. */
export function needOnePolicy(positionals: readonly string[]): string {
  const [path, extra] = positionals;
  if (path === undefined || extra !== undefined) throw new UsageError('one policy is needed');
  return path;
}

/** Everything that is asked about; or the exit status once what is wrong with it is on stderr. */
export async function readQuestion(
  context: Context,
  verb: string,
  path: string,
  values: Values,
): Promise<PolicyQuestion | number> {
  const from = needOption(values, 'inventory', 'FILE');
  const claimsFrom = typeof values['claims'] === 'string' ? values['claims'] : undefined;
  onceStdin(path, from, claimsFrom);
  const policy = await needPolicy(context, verb, path);
  if (policy === null) return EXIT.findings;
  const inventory = await readInventoryFile(context, from);
  const claims = claimsFrom === undefined ? undefined : await readClaimsFile(context, claimsFrom);
  for (const read of [inventory, claims]) {
    if (read === undefined || read.ok) continue;
    context.stderr(`airlock ${verb}: ${printable(formatProblem(read.error))}\n`);
    return EXIT.usage;
  }
  if (!inventory.ok) return EXIT.usage;
  const machine = values['at-boot'] === true ? atBoot(inventory.value) : inventory.value;
  noteUnseenBoot(context, verb, machine);
  const phase = values['after-bind'] === true ? 'after-bind' : 'before-bind';
  return { path, policy, machine, claims: claims?.ok ? claims.value : {}, phase };
}

/** One decision for each device of the machine, in its order. */
export function decideQuestion(context: Context, question: PolicyQuestion): Promise<readonly Decision[]> {
  const { path, policy, machine, claims, phase } = question;
  return decideAll(context, path, policy, machine, claims, phase);
}
