/** Requests that change or follow names. Each reads its whole message before it does anything. */
import { AT_REMOVEDIR } from '@airlock/transport/sys/directories.ts';
import { S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK } from './attributes.ts';
import { EBUSY, EINVAL, EPERM, EPROTO, EROFS } from './errno.ts';
import type { Fid } from './fid-table.ts';
import type { MessageReader, MessageWriter, Qid } from './message.ts';
import { findFid, findFolder, type SessionState } from './request.ts';
import { isErrno, type ShareNode } from './share.ts';

/** P9_MAXWELEM. */
const WALK_LIMIT = 16;
/** Permissions and the sticky bit: a guest makes no program of this machine's that runs as somebody else. */
export const MODE_MASK = 0o1777;
const SET_GROUP = 0o2000;

/** Twalk: fid, newfid, up to 16 names. The new fid is made only when every name was found. */
export function walk(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const { share, fids } = session;
  const from = request.u32();
  const to = request.u32();
  const count = request.u16();
  if (count > WALK_LIMIT) return -EINVAL;
  const names = Array.from({ length: count }, () => request.text());
  if (!request.whole) return -EPROTO;
  const fid = findFid(session, from);
  if (typeof fid === 'number') return fid;
  if (fid.attribute !== null || (to === from && fid.open !== null)) return -EINVAL;
  const taken = to === from ? 0 : fids.mayAdd(to);
  if (taken !== 0) return taken;

  const qids: Qid[] = [];
  let node = share.retain(fid.node);
  let parent = fid.parent === null ? null : share.retain(fid.parent);
  let name = fid.name;
  let failure = 0;
  for (const next of names) {
    const found = share.walk(node, next);
    const qid = isErrno(found) ? found : share.qid(found);
    if (isErrno(found) || typeof qid === 'number') {
      failure = isErrno(found) ? found : Number(qid);
      if (!isErrno(found)) share.release(found);
      break;
    }
    qids.push(qid);
    if (parent !== null) share.release(parent);
    parent = node;
    node = found;
    name = next;
  }
  if (failure === 0) {
    if (to === from) fids.remove(from);
    fids.add(to, share.retain(node), parent, parent === null ? null : name);
  }
  share.release(node);
  if (parent !== null) share.release(parent);
  if (failure !== 0 && qids.length === 0) return failure;
  reply.u16(qids.length);
  for (const qid of qids) reply.qid(qid);
  return 0;
}

/** Tmkdir: dfid, name, mode, gid. */
export function mkdir(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const folder = findFolder(session, request.u32());
  const name = request.text();
  const mode = request.u32();
  request.u32();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  const made = session.share.makeFolder(folder, name, mode & (MODE_MASK | SET_GROUP));
  return made < 0 ? made : answerQid(session, folder, name, reply);
}

/** Tsymlink: dfid, name, target, gid. The target is the guest's affair: nothing here follows it. */
export function symlink(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const folder = findFolder(session, request.u32());
  const name = request.text();
  const target = request.text();
  request.u32();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  const made = session.share.makeLink(folder, name, target);
  return made < 0 ? made : answerQid(session, folder, name, reply);
}

/** Tmknod: dfid, name, mode, major, minor, gid. A device of this machine is nothing that a guest makes. */
export function mknod(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const folder = findFolder(session, request.u32());
  const name = request.text();
  const mode = request.u32();
  request.u32();
  request.u32();
  request.u32();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  const kind = mode & S_IFMT;
  if (kind !== 0 && kind !== S_IFREG && kind !== S_IFIFO && kind !== S_IFSOCK) {
    return session.share.readOnly ? -EROFS : -EPERM;
  }
  const made = session.share.makeNode(folder, name, (kind === 0 ? S_IFREG : kind) | (mode & MODE_MASK));
  return made < 0 ? made : answerQid(session, folder, name, reply);
}

function answerQid(session: SessionState, folder: ShareNode, name: Uint8Array, reply: MessageWriter): number {
  const node = session.share.walk(folder, name);
  if (isErrno(node)) return node;
  const qid = session.share.qid(node);
  session.share.release(node);
  if (typeof qid === 'number') return qid;
  reply.qid(qid);
  return 0;
}

/** Tlink: dfid, fid, name. */
export function link(session: SessionState, request: MessageReader): number {
  const folder = findFolder(session, request.u32());
  const fid = findFid(session, request.u32());
  const name = request.text();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  if (typeof fid === 'number') return fid;
  return session.share.addName(fid, folder, name);
}

/** Trenameat: olddfid, oldname, newdfid, newname. */
export function renameat(session: SessionState, request: MessageReader): number {
  const from = findFolder(session, request.u32());
  const name = request.text();
  const to = findFolder(session, request.u32());
  const newName = request.text();
  if (!request.whole) return -EPROTO;
  if (isErrno(from)) return from;
  if (isErrno(to)) return to;
  return move(session, from, name, to, newName);
}

/** Trename: fid, dfid, name. */
export function rename(session: SessionState, request: MessageReader): number {
  const fid = findFid(session, request.u32());
  const to = findFolder(session, request.u32());
  const newName = request.text();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (isErrno(to)) return to;
  const named = findNamed(session, fid);
  if (isErrno(named)) return named;
  return move(session, named, fid.name, to, newName);
}

function move(session: SessionState, from: ShareNode, name: Uint8Array, to: ShareNode, newName: Uint8Array): number {
  const moved = session.share.rename(from, name, to, newName);
  if (moved < 0) return moved;
  session.fids.renamed(from, name.slice(), to, newName);
  return 0;
}

/** Tunlinkat: dfid, name, flags. */
export function unlinkat(session: SessionState, request: MessageReader): number {
  const folder = findFolder(session, request.u32());
  const name = request.text();
  const flags = request.u32();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  if ((flags & ~AT_REMOVEDIR) !== 0) return -EINVAL;
  return session.share.unlink(folder, name, flags);
}

/** Tremove: fid, which is gone afterwards in any case. */
export function remove(session: SessionState, request: MessageReader): number {
  const number = request.u32();
  if (!request.whole) return -EPROTO;
  const fid = findFid(session, number);
  if (typeof fid === 'number') return fid;
  const folder = findNamed(session, fid);
  const flags = fid.node.kind === 'folder' ? AT_REMOVEDIR : 0;
  const removed = isErrno(folder) ? folder : session.share.unlink(folder, fid.name, flags);
  session.fids.remove(number);
  return Math.min(removed, 0);
}

/** The folder in which a fid's file still has the fid's name. */
function findNamed(session: SessionState, fid: Fid): ShareNode | number {
  if (fid.attribute !== null) return -EINVAL;
  if (fid.parent === null) return -EBUSY;
  const named = session.share.isNamed(fid.node, fid.parent, fid.name);
  return named < 0 ? named : fid.parent;
}

/** Treadlink: fid. */
export function readlink(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  const target = session.share.readLink(fid.node);
  if (typeof target === 'number') return target;
  reply.text(target);
  return 0;
}
