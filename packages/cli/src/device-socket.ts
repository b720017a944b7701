/** What the verbs that talk to a device's socket read from the command line. */
import { resolve } from 'node:path';
import { safe } from './agent-view.ts';
import { type Context, UsageError, type Values } from './verb.ts';

/** The one positional: the path of a socket. */
export function readSocket(context: Context, positionals: readonly string[]): string {
  const [socket, ...more] = positionals;
  if (socket === undefined || socket === '') throw new UsageError('which socket?');
  if (more.length > 0) throw new UsageError(`one socket, got ${safe(positionals.join(' '))}`);
  return resolve(context.cwd, socket);
}

/** A whole number from `least` to `most`. */
export function readSpan(values: Values, name: string, otherwise: number, least: number, most: number): number {
  const value = values[name];
  if (value === undefined) return otherwise;
  const number = /^[0-9]{1,12}$/.test(String(value)) ? Number(value) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw new UsageError(`--${name} ${safe(String(value))}: a whole number from ${least} to ${most}`);
}
