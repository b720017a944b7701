/** Calls that wait, and what they wait for. Each returns what the system call returns, or a negative errno. */
import type { Libc } from './libc.ts';

export interface WaitCalls {
  eventfd(initial: number, flags: number): number;
  epollCreate(flags: number): number;
  /** `event` is the address of a struct epoll_event. */
  epollControl(epoll: number, operation: number, fd: number, event: number): number;
  /** `events` is the address of `count` struct epoll_event; `timeout` in milliseconds, -1 for ever. */
  epollWait(epoll: number, events: number, count: number, timeout: number): number;
  /** `descriptors` is the address of `count` struct pollfd. */
  poll(descriptors: number, count: number, timeout: number): number;
}

export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;
export const POLLRDHUP = 0x2000;
/** struct epoll_event is packed on x86-64 and nowhere else. */
export const EPOLL_EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
export const EPOLL_EVENT_DATA = process.arch === 'x64' ? 4 : 8;

export function waitCalls(libc: Libc): WaitCalls {
  return {
    eventfd: libc.func('int eventfd(uint32_t, int)'),
    epollCreate: libc.func('int epoll_create1(int)'),
    epollControl: libc.func('int epoll_ctl(int, int, int, uintptr_t)'),
    epollWait: libc.func('int epoll_wait(int, uintptr_t, int, int)'),
    poll: libc.func('int poll(uintptr_t, uint64_t, int)'),
  };
}
