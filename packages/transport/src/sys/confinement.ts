/** Calls that take powers away from this process. Each returns what the system call returns, or a negative errno. */
import type { Libc } from './libc.ts';

export interface ConfinementCalls {
  mount(source: string, target: string, type: string | null, flags: number, data: string | null): number;
  umount2(target: string, flags: number): number;
  pivotRoot(newRoot: string, putOld: string): number;
  prctl(option: number, a: number, b: number, c: number, d: number): number;
  /** `argument` is an address. */
  seccomp(operation: number, flags: number, argument: number): number;
  /** `limit` is the address of a struct rlimit64. For this process. */
  setrlimit(resource: number, limit: number): number;
  /** Always fails, having done nothing; how, tells whether it is filtered. */
  execveNothing(): number;
  unshare(flags: number): number;
}

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_REMOUNT = 32;
export const MS_BIND = 4096;
export const MS_REC = 16384;
export const MS_SLAVE = 1 << 19;
export const MNT_DETACH = 2;
export const PR_SET_DUMPABLE = 4;
export const PR_GET_DUMPABLE = 3;
export const PR_SET_NO_NEW_PRIVS = 38;
export const RLIMIT_CORE = 4;
export const SECCOMP_SET_MODE_FILTER = 1;
/** All threads of the process, not the calling one alone. */
export const SECCOMP_FILTER_FLAG_TSYNC = 1;

const x64 = process.arch === 'x64';

export function confinementCalls(libc: Libc): ConfinementCalls {
  const syscall2 = libc.func('int64_t syscall(int64_t, const char *, const char *)');
  const syscall3 = libc.func('int64_t syscall(int64_t, uintptr_t, uintptr_t, uintptr_t)');
  return {
    mount: libc.func('int mount(const char *, const char *, const char *, uint64_t, const char *)'),
    umount2: libc.func('int umount2(const char *, int)'),
    pivotRoot: (newRoot, putOld) => syscall2(x64 ? 155 : 41, newRoot, putOld),
    prctl: libc.func('int prctl(int, uint64_t, uint64_t, uint64_t, uint64_t)'),
    seccomp: (operation, flags, argument) => syscall3(x64 ? 317 : 277, operation, flags, argument),
    setrlimit: libc.func('int setrlimit64(int, uintptr_t)'),
    execveNothing: () => syscall3(x64 ? 59 : 221, 0, 0, 0),
    unshare: libc.func('int unshare(int)'),
  };
}
