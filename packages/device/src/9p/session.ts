/**
 * A 9P2000.L session: one request in, one reply out, in turn. Since each request ends before the next begins, a tag is
 * never in use twice and there is nothing that a Tflush could take back.
 */
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import {
  ATTRIBUTE_LIMIT,
  getattr,
  setAttribute,
  setattr,
  statfs,
  xattrcreate,
  xattrwalk,
} from './attribute-requests.ts';
import { EBADF, EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP, EPROTO } from './errno.ts';
import { FidTable } from './fid-table.ts';
import { FOLDER_CHUNK, fsync, getlock, lcreate, lock, lopen, read, readdir, write } from './file-requests.ts';
import { MessageReader, MessageWriter, NO_FID, RLERROR, RLERROR_SIZE, T } from './message.ts';
import type { Handler, SessionState } from './request.ts';
import type { Share } from './share.ts';
import { link, mkdir, mknod, readlink, remove, rename, renameat, symlink, unlinkat, walk } from './tree-requests.ts';

/** The longest message: what Linux asks for at most (512000), and its header. */
export const MSIZE_LIMIT = 512 * 1024;
/** Less cannot hold an answer to Tgetattr; Linux itself takes 4096 at least. */
export const MSIZE_LEAST = 4096;
export const FID_LIMIT = 65_536;
const VERSION = new TextEncoder().encode('9P2000.L');
const UNKNOWN = new TextEncoder().encode('unknown');
const SLASH = 0x2f;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [T.statfs, statfs],
  [T.lopen, lopen],
  [T.lcreate, lcreate],
  [T.symlink, symlink],
  [T.mknod, mknod],
  [T.rename, rename],
  [T.readlink, readlink],
  [T.getattr, getattr],
  [T.setattr, setattr],
  [T.xattrwalk, xattrwalk],
  [T.xattrcreate, xattrcreate],
  [T.readdir, readdir],
  [T.fsync, fsync],
  [T.lock, lock],
  [T.getlock, getlock],
  [T.link, link],
  [T.mkdir, mkdir],
  [T.renameat, renameat],
  [T.unlinkat, unlinkat],
  [T.attach, attach],
  [T.auth, auth],
  [T.flush, flush],
  [T.walk, walk],
  [T.read, read],
  [T.write, write],
  [T.clunk, clunk],
  [T.remove, remove],
]);

export class Session implements SessionState {
  readonly share: Share;
  readonly calls: SystemCalls;
  readonly fids: FidTable;
  readonly input: Memory;
  readonly output: Memory;
  readonly scratch: Memory;
  readonly folder: Memory;
  readonly value: Memory;
  private readonly reply: MessageWriter;
  /** 0 until the guest has said which version it speaks. */
  private msize = 0;

  /** `memory` belongs to the session and is made once, since it is never given back. */
  constructor(calls: SystemCalls, share: Share, memory: SessionMemory) {
    this.calls = calls;
    this.share = share;
    this.fids = new FidTable(share, calls, FID_LIMIT);
    this.input = memory.input;
    this.output = memory.output;
    this.scratch = memory.scratch;
    this.folder = memory.folder;
    this.value = memory.value;
    this.reply = new MessageWriter(memory.output.bytes);
  }

  /**
   * Answers the request of `length` bytes that stands in `input`. The reply, of at most `room` bytes, is in `output`;
   * returns its length, 0 where there is no room even for an error.
   */
  answer(length: number, room: number): number {
    const bytes = this.input.bytes.subarray(0, length);
    const header = new DataView(bytes.buffer, bytes.byteOffset);
    const type = header.getUint8(4);
    const tag = header.getUint16(5, true);
    const { reply } = this;
    const request = new MessageReader(bytes);
    reply.begin(this.msize === 0 ? room : Math.min(room, this.msize));
    const outcome = this.dispatch(type, request, reply, length);
    if (outcome >= 0 && !reply.full) return reply.end(type + 1, tag);
    return this.fail(outcome < 0 ? -outcome : EMSGSIZE, tag, room);
  }

  /** The reply to a message that is of another length than it says, with the tag that it has. */
  refuse(header: Uint8Array, room: number): number {
    return this.fail(EPROTO, (header[5] ?? 0) | ((header[6] ?? 0) << 8), room);
  }

  private fail(errno: number, tag: number, room: number): number {
    if (room < RLERROR_SIZE) return 0;
    this.reply.begin(RLERROR_SIZE);
    this.reply.u32(errno);
    return this.reply.end(RLERROR, tag);
  }

  private dispatch(type: number, request: MessageReader, reply: MessageWriter, length: number): number {
    if (type === T.version) return this.version(request, reply);
    if (this.msize === 0) return -EPROTO;
    if (length > this.msize) return -EMSGSIZE;
    const handler = HANDLERS.get(type);
    return handler === undefined ? -EOPNOTSUPP : handler(this, request, reply);
  }

  /** Tversion: msize, version. Begins anew: all fids are gone. */
  private version(request: MessageReader, reply: MessageWriter): number {
    const msize = request.u32();
    const version = request.text();
    if (!request.whole) return -EPROTO;
    this.reset();
    if (msize < MSIZE_LEAST) return -EINVAL;
    const known = version.length === VERSION.length && VERSION.every((byte, i) => byte === version[i]);
    const agreed = Math.min(msize, MSIZE_LIMIT);
    if (known) this.msize = agreed;
    reply.u32(agreed);
    reply.text(known ? VERSION : UNKNOWN);
    return 0;
  }

  /** Everything that the guest held is let go. */
  reset(): void {
    this.fids.clear();
    this.msize = 0;
  }
}

export interface SessionMemory {
  readonly input: Memory;
  readonly output: Memory;
  readonly scratch: Memory;
  readonly folder: Memory;
  readonly value: Memory;
}

export function sessionMemory(calls: SystemCalls): SessionMemory {
  return {
    input: calls.allocate(MSIZE_LIMIT),
    output: calls.allocate(MSIZE_LIMIT),
    scratch: calls.allocate(64),
    folder: calls.allocate(FOLDER_CHUNK),
    value: calls.allocate(ATTRIBUTE_LIMIT),
  };
}

/** Tattach: fid, afid, uname, aname, n_uname. There is one tree, and one identity: that of this process. */
function attach(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const number = request.u32();
  const authentication = request.u32();
  request.text();
  const tree = request.text();
  request.u32();
  if (!request.whole) return -EPROTO;
  if (authentication !== NO_FID) return -EBADF;
  if (tree.length > 1 || (tree.length === 1 && tree[0] !== SLASH)) return -ENOENT;
  const { share, fids } = session;
  const taken = fids.mayAdd(number);
  if (taken !== 0) return taken;
  const qid = share.qid(share.root);
  if (typeof qid === 'number') return qid;
  fids.add(number, share.retain(share.root), null, null);
  reply.qid(qid);
  return 0;
}

/** Tauth: nobody has to. */
function auth(): number {
  return -EOPNOTSUPP;
}

/** Tflush: oldtag, whose request has been answered already. */
function flush(_session: SessionState, request: MessageReader): number {
  request.u16();
  return request.whole ? 0 : -EPROTO;
}

/** Tclunk: fid, which is gone afterwards in any case. */
function clunk(session: SessionState, request: MessageReader): number {
  const number = request.u32();
  if (!request.whole) return -EPROTO;
  const fid = session.fids.get(number);
  if (fid === undefined) return -EBADF;
  let outcome = 0;
  if (fid.attribute?.writing) {
    outcome = setAttribute(session, session.share.openNode(fid, 0), fid.attribute);
  }
  session.fids.remove(number);
  return Math.min(outcome, 0);
}
