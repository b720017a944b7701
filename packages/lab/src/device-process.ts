/** `airlock device serve` as a process of the lab: started, waited for, ended, or killed as a test wants it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { CHECKOUT } from './cache.ts';

export interface DeviceProcess {
  readonly socket: string;
  readonly pid: number;
  /** What it said so far, escaped. */
  said(): string;
  /** SIGTERM, and waits; gives the exit code, `null` when a signal ended it. */
  end(): Promise<number | null>;
  /** SIGKILL, and waits. */
  kill(): Promise<void>;
}

/** Starts a server and waits until it listens. Code: `device-start` with what it said. */
export async function startDevice(
  type: string,
  options: readonly string[],
  more: { readonly socket?: string; readonly seconds?: number } = {},
): Promise<Result<DeviceProcess>> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-device-'));
  const socket = more.socket ?? join(folder, 'device.sock');
  const child = spawn(join(CHECKOUT, 'airlock'), ['device', 'serve', type, '--socket', socket, '--json', ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  const gone = new Promise<number | null>((resolve) => {
    child.on('error', () => resolve(3));
    child.on('close', (code) => {
      rmSync(folder, { recursive: true, force: true });
      resolve(code);
    });
  });
  const listening = new Promise<boolean>((resolve) => {
    const hear = (bytes: Buffer) => {
      said = (said + asciiText(bytes)).slice(-100_000);
      if (/"event":"listening"/.test(said)) resolve(true);
    };
    child.stdout?.on('data', hear);
    child.stderr?.on('data', hear);
    void gone.then(() => resolve(false));
    setTimeout(() => resolve(false), (more.seconds ?? 30) * 1000).unref();
  });
  if (!(await listening)) {
    await endWith(child, gone, 'SIGKILL');
    return fail('device-start', said.trim().split('\n').at(-1) ?? `airlock device serve ${type} did not start`);
  }
  return ok({
    socket,
    pid: child.pid ?? 0,
    said: () => said,
    end: () => endWith(child, gone, 'SIGTERM'),
    kill: async () => {
      await endWith(child, gone, 'SIGKILL');
    },
  });
}

function endWith(child: ChildProcess, gone: Promise<number | null>, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  return gone;
}
