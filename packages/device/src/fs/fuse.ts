/** FUSE messages as Linux has them (include/uapi/linux/fuse.h, 7.31): numbers, and replies as bytes. */
import type { Attributes } from '../9p/attributes.ts';

export const FUSE = {
  ...{ LOOKUP: 1, FORGET: 2, GETATTR: 3, SETATTR: 4, READLINK: 5, SYMLINK: 6, MKDIR: 9, UNLINK: 10, RMDIR: 11 },
  ...{ RENAME: 12, LINK: 13, OPEN: 14, READ: 15, WRITE: 16, STATFS: 17, RELEASE: 18, FSYNC: 20, FLUSH: 25, INIT: 26 },
  ...{ OPENDIR: 27, READDIR: 28, RELEASEDIR: 29, FSYNCDIR: 30, CREATE: 35, INTERRUPT: 36, DESTROY: 38 },
  ...{ BATCH_FORGET: 42, RENAME2: 45 },
} as const;

export const MAJOR = 7;
export const MINOR = 31;
/** Older clients have other structures. */
export const MINOR_LEAST = 27;
export const IN_HEADER = 40;
export const OUT_HEADER = 16;
export const ATTR_SIZE = 88;
export const ENTRY_SIZE = 40 + ATTR_SIZE;
export const ATTR_OUT_SIZE = 16 + ATTR_SIZE;
export const OPEN_OUT_SIZE = 16;
export const STATFS_OUT_SIZE = 80;
export const INIT_OUT_SIZE = 64;
/** The most bytes of one read or write. */
export const TRANSFER_BYTES = 256 * 1024;

/** Flags of FUSE_INIT that are taken. */
const ASYNC_READ = 1;
const BIG_WRITES = 1 << 5;
const MAX_PAGES = 1 << 22;

export interface InHeader {
  readonly length: number;
  readonly opcode: number;
  readonly node: bigint;
}

export function readHeader(view: DataView): InHeader {
  return {
    length: view.getUint32(0, true),
    opcode: view.getUint32(4, true),
    node: view.getBigUint64(16, true),
  };
}

export function putInit(out: DataView, at: number, readahead: number): number {
  out.setUint32(at, MAJOR, true);
  out.setUint32(at + 4, MINOR, true);
  out.setUint32(at + 8, readahead, true);
  out.setUint32(at + 12, ASYNC_READ | BIG_WRITES | MAX_PAGES, true);
  out.setUint16(at + 16, 32, true); // requests in the background
  out.setUint16(at + 18, 24, true);
  out.setUint32(at + 20, TRANSFER_BYTES, true);
  out.setUint32(at + 24, 1, true); // times to the nanosecond
  out.setUint16(at + 28, TRANSFER_BYTES / 4096, true);
  return INIT_OUT_SIZE;
}

/** struct fuse_attr. `inode`: what the guest is to take for its number. */
export function putAttributes(out: DataView, at: number, file: Attributes): number {
  out.setBigUint64(at, file.inode, true);
  out.setBigUint64(at + 8, file.size, true);
  out.setBigUint64(at + 16, file.blocks, true);
  [file.accessed, file.modified, file.changed].forEach((time, i) => {
    out.setBigInt64(at + 24 + 8 * i, time.seconds, true);
    out.setUint32(at + 48 + 4 * i, time.nanoseconds, true);
  });
  [file.mode, file.links, file.uid, file.gid, 0, file.blockSize, 0].forEach((value, i) => {
    out.setUint32(at + 60 + 4 * i, value, true);
  });
  return ATTR_SIZE;
}

/** struct fuse_entry_out; the guest asks again every time, so that it sees what changes here. */
export function putEntry(out: DataView, at: number, node: number, file: Attributes): number {
  out.setBigUint64(at, BigInt(node), true);
  return 40 + putAttributes(out, at + 40, file);
}

/** struct fuse_kstatfs from struct statfs. */
export function putStatfs(out: DataView, at: number, from: DataView): number {
  for (let i = 0; i < 5; i++) out.setBigUint64(at + 8 * i, from.getBigUint64(16 + 8 * i, true), true);
  out.setUint32(at + 40, from.getUint32(8, true), true);
  out.setUint32(at + 44, from.getUint32(64, true), true);
  out.setUint32(at + 48, from.getUint32(72, true), true);
  return STATFS_OUT_SIZE;
}

/** Text up to its zero from `at`; null where there is none. Gives where the next begins. */
export function nameAt(bytes: Uint8Array, at: number): { readonly name: Uint8Array; readonly end: number } | null {
  const zero = bytes.indexOf(0, at);
  return at > bytes.length || zero < 0 ? null : { name: bytes.subarray(at, zero), end: zero + 1 };
}
