/**
 * Calls on descriptors. Each returns what the system call returns (bytes, a descriptor, 0), or a negative errno. Memory
 * is given by address: nothing is copied or allocated on the way.
 */
import type { Libc } from './libc.ts';

export interface FileCalls {
  close(fd: number): number;
  read(fd: number, address: number, length: number): number;
  write(fd: number, address: number, length: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  /** `vector` is the address of `count` struct iovec; `flags` are RWF_*. */
  preadv2(fd: number, vector: number, count: number, offset: number, flags: number): number;
  pwritev2(fd: number, vector: number, count: number, offset: number, flags: number): number;
  fsync(fd: number): number;
  fdatasync(fd: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  ftruncate(fd: number, length: number): number;
  fchmod(fd: number, mode: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  /** `argument` is a number or an address, as the request has it. */
  ioctl(fd: number, request: number, argument: number): number;
}

export const F_GETFD = 1;
export const F_SETFD = 2;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_DUPFD_CLOEXEC = 1030;
export const F_ADD_SEALS = 1033;
export const F_GET_SEALS = 1034;
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;
export const F_SEAL_WRITE = 8;
export const F_SEAL_FUTURE_WRITE = 16;
export const FD_CLOEXEC = 1;
export const O_NONBLOCK = 0o4000;

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;
export const RWF_DSYNC = 2;
/** Answers EAGAIN where the call would wait for the disk. */
export const RWF_NOWAIT = 8;

export function fileCalls(libc: Libc): FileCalls {
  return {
    close: libc.func('int close(int)'),
    read: libc.func('int64_t read(int, uintptr_t, size_t)'),
    write: libc.func('int64_t write(int, uintptr_t, size_t)'),
    pread: libc.func('int64_t pread(int, uintptr_t, size_t, int64_t)'),
    pwrite: libc.func('int64_t pwrite(int, uintptr_t, size_t, int64_t)'),
    preadv2: libc.func('int64_t preadv2(int, uintptr_t, int, int64_t, int)'),
    pwritev2: libc.func('int64_t pwritev2(int, uintptr_t, int, int64_t, int)'),
    fsync: libc.func('int fsync(int)'),
    fdatasync: libc.func('int fdatasync(int)'),
    fallocate: libc.func('int fallocate(int, int, int64_t, int64_t)'),
    ftruncate: libc.func('int ftruncate(int, int64_t)'),
    fchmod: libc.func('int fchmod(int, uint32_t)'),
    // Variadic in C; the machine's calling convention puts these arguments where a plain function has them.
    fcntl: libc.func('int fcntl(int, int, int64_t)'),
    ioctl: libc.func('int ioctl(int, uint64_t, int64_t)'),
  };
}
