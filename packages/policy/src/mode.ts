/** Which mode holds now. */
import type { Mode } from './policy.ts';

/** Seconds that learning lasts where it was asked for without a time: `airlock gate initrd --mode learn`. */
export const LEARNING_SECONDS = 1800;

/** Seconds since boot at which learning ends; undefined for the other modes. */
export function learningEnds({ mode, learnFor }: { mode: Mode; learnFor?: number }): number | undefined {
  return mode === 'learn' ? (learnFor ?? LEARNING_SECONDS) : undefined;
}

/**
 * `secondsSinceBoot` comes from a clock that the host cannot set (/proc/uptime). Learning ends by itself, in enforcing;
 * a time that is not known (NaN) is past its end.
 */
export function modeAt(asked: { mode: Mode; learnFor?: number }, secondsSinceBoot: number): Mode {
  const end = learningEnds(asked);
  return end === undefined || secondsSinceBoot < end ? asked.mode : 'enforce';
}
