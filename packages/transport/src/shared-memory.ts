/**
 * Memory that two processes share: memfd_create(2), sealed so that neither can pull it from under the other. A page that
 * a file no longer has kills whoever touches it (SIGBUS), so memory of a peer is mapped only where its seals forbid to
 * shrink it. Who must work with a front-end that does not seal (libblkio, DPDK) asks for that by `unsealed` and lives with
 * a peer that can end this process: only a process that serves this one peer, and nothing else, may. (What remains: a peer
 * whose memory is huge pages can punch holes in it and use up the machine's pool of them.)
 *
 * Unmapping is the dangerous half. The engine is not told that memory goes away: a view that somebody kept would reach
 * whatever is mapped there next, the engine's own heap too. So `release` takes three steps:
 *  1. the view's ArrayBuffer is detached: from now on every view of it is empty, and DataView calls throw (a defect shows
 *     as an error, not as somebody else's bytes);
 *  2. the addresses are covered with PROT_NONE: the file is given back now, and a system call or io_uring request that
 *     still names such an address fails with EFAULT (rather than writing zeros to a disk, or a disk's bytes to our heap);
 *  3. only when many ranges are covered is the oldest given back to the kernel.
 */
import { fstatSync } from 'node:fs';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { makeRegion, type Region } from '@airlock/virtio/memory/region.ts';
import { F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, type FileCalls } from './sys/files.ts';
import {
  MADV_DONTDUMP,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  type MemoryCalls,
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  MFD_HUGETLB,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
} from './sys/memory.ts';
import { type CommonCalls, callFailed } from './system-calls.ts';

export type SharedCalls = MemoryCalls & FileCalls & CommonCalls;

/** A mapping with one owner, who counts the users. */
export interface Mapping {
  readonly region: Region;
  /**
   * Ends it, once nothing uses the region any more: no queue works on it, no request with its addresses is in flight.
   * See above for what happens to a user that was forgotten. Again: nothing.
   */
  release(): void;
}

export interface MappingRequest {
  /** For messages. */
  readonly name: string;
  /** Bytes from the start of the file; any value, pages are taken care of. */
  readonly offset: number;
  readonly length: number;
  /** Without it a write through the view kills the process: for memory that this process only looks at. */
  readonly writable: boolean;
  /** Maps memory that its owner can shrink, or that is no memfd: its owner can then end this process (SIGBUS). */
  readonly unsealed?: boolean;
}

/**
 * A new memfd of `length` bytes (rounded up to its pages), all zero, sealed against shrinking, growing and other seals.
 * Close-on-exec; the caller's to close. `huge` takes huge pages of the default size, which the machine must have free.
 * Codes: `memory-size-invalid`, `system-call-failed`.
 */
export function createSharedMemory(
  calls: SharedCalls,
  name: string,
  length: number,
  options: { readonly huge?: boolean } = {},
): Result<{ readonly fd: number; readonly length: number }> {
  if (!Number.isSafeInteger(length) || length <= 0) {
    return fail('memory-size-invalid', `shared memory ${name} of ${length} bytes`);
  }
  const fd = calls.memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | (options.huge ? MFD_HUGETLB : 0));
  if (fd < 0) return callFailed(calls, 'memfd_create', fd);
  const page = statOf(fd)?.page ?? 4096;
  const whole = Math.ceil(length / page) * page;
  const sized = calls.ftruncate(fd, whole);
  const status = sized < 0 ? sized : calls.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  if (status >= 0) return ok({ fd, length: whole });
  calls.close(fd);
  return callFailed(calls, sized < 0 ? 'ftruncate(memfd)' : 'fcntl(F_ADD_SEALS)', status);
}

/**
 * Maps a part of a memfd, ours or a peer's. `fd` stays the caller's and may be closed: the mapping holds the memory.
 * Codes: `memory-not-sealed`, `memory-size-invalid` (not within the file), `system-call-failed`.
 */
