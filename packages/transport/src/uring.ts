/**
 * io_uring(7): many requests to the kernel with one call, none of them waited for. Submission and completion are rings in
 * memory that the kernel shares with us; nothing on the way allocates, and addresses and tokens are plain numbers.
 *
 * A ring is a way around seccomp, because the kernel does what stands in it without a system call of its own. So it is
 * restricted, before it is first used, to reading and writing files: no opening, no sockets, nothing that a device
 * process has no business with.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { drainEventFd } from './event-fd.ts';
import { POLLIN } from './sys/waiting.ts';
import { callFailed, putUint64 } from './system-calls.ts';
import {
  CQ_EVENTFD_DISABLED,
  CQE_SIZE,
  ENTER_GETEVENTS,
  FSYNC_DATASYNC,
  OPERATION,
  type Operation,
  REGISTER_BUFFERS,
  REGISTER_FILES,
  SETUP_DEFER_TASKRUN,
  SQ_CQ_OVERFLOW,
  SQ_TASKRUN,
  SQE_FIXED_FILE,
  SQE_SIZE,
  UNREGISTER_BUFFERS,
} from './uring-layout.ts';
import { setUpUring, URING_MEMORY, type UringCalls, uringMemory } from './uring-setup.ts';

/** Set in a descriptor's number: it is an index of the registered files instead. */
export const FIXED_FILE = 0x4000_0000;

/** A piece of registered memory; struct iovec. */
export interface Buffer {
  readonly address: number;
  /** At most 1 GiB each. */
  readonly length: number;
}

/**
 * Only the thread that made it may use it. Each request has a token, 0 to 2^32 - 1, that comes back with its result: what
 * the system call of that name returns, or a negative errno. A request that is put in (true) is sent with the next
 * `submit`; false: there is no room, submit or reap first. Memory of a request belongs to the kernel until it completed.
 */
export interface Uring {
  /**
   * To watch: becomes readable when a request completes after `prepareToSleep`, and stays so until `reap`. It is not told
   * of otherwise, so a loop that looks by itself pays nothing for it.
   */
  readonly fd: number;
  /** The most requests in flight. */
  readonly capacity: number;
  /** Put in and not yet completed. */
  readonly inFlight: number;
  /** Put in and not yet taken by the kernel: 0 after a `submit` that took all. */
  readonly unsent: number;
  /** Whether the kernel holds this ring to reading and writing files. */
  readonly restricted: boolean;
  /** Names of the ways of completing that this kernel agreed to. */
  readonly modes: readonly string[];
  supports(operation: Operation): boolean;

  /** `flags` are RWF_*. */
  read(fd: number, address: number, length: number, offset: number, flags: number, token: number): boolean;
  write(fd: number, address: number, length: number, offset: number, flags: number, token: number): boolean;
  /** `vector` is the address of `count` struct iovec, which must stay as it is until `submit` returned. */
  readv(fd: number, vector: number, count: number, offset: number, flags: number, token: number): boolean;
  writev(fd: number, vector: number, count: number, offset: number, flags: number, token: number): boolean;
  /** Like `read` and `write`, to an address within registered buffer `buffer`. */
  readFixed(fd: number, address: number, length: number, offset: number, buffer: number, token: number): boolean;
  writeFixed(fd: number, address: number, length: number, offset: number, buffer: number, token: number): boolean;
  /** Covers what completed before it was put in, not what is in flight. */
  fsync(fd: number, dataOnly: boolean, token: number): boolean;
  fallocate(fd: number, mode: number, offset: number, length: number, token: number): boolean;

  /**
   * Hands over what was put in. How many the kernel took, or a negative errno (EAGAIN and EBUSY: try again after `reap`);
   * what it did not take stays for the next `submit`.
   */
  submit(): number;
  /** Whether `reap` would find something; no system call. */
  hasCompletions(): boolean;
  /** Calls back for each completion that is there, at most those that were there when it began. How many. */
  reap(completed: (token: number, result: number) => void): number;
  /** Asks to be woken through `fd`. True when there are completions already, so that sleeping would be wrong. */
  prepareToSleep(): boolean;
  /** Waits for completions up to `milliseconds`. Whether there are any. */
  wait(milliseconds: number): boolean;

