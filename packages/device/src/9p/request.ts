/** What every request of a session works with. A handler returns 0 when its reply is written, or a negative errno. */
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { EBADF, EINVAL } from './errno.ts';
import type { Fid, FidTable } from './fid-table.ts';
import type { MessageReader, MessageWriter } from './message.ts';
import type { Share, ShareNode } from './share.ts';

export interface SessionState {
  readonly share: Share;
  readonly calls: SystemCalls;
  readonly fids: FidTable;
  /** The request and the reply, at addresses that the kernel can be given. */
  readonly input: Memory;
  readonly output: Memory;
  /** A few bytes for structures that calls take, a chunk of a folder, the value of an extended attribute. */
  readonly scratch: Memory;
  readonly folder: Memory;
  readonly value: Memory;
}

export type Handler = (session: SessionState, request: MessageReader, reply: MessageWriter) => number;

/** The fid of that number, or a negative errno. */
export function findFid(session: SessionState, number: number): Fid | number {
  return session.fids.get(number) ?? -EBADF;
}

/** The folder that a fid stands for; it may be open. */
export function findFolder(session: SessionState, number: number): ShareNode | number {
  const fid = findFid(session, number);
  if (typeof fid === 'number') return fid;
  return fid.attribute === null ? fid.node : -EINVAL;
}
