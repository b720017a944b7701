/** The request that a driver is making: elements in order, checked when it is submitted. */
import type { Problem } from '@airlock/core/result.ts';
import { ADDRESS_LIMIT } from '../memory/space.ts';
import { CHAIN_BYTES_LIMIT } from './chain.ts';
import { ringProblem } from './queue.ts';

export class Staging {
  readonly addresses: Float64Array;
  readonly lengths: Uint32Array;
  count = 0;
  readablePieces = 0;
  readableBytes = 0;
  writableBytes = 0;
  private readonly limit: number;
  private wrong = 0;

  /** `limit`: the most elements, at most the queue size (§2.7.5.3.1, §2.8.17). */
  constructor(limit: number) {
    this.limit = limit;
    this.addresses = new Float64Array(limit);
    this.lengths = new Uint32Array(limit);
  }

  add(address: number, length: number, writable: boolean): void {
    const count = this.count;
    if (count === this.limit) {
      this.wrong = TOO_LONG;
      return;
    }
    // Written so that NaN, fractions and negative numbers fail too.
    const whole = Math.floor(address) === address && length >>> 0 === length;
    if (!whole || !(address >= 0 && length > 0 && length <= ADDRESS_LIMIT - address)) {
      this.wrong = INVALID;
      return;
    }
    this.addresses[count] = address;
    this.lengths[count] = length;
    this.count = count + 1;
    if (writable) {
      this.writableBytes += length;
    } else {
      if (this.readablePieces !== count) this.wrong = ORDER;
      this.readablePieces = count + 1;
      this.readableBytes += length;
    }
  }

  /** Null when the request may go into the ring. */
  problem(): Problem | null {
    if (this.wrong === 0 && this.count > 0 && this.readableBytes + this.writableBytes <= CHAIN_BYTES_LIMIT) return null;
    if (this.wrong === INVALID)
      return ringProblem('request-element-invalid', 'an element has no valid address or length');
    if (this.wrong === ORDER) return ringProblem('request-order', 'a readable element follows a writable one');
    if (this.wrong === 0 && this.count === 0) return ringProblem('request-empty', 'the request has no element');
    return ringProblem('request-too-long', `more than ${this.limit} elements or ${CHAIN_BYTES_LIMIT} bytes`);
  }

  clear(): void {
    this.count = 0;
    this.readablePieces = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
    this.wrong = 0;
  }
}

const INVALID = 1;
const ORDER = 2;
const TOO_LONG = 3;
