/** All the system calls of a process of Airlock in one object, so that a test can pass another (`fake-system-calls.ts`). */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type AioCalls, aioCalls } from './sys/aio.ts';
import { type ConfinementCalls, confinementCalls } from './sys/confinement.ts';
import { type DirectoryCalls, directoryCalls } from './sys/directories.ts';
import { type FileCalls, fileCalls } from './sys/files.ts';
import { loadLibc, type Memory } from './sys/libc.ts';
import { type MemoryCalls, memoryCalls } from './sys/memory.ts';
import { type RingCalls, ringCalls } from './sys/rings.ts';
import { type SocketCalls, socketCalls } from './sys/sockets.ts';
import { type WaitCalls, waitCalls } from './sys/waiting.ts';

/** What every user of a call needs besides. */
export interface CommonCalls {
  allocate(length: number): Memory;
  /** Calls back while `fd` can be read, level-triggered; the returned function ends that. */
  whenReadable(fd: number, call: () => void): () => void;
  errnoName(errno: number): string;
}

/** Each call returns what the system call returns, or a negative errno, as the kernel itself does. */
export interface SystemCalls
  extends CommonCalls,
    SocketCalls,
    FileCalls,
    DirectoryCalls,
    MemoryCalls,
    WaitCalls,
    RingCalls,
    AioCalls,
    ConfinementCalls {}

let loaded: Promise<Result<SystemCalls>> | undefined;

/** Code: `system-calls-missing`. */
export function loadSystemCalls(): Promise<Result<SystemCalls>> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<Result<SystemCalls>> {
  const loading = await loadLibc();
  if (!loading.ok) return loading;
  const libc = loading.value;
  return ok({
    ...socketCalls(libc),
    ...fileCalls(libc),
    ...directoryCalls(libc),
    ...memoryCalls(libc),
    ...waitCalls(libc),
    ...ringCalls(libc),
    ...aioCalls(libc),
    ...confinementCalls(libc),
    whenReadable: libc.whenReadable,
    errnoName: libc.errnoName,
  });
}

/** A failed call as a problem: `recvmsg: EPERM`. */
export function callFailed(calls: Pick<CommonCalls, 'errnoName'>, call: string, status: number): Result<never> {
  return fail('system-call-failed', `${call}: ${calls.errnoName(-status)}`);
}

/** Writes `value`, up to 2^53, as 64 bits: no BigInt on the way. */
export function putUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}

/** 64 bits as a number; exact up to 2^53. */
export function takeUint64(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 0x1_0000_0000;
}
