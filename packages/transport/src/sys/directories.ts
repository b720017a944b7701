/**
 * Calls on names within folders that are held open. Each returns what the system call returns, or a negative errno. Names
 * and paths are bytes that end with a zero: what is in a folder need not be text.
 */
import type { Libc } from './libc.ts';

export interface DirectoryCalls {
  open(path: Uint8Array, flags: number, mode: number): number;
  openat(folder: number, path: Uint8Array, flags: number, mode: number): number;
  /** `how` is the address of a struct open_how of 24 bytes. */
  openat2(folder: number, path: Uint8Array, how: number): number;
  /** `status` is the address of a struct statx of 256 bytes. */
  statx(folder: number, path: Uint8Array, flags: number, mask: number, status: number): number;
  /** `status` is the address of a struct statfs of 120 bytes. */
  fstatfs(fd: number, status: number): number;
  getdents(fd: number, address: number, length: number): number;
  /** Any 64 bits: a position in a folder is the file system's own. */
  lseek(fd: number, offset: bigint, whence: number): number;
  readlinkat(folder: number, path: Uint8Array, address: number, length: number): number;
  mkdirat(folder: number, path: Uint8Array, mode: number): number;
  mknodat(folder: number, path: Uint8Array, mode: number): number;
  symlinkat(target: Uint8Array, folder: number, path: Uint8Array): number;
  linkat(from: number, fromPath: Uint8Array, to: number, toPath: Uint8Array, flags: number): number;
  unlinkat(folder: number, path: Uint8Array, flags: number): number;
  renameat(from: number, fromPath: Uint8Array, to: number, toPath: Uint8Array): number;
  fchownat(folder: number, path: Uint8Array, uid: number, gid: number, flags: number): number;
  /** By number (452, Linux 6.6): `flags` may hold AT_EMPTY_PATH. */
  fchmodat2(folder: number, path: Uint8Array, mode: number, flags: number): number;
  /** `times` is the address of two struct timespec. */
  utimensat(folder: number, path: Uint8Array, times: number, flags: number): number;
  fgetxattr(fd: number, name: Uint8Array, address: number, length: number): number;
  fsetxattr(fd: number, name: Uint8Array, address: number, length: number, flags: number): number;
  fremovexattr(fd: number, name: Uint8Array): number;
  flistxattr(fd: number, address: number, length: number): number;
  fchdir(fd: number): number;
  chdir(path: Uint8Array): number;
  umask(mask: number): number;
  /** `limits` is the address of two 64-bit numbers: what there is (when `change` is false) or what is to be. */
  resourceLimit(resource: number, limits: number, change: boolean): number;
}

export const AT_EMPTY_PATH = 0x1000;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_REMOVEDIR = 0x200;
export const AT_NO_AUTOMOUNT = 0x800;

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_NOCTTY = 0o400;
export const O_TRUNC = 0o1000;
export const O_DSYNC = 0o10000;
export const O_SYNC = 0o4010000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
// Where x86 and Arm differ.
export const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000;
export const O_NOFOLLOW = process.arch === 'arm64' ? 0o100000 : 0o400000;

export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;
export const OPEN_HOW_SIZE = 24;
export const STATX_SIZE = 256;
export const STATFS_SIZE = 120;

export const RLIMIT_NOFILE = 7;

export function directoryCalls(libc: Libc): DirectoryCalls {
  const openat2 = libc.func('int64_t syscall(int64_t, int, const void *, uintptr_t, size_t)');
  const statx = libc.func('int statx(int, const void *, int, uint32_t, uintptr_t)');
  const getdents = libc.func('int64_t syscall(int64_t, int, uintptr_t, size_t)');
  const fchmodat2 = libc.func('int64_t syscall(int64_t, int, const void *, uint32_t, int)');
  const mknodat = libc.func('int mknodat(int, const void *, uint32_t, uint64_t)');
  const getrlimit = libc.func('int getrlimit(int, uintptr_t)');
  const setrlimit = libc.func('int setrlimit(int, uintptr_t)');
  const getdentsNumber = process.arch === 'arm64' ? 61 : 217;
  const openat = libc.func('int openat(int, const void *, int, uint32_t)');
  return {
    open: libc.func('int open(const void *, int, uint32_t)'),
    openat,
    openat2: (folder, path, how) => openat2(437, folder, path, how, OPEN_HOW_SIZE),
    statx,
    fstatfs: libc.func('int fstatfs(int, uintptr_t)'),
    getdents: (fd, address, length) => getdents(getdentsNumber, fd, address, length),
    lseek: libc.func('int64_t lseek(int, int64_t, int)'),
    readlinkat: libc.func('int64_t readlinkat(int, const void *, uintptr_t, size_t)'),
    mkdirat: libc.func('int mkdirat(int, const void *, uint32_t)'),
    mknodat: (folder, path, mode) => mknodat(folder, path, mode, 0),
    symlinkat: libc.func('int symlinkat(const void *, int, const void *)'),
    linkat: libc.func('int linkat(int, const void *, int, const void *, int)'),
    unlinkat: libc.func('int unlinkat(int, const void *, int)'),
    renameat: libc.func('int renameat(int, const void *, int, const void *)'),
    fchownat: libc.func('int fchownat(int, const void *, uint32_t, uint32_t, int)'),
    fchmodat2: (folder, path, mode, flags) => fchmodat2(452, folder, path, mode, flags),
    utimensat: libc.func('int utimensat(int, const void *, uintptr_t, int)'),
    fgetxattr: libc.func('int64_t fgetxattr(int, const void *, uintptr_t, size_t)'),
    fsetxattr: libc.func('int fsetxattr(int, const void *, uintptr_t, size_t, int)'),
    fremovexattr: libc.func('int fremovexattr(int, const void *)'),
    flistxattr: libc.func('int64_t flistxattr(int, uintptr_t, size_t)'),
    fchdir: libc.func('int fchdir(int)'),
    chdir: libc.func('int chdir(const void *)'),
    umask: libc.func('uint32_t umask(uint32_t)'),
    resourceLimit: (resource, limits, change) => (change ? setrlimit : getrlimit)(resource, limits),
  };
}

/** A path as the kernel takes it; `null` where it holds a zero. */
export function pathBytes(path: string): Uint8Array | null {
  const bytes = Buffer.from(`${path}\0`);
  return bytes.indexOf(0) === bytes.length - 1 ? bytes : null;
}
