/** The driver half of a block device (VIRTIO 1.4 §5.2) behind a back-end that is not trusted. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { ConfigValues } from '@airlock/virtio/config/space.ts';
import { block } from '@airlock/virtio/device/block.ts';
import { type Features, featureSet, hasFeature } from '@airlock/virtio/features.ts';
import { type BouncePool, NO_SLICE } from '@airlock/virtio/memory/bounce-pool.ts';
import {
  BLK_FLUSH,
  BLK_GET_ID,
  BLK_HEADER_SIZE,
  BLK_ID_SIZE,
  BLK_IN,
  BLK_OK,
  BLK_OUT,
  writeBlockHeader,
} from '@airlock/virtio/request/block.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import type { DriverQueues, FrontQueue } from './driver-queues.ts';
import { waitForOne } from './exchange.ts';
import type { FrontEnd } from './front-end.ts';

export interface BlockDriverOptions {
  readonly queues: number;
  /** Elements of each queue: a request takes three. */
  readonly size: number;
  /** Bytes of the largest request. */
  readonly transfer: number;
  /** Requests in flight, all queues together. */
  readonly depth: number;
  /** Feature bits not to ask for: 34 for a split ring where a packed one is offered. */
  readonly without?: readonly number[];
  /** Feature bits that must be there. */
  readonly required?: readonly number[];
}

const RO = 5;
const FLUSH = 9;
const MQ = 12;
/** Header, and the status byte behind it. */
const HEAD_SLICE = 32;
/** Ring features, flush, what a driver wants to know of the disk, many queues. */
const WANTED = [1, 2, 4, 5, 6, 9, 10, 12, 28, 29, 32, 34, 35];

/** What `submit` gives when there is no room now. */
export const NO_ROOM = -1;

export class BlockDriver {
  readonly front: FrontEnd;
  readonly features: Features;
  readonly config: ConfigValues;
  readonly queues: DriverQueues;
  readonly pool: BouncePool;
  /** Of the last `complete`: the token, and the status byte (§5.2.6). */
  token = -1;
  status = -1;
  private readonly timeout: number;
  private readonly now: () => number;
  private readonly heads: Int32Array;
  private readonly datas: Int32Array;
  private readonly lengths: Uint32Array;
  private readonly reads: Uint8Array;
  private readonly freeTokens: number[];
  private dead: Problem | null = null;

  private constructor(front: FrontEnd, depth: number, config: ConfigValues, queues: DriverQueues, pool: BouncePool) {
    this.front = front;
    this.features = front.features ?? featureSet([]);
    this.config = config;
    this.queues = queues;
    this.pool = pool;
    this.timeout = front.timeout;
    this.now = front.now;
    this.heads = new Int32Array(depth);
    this.datas = new Int32Array(depth);
    this.lengths = new Uint32Array(depth);
    this.reads = new Uint8Array(depth);
    this.freeTokens = Array.from({ length: depth }, (_, i) => depth - 1 - i);
  }

  /** Agrees on features, reads the configuration, starts the queues. Codes: those of the steps of `FrontEnd`. */
  static open(front: FrontEnd, options: BlockDriverOptions): Result<BlockDriver> {
    const wanted = featureSet(WANTED.filter((bit) => options.without?.includes(bit) !== true));
    const features = front.negotiate('block', wanted, featureSet([32, ...(options.required ?? [])]));
    if (!features.ok) return features;
    const config = front.readConfig(block);
    if (!config.ok) return config;
    const offered = config.value['num_queues'];
    const most = hasFeature(features.value, MQ) && typeof offered === 'number' ? offered : 1;
    const queues = front.setUp({
      queues: Math.min(options.queues, most),
      size: options.size,
      indirectLimit: 4,
      pool: [
        { size: HEAD_SLICE, count: options.depth },
        { size: Math.ceil(options.transfer / 4096) * 4096, count: options.depth },
      ],
    });
    if (!queues.ok) return queues;
    const pool = front.memory?.pool;
    if (pool === undefined) return fail('vhost-user-order', 'no memory');
    return ok(new BlockDriver(front, options.depth, config.value, queues.value, pool));
  }

  /** In sectors of 512 bytes. */
  get capacity(): number {
    const { capacity } = this.config;
    return typeof capacity === 'number' ? capacity : 0;
  }

  get packed(): boolean {
    return hasFeature(this.features, 34);
  }

  get readOnly(): boolean {
    return hasFeature(this.features, RO);
  }

