/** What the cases of all types do alike: ask the device, wait, and say what was wrong. */
import { fail, type Result } from '@airlock/core/result.ts';
import type { Bench } from './device-bench.ts';

/** What a side saw is not what was done. */
export const wrong = (what: string, seen: unknown): Result<never> =>
  fail('device-bench-failed', `${what}: ${typeof seen === 'string' ? seen : JSON.stringify(seen)}`);

/** A fact of the device as a number; 0 where there is none. */
export async function fact(bench: Bench, name: string): Promise<number> {
  const facts = await bench.ask('facts');
  const value = facts.ok ? (facts.value as Record<string, unknown>)[name] : undefined;
  return typeof value === 'number' ? value : 0;
}

/** Asks until it holds, or 20 s are over. */
export async function until(holds: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 100; tries++) {
    if (await holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return false;
}

/** Said of a type that QEMU has nothing of its own for. */
export const NONE = 'QEMU 11 has no vhost-user device for the type';
