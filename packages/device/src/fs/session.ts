/**
 * A FUSE session over a share: one request in, one reply out. Names are looked up by the share, which never leaves its
 * folder; numbers and handles are only those that this session gave out.
 */
import { AT_REMOVEDIR, O_RDONLY, O_TRUNC } from '@airlock/transport/sys/directories.ts';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { EBADF, EFBIG, EINVAL, EISDIR, ENOTDIR, EPROTO } from '../9p/errno.ts';
import { isErrno, type Share, type ShareNode } from '../9p/share.ts';
import { MODE_MASK } from '../9p/tree-requests.ts';
import {
  ATTR_OUT_SIZE,
  ENTRY_SIZE,
  FUSE,
  IN_HEADER,
  INIT_OUT_SIZE,
  MAJOR,
  MINOR_LEAST,
  nameAt,
  OPEN_OUT_SIZE,
  OUT_HEADER,
  putAttributes,
  putEntry,
  putInit,
  putStatfs,
  readHeader,
  STATFS_OUT_SIZE,
  TRANSFER_BYTES,
} from './fuse.ts';
import { NodeTable } from './node-table.ts';

const ENOSYS = 38;
const O_EXCL = 0o200;
const SEEK_SET = 0;
const FOLDER_CHUNK = 32 * 1024;
/** Where struct linux_dirent64 has its name. */
const DIRENT_NAME = 19;
const FUSE_DIRENT = 24;
const BATCH_LIMIT = 65_536;
/** Bits of fuse_setattr_in.valid. */
const SET = { mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32, atimeNow: 128, mtimeNow: 256 } as const;
const UTIME_NOW = 0x3fffffff;
const UTIME_OMIT = 0x3ffffffe;
const NOBODY = 0xffffffff;
/** `answer`: there is no reply to this request. */
export const NO_REPLY = 0;

/** A request and where its reply goes: everything is bounded by these two. */
interface Exchange {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly out: DataView;
  readonly reply: Uint8Array;
  readonly node: bigint;
}

type Handler = (exchange: Exchange) => number;

export class FuseSession {
  readonly nodes: NodeTable;
  requests = 0;
  refused = 0;
  private readonly calls: SystemCalls;
  private readonly share: Share;
  private readonly transfer: Memory;
  private readonly folder: Memory;
  private readonly times: Memory;
  private greeted = false;
  private readonly handlers: ReadonlyMap<number, Handler>;

  constructor(calls: SystemCalls, share: Share) {
    this.calls = calls;
    this.share = share;
    this.nodes = new NodeTable(share, calls);
    this.transfer = calls.allocate(TRANSFER_BYTES);
    this.folder = calls.allocate(FOLDER_CHUNK);
    this.times = calls.allocate(32);
    this.handlers = new Map<number, Handler>([
      [FUSE.LOOKUP, (one) => this.lookup(one)],
      [FUSE.GETATTR, (one) => this.attributes(one)],
      [FUSE.SETATTR, (one) => this.change(one)],
      [FUSE.READLINK, (one) => this.readLink(one)],
      [FUSE.SYMLINK, (one) => this.makeLink(one)],
      [FUSE.MKDIR, (one) => this.makeFolder(one)],
      [FUSE.UNLINK, (one) => this.remove(one, 0)],
      [FUSE.RMDIR, (one) => this.remove(one, AT_REMOVEDIR)],
      [FUSE.RENAME, (one) => this.rename(one, 8)],
      [FUSE.RENAME2, (one) => (one.view.getUint32(8, true) === 0 ? this.rename(one, 16) : -EINVAL)],
      [FUSE.LINK, (one) => this.addName(one)],
      [FUSE.OPEN, (one) => this.openFile(one)],
      [FUSE.OPENDIR, (one) => this.openFile(one)],
      [FUSE.CREATE, (one) => this.create(one)],
      [FUSE.READ, (one) => this.read(one)],
      [FUSE.WRITE, (one) => this.write(one)],
      [FUSE.READDIR, (one) => this.readFolder(one)],
      [FUSE.RELEASE, (one) => this.nodes.removeHandle(one.view.getBigUint64(0, true))],
      [FUSE.RELEASEDIR, (one) => this.nodes.removeHandle(one.view.getBigUint64(0, true))],
      [FUSE.FSYNC, (one) => this.sync(one)],
      [FUSE.FSYNCDIR, (one) => this.sync(one)],
      [FUSE.FLUSH, () => 0],
      [FUSE.STATFS, (one) => this.fileSystem(one)],
    ]);
  }

