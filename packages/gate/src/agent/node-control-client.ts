/** The control socket's other end, for the command line. */
import { connect, type Socket } from 'node:net';
import type { Event } from '@airlock/core/event.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { lineSplitter, REPLY_LIMIT, type Request } from './control-protocol.ts';

/**
 * Asks once. Codes: `agent-missing`, `control-denied`, `control-lost`, and what the agent answers. `limit` is in
 * milliseconds: an act may have to wait for a turn and for slow devices.
 */
export async function askAgent(path: string, request: Request, limit = 60_000): Promise<Result<unknown>> {
  const connected = await open(path);
  if (!connected.ok) return connected;
  const socket = connected.value;
  return new Promise((resolve) => {
    const done = (result: Result<unknown>): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const timer = setTimeout(() => done(fail('control-lost', `no answer in ${limit / 1000} s`)), limit);
    const lines = lineSplitter(REPLY_LIMIT);
    socket.on('data', (chunk) => {
      for (const line of lines.push(asBytes(chunk))) {
        const reply = readReply(line);
        if (reply !== undefined) return done(reply);
      }
      if (lines.overflow) done(fail('control-lost', 'an answer that is too long'));
    });
    socket.on('error', () => done(fail('control-lost', 'the connection to the agent broke')));
    socket.on('close', () => done(fail('control-lost', 'the agent closed the connection')));
    socket.write(`${JSON.stringify({ id: 1, ...request })}\n`);
  });
}

/**
 * Events until `signal` or the agent ends; resolves with `control-lost` when it was the agent. `waiting` false cuts
 * nothing: events that come faster than they are taken are the agent's to drop.
 */
export async function watchAgent(
  path: string,
  since: number | undefined,
  signal: AbortSignal,
  take: (event: Event) => void,
): Promise<Result<void>> {
  const connected = await open(path);
  if (!connected.ok) return connected;
  const socket = connected.value;
  return new Promise((resolve) => {
    const done = (result: Result<void>): void => {
      signal.removeEventListener('abort', stop);
      socket.destroy();
      resolve(result);
    };
    const stop = (): void => done(ok(undefined));
    const lines = lineSplitter(REPLY_LIMIT);
    socket.on('data', (chunk) => {
      for (const line of lines.push(asBytes(chunk))) {
        const event = readEvent(line);
        if (event !== undefined) take(event);
        else {
          const reply = readReply(line);
          if (reply !== undefined && !reply.ok) return done(reply);
        }
      }
      if (lines.overflow) done(fail('control-lost', 'an event that is too long'));
    });
    socket.on('error', () => done(fail('control-lost', 'the connection to the agent broke')));
    socket.on('close', () => done(fail('control-lost', 'the agent ended, or cut off a client that fell behind')));
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop);
    socket.write(`${JSON.stringify({ id: 1, verb: 'watch', ...(since === undefined ? {} : { since }) })}\n`);
  });
}

function open(path: string): Promise<Result<Socket>> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(ok(socket));
    });
    socket.once('error', (error) => {
      const name = 'code' in error && typeof error.code === 'string' ? error.code : 'failed';
      if (name === 'EACCES' || name === 'EPERM') {
        resolve(fail('control-denied', `${path}: ${name}`, { hint: 'the agent answers root only' }));
      } else {
        resolve(fail('agent-missing', `no agent runs: ${path}: ${name}`, { hint: 'systemctl start airlock-agent' }));
      }
    });
  });
}

function asBytes(chunk: Buffer | string): Uint8Array {
  return typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
}

function parse(line: string): object | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function readReply(line: string): Result<unknown> | undefined {
  const value = parse(line);
  if (value === undefined || !('id' in value) || !('ok' in value)) return undefined;
  if (value.ok === true) return ok('value' in value ? value.value : undefined);
  const error: unknown = 'error' in value ? value.error : undefined;
  return isProblem(error) ? { ok: false, error } : fail('control-lost', 'an answer that cannot be read');
}

function readEvent(line: string): Event | undefined {
  const value = parse(line);
  const event: unknown = value !== undefined && 'event' in value ? value.event : undefined;
  return isEvent(event) ? event : undefined;
}

function isProblem(value: unknown): value is Problem {
  return (
    typeof value === 'object' &&
    value !== null &&
    'code' in value &&
    typeof value.code === 'string' &&
    'message' in value &&
    typeof value.message === 'string'
  );
}

function isEvent(value: unknown): value is Event {
  return (
    typeof value === 'object' &&
    value !== null &&
    'kind' in value &&
    typeof value.kind === 'string' &&
    'sequence' in value &&
    typeof value.sequence === 'number'
  );
}
