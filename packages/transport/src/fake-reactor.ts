/** `Reactor` for tests of devices: time moves and descriptors become ready when the test says so; nothing waits. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { HANGUP, type Poller, type Reactor, type Watch } from './reactor.ts';
import { createTimers } from './timers.ts';

export interface FakeReactor extends Reactor {
  /**
   * Calls the watchers of `fd` with those of `events` that they asked for (HANGUP always). Returns whether there was one
   * that wanted them.
   */
  makeReady(fd: number, events: number): boolean;
  /** What the watchers of `fd` ask for; `undefined` when nobody watches it. */
  watchedEvents(fd: number): number | undefined;
  /** Polls every poller until none finds work, at most `rounds` times. How many rounds found some. */
  turn(rounds?: number): number;
  /** Asks every poller to get ready to sleep. True when the loop would sleep. */
  trySleep(): boolean;
  /** Lets time pass: what is due is called, each at its own time. */
  advance(milliseconds: number): void;
  /** Milliseconds until the next timer; `undefined` when there is none. */
  readonly nextTimer: number | undefined;
  readonly watchCount: number;
  readonly pollerCount: number;
  readonly stopped: boolean;
}

interface Watched {
  readonly fd: number;
  readonly ready: (events: number) => void;
  events: number;
}

/** `run` polls and fires timers until `stop`, or fails with `reactor-stuck` when nothing is left to do. */
export function fakeReactor(): FakeReactor {
  const watches = new Set<Watched>();
  const pollers = new Set<Poller>();
  const timers = createTimers();
  let now = 0;
  let stopped = false;

  function turn(rounds = 1000): number {
    for (let round = 0; round < rounds; round++) {
      let worked = false;
      for (const poller of [...pollers]) if (pollers.has(poller) && poller.poll()) worked = true;
      if (!worked) return round;
    }
    return rounds;
  }

  function advance(milliseconds: number): void {
    const end = now + milliseconds;
    for (;;) {
      const wait = timers.untilNext(now);
      if (wait === undefined || now + wait > end) break;
      now += Math.max(0, wait);
      timers.take(now)?.();
    }
    now = end;
  }

  return {
    watch(fd, events, ready): Watch {
      const watched: Watched = { fd, ready, events };
      watches.add(watched);
      return {
        setEvents(wanted) {
          watched.events = wanted;
        },
        close() {
          watches.delete(watched);
        },
      };
    },
    addPoller(poller) {
      pollers.add(poller);
      return () => pollers.delete(poller);
    },
    after: (milliseconds, call) => timers.add(now + milliseconds, call),
    now: () => now,
    run(): Result<void> {
      while (!stopped) {
        const worked = turn();
        const wait = timers.untilNext(now);
        if (stopped) break;
        if (wait !== undefined) advance(wait);
        else if (worked === 0) return fail('reactor-stuck', 'nothing is left to do, and nobody called stop');
      }
      stopped = false;
      return ok(undefined);
    },
    stop() {
      stopped = true;
    },
    makeReady(fd, events) {
      let told = false;
      for (const watched of [...watches]) {
        const wanted = events & (watched.events | HANGUP);
        if (watched.fd !== fd || wanted === 0 || !watches.has(watched)) continue;
        told = true;
        watched.ready(wanted);
      }
      return told;
    },
    watchedEvents(fd) {
      let events: number | undefined;
      for (const watched of watches) if (watched.fd === fd) events = (events ?? 0) | watched.events;
      return events;
    },
    turn,
    trySleep() {
      let busy = false;
      for (const poller of [...pollers]) if (poller.prepareToSleep()) busy = true;
      return !busy;
    },
    advance,
    get nextTimer() {
      return timers.untilNext(now);
    },
    get watchCount() {
      return watches.size;
    },
    get pollerCount() {
      return pollers.size;
    },
    get stopped() {
      return stopped;
    },
  };
}