  /** Answers one request; bytes of the reply, NO_REPLY where there is none. */
  answer(request: Uint8Array, size: number, reply: Uint8Array): number {
    this.requests++;
    const whole = new DataView(request.buffer, request.byteOffset, request.byteLength);
    if (request.length < IN_HEADER) return this.refuse(reply, 0n, EPROTO);
    const { length, opcode, node } = readHeader(whole);
    const unique = whole.getBigUint64(8, true);
    if (length !== size || length !== request.length) return this.refuse(reply, unique, EPROTO);
    const bytes = request.subarray(IN_HEADER);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (opcode === FUSE.FORGET || opcode === FUSE.BATCH_FORGET) return this.forget(opcode, node, view);
    if (opcode === FUSE.INTERRUPT) return NO_REPLY; // what it means has been answered
    if (reply.length < OUT_HEADER) return NO_REPLY;
    const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    const outcome = this.dispatch(opcode, { bytes, view, out, reply, node });
    if (outcome < 0) return this.refuse(reply, unique, -outcome);
    const total = OUT_HEADER + outcome;
    out.setUint32(0, total, true);
    out.setInt32(4, 0, true);
    out.setBigUint64(8, unique, true);
    return total;
  }

  private dispatch(opcode: number, one: Exchange): number {
    if (opcode === FUSE.INIT) return this.init(one);
    if (opcode === FUSE.DESTROY) {
      this.reset();
      return 0;
    }
    if (!this.greeted) return -EPROTO;
    const handler = this.handlers.get(opcode);
    if (handler === undefined) return -ENOSYS;
    if (one.bytes.length < (LEAST.get(opcode) ?? 0)) return -EPROTO;
    if (one.reply.length < OUT_HEADER + (ROOM.get(opcode) ?? 0)) return -EINVAL;
    return handler(one);
  }

  private refuse(reply: Uint8Array, unique: bigint, errno: number): number {
    this.refused++;
    if (reply.length < OUT_HEADER) return NO_REPLY;
    const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
    out.setUint32(0, OUT_HEADER, true);
    out.setInt32(4, -errno, true);
    out.setBigUint64(8, unique, true);
    return OUT_HEADER;
  }

  /** Everything that the guest held is let go. */
  reset(): void {
    this.nodes.clear();
    this.greeted = false;
  }

  private init({ view, out, reply }: Exchange): number {
    if (view.byteLength < 16 || reply.length < OUT_HEADER + INIT_OUT_SIZE) return -EPROTO;
    if (view.getUint32(0, true) < MAJOR || view.getUint32(4, true) < MINOR_LEAST) return -EPROTO;
    this.reset();
    this.greeted = true;
    return putInit(out, OUT_HEADER, Math.min(view.getUint32(8, true), TRANSFER_BYTES));
  }

  private forget(opcode: number, node: bigint, view: DataView): number {
    if (opcode === FUSE.FORGET) {
      if (view.byteLength >= 8) this.nodes.forget(node, view.getBigUint64(0, true));
      return NO_REPLY;
    }
    const count = view.byteLength >= 8 ? Math.min(view.getUint32(0, true), BATCH_LIMIT) : 0;
    for (let i = 0; i < count && 8 + 16 * (i + 1) <= view.byteLength; i++) {
      this.nodes.forget(view.getBigUint64(8 + 16 * i, true), view.getBigUint64(16 + 16 * i, true));
    }
    return NO_REPLY;
  }

  /** The folder that a request names, or a negative errno. */
  private folderOf({ node }: Exchange): ShareNode | number {
    const folder = this.nodes.get(node);
    return isErrno(folder) || folder.kind === 'folder' ? folder : -ENOTDIR;
  }

  private lookup(one: Exchange): number {
    const found = nameAt(one.bytes, 0);
    return found === null ? -EPROTO : this.entry(one, this.folderOf(one), found.name);
  }

