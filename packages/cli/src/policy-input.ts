/** What the policy verbs are given: policies, recorded inventories, claims; from files or, as `-`, standard input. */
import { readdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Claims } from '@airlock/core/claim.ts';
import type { Decision } from '@airlock/core/decision.ts';
import type { Inventory } from '@airlock/core/device.ts';
import { fail, formatProblem, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { type CompiledPolicy, compilePolicy } from '@airlock/policy/compile.ts';
import { decide } from '@airlock/policy/decide.ts';
import { decodePolicy } from '@airlock/policy/decode.ts';
import { openExternal } from '@airlock/policy/external/node-external.ts';
import { decodeClaims, decodeInventory } from '@airlock/policy/inventory-json.ts';
import { type LoadedPolicy, loadPolicy, parseSources, readText } from '@airlock/policy/node-source.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import type { Phase } from '@airlock/policy/verdict.ts';
import { type Context, UsageError } from './verb.ts';

const JSON_LIMIT = 64 * 1024 * 1024;

export interface PolicyInput {
  readonly loaded: LoadedPolicy;
  /** Absent when there are problems. */
  readonly policy?: Policy;
  readonly problems: readonly Problem[];
}

/** Paths stay as they were given, so that messages name them so. `-` has no drop-ins. */
export async function readPolicy(context: Context, path: string): Promise<PolicyInput> {
  const loaded =
    path === '-'
      ? parseSources([{ file: '<stdin>', text: await context.readStdin() }])
      : await loadPolicy(path, context.cwd);
  // A part that cannot be read would make findings about the rest misleading.
  if (loaded.problems.length > 0) return { loaded, problems: loaded.problems };
  const { policy, problems } = decodePolicy(loaded.documents);
  return { loaded, problems, ...(policy === undefined ? {} : { policy }) };
}

/** The compiled policy; or null once its problems are on stderr. */
export async function needPolicy(context: Context, verb: string, path: string): Promise<CompiledPolicy | null> {
  const { policy, problems } = await readPolicy(context, path);
  if (policy !== undefined) return compilePolicy(policy);
  printProblems(context, problems);
  context.stderr(`airlock ${verb}: ${path} is no usable policy\n`);
  return null;
}

/** What `decide` says, narrowed by the policy's external engine where it names one; its trouble is told and denies. */
export async function decideAll(
  context: Context,
  path: string,
  policy: CompiledPolicy,
  inventory: Inventory,
  claims: Claims,
  phase: Phase,
): Promise<readonly Decision[]> {
  const decisions = decide(policy, inventory, claims, { phase });
  const external = policy.policy.external;
  if (external === undefined) return decisions;
  const folder = resolve(context.cwd, path === '-' ? '.' : dirname(path));
  const { engine, problem } = await openExternal(external, folder);
  if (problem !== null) printProblems(context, [problem]);
  try {
    return await engine.narrow(decisions, inventory, claims);
  } finally {
    await engine.close();
  }
}

/** For verbs that compare or test the rules alone. */
export function noteExternal(context: Context, verb: string, policy: CompiledPolicy): void {
  if (policy.policy.external === undefined) return;
  context.stderr(`airlock ${verb}: the rules alone; ${printable(policy.policy.external.path)} is not asked\n`);
}

/** `policy.yaml:12:3: message (hint) [code]`, one a line. */
export function printProblems(context: Context, problems: readonly Problem[]): void {
  for (const problem of problems) context.stderr(`${printable(formatProblem(problem))}\n`);
}

export async function readInventoryFile(context: Context, path: string): Promise<Result<Inventory>> {
  const value = await readJson(context, path, 'inventory-malformed');
  if (!value.ok) return value;
  const inventory = decodeInventory(value.value);
  return inventory.ok ? inventory : withName(path, inventory.error);
}

export async function readClaimsFile(context: Context, path: string): Promise<Result<Claims>> {
  const value = await readJson(context, path, 'claims-malformed');
  if (!value.ok) return value;
  const claims = decodeClaims(value.value);
  return claims.ok ? claims : withName(path, claims.error);
}

async function readJson(context: Context, path: string, code: string): Promise<Result<unknown>> {
  const text =
    path === '-' ? ok(await context.readStdin()) : await readText(resolve(context.cwd, path), path, JSON_LIMIT);
  if (!text.ok) return text;
  try {
    return ok(JSON.parse(text.value));
  } catch {
    return fail(code, `${path}: not JSON`, { hint: 'airlock list --json makes an inventory' });
  }
}

function withName(path: string, error: Problem): Result<never> {
  return { ok: false, error: { ...error, message: `${path}: ${error.message}` } };
}

/** The value of an option that must be there, once. */
export function needOption(values: Readonly<Record<string, unknown>>, name: string, what: string): string {
  const value = values[name];
  if (typeof value === 'string' && value !== '') return value;
  throw new UsageError(`--${name} ${what} is needed`);
}

/** At most one of the inputs can be standard input. */
export function onceStdin(...paths: readonly (string | undefined)[]): void {
  if (paths.filter((path) => path === '-').length > 1) throw new UsageError('only one input can be - (standard input)');
}

/**
 * The machine as the gate will see it at the next boot: what is there, was there. For inventories of machines on which
 * no gate ran, whose devices else all count as hot-plugged. Virtual functions are made later, whatever the boot.
 */
export function atBoot(inventory: Inventory): Inventory {
  const devices = inventory.devices.map((device) => {
    const origin = device.sriov?.role === 'virtual' ? ('hotplug' as const) : ('boot' as const);
    return { ...device, origin };
  });
  return { ...inventory, devices };
}

/** Says so where the absence of a gate decides more than the policy does. */
export function noteUnseenBoot(context: Context, verb: string, inventory: Inventory): void {
  if (inventory.devices.length === 0 || inventory.devices.some((device) => device.origin !== undefined)) return;
  context.stderr(
    `airlock ${verb}: no gate saw this machine boot, so every device counts as hot-plugged; --at-boot takes what is there as there at boot\n`,
  );
}

/** Names of the files in the policy's own folder; undefined when there is none. */
export async function besidePolicy(context: Context, path: string): Promise<readonly string[] | undefined> {
  if (path === '-') return undefined;
  try {
    const entries = await readdir(dirname(resolve(context.cwd, path)), { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  } catch {
    return undefined;
  }
}
