/** eventfd(2): how one side of a queue wakes the other. Notifications carry no count that anybody needs. */
import { ok, type Result } from '@airlock/core/result.ts';
import type { FileCalls } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK, type WaitCalls } from './sys/waiting.ts';
import { type CommonCalls, callFailed, putUint64, takeUint64 } from './system-calls.ts';

type EventCalls = FileCalls & WaitCalls & CommonCalls;

/** Non-blocking, close-on-exec, not signalled. Code: `system-call-failed`. */
export function createEventFd(calls: EventCalls): Result<number> {
  const fd = calls.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fd < 0 ? callFailed(calls, 'eventfd', fd) : ok(fd);
}

const memories = new WeakMap<object, Memory>();

/** Bytes 0 to 7 hold what is written, 8 to 15 what was read. */
function memoryOf(calls: EventCalls): Memory {
  let memory = memories.get(calls);
  if (memory === undefined) {
    memory = calls.allocate(16);
    memory.view.setUint32(0, 1, true);
    memories.set(calls, memory);
  }
  return memory;
}

/**
 * Signals `fd`. False where that failed: the other side's descriptor is not what it should be. A counter that is full
 * counts as signalled, because whoever waits is awake already. `fd` must be non-blocking (`setNonBlocking` for one that
 * came from elsewhere: a full pipe would hold this thread).
 */
export function signalEventFd(calls: EventCalls, fd: number): boolean {
  const status = calls.write(fd, memoryOf(calls).address, 8);
  return status === 8 || (status < 0 && calls.errnoName(-status) === 'EAGAIN');
}

/**
 * Takes the signals that are there. How many there were; 0: none; -1: the descriptor is at its end or fails, so that it
 * would report readiness for ever (a peer may pass anything as an eventfd).
 */
export function drainEventFd(calls: EventCalls, fd: number): number {
  const memory = memoryOf(calls);
  putUint64(memory.view, 8, 0);
  const status = calls.read(fd, memory.address + 8, 8);
  if (status > 0) return Math.max(1, takeUint64(memory.view, 8));
  return status < 0 && calls.errnoName(-status) === 'EAGAIN' ? 0 : -1;
}