  /** Looks a name up, counts it, and writes what it is. */
  private entry({ out }: Exchange, folder: ShareNode | number, name: Uint8Array): number {
    if (isErrno(folder)) return folder;
    const full = this.nodes.mayAdd();
    if (full < 0) return full;
    const node = this.share.walk(folder, name);
    if (isErrno(node)) return node;
    const attributes = this.share.attributes(node);
    if (typeof attributes === 'number') {
      this.share.release(node);
      return attributes;
    }
    return putEntry(out, OUT_HEADER, this.nodes.add(node, folder, name), attributes);
  }

  private attributes({ node, out }: Exchange): number {
    const file = this.nodes.get(node);
    if (isErrno(file)) return file;
    const attributes = this.share.attributes(file);
    if (typeof attributes === 'number') return attributes;
    putAttributes(out, OUT_HEADER + 16, attributes);
    return ATTR_OUT_SIZE;
  }

  private change(one: Exchange): number {
    const { view } = one;
    const place = this.nodes.place(one.node);
    if (typeof place === 'number') return place;
    const { node } = place;
    const valid = view.getUint32(0, true);
    const has = (bit: number) => (valid & bit) !== 0;
    const steps: (() => number)[] = [];
    if (has(SET.mode)) steps.push(() => this.share.changeMode(place, view.getUint32(68, true) & MODE_MASK));
    if (has(SET.uid | SET.gid)) {
      const uid = has(SET.uid) ? view.getUint32(76, true) : NOBODY;
      const gid = has(SET.gid) ? view.getUint32(80, true) : NOBODY;
      steps.push(() => this.share.changeOwner(node, uid, gid));
    }
    if (has(SET.size)) {
      const size = view.getBigUint64(16, true);
      if (size >= 2n ** 53n) return -EFBIG;
      steps.push(() => this.share.changeSize(place, Number(size)));
    }
    if (has(SET.atime | SET.mtime)) {
      const time = (at: number, secondsAt: number, nanosecondsAt: number, set: number, now: number) => {
        this.times.view.setBigInt64(at, view.getBigInt64(secondsAt, true), true);
        const nanoseconds = view.getUint32(nanosecondsAt, true) % 1_000_000_000;
        this.times.view.setBigInt64(at + 8, BigInt(has(now) ? UTIME_NOW : has(set) ? nanoseconds : UTIME_OMIT), true);
      };
      time(0, 32, 56, SET.atime, SET.atimeNow);
      time(16, 40, 60, SET.mtime, SET.mtimeNow);
      steps.push(() => this.share.changeTimes(node, this.times.address));
    }
    for (const step of steps) {
      const outcome = step();
      if (outcome < 0) return outcome;
    }
    return this.attributes(one);
  }

  private readLink({ node, reply }: Exchange): number {
    const file = this.nodes.get(node);
    if (isErrno(file)) return file;
    const target = this.share.readLink(file);
    if (typeof target === 'number') return target;
    if (target.length > reply.length - OUT_HEADER) return -EINVAL;
    reply.set(target, OUT_HEADER);
    return target.length;
  }

  private makeLink(one: Exchange): number {
    const name = nameAt(one.bytes, 0);
    const target = name === null ? null : nameAt(one.bytes, name.end);
    if (name === null || target === null) return -EPROTO;
    const folder = this.folderOf(one);
    const made = isErrno(folder) ? folder : this.share.makeLink(folder, name.name, target.name);
    return made < 0 ? made : this.entry(one, folder, name.name);
  }

  private makeFolder(one: Exchange): number {
    const found = nameAt(one.bytes, 8);
    if (found === null) return -EPROTO;
    const folder = this.folderOf(one);
    const mode = one.view.getUint32(0, true) & ~one.view.getUint32(4, true) & MODE_MASK;
    const made = isErrno(folder) ? folder : this.share.makeFolder(folder, found.name, mode);
    return made < 0 ? made : this.entry(one, folder, found.name);
  }

  private remove(one: Exchange, flags: number): number {
    const found = nameAt(one.bytes, 0);
    if (found === null) return -EPROTO;
    const folder = this.folderOf(one);
    return isErrno(folder) ? folder : this.share.unlink(folder, found.name, flags);
  }

