/**
 * 9P2000.L on the wire: little-endian numbers, texts with a 16-bit length before them, qids of 13 bytes. Requests are
 * read from a private copy.
 */
import { P9_HEADER_SIZE } from '@airlock/virtio/request/p9.ts';

/** Types of requests; the reply to each is one more. */
export const T = {
  lerror: 6,
  statfs: 8,
  lopen: 12,
  lcreate: 14,
  symlink: 16,
  mknod: 18,
  rename: 20,
  readlink: 22,
  getattr: 24,
  setattr: 26,
  xattrwalk: 30,
  xattrcreate: 32,
  readdir: 40,
  fsync: 50,
  lock: 52,
  getlock: 54,
  link: 70,
  mkdir: 72,
  renameat: 74,
  unlinkat: 76,
  version: 100,
  auth: 102,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const;

export const RLERROR = 7;
/** Rlerror: header and number. */
export const RLERROR_SIZE = 11;
/** Rread and Rreaddir: header and count. */
export const READ_HEADER_SIZE = 11;
/** Twrite: header, fid, offset, count. */
export const WRITE_HEADER_SIZE = 23;
export const NO_FID = 0xffffffff;

/** Reads fields in their order. What is not there makes `failed` true, and the values mean nothing then. */
export class MessageReader {
  failed = false;
  private at = P9_HEADER_SIZE;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  /** A whole message, its 7 bytes of header included. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    const at = this.take(1);
    return this.failed ? 0 : this.view.getUint8(at);
  }

  u16(): number {
    const at = this.take(2);
    return this.failed ? 0 : this.view.getUint16(at, true);
  }

  u32(): number {
    const at = this.take(4);
    return this.failed ? 0 : this.view.getUint32(at, true);
  }

  u64(): bigint {
    const at = this.take(8);
    return this.failed ? 0n : this.view.getBigUint64(at, true);
  }

  /** 64 bits as a number; -1 where it is above 2^53. */
  offset(): number {
    const low = this.u32();
    const whole = this.u32() * 2 ** 32 + low;
    return Number.isSafeInteger(whole) ? whole : -1;
  }

  /** A text's bytes, as a view of the message. */
  text(): Uint8Array {
    const length = this.u16();
    const at = this.take(length);
    return this.failed ? this.bytes.subarray(0, 0) : this.bytes.subarray(at, at + length);
  }

  /** Goes over `length` bytes and returns where they begin. */
  skip(length: number): number {
    return this.take(length);
  }

  get atEnd(): boolean {
    return this.at === this.bytes.length;
  }

  /** Was everything there, and nothing besides? */
  get whole(): boolean {
    return !this.failed && this.at === this.bytes.length;
  }

  private take(length: number): number {
    const at = this.at;
    if (this.failed || length > this.bytes.length - at) this.failed = true;
    else this.at = at + length;
    return at;
  }
}

/** Writes fields in their order into a buffer; what does not fit makes `full` true and is not written. */
export class MessageWriter {
  full = false;
  length = P9_HEADER_SIZE;
  readonly bytes: Uint8Array;
  private readonly view: DataView;
  private limit = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Begins a message of at most `limit` bytes. */
  begin(limit: number): void {
    this.limit = Math.min(limit, this.bytes.length);
    this.length = P9_HEADER_SIZE;
    this.full = this.limit < P9_HEADER_SIZE;
  }

  /** Bytes that still fit. */
  get room(): number {
    return this.full ? 0 : this.limit - this.length;
  }

  u8(value: number): void {
    const at = this.take(1);
    if (at >= 0) this.view.setUint8(at, value);
  }

  u16(value: number): void {
    const at = this.take(2);
    if (at >= 0) this.view.setUint16(at, value, true);
  }

  u32(value: number): void {
    const at = this.take(4);
    if (at >= 0) this.view.setUint32(at, value, true);
  }

  u64(value: bigint): void {
    const at = this.take(8);
    if (at >= 0) this.view.setBigUint64(at, value, true);
  }

  put(bytes: Uint8Array): void {
    const at = this.take(bytes.length);
    if (at >= 0) this.bytes.set(bytes, at);
  }

  text(bytes: Uint8Array): void {
    this.u16(bytes.length);
    this.put(bytes);
  }

  qid(qid: Qid): void {
    this.u8(qid.type);
    this.u32(qid.version);
    this.u64(qid.path);
  }

  /** Bytes that somebody wrote in place. */
  skip(length: number): void {
    this.take(length);
  }

  /** Writes the header; the length of the whole message. */
  end(type: number, tag: number): number {
    this.view.setUint32(0, this.length, true);
    this.view.setUint8(4, type);
    this.view.setUint16(5, tag, true);
    return this.length;
  }

  private take(length: number): number {
    const at = this.length;
    if (this.full || length > this.limit - at) {
      this.full = true;
      return -1;
    }
    this.length = at + length;
    return at;
  }
}

export const QT_FOLDER = 0x80;
export const QT_LINK = 0x02;
export const QT_FILE = 0;

/** What a file is to the guest: the same qid, the same file. */
export interface Qid {
  readonly type: number;
  readonly version: number;
  readonly path: bigint;
}
