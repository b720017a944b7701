/**
 * System calls over a machine in memory, for tests that must not depend on the real one: memory with addresses, files with
 * a medium of a certain size, event counters. Every other call answers ENOSYS, io_uring too, as on a kernel without it.
 * For calls that fail on demand, `faultySystemCalls` goes over it.
 */
import { constants } from 'node:os';
import type { Memory } from './sys/libc.ts';
import { type SystemCalls, takeUint64 } from './system-calls.ts';

export interface FakeMachine {
  readonly calls: SystemCalls;
  /** A file with these bytes, open. */
  addFile(bytes: Uint8Array): number;
  /** What the file holds now. */
  contentOf(fd: number): Uint8Array;
  /** What would be left of it after a loss of power: what it held when it was last synchronised. */
  durableContentOf(fd: number): Uint8Array;
  readonly openDescriptors: readonly number[];
}

export interface FakeMachineOptions {
  /** Bytes that all files together may have; ENOSPC beyond. */
  readonly diskSize?: number;
  /** EMFILE beyond. */
  readonly mostDescriptors?: number;
}

interface FakeFile {
  readonly kind: 'file' | 'memory';
  bytes: Uint8Array;
  durable: Uint8Array;
  seals: number;
}

interface FakeCounter {
  readonly kind: 'counter';
  value: number;
}

const { EAGAIN, EBADF, EFAULT, EINVAL, EMFILE, ENOMEM, ENOSPC, ENOSYS, EPERM } = constants.errno;
const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
names.set(EAGAIN, 'EAGAIN');
const PAGE = 4096;
const SEAL_SHRINK = 2;
const SEAL_GROW = 4;

