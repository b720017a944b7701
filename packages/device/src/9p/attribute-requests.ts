/** Requests about what a file is, not what is in it: attributes, extended attributes, the file system. */
import type { Time } from './attributes.ts';
import { qidOf } from './attributes.ts';
import { EFBIG, EINVAL, ENODATA, EOPNOTSUPP, EPERM, EPROTO, EROFS } from './errno.ts';
import type { OpenAttribute } from './fid-table.ts';
import type { MessageReader, MessageWriter } from './message.ts';
import { withZero } from './name.ts';
import { findFid, type SessionState } from './request.ts';

const GETATTR_BASIC = 0x7ffn;
const GETATTR_BTIME = 0x800n;

const SET_MODE = 0x1;
const SET_UID = 0x2;
const SET_GID = 0x4;
const SET_SIZE = 0x8;
const SET_ATIME = 0x10;
const SET_MTIME = 0x20;
const SET_ATIME_VALUE = 0x80;
const SET_MTIME_VALUE = 0x100;
const UTIME_NOW = 0x3fffffff;
const UTIME_OMIT = 0x3ffffffe;
const NANOSECONDS = 1_000_000_000n;
const UNCHANGED = 0xffffffff;
const SET_USER_ID = 0o4000;
const SET_GROUP_ID = 0o2000;

/** XATTR_SIZE_MAX. */
export const ATTRIBUTE_LIMIT = 65_536;
const O_RDONLY = 0;
/** The one namespace that means nothing to this machine itself. */
const USER = new TextEncoder().encode('user.');

/** Tgetattr: fid, mask. Everything is answered, whatever was asked for. */
export function getattr(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  request.u64();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  const found = session.share.attributes(fid.node);
  if (typeof found === 'number') return found;
  const time = ({ seconds, nanoseconds }: Time) => {
    reply.u64(BigInt.asUintN(64, seconds));
    reply.u64(BigInt(nanoseconds));
  };
  reply.u64(found.born === null ? GETATTR_BASIC : GETATTR_BASIC | GETATTR_BTIME);
  reply.qid(qidOf(found, session.share.root.device));
  reply.u32(found.mode);
  reply.u32(found.uid);
  reply.u32(found.gid);
  reply.u64(BigInt(found.links));
  reply.u64(BigInt(deviceNumber(found.deviceMajor, found.deviceMinor)));
  reply.u64(found.size);
  reply.u64(BigInt(found.blockSize));
  reply.u64(found.blocks);
  time(found.accessed);
  time(found.modified);
  time(found.changed);
  time(found.born ?? { seconds: 0n, nanoseconds: 0 });
  reply.u64(0n);
  reply.u64(0n);
  return 0;
}

/** new_encode_dev of Linux. */
function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Tsetattr: fid, valid, mode, uid, gid, size, atime, mtime. The first change that fails ends the request. */
export function setattr(session: SessionState, request: MessageReader): number {
  const fid = findFid(session, request.u32());
  const valid = request.u32();
  const mode = request.u32();
  const uid = request.u32();
  const gid = request.u32();
  const size = request.offset();
  const times = [request.u64(), request.u64(), request.u64(), request.u64()] as const;
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  const { share, calls } = session;
  if (share.readOnly) return -EROFS;
  if (fid.attribute !== null) return -EINVAL;
  if ((valid & SET_SIZE) !== 0) {
    if (size < 0) return -EFBIG;
    const changed =
      fid.open !== null && !fid.open.folder ? calls.ftruncate(fid.open.fd, size) : share.changeSize(fid, size);
    // What is open only for reading cannot be cut through that descriptor.
    const again = changed === -EINVAL && fid.open !== null ? share.changeSize(fid, size) : changed;
    if (again < 0) return again;
  }
  if ((valid & (SET_UID | SET_GID)) !== 0) {
    const owner = (valid & SET_UID) !== 0 ? uid : UNCHANGED;
    const changed = share.changeOwner(fid.node, owner, (valid & SET_GID) !== 0 ? gid : UNCHANGED);
    if (changed < 0) return changed;
  }
  if ((valid & SET_MODE) !== 0) {
    const special = fid.node.kind === 'folder' ? SET_USER_ID : SET_USER_ID | SET_GROUP_ID;
    if ((mode & special) !== 0) return -EPERM;
    const changed = share.changeMode(fid, mode & 0o3777);
    if (changed < 0) return changed;
  }
  if ((valid & (SET_ATIME | SET_MTIME)) === 0) return 0;
  const { view, address } = session.scratch;
  const put = (at: number, set: boolean, value: boolean, seconds: bigint, nanoseconds: bigint): boolean => {
    view.setBigUint64(at, seconds, true);
    view.setBigUint64(at + 8, !set ? BigInt(UTIME_OMIT) : value ? nanoseconds : BigInt(UTIME_NOW), true);
    return !(set && value) || nanoseconds < NANOSECONDS;
  };
  const sound =
    put(0, (valid & SET_ATIME) !== 0, (valid & SET_ATIME_VALUE) !== 0, times[0], times[1]) &&
    put(16, (valid & SET_MTIME) !== 0, (valid & SET_MTIME_VALUE) !== 0, times[2], times[3]);
  return sound ? Math.min(share.changeTimes(fid.node, address), 0) : -EINVAL;
}

