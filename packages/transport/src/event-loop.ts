/**
 * The reactor on epoll(7). Measured beside poll(2): the same up to four descriptors, and unlike it no dearer with more.
 *
 * Node's own event loop does not turn while this one runs: no promise, timer or signal handler of JavaScript is served on
 * this thread. A process that has to notice signals lets a parent notice them (`serve-child.ts`) and watches a descriptor.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { HANGUP, type Poller, READABLE, type Reactor, type Watch, WRITABLE } from './reactor.ts';
import { createSpinBudget } from './spin-budget.ts';
import type { FileCalls } from './sys/files.ts';
import {
  EPOLL_CLOEXEC,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLL_EVENT_DATA,
  EPOLL_EVENT_SIZE,
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLOUT,
  type WaitCalls,
} from './sys/waiting.ts';
import { type CommonCalls, callFailed } from './system-calls.ts';
import { createTimers } from './timers.ts';

type LoopCalls = WaitCalls & FileCalls & CommonCalls;

export interface ReactorOptions {
  /** The most microseconds to look for work before sleeping; 0: never. It adapts below that (`spin-budget.ts`). */
  readonly spin?: number;
}

export interface EventLoop extends Reactor {
  /** Gives the loop's own descriptor back. Not while it runs. */
  close(): void;
}

interface Watched {
  readonly fd: number;
  readonly token: number;
  readonly ready: (events: number) => void;
  events: number;
  /** Whether epoll knows it. */
  armed: boolean;
  open: boolean;
}

const DEFAULT_SPIN = 100;
/** Events taken with one call. */
const BATCH = 64;
/** How often descriptors and timers are looked at (milliseconds), while pollers have work and while they have none. */
const LOOK_EVERY_WORKING = 0.05;
const LOOK_EVERY_IDLE = 0.02;
/** While they have none and the last work came by a descriptor, as it does from a peer that waits for each answer. */
const LOOK_EVERY_ANSWERED = 0.002;

