/**
 * Where the bytes of a virtual disk are kept. Operations are named by tokens, small numbers that their caller chooses;
 * each is begun by a call and either ends with it, or ends later and is told by `Completed`. Nothing is allocated for an
 * operation.
 */
import type { Chain } from '@airlock/virtio/ring/chain.ts';

/** Returned by an operation that goes on; `Completed` follows, from `submit`, `reap` or `drain`. */
export const PENDING = -(2 ** 30);

/** `result`: bytes done (0 for what moves none), or a negative errno. */
export type Completed = (token: number, result: number) => void;

/**
 * `position`, `length` and `skip` are bytes. A transfer may do less than it was asked for, as read(2) and write(2) may;
 * whoever began it goes on from there. 0 bytes of a read are the end of the file.
 */
export interface Disk {
  /** Bytes; a multiple of `blockSize`. What is asked for lies within. */
  readonly size: number;
  /** The smallest stretch that can be read or written, at multiples of itself: at least 512. */
  readonly blockSize: number;
  /** What the medium works with inside; a power of two times `blockSize`. */
  readonly physicalBlockSize: number;
  readonly readOnly: boolean;
  /** Are holes possible? `discard` does something only then. */
  readonly canDiscard: boolean;

  /** To be called once, before anything is begun; tokens are below `limit`. */
  bind(limit: number, completed: Completed): void;
  /** So many requests follow before the next `submit`: what can be done at once is better not put off for one alone. */
  expect(count: number): void;
  /** Reads into the device-writable bytes of `chain` from the `skip`th on: at most `length`. */
  read(token: number, chain: Chain, skip: number, length: number, position: number): number;
  /** Writes the device-readable bytes of `chain` from the `skip`th on. With `durable` they are on the medium when it ends. */
  write(token: number, chain: Chain, skip: number, length: number, position: number, durable: boolean): number;
  /** Everything that was written, by operations that ended, is on the medium when this ends. */
  flush(token: number): number;
  /** The same at once: waits for it. A negative errno, or 0. */
  sync(): number;
  /** The bytes may be forgotten. Ends with how many of them were dealt with, as a transfer does; so does `zero`. */
  discard(token: number, position: number, length: number): number;
  /** The bytes are zeros afterwards. With `unmap` space may be given back. */
  zero(token: number, position: number, length: number, unmap: boolean): number;

  /** Sets going what was begun and is not yet on its way. */
  submit(): void;
  /** Tells what ended meanwhile; returns how many did. Never waits. */
  reap(): number;
  /** Operations that were begun and have not ended. */
  readonly pending: number;
  /** Asks to be woken when something ends. True when something has ended already. */
  prepareToSleep(): boolean;
  /** Waits until one of the pending operations has ended, at most so long; tells what ended, and returns how many did. */
  wait(milliseconds: number): number;
  /** Writes back and closes; nothing is pending. */
  close(): void;
}

/** errno values that a disk gives or understands. */
export const EIO = 5;
export const EAGAIN = 11;
export const EINTR = 4;
export const EINVAL = 22;
export const EFAULT = 14;
export const ENOSPC = 28;
export const EROFS = 30;
export const EOPNOTSUPP = 95;
