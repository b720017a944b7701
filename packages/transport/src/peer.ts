/** Who is at the other end of a Unix socket, as the kernel wrote it down at connect(2). unix(7), SO_PEERCRED. */
import { ok, type Result } from '@airlock/core/result.ts';
import type { Memory } from './sys/libc.ts';
import { SOL_SOCKET, type SocketCalls } from './sys/sockets.ts';
import { type CommonCalls, callFailed } from './system-calls.ts';

export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

const SO_PEERCRED = 17;

/** Code: `system-call-failed`. */
export function peerOf(calls: SocketCalls & CommonCalls, fd: number): Result<Peer> {
  memory ??= calls.allocate(12);
  const length = calls.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, memory);
  if (length < 0) return callFailed(calls, 'getsockopt(SO_PEERCRED)', length);
  const { view } = memory;
  return ok({ pid: view.getInt32(0, true), uid: view.getUint32(4, true), gid: view.getUint32(8, true) });
}

let memory: Memory | undefined;