/** Code: `system-call-failed`. */
export function createReactor(calls: LoopCalls, options: ReactorOptions = {}): Result<EventLoop> {
  const created = calls.epollCreate(EPOLL_CLOEXEC);
  if (created < 0) return callFailed(calls, 'epoll_create1', created);
  let epoll = created;
  const memory = calls.allocate(EPOLL_EVENT_SIZE * (BATCH + 1));
  /** The last entry is for epoll_ctl(2). */
  const CONTROL = EPOLL_EVENT_SIZE * BATCH;
  const watches = new Map<number, Watched>();
  const byDescriptor = new Map<number, Watched>();
  /** Descriptors that epoll does not take: told once, in the next turn. */
  let failed: Watched[] = [];
  const pollers: Poller[] = [];
  const timers = createTimers();
  const budget = createSpinBudget((options.spin ?? DEFAULT_SPIN) / 1000);
  let nextToken = 1;
  let stopping = false;
  let running = false;

  function control(operation: number, watched: Watched): number {
    const events = (watched.events & READABLE ? POLLIN : 0) | (watched.events & WRITABLE ? POLLOUT : 0);
    memory.view.setUint32(CONTROL, events, true);
    memory.view.setUint32(CONTROL + EPOLL_EVENT_DATA, watched.token, true);
    memory.view.setUint32(CONTROL + EPOLL_EVENT_DATA + 4, 0, true);
    return calls.epollControl(epoll, operation, watched.fd, memory.address + CONTROL);
  }

  function arm(watched: Watched): void {
    watched.armed = control(EPOLL_CTL_ADD, watched) >= 0;
    if (watched.armed) byDescriptor.set(watched.fd, watched);
    else failed.push(watched);
  }

  /**
   * What epoll knows is an open file, not a number: where the caller closed the number first and the peer still holds the
   * file, the registration lives on and cannot be taken back. Then all others move to a new epoll.
   */
  function disarm(watched: Watched): void {
    if (!watched.armed) return;
    watched.armed = false;
    const mine = byDescriptor.get(watched.fd) === watched;
    if (mine) byDescriptor.delete(watched.fd);
    if (mine && control(EPOLL_CTL_DEL, watched) >= 0) return;
    calls.close(epoll);
    epoll = calls.epollCreate(EPOLL_CLOEXEC);
    byDescriptor.clear();
    for (const other of watches.values()) if (other.armed) arm(other);
  }

  function watch(fd: number, events: number, ready: (events: number) => void): Watch {
    const watched: Watched = { fd, token: nextToken++, ready, events, armed: false, open: true };
    watches.set(watched.token, watched);
    arm(watched);
    return {
      setEvents(wanted) {
        if (!watched.open || (wanted === watched.events && watched.armed)) return;
        watched.events = wanted;
        if (!watched.armed) arm(watched);
        else if (byDescriptor.get(fd) !== watched || control(EPOLL_CTL_MOD, watched) < 0) {
          disarm(watched);
          failed.push(watched);
        }
      },
      close() {
        if (!watched.open) return;
        watched.open = false;
        watches.delete(watched.token);
        disarm(watched);
      },
    };
  }

  /** Waits up to `timeout` milliseconds and calls who is ready. How many, or a negative errno. */
  function look(timeout: number): number {
    let told = 0;
    if (failed.length > 0) {
      const now = failed;
      failed = [];
      for (const watched of now) {
        if (!watched.open || watched.armed) continue;
        watched.ready(HANGUP);
        told++;
        if (stopping) return told;
      }
      timeout = 0;
    }
    const count = calls.epollWait(epoll, memory.address, BATCH, timeout);
    if (count < 0) return calls.errnoName(-count) === 'EINTR' ? told : count;
    for (let i = 0; i < count && !stopping; i++) {
      const at = i * EPOLL_EVENT_SIZE;
      const watched = watches.get(memory.view.getUint32(at + EPOLL_EVENT_DATA, true));
      // Closed or given up by a handler of this very turn.
      if (watched?.armed !== true) continue;
      const flags = memory.view.getUint32(at, true);
      const gone = (flags & (POLLERR | POLLHUP)) !== 0;
      const asked = ((flags & POLLIN ? READABLE : 0) | (flags & POLLOUT ? WRITABLE : 0)) & watched.events;
      if (asked === 0 && !gone) continue;
      told++;
      watched.ready(gone ? asked | HANGUP : asked);
      // Told; and as long as nothing else is asked for, epoll would tell it again without end.
      if (gone && asked === 0 && watched.open) disarm(watched);
    }
    return told;
  }

  function pollAll(): boolean {
    let worked = false;
    for (let i = 0; i < pollers.length && !stopping; i++) if (pollers[i]?.poll() === true) worked = true;
    return worked;
  }

  function mayNotSleep(): boolean {
    for (let i = 0; i < pollers.length; i++) if (pollers[i]?.prepareToSleep() === true) return true;
    return false;
  }

  /** Those that are due; a timer that is added meanwhile waits for the next turn. */
  function runTimers(now: number): number {
    let left = timers.due(now);
    let called = 0;
    for (; left > 0 && !stopping; left--) {
      const call = timers.take(now);
      if (call === undefined) break;
      called++;
      call();
    }
    return called;
  }

  function loop(): Result<void> {
    let lastWork = performance.now();
    let lastLook = lastWork;
    let looking = false;
    let answered = false;
    while (!stopping) {
      const worked = pollAll();
      if (stopping) break;
      let now = performance.now();
      if (worked) {
        if (looking) budget.found();
        looking = false;
        answered = false;
        lastWork = now;
        if (now - lastLook < LOOK_EVERY_WORKING) continue;
      } else if (pollers.length > 0 && now - lastWork < budget.current) {
        looking = true;
        if (now - lastLook < (answered ? LOOK_EVERY_ANSWERED : LOOK_EVERY_IDLE)) continue;
      }
      const sleeping = !worked && !(looking && now - lastWork < budget.current) && !mayNotSleep();
      const count = look(sleeping ? timers.wait(now) : 0);
      if (count < 0) return callFailed(calls, 'epoll_wait', count);
      now = performance.now();
      lastLook = now;
      if (sleeping && count > 0 && pollers.length > 0) budget.slept(now, now - lastWork, looking);
      else if (looking && count > 0) budget.found();
      if (sleeping || count > 0) looking = false;
      const called = stopping ? 0 : runTimers(now);
      if (count > 0) answered = true;
      if (count > 0 || called > 0) lastWork = now;
    }
    return ok(undefined);
  }

  return ok({
    watch,
    addPoller(poller) {
      pollers.push(poller);
      return () => {
        const at = pollers.indexOf(poller);
        if (at !== -1) pollers.splice(at, 1);
      };
    },
    after: (milliseconds, call) => timers.add(performance.now() + milliseconds, call),
    now: () => performance.now(),
    run() {
      if (running) return fail('reactor-running', 'run() of a reactor that runs');
      running = true;
      try {
        return loop();
      } finally {
        running = false;
        stopping = false;
      }
    },
    stop() {
      stopping = true;
    },
    close() {
      calls.close(epoll);
    },
  });
}
