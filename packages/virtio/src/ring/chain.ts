/**
 * A descriptor chain as the device side sees it: its buffers as pieces of regions, device-readable ones first. Made once
 * and used for one request after another; a device that works on many at a time has many.
 */

import type { RingErrorCode } from '../errors.ts';
import { NOWHERE, READ, type Region, WRITE } from '../memory/region.ts';
import { type AddressSpace, DENIED, MISSING } from '../memory/space.ts';

/** §2.7.5.2: no chain is longer than this. */
export const CHAIN_BYTES_LIMIT = 2 ** 32;

/** What `append` returns: 0, or the index of a code in APPEND_CODES. */
export const APPENDED = 0;
export const UNTRANSLATED_BUFFER = 5;
export const APPEND_CODES: readonly RingErrorCode[] = [
  'chain-limit-invalid', // stands for 0, which is no failure
  'readable-after-writable',
  'chain-too-large',
  'chain-too-fragmented',
  'address-outside-memory',
  'translation-missing',
  'access-denied',
];

export class Chain {
  /** What `give` takes: the head of a split ring's chain, the buffer id of a packed ring's list. */
  id = 0;
  /** The first `readablePieces` are device-readable, the others up to `pieces` device-writable. */
  pieces = 0;
  readablePieces = 0;
  readableBytes = 0;
  writableBytes = 0;
  readonly regions: Region[];
  readonly offsets: Float64Array;
  readonly lengths: Uint32Array;
  private readonly capacity: number;
  private readonly bytesLimit: number;

  /** Holds at most `capacity` pieces and `bytesLimit` bytes; a chain that needs more is malformed. */
  constructor(capacity: number, bytesLimit: number = CHAIN_BYTES_LIMIT) {
    this.capacity = capacity;
    this.bytesLimit = Math.min(bytesLimit, CHAIN_BYTES_LIMIT);
    this.regions = Array.from({ length: capacity }, () => NOWHERE);
    this.offsets = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }

  /** Empties it for the chain `id`. */
  begin(id: number): void {
    this.id = id;
    this.pieces = 0;
    this.readablePieces = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /**
   * Adds a descriptor's buffer: bounds, order and access are checked and the address translated. Returns APPENDED or
   * the index of a code in APPEND_CODES. An empty buffer adds nothing.
   */
  append(space: AddressSpace, address: number, length: number, writable: boolean): number {
    if (!writable && this.readablePieces !== this.pieces) return 1;
    if (length > this.bytesLimit - this.readableBytes - this.writableBytes) return 2;
    const pieces = this.pieces;
    const access = writable ? WRITE : READ;
    const offset = space.within(address, length, access);
    if (offset >= 0 && pieces < this.capacity) {
      // A region is one of a few objects that stay: storing it only when it changed spares the garbage collector's notes.
      if (this.regions[pieces] !== space.region) this.regions[pieces] = space.region;
      this.offsets[pieces] = offset;
      this.lengths[pieces] = length;
      this.pieces = pieces + 1;
    } else {
      const fault = this.appendPieces(space, address, length, access);
      if (fault !== APPENDED) return fault;
    }
    if (writable) {
      this.writableBytes += length;
    } else {
      this.readablePieces = this.pieces;
      this.readableBytes += length;
    }
    return APPENDED;
  }

  private appendPieces(space: AddressSpace, address: number, length: number, access: number): number {
    let at = address;
    let left = length;
    let pieces = this.pieces;
    while (left > 0) {
      const run = space.translate(at, access);
      if (run <= 0) return run === MISSING ? 5 : run === DENIED ? 6 : 4;
      if (pieces === this.capacity) return 3;
      const piece = run < left ? run : left;
      this.regions[pieces] = space.region;
      this.offsets[pieces] = space.offset;
      this.lengths[pieces] = piece;
      pieces++;
      at += piece;
      left -= piece;
    }
    this.pieces = pieces;
    return APPENDED;
  }

  /**
   * Copies up to `length` device-readable bytes, from the `skip`th on, into `target` at `at`. Returns how many: fewer
   * where the chain or the target ends. A header must be copied before it is looked at, or the driver can change it
   * between two looks.
   */
  read(skip: number, target: Uint8Array, at = 0, length: number = target.length - at): number {
    return this.copy(0, this.readablePieces, skip, target, at, length, false);
  }

  /** Copies `length` bytes of `source` from `at` into the device-writable bytes from the `skip`th on; returns how many. */
  write(skip: number, source: Uint8Array, at = 0, length: number = source.length - at): number {
    return this.copy(this.readablePieces, this.pieces, skip, source, at, length, true);
  }

  private copy(
    first: number,
    end: number,
    skip: number,
    other: Uint8Array,
    at: number,
    length: number,
    write: boolean,
  ): number {
    let over = skip;
    let done = 0;
    const wanted = Math.min(length, other.length - at);
    for (let piece = first; piece < end && done < wanted; piece++) {
      const size = this.lengths[piece] as number;
      if (over >= size) {
        over -= size;
        continue;
      }
      const bytes = Math.min(size - over, wanted - done);
      const offset = (this.offsets[piece] as number) + over;
      const memory = (this.regions[piece] as Region).bytes;
      if (write) memory.set(other.subarray(at + done, at + done + bytes), offset);
      else other.set(memory.subarray(offset, offset + bytes), at + done);
      done += bytes;
      over = 0;
    }
    return done;
  }
}
