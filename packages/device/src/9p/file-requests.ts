/** Requests on open files and folders. */
import { O_DSYNC, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC } from '@airlock/transport/sys/directories.ts';
import { qidOf, qidPath } from './attributes.ts';
import { EBADF, EFBIG, EINVAL, EISDIR, ENFILE, ENOTDIR, EPROTO } from './errno.ts';
import type { Fid } from './fid-table.ts';
import {
  type MessageReader,
  type MessageWriter,
  QT_FILE,
  QT_FOLDER,
  QT_LINK,
  READ_HEADER_SIZE,
  WRITE_HEADER_SIZE,
} from './message.ts';
import { findFid, findFolder, type SessionState } from './request.ts';
import { isErrno } from './share.ts';
import { MODE_MASK } from './tree-requests.ts';

/** Linux's own numbers on x86, which 9P2000.L has for everyone. */
const ACCESS_MASK = 3;
const L_EXCL = 0o200;
const L_TRUNC = 0o1000;
const L_DSYNC = 0o10000;
const L_SYNC = 0o4000000;

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK_TYPES = 3;
const LOCK_SUCCESS = 0;
const LOCK_BLOCKED = 1;
const LOCK_ERROR = 2;
const EAGAIN = 11;
const EACCES = 13;

/** getdents64(2) fills this much at a time. */
export const FOLDER_CHUNK = 32 * 1024;
/** Where struct linux_dirent64 has its name. */
const ENTRY_NAME = 19;
const DT_FOLDER = 4;
const DT_LINK = 10;
const SEEK_SET = 0;

/** Appending is by offset, and the guest does its own caching: those flags change nothing here. */
function openFlags(flags: number): number {
  const access = flags & ACCESS_MASK;
  let own = access === ACCESS_MASK ? O_RDWR : access;
  if ((flags & L_TRUNC) !== 0) own |= O_TRUNC;
  if ((flags & L_SYNC) !== 0) own |= O_SYNC;
  else if ((flags & L_DSYNC) !== 0) own |= O_DSYNC;
  return own;
}

/** Tlopen: fid, flags. An iounit of 0 leaves it to msize. */
export function lopen(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const flags = request.u32();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (fid.open !== null || fid.attribute !== null) return -EINVAL;
  if (!session.fids.mayOpen) return -ENFILE;
  const qid = session.share.qid(fid.node);
  if (typeof qid === 'number') return qid;
  const fd = session.share.openNode(fid, openFlags(flags));
  if (fd < 0) return fd;
  session.fids.setOpen(fid, fd);
  reply.qid(qid);
  reply.u32(0);
  return 0;
}

/** Tlcreate: fid of the folder, name, flags, mode, gid. The fid is the open file afterwards. */
export function lcreate(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const number = request.u32();
  const folder = findFolder(session, number);
  const name = request.text();
  const flags = request.u32();
  const mode = request.u32();
  request.u32();
  if (!request.whole) return -EPROTO;
  if (isErrno(folder)) return folder;
  const { share, fids } = session;
  if (fids.get(number)?.open) return -EINVAL;
  if (!fids.mayOpen) return -ENFILE;
  const fd = share.create(folder, name, openFlags(flags), mode & MODE_MASK, (flags & L_EXCL) !== 0);
  const node = share.created;
  if (fd < 0 || node === null) return fd;
  const qid = share.qid(node);
  // The folder lives on as the parent of what was made in it.
  share.retain(folder);
  fids.remove(number);
  const fid = fids.add(number, node, folder, name);
  share.release(folder);
  fids.setOpen(fid, fd);
  if (typeof qid === 'number') return qid;
  reply.qid(qid);
  reply.u32(0);
  return 0;
}

/** Tread: fid, offset, count. Fewer bytes than were asked for are no error. */
export function read(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const offset = request.offset();
  const count = request.u32();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (offset < 0) return -EFBIG;
  const most = Math.min(count, reply.room - 4);
  if (most < 0) return -EINVAL;
  if (fid.attribute !== null) {
    if (fid.attribute.writing) return -EBADF;
    const piece = fid.attribute.value.subarray(Math.min(offset, fid.attribute.value.length)).subarray(0, most);
    reply.u32(piece.length);
    reply.put(piece);
    return 0;
  }
  if (fid.open === null) return -EBADF;
  if (fid.open.folder) return -EISDIR;
  const length = session.calls.pread(fid.open.fd, session.output.address + READ_HEADER_SIZE, most, offset);
  if (length < 0) return length;
  reply.u32(length);
  reply.skip(length);
  return 0;
}

/** Twrite: fid, offset, count, data. */
export function write(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const offset = request.offset();
  const count = request.u32();
  const at = request.skip(count);
  if (!request.whole || at !== WRITE_HEADER_SIZE) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (offset < 0) return -EFBIG;
  const { attribute, open } = fid;
  if (attribute !== null) {
    if (!attribute.writing) return -EBADF;
    if (offset !== attribute.filled || count > attribute.value.length - offset) return -EINVAL;
    attribute.value.set(session.input.bytes.subarray(at, at + count), offset);
    attribute.filled += count;
    reply.u32(count);
    return 0;
  }
  if (open === null) return -EBADF;
  if (open.folder) return -EISDIR;
  const written = session.calls.pwrite(open.fd, session.input.address + at, count, offset);
  if (written < 0) return written;
  reply.u32(written);
  return 0;
}

