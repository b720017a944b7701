/** What a fuzz run has seen. */
import type { Result } from '@airlock/core/result.ts';

/** A whole number from 0 to below `below`. */
export type Random = (below: number) => number;

/** xorshift32 with a seed: the same seed, the same run. */
export function seeded(seed: number): Random {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

export class Tally {
  /** Hostile states tried: each is one change by the adversary and the calls that had to stand it. */
  states = 0;
  /** Outcome or code → how often. */
  readonly seen = new Map<string, number>();

  note(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }
}

/** For the harness's own set-up, which cannot fail. */
export function unwrap<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}