  private rename(one: Exchange, at: number): number {
    const from = nameAt(one.bytes, at);
    const to = from === null ? null : nameAt(one.bytes, from.end);
    if (from === null || to === null) return -EPROTO;
    const folder = this.folderOf(one);
    const other = this.nodes.get(one.view.getBigUint64(0, true));
    if (isErrno(folder)) return folder;
    if (isErrno(other)) return other;
    const renamed = this.share.rename(folder, from.name, other, to.name);
    if (renamed >= 0) this.nodes.renamed(folder, from.name, other, to.name);
    return renamed;
  }

  private addName(one: Exchange): number {
    const found = nameAt(one.bytes, 8);
    if (found === null) return -EPROTO;
    const folder = this.folderOf(one);
    const file = this.nodes.place(one.view.getBigUint64(0, true));
    if (typeof file === 'number') return file;
    const made = isErrno(folder) ? folder : this.share.addName(file, folder, found.name);
    return made < 0 ? made : this.entry(one, folder, found.name);
  }

  private openFile(one: Exchange): number {
    const file = this.nodes.place(one.node);
    if (typeof file === 'number') return file;
    const full = this.nodes.mayAdd();
    if (full < 0) return full;
    const fd = this.share.openNode(file, accessOf(one.view.getUint32(0, true)));
    return fd < 0 ? fd : this.opened(one, fd, file.node.kind === 'folder', OUT_HEADER);
  }

  private opened({ out }: Exchange, fd: number, folder: boolean, at: number): number {
    const handle = this.nodes.addHandle(fd, folder);
    if (handle < 0) return handle;
    out.setBigUint64(at, BigInt(handle), true);
    return OPEN_OUT_SIZE;
  }

  private create(one: Exchange): number {
    const found = nameAt(one.bytes, 16);
    if (found === null) return -EPROTO;
    const folder = this.folderOf(one);
    if (isErrno(folder)) return folder;
    const full = this.nodes.mayAdd();
    if (full < 0) return full;
    const flags = one.view.getUint32(0, true);
    const mode = one.view.getUint32(4, true) & ~one.view.getUint32(8, true) & MODE_MASK;
    const fd = this.share.create(folder, found.name, accessOf(flags), mode, (flags & O_EXCL) !== 0);
    const node = this.share.created;
    if (fd < 0 || node === null) return fd;
    const attributes = this.share.attributes(node);
    if (typeof attributes === 'number') {
      this.calls.close(fd);
      this.share.release(node);
      return attributes;
    }
    const opened = this.opened(one, fd, false, OUT_HEADER + ENTRY_SIZE);
    if (opened < 0) {
      this.share.release(node);
      return opened;
    }
    putEntry(one.out, OUT_HEADER, this.nodes.add(node, folder, found.name), attributes);
    return ENTRY_SIZE + OPEN_OUT_SIZE;
  }

  private read({ view, reply }: Exchange): number {
    const handle = this.nodes.handle(view.getBigUint64(0, true));
    if (handle === null) return -EBADF;
    if (handle.folder) return -EISDIR;
    const offset = view.getBigUint64(8, true);
    if (offset >= 2n ** 53n) return -EFBIG;
    const most = Math.min(view.getUint32(16, true), reply.length - OUT_HEADER, TRANSFER_BYTES);
    const got = this.calls.pread(handle.fd, this.transfer.address, most, Number(offset));
    if (got > 0) reply.set(this.transfer.bytes.subarray(0, got), OUT_HEADER);
    return got;
  }

  private write({ view, bytes, out }: Exchange): number {
    const handle = this.nodes.handle(view.getBigUint64(0, true));
    if (handle === null || handle.folder) return -EBADF;
    const offset = view.getBigUint64(8, true);
    const length = view.getUint32(16, true);
    if (offset >= 2n ** 53n) return -EFBIG;
    if (length > TRANSFER_BYTES || length > bytes.length - 40) return -EINVAL;
    this.transfer.bytes.set(bytes.subarray(40, 40 + length));
    const written = this.calls.pwrite(handle.fd, this.transfer.address, length, Number(offset));
    if (written < 0) return written;
    out.setUint32(OUT_HEADER, written, true);
    return 8;
  }

