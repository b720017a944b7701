/** io_submit(2) and its kin, by number: the C library has no functions for them. */
import type { Libc } from './libc.ts';

export interface AioCalls {
  /** Room for `events` answers; writes the context, 64 bits, to the address `context`, where there must be zeros. */
  aioSetup(events: number, context: number): number;
  /** `list` is the address of `count` addresses of struct iocb. How many were taken. */
  aioSubmit(context: number, count: number, list: number): number;
  /** Answers that are there, at most `most`: struct io_event, 32 bytes each, to the address `events`. Never waits. */
  aioEvents(context: number, most: number, events: number): number;
}

/** Numbers on x86-64 and on arm64. */
const NUMBERS =
  process.arch === 'arm64' ? { setup: 0, submit: 2, events: 4 } : { setup: 206, submit: 209, events: 208 };

export function aioCalls(libc: Libc): AioCalls {
  const setup = libc.func('int64_t syscall(int64_t, uint64_t, uintptr_t)');
  const submit = libc.func('int64_t syscall(int64_t, uintptr_t, int64_t, uintptr_t)');
  const events = libc.func('int64_t syscall(int64_t, uintptr_t, int64_t, int64_t, uintptr_t, uintptr_t)');
  return {
    aioSetup: (count, context) => setup(NUMBERS.setup, count, context),
    aioSubmit: (context, count, list) => submit(NUMBERS.submit, context, count, list),
    aioEvents: (context, most, into) => events(NUMBERS.events, context, 0, most, into, 0),
  };
}
