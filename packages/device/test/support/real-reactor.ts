/** The reactor and the system calls of this machine, for tests with real sockets and files. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createReactor, type EventLoop } from '@airlock/transport/event-loop.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { must } from './in-memory-driver.ts';

export interface RealReactor {
  readonly calls: SystemCalls;
  readonly reactor: EventLoop;
  /** A folder of its own. */
  readonly folder: string;
  /** Lets the loop turn until the condition holds; false when it does not within the rounds. */
  until(condition: () => boolean, rounds?: number): boolean;
  end(): void;
}

export async function realReactor(): Promise<RealReactor> {
  const calls = must(await loadSystemCalls());
  const reactor = must(createReactor(calls, { spin: 0 }));
  const folder = mkdtempSync(join(tmpdir(), 'airlock-device-'));
  const home = process.cwd();
  return {
    calls,
    reactor,
    folder,
    until(condition, rounds = 3000) {
      for (let i = 0; i < rounds; i++) {
        if (condition()) return true;
        reactor.after(1, () => reactor.stop());
        must(reactor.run());
      }
      return condition();
    },
    end() {
      reactor.close();
      process.chdir(home);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** How many descriptors this process has. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
