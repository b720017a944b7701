/** Calls that are due at a time: a short list, soonest first. Times are those of the reactor's clock, in milliseconds. */
export interface Timers {
  /** The returned function takes it back. */
  add(at: number, call: () => void): () => void;
  /** Milliseconds until the next is due, rounded up, as epoll_wait(2) takes them: -1 when there is none. */
  wait(now: number): number;
  /** Milliseconds until the next is due, not above 0 when it is; `undefined` when there is none. */
  untilNext(now: number): number | undefined;
  /** How many are due. */
  due(now: number): number;
  /** Takes the first, if it is due. */
  take(now: number): (() => void) | undefined;
}

interface Timer {
  readonly at: number;
  readonly call: () => void;
}

/** epoll_wait(2) takes 32 bits; it is called again after that. */
const LONGEST = 2 ** 31 - 1;

export function createTimers(): Timers {
  const timers: Timer[] = [];
  return {
    add(at, call) {
      const timer: Timer = { at, call };
      const before = timers.findIndex((other) => other.at > at);
      timers.splice(before === -1 ? timers.length : before, 0, timer);
      return () => {
        const found = timers.indexOf(timer);
        if (found !== -1) timers.splice(found, 1);
      };
    },
    wait(now) {
      const first = timers[0];
      if (first === undefined) return -1;
      return Math.min(LONGEST, Math.max(0, Math.ceil(first.at - now)));
    },
    untilNext: (now) => (timers[0] === undefined ? undefined : timers[0].at - now),
    due(now) {
      const later = timers.findIndex((timer) => timer.at > now);
      return later === -1 ? timers.length : later;
    },
    take(now) {
      const first = timers[0];
      return first === undefined || first.at > now ? undefined : timers.shift()?.call;
    },
  };
}
