/** What statx(2) says of a file, read from its 256 bytes. */
import { type Qid, QT_FILE, QT_FOLDER, QT_LINK } from './message.ts';

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;

/** Basic fields, and the time of birth. */
export const STATX_MASK = 0xfff;
const STATX_BTIME = 0x800;

export interface Time {
  readonly seconds: bigint;
  readonly nanoseconds: number;
}

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: number;
  readonly inode: bigint;
  readonly size: bigint;
  readonly blocks: bigint;
  readonly blockSize: number;
  readonly accessed: Time;
  readonly modified: Time;
  readonly changed: Time;
  /** Where the file system knows it. */
  readonly born: Time | null;
  /** Of a device node. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** What the file is on, as one number. */
  readonly device: bigint;
}

export function readAttributes(view: DataView): Attributes {
  const time = (at: number): Time => ({
    seconds: view.getBigInt64(at, true),
    nanoseconds: view.getUint32(at + 8, true),
  });
  return {
    mode: view.getUint16(28, true),
    uid: view.getUint32(20, true),
    gid: view.getUint32(24, true),
    links: view.getUint32(16, true),
    inode: view.getBigUint64(32, true),
    size: view.getBigUint64(40, true),
    blocks: view.getBigUint64(48, true),
    blockSize: view.getUint32(4, true),
    accessed: time(64),
    born: (view.getUint32(0, true) & STATX_BTIME) !== 0 ? time(80) : null,
    changed: time(96),
    modified: time(112),
    deviceMajor: view.getUint32(128, true),
    deviceMinor: view.getUint32(132, true),
    device: (BigInt(view.getUint32(136, true)) << 32n) | BigInt(view.getUint32(140, true)),
  };
}

/** `home` is the device of the share itself. */
export function qidOf(attributes: Attributes, home: bigint): Qid {
  const { mode, inode, device, modified, size } = attributes;
  const kind = mode & S_IFMT;
  const type = kind === S_IFDIR ? QT_FOLDER : kind === S_IFLNK ? QT_LINK : QT_FILE;
  const version = Number((modified.seconds ^ (size << 8n)) & 0xffffffffn) ^ modified.nanoseconds;
  return { type, version: version >>> 0, path: qidPath(inode, device, home) };
}

/**
 * The inode number. An overlay file system has files of several devices in one folder, whose inode numbers mean
 * different files: those get a number of device and inode mixed, the same at every start.
 */
export function qidPath(inode: bigint, device: bigint, home: bigint): bigint {
  if (device === home) return inode;
  return mix(mix(device) ^ inode);
}

/** The finalizer of splitmix64: one to one, and every bit depends on all. */
function mix(value: bigint): bigint {
  let mixed = BigInt.asUintN(64, value + 0x9e3779b97f4a7c15n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  return mixed ^ (mixed >> 31n);
}
