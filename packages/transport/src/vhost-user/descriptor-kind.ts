/** Is a descriptor that a peer passed the kind of thing that it should be? */
import { fstatSync } from 'node:fs';
import type { Memory } from '../sys/libc.ts';
import { SOCK_STREAM, SOL_SOCKET } from '../sys/sockets.ts';
import type { SystemCalls } from '../system-calls.ts';

const SO_TYPE = 3;
const S_IFMT = 0o170000;

/**
 * May it be an eventfd? Those have no file type at all; others of that kind (timers, signals) are found out when they are
 * used. A pipe, as ancient front-ends have them, is none: its reading end can empty it and its writing end fill it while
 * we look.
 */
export function isSignal(fd: number): boolean {
  try {
    return (fstatSync(fd).mode & S_IFMT) === 0;
  } catch {
    return false;
  }
}

export function isStreamSocket(calls: SystemCalls, fd: number): boolean {
  memory ??= calls.allocate(4);
  return calls.getsockopt(fd, SOL_SOCKET, SO_TYPE, memory) === 4 && memory.view.getInt32(0, true) === SOCK_STREAM;
}

let memory: Memory | undefined;
