/** Starts a device process, passes on what it tells, ends it, and cleans up after it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { lstatSync, unlinkSync } from 'node:fs';
import { extname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Problem } from '@airlock/core/result.ts';
import { spawnSandboxed } from '@airlock/transport/sandbox-spawn.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { attachVdpa, detachVdpa } from '@airlock/transport/vduse/attach.ts';
import { EVENT_LIMIT, parseServeEvent, type ServeEvent, type ServeRequest, virtualSocket } from './serve-event.ts';
import type { DeviceNeeds } from './serve-type.ts';

export interface ServeOptions {
  readonly request: ServeRequest;
  /** Of the device, as it was prepared here. */
  readonly needs?: DeviceNeeds | undefined;
  /** What the device process tells, in its order. */
  readonly told: (event: ServeEvent) => void;
  /** Ends the server when it is aborted. */
  readonly signal: AbortSignal;
}

/** Longer than a queue waits for its disk. */
const LAST_MILLISECONDS = 45_000;

/**
 * Serves until the device process ends: because of `signal`, of `once`, or of a failure. Null when it ended in order,
 * otherwise why it did not; codes: those of the device and its transport, `device-process-died`.
 */
export async function serveDevice(options: ServeOptions): Promise<Problem | null> {
  const { request, told, signal } = options;
  const child = startProcess(request, options.needs);
  const bus = request.transport === 'vduse' ? vdpaBus(request.socket) : null;
  let problem: Problem | null = null;
  const sockets = new Map<string, string | null>();
  const virtual = (request.virtual ?? []).map((_, i) => virtualSocket(request.socket, i));
  const listens = [request.socket, ...virtual, ...(options.needs?.listens ?? [])];
  const paths = listens.map((path) => resolve(request.folder, path));
  const lines = readEvents(child, (event) => {
    if (event.event === 'failed') problem = event.problem;
    if (event.event === 'listening') for (const path of paths) sockets.set(path, identityOf(path));
    told(event);
    if (event.event === 'listening') void bus?.attach(told);
  });
  const stop = async (): Promise<void> => {
    // While its server still answers: the driver's last words are for it.
    await bus?.detach(told);
    child.stdio[3]?.destroy();
    setTimeout(() => child.kill('SIGKILL'), LAST_MILLISECONDS).unref();
  };
  const aborted = () => void stop();
  signal.addEventListener('abort', aborted, { once: true });
  if (signal.aborted) aborted();
  const ended = await endOf(child);
  await lines;
  signal.removeEventListener('abort', aborted);
  // A process that was killed, or that had no path to its sockets any more, leaves them behind.
  for (const [path, socket] of sockets) if (socket !== null && identityOf(path) === socket) unlinkSync(path);
  return problem ?? ended;
}

function readEvents(child: ChildProcess, told: (event: ServeEvent) => void): Promise<void> {
  const stream = child.stdio[4] as Readable;
  return new Promise((done) => {
    const lines = createInterface({ input: stream, crlfDelay: EVENT_LIMIT });
    lines.on('line', (line) => {
      const event = parseServeEvent(line);
      told(event.ok ? event.value : { event: 'problem', problem: event.error });
    });
    lines.on('close', () => done());
  });
}

/** The bus that a VDUSE device is attached to. From here: the kernel answers once the device's process has. */
function vdpaBus(name: string) {
  let attached = false;
  const act = async (what: typeof attachVdpa, told: (event: ServeEvent) => void): Promise<void> => {
    const calls = await loadSystemCalls();
    const done = calls.ok ? await what(calls.value, name) : calls;
    attached = done.ok && what === attachVdpa;
    if (!done.ok) told({ event: 'problem', problem: done.error });
  };
  return {
    attach: (told: (event: ServeEvent) => void) => act(attachVdpa, told),
    detach: async (told: (event: ServeEvent) => void) => {
      if (attached) await act(detachVdpa, told);
    },
  };
}

function startProcess(request: ServeRequest, needs: DeviceNeeds | undefined): ChildProcess {
  // Beside this file, also where both were bundled.
  const script = join(import.meta.dirname, `serve-process${extname(import.meta.filename)}`);
  const args = [JSON.stringify(request)];
  const stdio = ['inherit', 'inherit', 'inherit', 'pipe', 'pipe'] as const;
  const folders = (needs?.folders ?? []).map((path) => resolve(request.folder, path));
  if (request.sandbox) return spawnSandboxed(script, args, { stdio, keep: needs?.keep ?? [], folders });
  return spawn(process.execPath, [script, ...args], { stdio: [...stdio] });
}

/** Null when it ended by itself and in order. */
function endOf(child: ChildProcess): Promise<Problem | null> {
  return new Promise((done) => {
    child.on('error', (error) => done(died(error.message)));
    child.on('exit', (code, signal) => done(code === 0 ? null : died(signal ?? `exit code ${code}`)));
  });
}

function died(how: string): Problem {
  const hint =
    how === 'SIGBUS'
      ? 'memory went away while it was in use: that of the front-end, or with --map the file'
      : undefined;
  return {
    code: 'device-process-died',
    message: `the device process: ${how}`,
    ...(hint === undefined ? {} : { hint }),
  };
}

/** Device and inode of a socket file; null where there is none. */
function identityOf(path: string): string | null {
  try {
    const found = lstatSync(path, { bigint: true });
    return found.isSocket() ? `${found.dev}:${found.ino}` : null;
  } catch {
    return null;
  }
}
