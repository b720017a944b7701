/**
 * How long a loop looks for work before it sleeps. A sleeping thread takes tens of microseconds to wake, so looking a
 * little longer pays when work comes soon, and steals a core when it does not. As the kernel does it for halted virtual
 * CPUs (halt polling): the budget grows when work came shortly after we fell asleep, and shrinks when it came late. And
 * one thing more: where looking never finds anything although work comes soon after, the other side probably waits for
 * the very core that we look on; then looking stops for a time that doubles. (Yielding the core while looking was tried:
 * beside a peer that never sleeps it costs that peer's whole time slice, 4 ms.)
 *
 * All times are milliseconds, with fractions.
 */
export interface SpinBudget {
  /** How long to look, from the last work on. */
  readonly current: number;
  /** Looking found work. */
  found(): void;
  /** `now`: woken from sleep, `idle` after the last work. `looked`: whether we looked before we slept. */
  slept(now: number, idle: number, looked: boolean): void;
}

/** The first step up from nothing. */
const SMALLEST = 0.01;
/** So many looks in a row in vain, although work came soon: somebody is kept from working. */
const VAIN_LOOKS = 16;
const SHORTEST_QUIET = 10;
const LONGEST_QUIET = 1000;

/** `limit` is the most that is ever looked; 0 switches looking off. */
export function createSpinBudget(limit: number): SpinBudget {
  let current = 0;
  let vain = 0;
  let quiet = SHORTEST_QUIET;
  let quietUntil = 0;
  return {
    get current() {
      return current;
    },
    found() {
      vain = 0;
      quiet = SHORTEST_QUIET;
    },
    slept(now, idle, looked) {
      if (limit <= 0 || now < quietUntil) return;
      if (idle > limit) {
        current = current > SMALLEST ? current / 2 : 0;
        return;
      }
      vain = looked ? vain + 1 : vain;
      if (vain < VAIN_LOOKS) {
        current = Math.min(limit, Math.max(SMALLEST, current * 2));
        return;
      }
      vain = 0;
      current = 0;
      quietUntil = now + quiet;
      quiet = Math.min(quiet * 2, LONGEST_QUIET);
    },
  };
}
