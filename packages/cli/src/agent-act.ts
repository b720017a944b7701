/** The common part of `allow`, `block` and `reject`: which device, is it still that one, what became of it. */
import { resolve } from 'node:path';
import { formatProblem, type Problem, type Result } from '@airlock/core/result.ts';
import type { Answer, Identity, Request } from '@airlock/gate/agent/control-protocol.ts';
import { askAgent } from '@airlock/gate/agent/node-control-client.ts';
import { STATE } from '@airlock/gate/agent/state.ts';
import type { Fingerprint } from '@airlock/policy/grant.ts';
import { answerText, paintFor, safe } from './agent-view.ts';
import { type Context, EXIT, UsageError, type Values } from './verb.ts';

const ENVIRONMENT = [
  'agent-missing',
  'control-denied',
  'control-lost',
  'control-socket',
  'agent-stopping',
  'agent-busy',
  'agent-failed',
];
const USAGE = ['device-unknown', 'device-ambiguous', 'control-malformed'];

/** The folder that stands for the machine, from `--root`. */
export function rootOf(context: Context, values: Values): string {
  return typeof values['root'] === 'string' ? resolve(context.cwd, values['root']) : '/';
}

export function socketOf(context: Context, values: Values): string {
  return resolve(rootOf(context, values), STATE.socket.slice(1));
}

/** The one device that a verb names. */
export function oneDevice(positionals: readonly string[]): string {
  const [device, extra] = positionals;
  if (device === undefined) throw new UsageError('which device? airlock list shows them');
  if (extra !== undefined) throw new UsageError(`one device at a time, got also ${extra}`);
  if (!/^[\x21-\x7e]{1,160}$/.test(device)) throw new UsageError('no device has such a name');
  return device;
}

export function exitFor(problem: Problem): number {
  if (ENVIRONMENT.includes(problem.code)) return EXIT.environment;
  return USAGE.includes(problem.code) ? EXIT.usage : EXIT.findings;
}

export function report(context: Context, verb: string, problem: Problem, json: boolean): number {
  if (json) context.stdout(`${JSON.stringify({ problem })}\n`);
  else context.stderr(`airlock ${verb}: ${safe(formatProblem(problem))}\n`);
  return exitFor(problem);
}

/**
 * Asks the agent what the name stands for, then for the act on exactly that device: one that took its place between the
 * two is left alone. Returns the exit code.
 */
export async function actOn(
  context: Context,
  values: Values,
  verb: string,
  device: string,
  request: (id: string, expect: Fingerprint) => Request,
): Promise<number> {
  const json = values['json'] === true;
  const socket = socketOf(context, values);
  const identity = (await askAgent(socket, { verb: 'identify', device })) as Result<Identity>;
  if (!identity.ok) return report(context, verb, identity.error, json);
  const { device: id, fingerprint } = identity.value;
  const answer = (await askAgent(socket, request(id, fingerprint))) as Result<Answer>;
  if (!answer.ok) return report(context, verb, answer.error, json);
  context.stdout(json ? `${JSON.stringify(answer.value)}\n` : answerText(answer.value, paintFor(context.terminal)));
  return answer.value.result === 'not-enforced' ? EXIT.findings : EXIT.fine;
}