export function mapSharedMemory(calls: SharedCalls, fd: number, request: MappingRequest): Result<Mapping> {
  const { name, offset, length, unsealed = false } = request;
  const seals = calls.fcntl(fd, F_GET_SEALS, 0);
  if (!unsealed && (seals < 0 || (seals & F_SEAL_SHRINK) === 0)) {
    const what = seals < 0 ? 'no memfd' : 'a memfd that its owner can shrink';
    return fail('memory-not-sealed', `${name}: ${what} (F_SEAL_SHRINK is missing)`, {
      hint: 'QEMU: -object memory-backend-memfd,share=on (its seal=on is the default), not memory-backend-file or -ram',
    });
  }
  const file = statOf(fd);
  if (file === null) return fail('system-call-failed', `${name}: fstat`);
  const numbers = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
  // Sealed before it was measured: it cannot get smaller any more.
  if (!numbers || length > file.size - offset) {
    return fail('memory-size-invalid', `${name}: ${length} bytes from ${offset} of a memfd of ${file.size}`);
  }
  return mapPages(calls, fd, request, file.page);
}

/**
 * Maps memory that the kernel itself holds behind a descriptor of its own making (VDUSE's bounce buffers): nobody shrinks
 * it. `offset` is a multiple of the page size. Codes: `memory-size-invalid`, `system-call-failed`.
 */
export function mapKernelMemory(calls: SharedCalls, fd: number, request: MappingRequest): Result<Mapping> {
  const { name, offset, length } = request;
  const numbers = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
  if (!numbers) return fail('memory-size-invalid', `${name}: ${length} bytes from ${offset}`);
  return mapPages(calls, fd, request, 4096);
}

function mapPages(calls: SharedCalls, fd: number, request: MappingRequest, page: number): Result<Mapping> {
  const { name, offset, length, writable } = request;
  const start = Math.floor(offset / page) * page;
  const extent = Math.ceil((offset + length - start) / page) * page;
  const protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const address = calls.mmap(0, extent, protection, MAP_SHARED, fd, start);
  if (address < 0) return callFailed(calls, `mmap(${name})`, address);
  // Whoever reads a core dump of this process has no business with the guest's memory.
  calls.madvise(address, extent, MADV_DONTDUMP);
  const buffer = calls.bytesAt(address, extent);
  const region = makeRegion(name, buffer, offset - start, length, address + (offset - start));
  if (!region.ok) {
    retire(calls, buffer, address, extent);
    return region;
  }
  let released = false;
  return ok({
    region: region.value,
    release() {
      if (released) return;
      released = true;
      retire(calls, buffer, address, extent);
    },
  });
}

/** Private memory of this process, page-aligned, zeroed, that can be given back. Code: `system-call-failed`. */
export function mapPrivateMemory(calls: SharedCalls, name: string, length: number): Result<Mapping> {
  const made = createSharedMemory(calls, name, length);
  if (!made.ok) return made;
  const mapping = mapSharedMemory(calls, made.value.fd, { name, offset: 0, length: made.value.length, writable: true });
  calls.close(made.value.fd);
  return mapping;
}

/** Bytes of a file and of its pages: for hugetlb and huge tmpfs files st_blksize is the huge page's size. */
function statOf(fd: number): { readonly size: number; readonly page: number } | null {
  try {
    const { size, blksize } = fstatSync(fd);
    return { size, page: Math.max(4096, blksize) };
  } catch {
    return null;
  }
}

/** Ranges that are covered and not yet given back, oldest first; those of all threads have addresses of their own. */
const covered: { readonly address: number; readonly length: number }[] = [];
/** Covered ranges cost addresses, of which there are 2^47, and a kernel's record each, of which there are 65530. */
const COVERED_RANGES = 64;
const COVERED_BYTES = 2 ** 44;

function retire(calls: SharedCalls, buffer: ArrayBuffer, address: number, length: number): void {
  buffer.transfer(0);
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  // Where covering fails (the limit of mappings), the range is unmapped: the view is empty already.
  if (calls.mmap(address, length, PROT_NONE, flags, -1, 0) < 0) {
    calls.munmap(address, length);
    return;
  }
  covered.push({ address, length });
  let bytes = covered.reduce((sum, range) => sum + range.length, 0);
  while (covered.length > COVERED_RANGES || bytes > COVERED_BYTES) {
    const oldest = covered.shift();
    if (oldest === undefined) return;
    bytes -= oldest.length;
    calls.munmap(oldest.address, oldest.length);
  }
}
