/** Making an io_uring: the best ways of completing that the kernel agrees to, restrictions, and the rings in memory. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { createEventFd } from './event-fd.ts';
import type { FileCalls } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import { MAP_POPULATE, MAP_SHARED, type MemoryCalls, PROT_READ, PROT_WRITE } from './sys/memory.ts';
import type { RingCalls } from './sys/rings.ts';
import type { WaitCalls } from './sys/waiting.ts';
import { type CommonCalls, callFailed } from './system-calls.ts';
import {
  CQE_SIZE,
  FEAT_NODROP,
  FEAT_SINGLE_MMAP,
  OFFSET_RINGS,
  OFFSET_SQES,
  OPERATION,
  PARAMS,
  PARAMS_SIZE,
  PROBE_ENTRY,
  PROBE_HEAD,
  PROBE_SUPPORTED,
  REGISTER_BUFFERS,
  REGISTER_ENABLE_RINGS,
  REGISTER_EVENTFD,
  REGISTER_FILES,
  REGISTER_PROBE,
  REGISTER_RESTRICTIONS,
  RESTRICTION_REGISTER_OP,
  RESTRICTION_SIZE,
  RESTRICTION_SQE_FLAGS_ALLOWED,
  RESTRICTION_SQE_OP,
  SETUP_CLAMP,
  SETUP_COOP_TASKRUN,
  SETUP_DEFER_TASKRUN,
  SETUP_R_DISABLED,
  SETUP_SINGLE_ISSUER,
  SETUP_SUBMIT_ALL,
  SETUP_TASKRUN_FLAG,
  SQE_FIXED_FILE,
  SQE_IO_DRAIN,
  SQE_IO_LINK,
  SQE_SIZE,
  UNREGISTER_BUFFERS,
  UNREGISTER_FILES,
} from './uring-layout.ts';

export type UringCalls = RingCalls & MemoryCalls & FileCalls & WaitCalls & CommonCalls;

export interface UringParts {
  readonly fd: number;
  /** Signalled with completions; closed by `release`. */
  readonly eventFd: number;
  readonly flags: number;
  readonly modes: readonly string[];
  readonly restricted: boolean;
  /** Numbers of the operations that the kernel has and the restrictions allow. */
  readonly supported: ReadonlySet<number>;
  /** Submission entries, a power of two. */
  readonly capacity: number;
  /** Completion entries, a power of two, not fewer. */
  readonly completions: number;
  /** Both rings, and the submission entries, in 32-bit words. */
  readonly words: Int32Array;
  readonly sqes: Uint32Array;
  /** Indices into `words`. */
  readonly at: {
    readonly sqTail: number;
    readonly sqFlags: number;
    readonly cqHead: number;
    readonly cqTail: number;
    readonly cqFlags: number;
    readonly cqes: number;
  };
  /** Closes the descriptor and unmaps; every view of the rings is empty afterwards. */
  release(): void;
}

interface Setup {
  readonly fd: number;
  readonly flags: number;
}

const NAMES: readonly (readonly [number, string])[] = [
  [SETUP_SUBMIT_ALL, 'SUBMIT_ALL'],
  [SETUP_COOP_TASKRUN, 'COOP_TASKRUN'],
  [SETUP_SINGLE_ISSUER, 'SINGLE_ISSUER'],
  [SETUP_DEFER_TASKRUN, 'DEFER_TASKRUN'],
];

/** Best first: Linux 6.1, 5.19, 5.18, 5.1. */
const WAYS = [
  SETUP_SUBMIT_ALL | SETUP_TASKRUN_FLAG | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN,
  SETUP_SUBMIT_ALL | SETUP_TASKRUN_FLAG | SETUP_COOP_TASKRUN,
  SETUP_SUBMIT_ALL,
  0,
];
const ALLOWED_REGISTER = [
  REGISTER_BUFFERS,
  UNREGISTER_BUFFERS,
  REGISTER_FILES,
  UNREGISTER_FILES,
  REGISTER_ENABLE_RINGS,
];
const ALLOWED_FLAGS = SQE_FIXED_FILE | SQE_IO_DRAIN | SQE_IO_LINK;
const MOST_ENTRIES = 4096;
const PROBED = 64;

/** Bytes of what `uringMemory` gives. */
export const URING_MEMORY = 64 * 1024;
const memories = new WeakMap<UringCalls, Memory>();

/** Zeroed memory for the arguments of one call: it is never given back, so all rings of a thread share it. */
export function uringMemory(calls: UringCalls): Memory {
  let memory = memories.get(calls);
  if (memory === undefined) {
    memory = calls.allocate(URING_MEMORY);
    memories.set(calls, memory);
  }
  memory.bytes.fill(0);
  return memory;
}

