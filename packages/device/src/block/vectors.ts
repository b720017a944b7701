/** Where a transfer takes place in memory: the pieces of a chain as struct iovec, or as one address. */
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import type { Region } from '@airlock/virtio/memory/region.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';

/** As many as one system call takes (IOV_MAX). */
export const VECTOR_LIMIT = 1024;
const IOVEC_SIZE = 16;

export class Vectors {
  /** Of the last `gather`: where the first iovec is. */
  start = 0;
  /** Of the last `gather`: pieces, and bytes in all. With one piece, `address` is its own. */
  count = 0;
  bytes = 0;
  address = 0;
  /** Of the last `gather`: every address or length together, so that one look at the low bits tells what is aligned. */
  lowBits = 0;

  private readonly base: number;
  private readonly words: Uint32Array;
  private readonly capacity: number;
  private used = 0;

  /** Room for `capacity` iovecs between two calls of `clear`; at least VECTOR_LIMIT. */
  constructor(calls: SystemCalls, capacity: number) {
    const memory = calls.allocate(capacity * IOVEC_SIZE);
    this.base = memory.address;
    this.words = new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, capacity * 4);
    this.capacity = capacity;
  }

  /** Is there no room for the longest vector any more? What was handed to the kernel must be on its way before `clear`. */
  get full(): boolean {
    return this.capacity - this.used < VECTOR_LIMIT;
  }

  /** Room for all again; the kernel has copied what was there. */
  clear(): void {
    this.used = 0;
  }

  /**
   * Bytes `skip` to `skip + length` of the chain's device-writable (or device-readable) part: at most VECTOR_LIMIT pieces,
   * so perhaps fewer bytes. The caller made sure that the chain has them.
   */
  gather(chain: Chain, writable: boolean, skip: number, length: number): void {
    let piece = writable ? chain.readablePieces : 0;
    let over = skip;
    let size = chain.lengths[piece] as number;
    while (over >= size) {
      over -= size;
      piece++;
      size = chain.lengths[piece] as number;
    }
    const address = (chain.regions[piece] as Region).host + (chain.offsets[piece] as number) + over;
    const first = size - over;
    this.address = address;
    this.count = 1;
    if (first >= length) {
      this.bytes = length;
      this.lowBits = (address % 65536) | length;
      return;
    }
    this.gatherMore(chain, piece, address, first, length);
  }

  private gatherMore(chain: Chain, from: number, address: number, first: number, length: number): void {
    const at = this.used;
    this.start = this.base + at * IOVEC_SIZE;
    let bytes = first;
    let count = 1;
    let low = (address % 65536) | first;
    this.put(at, address, first);
    for (let piece = from + 1; bytes < length && count < VECTOR_LIMIT; piece++) {
      const host = (chain.regions[piece] as Region).host + (chain.offsets[piece] as number);
      const size = Math.min(chain.lengths[piece] as number, length - bytes);
      this.put(at + count, host, size);
      low |= (host % 65536) | size;
      bytes += size;
      count++;
    }
    this.used = at + count;
    this.count = count;
    this.bytes = bytes;
    this.lowBits = low;
  }

  /** One iovec of its own; returns its address. */
  single(address: number, length: number): number {
    const at = this.used;
    this.put(at, address, length);
    this.used = at + 1;
    return this.base + at * IOVEC_SIZE;
  }

  private put(index: number, address: number, length: number): void {
    const { words } = this;
    const at = index * 4;
    words[at] = address >>> 0;
    words[at + 1] = Math.floor(address / 4294967296);
    words[at + 2] = length;
    words[at + 3] = 0;
  }
}