/** Treaddir: fid, offset, count. Whole entries; each carries the offset of the next one, which is the file system's. */
export function readdir(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const offset = request.u64();
  const count = request.u32();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (fid.open === null) return -EBADF;
  if (!fid.open.folder) return -ENOTDIR;
  const most = Math.min(count, reply.room - 4);
  if (most < 0) return -EINVAL;
  const sought = session.calls.lseek(fid.open.fd, BigInt.asIntN(64, offset), SEEK_SET);
  if (sought < 0) return sought;
  const { folder } = session;
  reply.u32(0);
  let used = 0;
  // One chunk: the guest asks again where this one ends.
  const length = session.calls.getdents(fid.open.fd, folder.address, Math.min(FOLDER_CHUNK, Math.max(most, 512)));
  if (length < 0) return length;
  const entries = readEntries(folder.view, folder.bytes, length);
  for (const entry of entries) {
    const size = 13 + 8 + 1 + 2 + entry.name.length;
    if (size > most - used) break;
    used += size;
    reply.qid(entryQid(session, fid, entry));
    reply.u64(entry.next);
    reply.u8(entry.type);
    reply.text(entry.name);
  }
  if (used === 0 && entries.length > 0) return -EINVAL;
  new DataView(reply.bytes.buffer, reply.bytes.byteOffset).setUint32(READ_HEADER_SIZE - 4, used, true);
  return 0;
}

interface FolderEntry {
  readonly inode: bigint;
  readonly next: bigint;
  readonly type: number;
  readonly name: Uint8Array;
}

function readEntries(view: DataView, bytes: Uint8Array, length: number): FolderEntry[] {
  const entries: FolderEntry[] = [];
  for (let at = 0; at + ENTRY_NAME < length; ) {
    const size = view.getUint16(at + 16, true);
    const end = at + size;
    if (size <= ENTRY_NAME || end > length) break;
    const raw = bytes.subarray(at + ENTRY_NAME, end);
    const zero = raw.indexOf(0);
    entries.push({
      inode: view.getBigUint64(at, true),
      next: view.getBigUint64(at + 8, true),
      type: view.getUint8(at + 18),
      name: raw.subarray(0, zero < 0 ? raw.length : zero),
    });
    at = end;
  }
  return entries;
}

/** The number that a walk to it gives, as far as the folder knows; `..` is the folder itself: what is above is not told. */
function entryQid(session: SessionState, fid: Fid, entry: FolderEntry) {
  const { share } = session;
  const dots = entry.name.length === 2 && entry.name[0] === 0x2e && entry.name[1] === 0x2e;
  if (dots) {
    const own = share.attributes(fid.node);
    if (typeof own !== 'number') return { ...qidOf(own, share.root.device), version: 0 };
  }
  const type = entry.type === DT_FOLDER ? QT_FOLDER : entry.type === DT_LINK ? QT_LINK : QT_FILE;
  return { type, version: 0, path: qidPath(entry.inode, fid.node.device, share.root.device) };
}

/** Tfsync: fid, datasync. */
export function fsync(session: SessionState, request: MessageReader): number {
  const fid = findFid(session, request.u32());
  // The first form of the message had no such field.
  const onlyData = request.atEnd ? 0 : request.u32();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (fid.open !== null) return session.calls[onlyData !== 0 ? 'fdatasync' : 'fsync'](fid.open.fd);
  if (fid.attribute !== null) return -EINVAL;
  const fd = session.share.openNode(fid, O_RDONLY);
  if (fd < 0) return fd;
  const synced = session.calls.fsync(fd);
  session.calls.close(fd);
  return synced;
}

/** Tlock: fid, type, flags, start, length, proc_id, client_id. Never waits: the guest asks again. */
export function lock(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const type = request.u8();
  request.u32();
  const start = request.u64();
  const length = request.u64();
  request.u32();
  request.text();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (fid.open === null) return -EBADF;
  if (type >= LOCK_TYPES) return -EINVAL;
  putLock(session, type, start, length);
  const outcome = session.calls.fcntl(fid.open.fd, F_OFD_SETLK, session.scratch.address);
  const blocked = outcome === -EAGAIN || outcome === -EACCES;
  reply.u8(outcome >= 0 ? LOCK_SUCCESS : blocked ? LOCK_BLOCKED : LOCK_ERROR);
  return 0;
}

/** Tgetlock: fid, type, start, length, proc_id, client_id. */
export function getlock(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const type = request.u8();
  const start = request.u64();
  const length = request.u64();
  const process = request.u32();
  const client = request.text();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (fid.open === null) return -EBADF;
  if (type >= LOCK_TYPES - 1) return -EINVAL;
  putLock(session, type, start, length);
  const outcome = session.calls.fcntl(fid.open.fd, F_OFD_GETLK, session.scratch.address);
  if (outcome < 0) return outcome;
  const { view } = session.scratch;
  reply.u8(view.getUint16(0, true));
  reply.u64(view.getBigUint64(8, true));
  reply.u64(view.getBigUint64(16, true));
  reply.u32(process);
  reply.text(client);
  return 0;
}

/** struct flock. Locks belong to the open file, so those of one guest's fids hold against each other. */
function putLock(session: SessionState, type: number, start: bigint, length: bigint): void {
  const { view } = session.scratch;
  view.setUint16(0, type, true);
  view.setUint16(2, SEEK_SET, true);
  view.setUint32(4, 0, true);
  view.setBigUint64(8, start, true);
  view.setBigUint64(16, length, true);
  view.setBigUint64(24, 0n, true);
}
