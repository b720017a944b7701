/** Calls on memory. Each returns what the system call returns, or a negative errno. Addresses and lengths are bytes. */
import type { Libc, Memory } from './libc.ts';

export interface MemoryCalls {
  memfdCreate(name: string, flags: number): number;
  /** The address. With MAP_FIXED, what lay there is gone: only over what is ours. */
  mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): number;
  munmap(address: number, length: number): number;
  /** memcpy(3) within this process: no page of either may be missing. */
  copy(to: number, from: number, length: number): number;
  madvise(address: number, length: number, advice: number): number;
  allocate(length: number): Memory;
  /** See `Libc.bytesAt`. */
  bytesAt(address: number, length: number): ArrayBuffer;
}

export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;
export const MFD_HUGETLB = 4;
export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
/** Not in core dumps; not in children. */
export const MADV_DONTDUMP = 16;
export const MADV_DONTFORK = 10;

export function memoryCalls(libc: Libc): MemoryCalls {
  return {
    memfdCreate: libc.func('int memfd_create(const char *, uint32_t)'),
    mmap: libc.func('int64_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
    munmap: libc.func('int munmap(uintptr_t, size_t)'),
    copy: libc.func('int64_t memcpy(uintptr_t, uintptr_t, size_t)'),
    madvise: libc.func('int madvise(uintptr_t, size_t, int)'),
    allocate: libc.allocate,
    bytesAt: libc.bytesAt,
  };
}