  /** Requests name them as `FIXED_FILE | index` from then on. Code: `system-call-failed`. */
  registerFiles(fds: readonly number[]): Result<void>;
  /** Pins memory, for `readFixed` and `writeFixed`; replaces what was registered. Code: `system-call-failed`. */
  registerBuffers(buffers: readonly Buffer[]): Result<void>;
  /**
   * Ends it. Requests that are still in flight are waited for up to `milliseconds`; false: some are not done, and their
   * memory may still be written to (it must stay where it is).
   */
  close(milliseconds: number): boolean;
}

/**
 * A ring for up to `entries` requests (rounded up to a power of two, at most 4096).
 * Codes: `uring-unavailable` (switched off, forbidden or not there: do without), `system-call-failed`.
 */
export function createUring(calls: UringCalls, entries: number): Result<Uring> {
  const made = setUpUring(calls, entries);
  if (!made.ok) return made;
  const { fd, eventFd, words, sqes, at, capacity, restricted, modes, supported } = made.value;
  const deferred = (made.value.flags & SETUP_DEFER_TASKRUN) !== 0;
  const mask = capacity - 1;
  const completionMask = made.value.completions - 1;
  let tail = words[at.sqTail] ?? 0;
  let queued = 0;
  let inFlight = 0;
  let closed = false;
  /** Whether completions signal the eventfd. */
  let waking = false;
  Atomics.store(words, at.cqFlags, CQ_EVENTFD_DISABLED);

  function put(
    operation: number,
    file: number,
    address: number,
    length: number,
    offset: number,
    flags: number,
    buffer: number,
    token: number,
  ): boolean {
    if (inFlight >= capacity || closed) return false;
    const fixed = (file & FIXED_FILE) !== 0;
    const i = (tail & mask) * (SQE_SIZE / 4);
    sqes[i] = operation | (fixed ? SQE_FIXED_FILE << 8 : 0);
    sqes[i + 1] = fixed ? file & ~FIXED_FILE : file;
    sqes[i + 2] = offset;
    sqes[i + 3] = offset / 0x1_0000_0000;
    sqes[i + 4] = address;
    sqes[i + 5] = address / 0x1_0000_0000;
    sqes[i + 6] = length;
    sqes[i + 7] = flags;
    sqes[i + 8] = token;
    sqes[i + 9] = 0;
    sqes[i + 10] = buffer;
    tail = (tail + 1) | 0;
    queued++;
    inFlight++;
    return true;
  }

  function submit(): number {
    if (queued === 0) return 0;
    Atomics.store(words, at.sqTail, tail);
    // Deferred completions are fetched on the way.
    const taken = calls.ioUringEnter(fd, queued, 0, deferred ? ENTER_GETEVENTS : 0);
    if (taken > 0) queued -= taken;
    return taken;
  }

  /** Lets the kernel put completions into the ring that it still holds. */
  function fetch(): void {
    if ((Atomics.load(words, at.sqFlags) & (SQ_TASKRUN | SQ_CQ_OVERFLOW)) !== 0) {
      calls.ioUringEnter(fd, 0, 0, ENTER_GETEVENTS);
    }
  }

  function hasCompletions(): boolean {
    if (Atomics.load(words, at.cqTail) !== words[at.cqHead]) return true;
    return (Atomics.load(words, at.sqFlags) & (SQ_TASKRUN | SQ_CQ_OVERFLOW)) !== 0;
  }

  function reap(completed: (token: number, result: number) => void): number {
    if (waking) {
      waking = false;
      Atomics.store(words, at.cqFlags, CQ_EVENTFD_DISABLED);
      drainEventFd(calls, eventFd);
    }
    fetch();
    let head = words[at.cqHead] ?? 0;
    const count = (Atomics.load(words, at.cqTail) - head) | 0;
    for (let i = 0; i < count; i++) {
      const entry = at.cqes + (head & completionMask) * (CQE_SIZE / 4);
      const token = (words[entry] ?? 0) >>> 0;
      const result = words[entry + 2] ?? 0;
      head = (head + 1) | 0;
      // Given back one by one: `completed` may submit, and a completion of that needs the room.
      Atomics.store(words, at.cqHead, head);
      inFlight--;
      completed(token, result);
      if (closed) return i + 1;
    }
    return count;
  }

  function prepareToSleep(): boolean {
    if (!waking) {
      waking = true;
      Atomics.store(words, at.cqFlags, 0);
    }
    return hasCompletions();
  }

  function wait(milliseconds: number): boolean {
    if (prepareToSleep()) return true;
    const { view, address } = uringMemory(calls);
    view.setInt32(0, eventFd, true);
    view.setInt16(4, POLLIN, true);
    calls.poll(address, 1, milliseconds);
    return hasCompletions();
  }

  function register(opcode: number, name: string, argument: number, count: number): Result<void> {
    const status = calls.ioUringRegister(fd, opcode, argument, count);
    return status < 0 ? callFailed(calls, `io_uring_register(${name})`, status) : ok(undefined);
  }

  return ok({
    fd: eventFd,
    capacity,
    restricted,
    modes,
    get inFlight() {
      return inFlight;
    },
    get unsent() {
      return queued;
    },
    supports: (operation) => supported.has(OPERATION[operation]),
    read: (file, address, length, offset, flags, token) =>
      put(OPERATION.READ, file, address, length, offset, flags, 0, token),
    write: (file, address, length, offset, flags, token) =>
      put(OPERATION.WRITE, file, address, length, offset, flags, 0, token),
    readv: (file, vector, count, offset, flags, token) =>
      put(OPERATION.READV, file, vector, count, offset, flags, 0, token),
    writev: (file, vector, count, offset, flags, token) =>
      put(OPERATION.WRITEV, file, vector, count, offset, flags, 0, token),
    readFixed: (file, address, length, offset, buffer, token) =>
      put(OPERATION.READ_FIXED, file, address, length, offset, 0, buffer, token),
    writeFixed: (file, address, length, offset, buffer, token) =>
      put(OPERATION.WRITE_FIXED, file, address, length, offset, 0, buffer, token),
    fsync: (file, dataOnly, token) => put(OPERATION.FSYNC, file, 0, 0, 0, dataOnly ? FSYNC_DATASYNC : 0, 0, token),
    // The length stands where others have the address, and the mode where they have the length.
    fallocate: (file, mode, offset, length, token) => put(OPERATION.FALLOCATE, file, length, mode, offset, 0, 0, token),
    submit,
    hasCompletions,
    reap,
    prepareToSleep,
    wait,
    registerFiles(fds) {
      const memory = uringMemory(calls);
      if (4 * fds.length > URING_MEMORY) return fail('system-call-failed', `${fds.length} files to register`);
      for (const [i, file] of fds.entries()) memory.view.setInt32(4 * i, file, true);
      return register(REGISTER_FILES, 'FILES', memory.address, fds.length);
    },
    registerBuffers(buffers) {
      const memory = uringMemory(calls);
      if (16 * buffers.length > URING_MEMORY)
        return fail('system-call-failed', `${buffers.length} buffers to register`);
      calls.ioUringRegister(fd, UNREGISTER_BUFFERS, 0, 0);
      if (buffers.length === 0) return ok(undefined);
      for (const [i, { address, length }] of buffers.entries()) {
        putUint64(memory.view, 16 * i, address);
        putUint64(memory.view, 16 * i + 8, length);
      }
      return register(REGISTER_BUFFERS, 'BUFFERS', memory.address, buffers.length);
    },
    close(milliseconds) {
      if (closed) return inFlight === 0;
      // Twice the number: each wait brings at least one.
      for (let rounds = 2 * capacity; inFlight > 0 && rounds > 0; rounds--) {
        submit();
        if (!wait(milliseconds)) break;
        reap(() => undefined);
      }
      closed = true;
      made.value.release();
      return inFlight === 0;
    },
  });
}