  private readFolder({ view, out, reply }: Exchange): number {
    const handle = this.nodes.handle(view.getBigUint64(0, true));
    if (handle === null) return -EBADF;
    if (!handle.folder) return -ENOTDIR;
    const end = Math.min(reply.length, OUT_HEADER + view.getUint32(16, true));
    const sought = this.calls.lseek(handle.fd, BigInt.asIntN(64, view.getBigUint64(8, true)), SEEK_SET);
    if (sought < 0) return sought;
    const length = this.calls.getdents(handle.fd, this.folder.address, FOLDER_CHUNK);
    if (length < 0) return length;
    const from = this.folder;
    let put = OUT_HEADER;
    for (let at = 0; at + DIRENT_NAME < length; ) {
      const size = from.view.getUint16(at + 16, true);
      if (size <= DIRENT_NAME || at + size > length) break;
      const raw = from.bytes.subarray(at + DIRENT_NAME, at + size);
      const name = raw.subarray(0, raw.indexOf(0) < 0 ? raw.length : raw.indexOf(0));
      const room = FUSE_DIRENT + Math.ceil(name.length / 8) * 8;
      if (put + room > end) break;
      out.setBigUint64(put, from.view.getBigUint64(at, true), true);
      out.setBigUint64(put + 8, from.view.getBigUint64(at + 8, true), true);
      out.setUint32(put + 16, name.length, true);
      out.setUint32(put + 20, from.view.getUint8(at + 18), true);
      reply.set(name, put + FUSE_DIRENT);
      put += room;
      at += size;
    }
    return put === OUT_HEADER && length > 0 ? -EINVAL : put - OUT_HEADER;
  }

  private sync({ view }: Exchange): number {
    const handle = this.nodes.handle(view.getBigUint64(0, true));
    if (handle === null) return -EBADF;
    return (view.getUint32(8, true) & 1) !== 0 ? this.calls.fdatasync(handle.fd) : this.calls.fsync(handle.fd);
  }

  private fileSystem({ node, out }: Exchange): number {
    const file = this.nodes.get(node);
    if (isErrno(file)) return file;
    const found = this.share.fileSystem(file);
    return typeof found === 'number' ? found : putStatfs(out, OUT_HEADER, found);
  }
}

/** Appending is by offset; everything else of open(2) the guest has done already. */
function accessOf(flags: number): number {
  const access = flags & 3;
  const own = access === 3 ? O_RDONLY : access;
  return (flags & 0o1000) !== 0 ? own | O_TRUNC : own;
}

/** Bytes that a request has at least behind its header. */
const LEAST: ReadonlyMap<number, number> = new Map([
  ...([FUSE.SETATTR].map((code) => [code, 88]) as [number, number][]),
  ...([FUSE.READ, FUSE.WRITE, FUSE.READDIR].map((code) => [code, 40]) as [number, number][]),
  ...([FUSE.OPEN, FUSE.OPENDIR, FUSE.RENAME, FUSE.LINK, FUSE.MKDIR].map((code) => [code, 8]) as [number, number][]),
  ...([FUSE.CREATE, FUSE.RENAME2, FUSE.RELEASE, FUSE.RELEASEDIR].map((code) => [code, 16]) as [number, number][]),
  ...([FUSE.FSYNC, FUSE.FSYNCDIR].map((code) => [code, 16]) as [number, number][]),
]);

/** Room that a reply takes at least behind its header. */
const ROOM: ReadonlyMap<number, number> = new Map<number, number>([
  ...([FUSE.LOOKUP, FUSE.MKDIR, FUSE.SYMLINK, FUSE.LINK].map((code) => [code, ENTRY_SIZE]) as [number, number][]),
  ...([FUSE.GETATTR, FUSE.SETATTR].map((code) => [code, ATTR_OUT_SIZE]) as [number, number][]),
  ...([FUSE.OPEN, FUSE.OPENDIR].map((code) => [code, OPEN_OUT_SIZE]) as [number, number][]),
  [FUSE.CREATE, ENTRY_SIZE + OPEN_OUT_SIZE],
  [FUSE.WRITE, 8],
  [FUSE.STATFS, STATFS_OUT_SIZE],
]);