/** Tstatfs: fid. */
export function statfs(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  const found = session.share.fileSystem(fid.node);
  if (typeof found === 'number') return found;
  reply.u32(found.getUint32(0, true));
  reply.u32(found.getUint32(8, true));
  for (const at of [16, 24, 32, 40, 48]) reply.u64(found.getBigUint64(at, true));
  // Which file system it is on is no affair of the guest's.
  reply.u64(0n);
  reply.u32(found.getUint32(64, true));
  return 0;
}

/** Txattrwalk: fid, newfid, name; the empty name asks for the list of names. */
export function xattrwalk(session: SessionState, request: MessageReader, reply: MessageWriter): number {
  const fid = findFid(session, request.u32());
  const number = request.u32();
  const name = request.text();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  const { share, fids } = session;
  const taken = fids.mayAdd(number);
  if (taken !== 0) return taken;
  if (name.length > 0 && !isUser(name)) return -EOPNOTSUPP;
  if (name.includes(0)) return -EINVAL;
  if (fid.node.kind !== 'file' && fid.node.kind !== 'folder') return name.length === 0 ? -EOPNOTSUPP : -ENODATA;
  const value = readAttribute(session, share.openNode(fid, O_RDONLY), name);
  if (typeof value === 'number') return value;
  const held = fids.add(number, share.retain(fid.node), null, null);
  const set = fids.setAttribute(held, { writing: false, name: new Uint8Array(0), value, flags: 0, filled: 0 });
  if (set < 0) {
    fids.remove(number);
    return set;
  }
  reply.u64(BigInt(value.length));
  return 0;
}

function readAttribute(session: SessionState, fd: number, name: Uint8Array): Uint8Array | number {
  if (fd < 0) return fd;
  const { calls, value } = session;
  const length =
    name.length === 0
      ? calls.flistxattr(fd, value.address, ATTRIBUTE_LIMIT)
      : calls.fgetxattr(fd, withZero(name), value.address, ATTRIBUTE_LIMIT);
  calls.close(fd);
  if (length < 0) return length;
  const found = value.bytes.slice(0, length);
  return name.length === 0 ? userNames(found) : found;
}

/** Of names that each end with a zero, those that the guest may see. */
function userNames(list: Uint8Array): Uint8Array {
  const kept: number[] = [];
  for (let at = 0; at < list.length; ) {
    const zero = list.indexOf(0, at);
    const end = zero < 0 ? list.length : zero + 1;
    if (isUser(list.subarray(at, end))) kept.push(...list.subarray(at, end));
    at = end;
  }
  return Uint8Array.from(kept);
}

function isUser(name: Uint8Array): boolean {
  return name.length > USER.length && name.length <= 256 && USER.every((byte, i) => byte === name[i]);
}

/** Txattrcreate: fid, name, size, flags. The value comes by Twrite and is set when the fid ends. */
export function xattrcreate(session: SessionState, request: MessageReader): number {
  const fid = findFid(session, request.u32());
  const name = request.text();
  const size = request.offset();
  const flags = request.u32();
  if (!request.whole) return -EPROTO;
  if (typeof fid === 'number') return fid;
  if (session.share.readOnly) return -EROFS;
  if (fid.open !== null || fid.attribute !== null) return -EINVAL;
  if (!isUser(name)) return -EOPNOTSUPP;
  if (name.includes(0) || size < 0 || size > ATTRIBUTE_LIMIT || flags > 2) return -EINVAL;
  if (fid.node.kind !== 'file' && fid.node.kind !== 'folder') return -EPERM;
  const attribute = { writing: true, name: name.slice(), value: new Uint8Array(size), flags, filled: 0 };
  return session.fids.setAttribute(fid, attribute);
}

/** The fid of a Txattrcreate ends: sets the value, or takes the attribute away where its size was 0. */
export function setAttribute(session: SessionState, fd: number, attribute: OpenAttribute): number {
  if (fd < 0) return fd;
  const { calls, value } = session;
  const name = withZero(attribute.name);
  let outcome = -EINVAL;
  if (attribute.value.length === 0) {
    outcome = calls.fremovexattr(fd, name);
  } else if (attribute.filled === attribute.value.length) {
    value.bytes.set(attribute.value);
    outcome = calls.fsetxattr(fd, name, value.address, attribute.value.length, attribute.flags);
  }
  calls.close(fd);
  return outcome;
}
