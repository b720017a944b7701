/** io_uring(7), by number: the C library has no functions for it. The numbers are the same on every machine. */
import type { Libc } from './libc.ts';

export interface RingCalls {
  /** `parameters` is the address of a struct io_uring_params. A descriptor, or a negative errno. */
  ioUringSetup(entries: number, parameters: number): number;
  ioUringEnter(fd: number, submit: number, complete: number, flags: number): number;
  ioUringRegister(fd: number, opcode: number, argument: number, count: number): number;
}

export function ringCalls(libc: Libc): RingCalls {
  const setup = libc.func('int64_t syscall(int64_t, uint32_t, uintptr_t)');
  const enter = libc.func('int64_t syscall(int64_t, int, uint32_t, uint32_t, uint32_t, uintptr_t, size_t)');
  const register = libc.func('int64_t syscall(int64_t, int, uint32_t, uintptr_t, uint32_t)');
  return {
    ioUringSetup: (entries, parameters) => setup(425, entries, parameters),
    ioUringEnter: (fd, submit, complete, flags) => enter(426, fd, submit, complete, flags, 0, 0),
    ioUringRegister: (fd, opcode, argument, count) => register(427, fd, opcode, argument, count),
  };
}