/** Codes: `uring-unavailable`, `system-call-failed`. */
export function setUpUring(calls: UringCalls, entries: number): Result<UringParts> {
  const { view, bytes, address } = uringMemory(calls);
  const wanted = Math.min(MOST_ENTRIES, Math.max(1, Math.floor(entries)));

  const setup = (): Setup | number => {
    let status = -1;
    for (const disabled of [SETUP_R_DISABLED, 0]) {
      for (const way of WAYS) {
        bytes.fill(0, 0, PARAMS_SIZE);
        view.setUint32(PARAMS.flags, way | disabled | SETUP_CLAMP, true);
        status = calls.ioUringSetup(wanted, address);
        if (status >= 0) return { fd: status, flags: way | disabled };
        // EINVAL: a flag that this kernel does not know. Anything else will not change with the flags.
        if (calls.errnoName(-status) !== 'EINVAL') return status;
      }
    }
    return status;
  };
  const made = setup();
  if (typeof made === 'number') {
    const name = calls.errnoName(-made);
    return fail('uring-unavailable', `io_uring_setup: ${name}`, {
      hint:
        name === 'EPERM' ? 'see /proc/sys/kernel/io_uring_disabled and the seccomp profile' : 'I/O works without it',
    });
  }
  const { fd, flags } = made;
  const parameters = new DataView(bytes.slice(0, PARAMS_SIZE).buffer);
  const parameter = (offset: number): number => parameters.getUint32(offset, true);
  const features = parameter(PARAMS.features);
  if ((features & FEAT_SINGLE_MMAP) === 0 || (features & FEAT_NODROP) === 0) {
    calls.close(fd);
    return fail('uring-unavailable', 'the io_uring of this kernel is older than Linux 5.5');
  }

  bytes.fill(0);
  const probed = calls.ioUringRegister(fd, REGISTER_PROBE, address, PROBED);
  const supported = new Set<number>();
  for (const operation of Object.values(OPERATION)) {
    const entry = PROBE_HEAD + PROBE_ENTRY * operation;
    if (probed >= 0 && (view.getUint16(entry + 2, true) & PROBE_SUPPORTED) !== 0) supported.add(operation);
  }

  // Not the ring's own descriptor: on Linux 6.18 a ring with DEFER_TASKRUN does not wake who waits for it in poll or
  // epoll, when the request completes later.
  const event = createEventFd(calls);
  const eventFd = event.ok ? event.value : -1;
  const closeBoth = (): void => {
    calls.close(fd);
    if (eventFd >= 0) calls.close(eventFd);
  };
  if (!event.ok) {
    closeBoth();
    return event;
  }
  view.setInt32(0, eventFd, true);
  const registered = calls.ioUringRegister(fd, REGISTER_EVENTFD, address, 1);
  let restricted = false;
  let enabled = 0;
  if ((flags & SETUP_R_DISABLED) !== 0) {
    restricted = restrict(calls, fd, view, bytes, address);
    enabled = calls.ioUringRegister(fd, REGISTER_ENABLE_RINGS, 0, 0);
  }
  if (registered < 0 || enabled < 0) {
    closeBoth();
    return callFailed(calls, 'io_uring_register(EVENTFD, ENABLE_RINGS)', Math.min(registered, enabled));
  }

  const capacity = parameter(PARAMS.sqEntries);
  const completions = parameter(PARAMS.cqEntries);
  const ringsLength = Math.max(
    parameter(PARAMS.sqArray) + 4 * capacity,
    parameter(PARAMS.cqes) + CQE_SIZE * completions,
  );
  const protection = PROT_READ | PROT_WRITE;
  const rings = calls.mmap(0, ringsLength, protection, MAP_SHARED | MAP_POPULATE, fd, OFFSET_RINGS);
  const entriesAt = calls.mmap(0, SQE_SIZE * capacity, protection, MAP_SHARED | MAP_POPULATE, fd, OFFSET_SQES);
  if (rings < 0 || entriesAt < 0) {
    if (rings >= 0) calls.munmap(rings, ringsLength);
    if (entriesAt >= 0) calls.munmap(entriesAt, SQE_SIZE * capacity);
    closeBoth();
    return callFailed(calls, 'mmap(io_uring)', Math.min(rings, entriesAt));
  }
  const ringsBuffer = calls.bytesAt(rings, ringsLength);
  const entriesBuffer = calls.bytesAt(entriesAt, SQE_SIZE * capacity);
  const words = new Int32Array(ringsBuffer, 0, Math.floor(ringsLength / 4));
  // Entry i of the ring is always entry i of the table.
  for (let i = 0; i < capacity; i++) words[parameter(PARAMS.sqArray) / 4 + i] = i;
  return ok({
    fd,
    eventFd,
    flags,
    modes: NAMES.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name),
    restricted,
    supported,
    capacity,
    completions,
    words,
    sqes: new Uint32Array(entriesBuffer),
    at: {
      sqTail: parameter(PARAMS.sqTail) / 4,
      sqFlags: parameter(PARAMS.sqFlags) / 4,
      cqHead: parameter(PARAMS.cqHead) / 4,
      cqTail: parameter(PARAMS.cqTail) / 4,
      cqFlags: parameter(PARAMS.cqFlags) / 4,
      cqes: parameter(PARAMS.cqes) / 4,
    },
    release() {
      closeBoth();
      ringsBuffer.transfer(0);
      entriesBuffer.transfer(0);
      calls.munmap(rings, ringsLength);
      calls.munmap(entriesAt, SQE_SIZE * capacity);
    },
  });
}

/** Whether the kernel took the restrictions (Linux 5.10). */
function restrict(calls: UringCalls, fd: number, view: DataView, bytes: Uint8Array, address: number): boolean {
  bytes.fill(0);
  const rules: (readonly [number, number])[] = [
    ...Object.values(OPERATION).map((operation) => [RESTRICTION_SQE_OP, operation] as const),
    ...ALLOWED_REGISTER.map((operation) => [RESTRICTION_REGISTER_OP, operation] as const),
    [RESTRICTION_SQE_FLAGS_ALLOWED, ALLOWED_FLAGS],
  ];
  for (const [i, [kind, what]] of rules.entries()) {
    view.setUint16(i * RESTRICTION_SIZE, kind, true);
    view.setUint8(i * RESTRICTION_SIZE + 2, what);
  }
  return calls.ioUringRegister(fd, REGISTER_RESTRICTIONS, address, rules.length) >= 0;
}
