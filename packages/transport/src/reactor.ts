/**
 * The one loop of a device process: file descriptors, timers and pollers, on one thread, with synchronous handlers. While
 * there is work it spins over the pollers, because a sleeping thread takes tens of microseconds to wake; when there was
 * none for a while it asks every poller to get ready to sleep and waits in poll(2).
 */
import type { Result } from '@airlock/core/result.ts';

/** Something that can be looked at without a system call: a ring's index, a completion queue's tail. */
export interface Poller {
  /** Does what there is to do; true when there was something. Never waits. */
  poll(): boolean;
  /** Asks for notifications. True when there is work already, so that sleeping would be wrong. */
  prepareToSleep(): boolean;
}

export interface Watch {
  /** Which of READABLE and WRITABLE to call for; 0 pauses. Level-triggered. */
  setEvents(events: number): void;
  close(): void;
}

export const READABLE = 1;
export const WRITABLE = 2;
/** The peer is gone or the descriptor failed; always told, never asked for. */
export const HANGUP = 4;

export interface Reactor {
  /** Calls `ready` with the events that are there. The descriptor stays the caller's. */
  watch(fd: number, events: number, ready: (events: number) => void): Watch;
  addPoller(poller: Poller): () => void;
  /** Once, not before `milliseconds` have passed; the returned function takes it back. */
  after(milliseconds: number, call: () => void): () => void;
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /**
   * Handles what comes until `stop`. Code: `system-call-failed`. A handler that throws ends the loop with its error: a
   * defect must not go on serving.
   */
  run(): Result<void>;
  /** Ends `run` after the handler that is running; may be called from any handler. */
  stop(): void;
}
