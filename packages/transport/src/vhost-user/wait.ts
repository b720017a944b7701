/** poll(2) for a few descriptors, for the side that has no reactor: a driver that waits for its device, with a limit. */
import type { Memory } from '../sys/libc.ts';
import { POLLIN, POLLOUT } from '../sys/waiting.ts';
import type { SystemCalls } from '../system-calls.ts';

/** Waits until one of `fds` can be read, or `writable` (-1: none) be written; at most so many milliseconds. */
export type Wait = (fds: readonly number[], writable: number, milliseconds: number) => void;

const MOST = 80;
const POLLFD = 8;
const memories = new WeakMap<object, Memory>();

/** A signal may end the wait early: whoever waits looks at the clock. */
export function pollWait(calls: SystemCalls): Wait {
  return (fds, writable, milliseconds) => {
    let memory = memories.get(calls);
    if (memory === undefined) {
      memory = calls.allocate(MOST * POLLFD);
      memories.set(calls, memory);
    }
    const { view } = memory;
    let count = 0;
    const add = (fd: number, events: number): void => {
      if (fd < 0 || count === MOST) return;
      view.setInt32(count * POLLFD, fd, true);
      view.setUint16(count * POLLFD + 4, events, true);
      view.setUint16(count * POLLFD + 6, 0, true);
      count++;
    };
    for (const fd of fds) add(fd, POLLIN);
    add(writable, POLLOUT);
    calls.poll(memory.address, count, Math.max(0, Math.ceil(milliseconds)));
  };
}