export function fakeSystemCalls(options: FakeMachineOptions = {}): FakeMachine {
  const descriptors = new Map<number, FakeFile | FakeCounter>();
  const segments = new Map<number, Uint8Array<ArrayBuffer>>();
  const diskSize = options.diskSize ?? 2 ** 26;
  let nextAddress = 0x7f00_0000_0000;

  function open(what: FakeFile | FakeCounter): number {
    if (descriptors.size >= (options.mostDescriptors ?? 1024)) return -EMFILE;
    let fd = 3;
    while (descriptors.has(fd)) fd++;
    descriptors.set(fd, what);
    return fd;
  }

  function segment(length: number): number {
    const address = nextAddress;
    nextAddress += Math.ceil(length / PAGE) * PAGE + PAGE;
    segments.set(address, new Uint8Array(new ArrayBuffer(length)));
    return address;
  }

  /** The bytes at an address; undefined where not all of them are mapped. */
  function at(address: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    for (const [start, bytes] of segments) {
      const offset = address - start;
      if (offset >= 0 && length >= 0 && offset + length <= bytes.length) return bytes.subarray(offset, offset + length);
    }
    return undefined;
  }

  function fileOf(fd: number): FakeFile | undefined {
    const found = descriptors.get(fd);
    return found === undefined || found.kind === 'counter' ? undefined : found;
  }

  const used = (): number => {
    let sum = 0;
    for (const what of descriptors.values()) if (what.kind === 'file') sum += what.bytes.length;
    return sum;
  };

  function resize(file: FakeFile, length: number): number {
    if (length < 0) return -EINVAL;
    if (
      (length < file.bytes.length && file.seals & SEAL_SHRINK) ||
      (length > file.bytes.length && file.seals & SEAL_GROW)
    ) {
      return -EPERM;
    }
    if (file.kind === 'file' && used() - file.bytes.length + length > diskSize) return -ENOSPC;
    const bytes = new Uint8Array(length);
    bytes.set(file.bytes.subarray(0, length));
    file.bytes = bytes;
    return 0;
  }

  function pread(fd: number, address: number, length: number, offset: number): number {
    const file = fileOf(fd);
    if (file === undefined) return -EBADF;
    if (offset < 0) return -EINVAL;
    const into = at(address, length);
    if (into === undefined) return -EFAULT;
    const part = file.bytes.subarray(Math.min(offset, file.bytes.length), Math.min(offset + length, file.bytes.length));
    into.set(part);
    return part.length;
  }

  function pwrite(fd: number, address: number, length: number, offset: number): number {
    const file = fileOf(fd);
    if (file === undefined) return -EBADF;
    if (offset < 0) return -EINVAL;
    const from = at(address, length);
    if (from === undefined) return -EFAULT;
    let end = offset + length;
    // A full disk takes what fits.
    if (file.kind === 'file') end = Math.min(end, Math.max(file.bytes.length, diskSize - used() + file.bytes.length));
    if (end <= offset && length > 0) return -ENOSPC;
    if (end > file.bytes.length) {
      const grown = resize(file, end);
      if (grown < 0) return grown;
    }
    file.bytes.set(from.subarray(0, end - offset), offset);
    return end - offset;
  }

  function vectored(
    one: (fd: number, address: number, length: number, offset: number) => number,
    fd: number,
    vector: number,
    count: number,
    offset: number,
  ): number {
    const entries = at(vector, 16 * count);
    if (entries === undefined) return -EFAULT;
    const view = new DataView(entries.buffer, entries.byteOffset, entries.length);
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const length = takeUint64(view, 16 * i + 8);
      const done = one(fd, takeUint64(view, 16 * i), length, offset + sum);
      if (done < 0) return sum > 0 ? sum : done;
      sum += done;
      if (done < length) break;
    }
    return sum;
  }

  function sync(fd: number): number {
    const file = fileOf(fd);
    if (file === undefined) return -EBADF;
    file.durable = file.bytes.slice();
    return 0;
  }

  function counter(fd: number, address: number, length: number, writes: boolean): number {
    const found = descriptors.get(fd);
    if (found === undefined) return -EBADF;
    const bytes = at(address, length);
    if (bytes === undefined) return -EFAULT;
    if (found.kind !== 'counter' || length < 8) return -EINVAL;
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
    if (writes) found.value += takeUint64(view, 0);
    else if (found.value === 0) return -EAGAIN;
    else {
      view.setBigUint64(0, BigInt(found.value), true);
      found.value = 0;
    }
    return 8;
  }

  const known: Partial<SystemCalls> = {
    close: (fd) => (descriptors.delete(fd) ? 0 : -EBADF),
    pread,
    pwrite,
    read: (fd, address, length) => counter(fd, address, length, false),
    write: (fd, address, length) => counter(fd, address, length, true),
    preadv2: (fd, vector, count, offset) => vectored(pread, fd, vector, count, offset),
    pwritev2(fd, vector, count, offset, flags) {
      const done = vectored(pwrite, fd, vector, count, offset);
      // RWF_DSYNC
      if (done >= 0 && (flags & 2) !== 0) sync(fd);
      return done;
    },
    fsync: sync,
    fdatasync: sync,
    fallocate(fd, mode, offset, length) {
      const file = fileOf(fd);
      if (file === undefined) return -EBADF;
      if (offset < 0 || length <= 0) return -EINVAL;
      const end = offset + length;
      // FALLOC_FL_KEEP_SIZE
      if (end > file.bytes.length && (mode & 1) === 0) {
        const grown = resize(file, end);
        if (grown < 0) return grown;
      }
      // FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE
      if ((mode & 18) !== 0) file.bytes.fill(0, Math.min(offset, file.bytes.length), end);
      return 0;
    },
    ftruncate(fd, length) {
      const file = fileOf(fd);
      return file === undefined ? -EBADF : resize(file, length);
    },
    fcntl(fd, command, argument) {
      const file = descriptors.get(fd);
      if (file === undefined) return -EBADF;
      // F_ADD_SEALS, F_GET_SEALS
      if (command === 1033 || command === 1034) {
        if (file.kind !== 'memory') return -EINVAL;
        if (command === 1034) return file.seals;
        file.seals |= argument;
      }
      return 0;
    },
    memfdCreate: () => open({ kind: 'memory', bytes: new Uint8Array(0), durable: new Uint8Array(0), seals: 0 }),
    // Anonymous memory only: what two processes share needs real ones.
    mmap: (_address, length, _protection, flags) => ((flags & 0x20) !== 0 ? segment(length) : -ENOMEM),
    munmap: (address) => (segments.delete(address) ? 0 : -EINVAL),
    madvise: () => 0,
    allocate(length): Memory {
      const address = segment(length);
      const bytes = segments.get(address) ?? new Uint8Array(0);
      return { address, bytes, view: new DataView(bytes.buffer) };
    },
    bytesAt(address, length) {
      const bytes = at(address, length);
      if (bytes === undefined || bytes.byteOffset !== 0) throw new RangeError(`nothing is mapped at ${address}`);
      return bytes.buffer;
    },
    eventfd: (initial) => open({ kind: 'counter', value: initial }),
    whenReadable: () => () => undefined,
    errnoName: (errno) => names.get(errno) ?? `errno ${errno}`,
  };
  const calls = new Proxy(known as SystemCalls, {
    get: (target, key) => Reflect.get(target, key) ?? (() => -ENOSYS),
  });
  return {
    calls,
    addFile: (bytes) => open({ kind: 'file', bytes: bytes.slice(), durable: bytes.slice(), seals: 0 }),
    contentOf: (fd) => fileOf(fd)?.bytes.slice() ?? new Uint8Array(0),
    durableContentOf: (fd) => fileOf(fd)?.durable.slice() ?? new Uint8Array(0),
    get openDescriptors() {
      return [...descriptors.keys()];
    },
  };
}
