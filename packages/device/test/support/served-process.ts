/** A device process of its own, as `airlock device serve` starts it, that a test can kill. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { parseServeEvent, type ServeEvent, type ServeRequest } from '@airlock/device/serve-event.ts';
import { must } from './in-memory-driver.ts';

const SCRIPT = new URL('../../src/serve-process.ts', import.meta.url).pathname;

export interface ServedProcess {
  readonly child: ChildProcess;
  readonly events: readonly ServeEvent[];
  /** SIGKILL; returns when the process is gone. */
  kill(): Promise<void>;
  /** In order; returns the exit code. */
  end(): Promise<number | null>;
}

/** Returns when it listens; throws what it told when it does not. */
export async function serveProcess(
  request: Partial<ServeRequest> & { readonly socket: string },
): Promise<ServedProcess> {
  const whole: ServeRequest = {
    ...{ type: 'block', transport: 'vhost-user', folder: '/', values: {}, once: false },
    ...{ unsealedMemory: false, plain: false, sandbox: false },
    ...request,
  };
  const child = spawn(process.execPath, [SCRIPT, JSON.stringify(whole)], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe', 'pipe'],
  });
  const exited = once(child, 'exit');
  const events: ServeEvent[] = [];
  await new Promise<void>((done, failed) => {
    const lines = createInterface({ input: child.stdio[4] as Readable });
    lines.on('line', (line) => {
      const event = must(parseServeEvent(line));
      events.push(event);
      if (event.event === 'listening') done();
      if (event.event === 'failed') failed(new Error(`${event.problem.code}: ${event.problem.message}`));
    });
    lines.on('close', () => failed(new Error('the device process ended')));
  });
  return {
    child,
    events,
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
    async end() {
      child.stdio[3]?.destroy();
      await exited;
      return child.exitCode;
    },
  };
}