  /**
   * Puts a request into a queue; `publish` shows it. `out` are the bytes of a write; `length` those of the answer to a
   * read. The token that `complete` will name, or NO_ROOM.
   */
  submit(queue: FrontQueue, type: number, sector: number, out: Uint8Array | null, length: number): number {
    const token = this.freeTokens.pop();
    if (token === undefined) return NO_ROOM;
    const { pool } = this;
    const head = pool.take(HEAD_SLICE);
    const bytes = out?.length ?? length;
    const data = bytes > 0 ? pool.take(bytes) : NO_SLICE;
    if (head === NO_SLICE || (bytes > 0 && data === NO_SLICE)) return this.giveUp(token, head, data);
    const { driver } = queue;
    const at = pool.addressOf(head);
    writeBlockHeader(pool.region.view, pool.offsetOf(head), type, sector);
    // A status that no device writes, so that one that was not written shows.
    pool.region.view.setUint8(pool.offsetOf(head) + BLK_HEADER_SIZE, 0xff);
    driver.readable(at, BLK_HEADER_SIZE);
    if (out !== null) {
      pool.copyIn(data, out);
      driver.readable(pool.addressOf(data), bytes);
    } else if (bytes > 0) {
      driver.writable(pool.addressOf(data), bytes);
    }
    driver.writable(at + BLK_HEADER_SIZE, 1);
    if (driver.submit(token) !== DONE) return this.giveUp(token, head, data);
    this.heads[token] = head;
    this.datas[token] = data;
    this.lengths[token] = bytes;
    this.reads[token] = out === null ? 1 : 0;
    return token;
  }

  private giveUp(token: number, head: number, data: number): number {
    if (head !== NO_SLICE) this.pool.give(head);
    if (data !== NO_SLICE) this.pool.give(data);
    this.freeTokens.push(token);
    return NO_ROOM;
  }

  /**
   * The next completion: DONE (see `token`, `status`), NONE or BROKEN. The bytes of a read are copied to `into`, as far
   * as the device wrote them. The request is over afterwards.
   */
  complete(queue: FrontQueue, into: Uint8Array | null = null): number {
    const outcome = queue.driver.complete();
    return outcome === DONE ? this.collect(queue, into) : outcome;
  }

  private collect(queue: FrontQueue, into: Uint8Array | null): number {
    const { pool } = this;
    const { token, written } = queue.driver;
    const head = this.heads[token] as number;
    const data = this.datas[token] as number;
    const length = this.lengths[token] as number;
    const read = this.reads[token] === 1 && length > 0;
    const status = pool.region.view.getUint8(pool.offsetOf(head) + BLK_HEADER_SIZE);
    // §5.2.6: what the device did not write is not the answer, whatever the status says.
    const whole = !read || written >= length + 1;
    this.token = token;
    this.status = status === BLK_OK && !whole ? SHORT : status;
    if (read && into !== null) pool.copyOut(data, into, Math.min(length, written));
    pool.give(head);
    if (data !== NO_SLICE) pool.give(data);
    this.freeTokens.push(token);
    return DONE;
  }

  /** Reads whole sectors. Codes: `driver-request-failed`, `driver-reply-short`, those of `waitForOne`. */
  read(sector: number, length: number, queue = 0): Result<Uint8Array> {
    const bytes = new Uint8Array(length);
    const done = this.once(queue, BLK_IN, sector, null, bytes);
    return done.ok ? ok(bytes) : done;
  }

  /** Codes as `read`. */
  write(sector: number, bytes: Uint8Array, queue = 0): Result<void> {
    return this.once(queue, BLK_OUT, sector, bytes, null);
  }

  /** What was written before is on the medium. Codes as `read`; `driver-request-failed` where FLUSH was not agreed on. */
  flush(queue = 0): Result<void> {
    if (!hasFeature(this.features, FLUSH)) return fail('driver-request-failed', 'FLUSH was not agreed on');
    return this.once(queue, BLK_FLUSH, 0, null, null);
  }

  /** The serial number. Codes as `read`. */
  identify(): Result<string> {
    const bytes = new Uint8Array(BLK_ID_SIZE);
    const done = this.once(0, BLK_GET_ID, 0, null, bytes);
    if (!done.ok) return done;
    const end = bytes.indexOf(0);
    return ok(asciiText(end < 0 ? bytes : bytes.subarray(0, end)));
  }

  private once(
    index: number,
    type: number,
    sector: number,
    out: Uint8Array | null,
    into: Uint8Array | null,
  ): Result<void> {
    const queue = this.queues.all[index];
    if (queue === undefined) return fail('vhost-user-no-queue', `queue ${index}`);
    if (this.dead !== null) return { ok: false, error: this.dead };
    const token = this.submit(queue, type, sector, out, into?.length ?? 0);
    if (token === NO_ROOM) {
      const why = queue.driver.violation ?? queue.driver.refusal;
      return fail(why?.code ?? 'driver-pool-empty', why?.message ?? 'no room for the request');
    }
    queue.publish();
    const waited = waitForOne(queue, this.timeout, this.now);
    if (!waited.ok) {
      // Its answer may still come, and must not be taken for another's.
      this.dead = waited.error;
      return waited;
    }
    this.collect(queue, into);
    if (this.token !== token) return fail('driver-request-invalid', 'another request of the queue was in flight');
    if (this.status === BLK_OK) return ok(undefined);
    if (this.status === SHORT)
      return fail('driver-reply-short', `${queue.driver.written} bytes of the answer are there`);
    return fail('driver-request-failed', `request ${type} at sector ${sector}: status ${this.status}`);
  }
}

/** Stands for a status that says yes while bytes are missing. */
export const SHORT = 0x100;
