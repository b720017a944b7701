/** eventfd(2): how one side of a queue wakes the other. Notifications carry no count that anybody needs. */
import { ok, type Result } from '@airlock/core/result.ts';
import type { AioCalls } from './sys/aio.ts';
import { type FileCalls, RWF_NOWAIT } from './sys/files.ts';
import type { Memory } from './sys/libc.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK, POLLERR, POLLOUT, type WaitCalls } from './sys/waiting.ts';
import { type CommonCalls, callFailed, putUint64, takeUint64 } from './system-calls.ts';

type EventCalls = FileCalls & WaitCalls & CommonCalls;

/** Non-blocking, close-on-exec, not signalled. Code: `system-call-failed`. */
export function createEventFd(calls: EventCalls): Result<number> {
  const fd = calls.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fd < 0 ? callFailed(calls, 'eventfd', fd) : ok(fd);
}

const memories = new WeakMap<object, Memory>();

/** Bytes 0 to 7 hold what is written, 8 to 15 what was read. */
function memoryOf(calls: EventCalls): Memory {
  let memory = memories.get(calls);
  if (memory === undefined) {
    memory = calls.allocate(16);
    memory.view.setUint32(0, 1, true);
    memories.set(calls, memory);
  }
  return memory;
}

/**
 * Signals `fd`. False where that failed: the other side's descriptor is not what it should be. A counter that is full
 * counts as signalled, because whoever waits is awake already. `fd` must be non-blocking and stay so: for one that a peer
 * has too there is `signalPeer`.
 */
export function signalEventFd(calls: EventCalls, fd: number): boolean {
  const status = calls.write(fd, memoryOf(calls).address, 8);
  return status === 8 || (status < 0 && calls.errnoName(-status) === 'EAGAIN');
}

/**
 * Takes the signals that are there. How many there were; 0: none; -1: the descriptor is at its end or fails, so that it
 * would report readiness for ever (a peer may pass anything as an eventfd).
 */
export function drainEventFd(calls: EventCalls, fd: number): number {
  const memory = memoryOf(calls);
  putUint64(memory.view, 8, 0);
  const status = calls.read(fd, memory.address + 8, 8);
  if (status > 0) return Math.max(1, takeUint64(memory.view, 8));
  return status < 0 && calls.errnoName(-status) === 'EAGAIN' ? 0 : -1;
}

// ---- descriptors that a peer has, too ----------------------------------------------------------------------------
//
// Non-blocking mode belongs to the open file, so the peer can take it off again at any time, and write(2) would wait for
// as long as it likes. write(2) cannot be told not to wait (an eventfd knows RWF_NOWAIT for reading only), and a look before
// it is too early. What cannot wait is the kernel's own signal at the end of an AIO request (`aio_resfd`): it leaves a
// full counter full. So a request that ends at once (to read nothing) is made for each signal, and its answers are thrown
// away. Besides, the kernel takes nothing but an eventfd for it.

type PeerCalls = EventCalls & AioCalls;

interface PeerSignals {
  readonly memory: Memory;
  /** 0: this system has no AIO. */
  readonly context: number;
  /** Answers that the kernel keeps for us. */
  kept: number;
}

const ANSWERS = 64;
/** Places in the memory: a context or the address of the iocb, the iocb, struct pollfd, iovec, what is read, answers. */
const LIST = 0;
const IOCB = 8;
const POLL = 72;
const IOVEC = 80;
const COUNTER = 96;
const EVENTS = 104;
const EVENT_SIZE = 32;
/** Of struct iocb: aio_fildes, aio_flags, aio_resfd; the rest stays 0, a read of nothing. */
const IOCB_FILE = IOCB + 20;
const IOCB_FLAGS = IOCB + 56;
const IOCB_SIGNAL = IOCB + 60;
const IOCB_FLAG_RESFD = 1;

const peers = new WeakMap<object, PeerSignals>();

function peerSignalsOf(calls: PeerCalls): PeerSignals {
  let found = peers.get(calls);
  if (found === undefined) {
    const memory = calls.allocate(EVENTS + ANSWERS * EVENT_SIZE);
    const { view, address } = memory;
    const made = calls.aioSetup(ANSWERS, address + LIST);
    const context = made < 0 ? 0 : takeUint64(view, LIST);
    putUint64(view, LIST, address + IOCB);
    view.setUint32(IOCB_FLAGS, IOCB_FLAG_RESFD, true);
    putUint64(view, IOVEC, address + COUNTER);
    putUint64(view, IOVEC + 8, 8);
    found = { memory, context, kept: 0 };
    peers.set(calls, found);
  }
  return found;
}

/**
 * Signals an eventfd that a peer passed, and never waits, whatever the peer makes of it. False where it is no eventfd.
 * Where the system has no AIO it is looked at first, which leaves a peer that changes it in that moment able to hold us.
 */
export function signalPeer(calls: PeerCalls, fd: number): boolean {
  const own = peerSignalsOf(calls);
  const { memory, context } = own;
  const { view, address } = memory;
  if (context !== 0) {
    view.setInt32(IOCB_FILE, fd, true);
    view.setInt32(IOCB_SIGNAL, fd, true);
    if (own.kept >= ANSWERS / 2) throwAway(calls, own);
    const status = calls.aioSubmit(context, 1, address + LIST);
    if (status === 1) {
      own.kept++;
      return true;
    }
    // Anything else than a lack of memory is the descriptor's fault.
    if (calls.errnoName(-status) !== 'EAGAIN') return false;
    throwAway(calls, own);
  }
  const ready = lookAt(calls, memory, fd, POLLOUT);
  if (ready === 0 || ready === POLLERR) return true;
  return signalEventFd(calls, fd);
}

function throwAway(calls: PeerCalls, own: PeerSignals): void {
  const count = calls.aioEvents(own.context, ANSWERS, own.memory.address + EVENTS);
  if (count > 0) own.kept -= count;
}

/** What poll(2) finds; all that was asked for where it cannot be asked. */
function lookAt(calls: PeerCalls, { view, address }: Memory, fd: number, events: number): number {
  view.setInt32(POLL, fd, true);
  view.setInt16(POLL + 4, events, true);
  view.setInt16(POLL + 6, 0, true);
  return calls.poll(address + POLL, 1, 0) < 0 ? events : view.getInt16(POLL + 6, true);
}

/** As `drainEventFd`, of an eventfd that a peer passed: never waits, although the peer may empty it first. */
export function drainPeer(calls: PeerCalls, fd: number): number {
  const { memory } = peerSignalsOf(calls);
  const { view, address } = memory;
  putUint64(view, COUNTER, 0);
  const status = calls.preadv2(fd, address + IOVEC, 1, -1, RWF_NOWAIT);
  if (status === 8) return Math.max(1, takeUint64(view, COUNTER));
  return status < 0 && calls.errnoName(-status) === 'EAGAIN' ? 0 : -1;
}
