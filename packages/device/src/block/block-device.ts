/**
 * A virtual disk. VIRTIO 1.4 §5.2. Requests are taken, checked against what was offered, and carried out by a `Disk`;
 * what the disk does at once goes back at once, the rest when it ends.
 *
 * A request goes back only when nothing of it is in the works any more. A flush covers every write whose completion the
 * driver could have seen before it asked (§5.2.6.2): the disk begins it later than those ended.
 */
import { ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Poller } from '@airlock/transport/reactor.ts';
import { checkChange } from '@airlock/virtio/config/space.ts';
import { block } from '@airlock/virtio/device/block.ts';
import { type Features, hasFeature, NO_FEATURES } from '@airlock/virtio/features.ts';
import type { Region } from '@airlock/virtio/memory/region.ts';
import {
  BLK_DISCARD,
  BLK_FLUSH,
  BLK_GET_ID,
  BLK_HEADER_SIZE,
  BLK_ID_SIZE,
  BLK_IN,
  BLK_IOERR,
  BLK_OK,
  BLK_OUT,
  BLK_SECTOR,
  BLK_SEGMENT_SIZE,
  BLK_UNSUPPORTED,
  BLK_WRITE_ZEROES,
  BlockRequest,
  type BlockSegment,
  parseSegments,
} from '@airlock/virtio/request/block.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { BlockQueue, NO_SEGMENTS, ORPHAN } from './block-queue.ts';
import { type Disk, EINTR, PENDING } from './disk.ts';
import {
  BLK_F_CONFIG_WCE,
  BLK_F_DISCARD,
  BLK_F_FLUSH,
  BLK_F_WRITE_ZEROES,
  type DiskShape,
  diskConfig,
  diskFeatures,
  RANGE_SEGMENTS,
  SIZE_MAX,
  WRITEBACK_OFFSET,
} from './disk-config.ts';

/** A turn of one queue ends after so many bytes, so that others get theirs. */
const TURN_BYTES = 4 * 2 ** 20;
/** Requests that are begun together: many to hand over at once, few enough to let the driver work meanwhile. */
const BATCH = 16;
/** No step of a transfer is longer: what the kernel does at once holds up everybody. */
const STEP_BYTES = 2 ** 20;
/** How long the end of a queue waits for the disk. */
const DRAIN_MILLISECONDS = 30_000;
const ZEROS = new Uint8Array(65536);

export class BlockDevice implements ServedDevice, Poller {
  readonly type = block;
  readonly features: Features;
  readonly queueSizes: readonly number[];
  readonly chainLimit: number;
  /** Requests that ended with an error that the disk gave. */
  failures = 0;

  private readonly disk: Disk;
  private readonly shape: DiskShape;
  private readonly queues: readonly BlockQueue[];
  private readonly capacity: number;
  private readonly blockSize: number;
  private readonly config: Uint8Array;
  private readonly serial = new Uint8Array(BLK_ID_SIZE);
  private readonly request = new BlockRequest();
  private readonly ranges = new Uint8Array(RANGE_SEGMENTS * BLK_SEGMENT_SIZE);
  private readonly now: () => number;
  private link: DeviceLink | null = null;
  private negotiated: Features = NO_FEATURES;
  /** Nothing is told as written before it is on the medium. */
  private durable = false;
  /** Slots that were taken and are not begun. */
  private readonly batch = new Uint32Array(BATCH);
  private batched = 0;
  private turnBytes = 0;
  /** Keeps `touchHeaders` from being optimised away. */
  touched = 0;
  /** Requests that used up their turn: tokens. */
  private later: number[] = [];

  /** Codes: those of `encodeConfig`. `now` is a clock in milliseconds that only goes forward. */
  static create(disk: Disk, shape: DiskShape, now: () => number): Result<BlockDevice> {
    const features = diskFeatures(disk, shape);
    const config = diskConfig(disk, shape, features, shape.writeback);
    return config.ok ? ok(new BlockDevice(disk, shape, now, features, config.value)) : config;
  }

  private constructor(disk: Disk, shape: DiskShape, now: () => number, features: Features, config: Uint8Array) {
    this.disk = disk;
    this.shape = shape;
    this.now = now;
    this.features = features;
    this.config = config;
    this.capacity = disk.size / BLK_SECTOR;
    this.blockSize = disk.blockSize;
    // Header and status have buffers of their own; a buffer may lie in two pieces of memory.
    this.chainLimit = shape.segments + 2;
    const bytes = shape.segments * SIZE_MAX + BLK_HEADER_SIZE + 1;
    this.queueSizes = Array.from({ length: shape.queues }, () => shape.queueSize);
    this.queues = this.queueSizes.map((size, index) => new BlockQueue(index, size, 2 * this.chainLimit, bytes));
    for (let i = 0; i < Math.min(shape.serial.length, BLK_ID_SIZE); i++) this.serial[i] = shape.serial.charCodeAt(i);
    disk.bind(shape.queues * shape.queueSize, (token, result) => this.completed(token, result));
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  /** Only `writeback`, and only with CONFIG_WCE (§5.2.5.2). */
  writeConfig(offset: number, bytes: Uint8Array): boolean {
    const value = bytes[0];
    if (!checkChange(block, this.negotiated, offset, bytes.length).ok || (value !== 0 && value !== 1)) return false;
    this.config[WRITEBACK_OFFSET] = value;
    this.chooseDurability();
    if (this.durable) this.disk.sync();
    return true;
  }

  start(link: DeviceLink): void {
    this.link = link;
    this.negotiated = link.features;
    // §5.2.5.2: a new agreement begins with what the device was made with.
    if (hasFeature(this.features, BLK_F_CONFIG_WCE)) this.config[WRITEBACK_OFFSET] = this.shape.writeback ? 1 : 0;
    this.chooseDurability();
  }

  /** §5.2.5: `writeback` where the driver knows it; otherwise a driver that cannot flush must never need to. */
  private chooseDurability(): void {
    const writeback = hasFeature(this.negotiated, BLK_F_CONFIG_WCE)
      ? this.config[WRITEBACK_OFFSET] === 1
      : hasFeature(this.negotiated, BLK_F_FLUSH);
    this.durable = !writeback;
  }

  startQueue(index: number, queue: DeviceQueue): void {
    const own = this.queues[index];
    if (own !== undefined) own.ring = queue;
  }

  serve(index: number): number {
    const queue = this.queues[index];
    const ring = queue?.ring ?? null;
    if (queue === undefined || ring === null) return 0;
    let taken = 0;
    this.turnBytes = 0;
    for (;;) {
      const count = this.takeBatch(queue, ring);
      if (count === 0) break;
      taken += count;
      this.workBatch(queue, ring);
      if (count < BATCH || taken >= queue.slots || this.turnBytes >= TURN_BYTES) break;
    }
    return taken;
  }

  /** Takes chains into `batch`, as many as there are and it holds. Returns how many were taken, malformed ones too. */
  private takeBatch(queue: BlockQueue, ring: DeviceQueue): number {
    const { batch } = this;
    let taken = 0;
    let bytes = 0;
    this.batched = 0;
    // Not more than a turn may hold: what was taken is begun.
    while (taken < BATCH && bytes < TURN_BYTES) {
      const slot = queue.next();
      if (slot < 0) break;
      const outcome = ring.take(queue.chains[slot] as Chain);
      if (outcome === DONE) {
        queue.occupy(slot);
        const { readableBytes, writableBytes } = queue.chains[slot] as Chain;
        bytes += readableBytes + writableBytes;
        batch[this.batched++] = slot;
      } else if (outcome === MALFORMED) {
        queue.unpublished = true;
      } else {
        if (outcome === BROKEN && ring.violation !== null) this.link?.needsReset(ring.violation);
        break;
      }
      taken++;
    }
    return taken;
  }

  /** Begins what was taken, and tells what of it ended at once. */
  private workBatch(queue: BlockQueue, ring: DeviceQueue): void {
    const { disk, batch, batched } = this;
    disk.expect(batched);
    if (batched > 1) this.touchHeaders(queue);
    for (let i = 0; i < batched; i++) {
      const slot = batch[i] as number;
      this.turnBytes += this.begin(queue, ring, slot, queue.chains[slot] as Chain);
    }
    if (disk.pending > 0) {
      disk.submit();
      disk.reap();
      this.tellAll();
    } else {
      this.tell(queue);
    }
  }

  /** Brings the headers over from the driver's processor, all at once; see `SplitDevice.touch`. */
  private touchHeaders(queue: BlockQueue): void {
    const { batch, batched } = this;
    let seen = 0;
    for (let i = 0; i < batched; i++) {
      const chain = queue.chains[batch[i] as number] as Chain;
      if (chain.pieces > 0) seen ^= (chain.regions[0] as Region).view.getUint8(chain.offsets[0] as number);
    }
    this.touched = seen;
  }

  /** Takes up a request; returns what it weighs in a turn. */
  private begin(queue: BlockQueue, ring: DeviceQueue, slot: number, chain: Chain): number {
    const { request } = this;
    const parsed = request.parse(chain);
    if (parsed < 0) {
      ring.give(chain.id, 0);
      queue.release(slot);
      queue.unpublished = true;
      return 0;
    }
    const { type, length } = request;
    queue.types[slot] = type;
    queue.done[slot] = 0;
    const status = parsed === BLK_OK ? this.check(queue, slot, chain) : parsed;
    if (status !== BLK_OK) {
      this.refuse(queue, slot, status);
      return chain.writableBytes;
    }
    if (type === BLK_GET_ID) {
      chain.write(0, this.serial, 0, length);
      this.fillUp(chain, length);
      this.finish(queue, slot, BLK_OK);
      return chain.writableBytes;
    }
    queue.positions[slot] = request.sector * BLK_SECTOR;
    queue.lengths[slot] = length;
    this.work(queue, slot);
    return type === BLK_IN || type === BLK_OUT ? length : 0;
  }

  /** Is this a request that was offered, of sectors that there are? */
  private check(queue: BlockQueue, slot: number, chain: Chain): number {
    const { request, disk } = this;
    switch (request.type) {
      case BLK_IN:
      case BLK_OUT: {
        if (request.type === BLK_OUT && disk.readOnly) return BLK_IOERR;
        if (!request.within(this.capacity)) return BLK_IOERR;
        const { blockSize } = this;
        if (blockSize === BLK_SECTOR) return BLK_OK;
        return (request.sector * BLK_SECTOR) % blockSize === 0 && request.length % blockSize === 0 ? BLK_OK : BLK_IOERR;
      }
      case BLK_FLUSH:
      case BLK_GET_ID:
        return BLK_OK;
      case BLK_DISCARD:
      case BLK_WRITE_ZEROES: {
        const feature = request.type === BLK_DISCARD ? BLK_F_DISCARD : BLK_F_WRITE_ZEROES;
        if (!hasFeature(this.negotiated, feature)) return BLK_UNSUPPORTED;
        if (request.length > this.ranges.length) return BLK_IOERR;
        chain.read(BLK_HEADER_SIZE, this.ranges, 0, request.length);
        const ranges = this.ranges.subarray(0, request.length);
        const segments = parseSegments(request.type, ranges, this.capacity, RANGE_SEGMENTS);
        if (typeof segments === 'number') return segments;
        if (!segments.every((segment) => this.fits(segment))) return BLK_IOERR;
        queue.segments[slot] = segments;
        queue.segmentsDone[slot] = 0;
        return BLK_OK;
      }
      default:
        return BLK_UNSUPPORTED;
    }
  }

  private fits(segment: BlockSegment): boolean {
    const sectors = this.blockSize / BLK_SECTOR;
    return segment.sector % sectors === 0 && segment.sectors % sectors === 0;
  }

  /** Goes on with a request until it ends, waits for the disk, or has used up its turn. */
  private work(queue: BlockQueue, slot: number): void {
    for (let bytes = 0; bytes < TURN_BYTES; ) {
      const result = this.step(queue, slot);
      if (result === PENDING || this.settle(queue, slot, result)) return;
      bytes += result > 0 ? result : STEP_BYTES;
    }
    this.later.push(queue.base + slot);
  }

  /** Begins the next operation of a request. */
  private step(queue: BlockQueue, slot: number): number {
    const token = queue.base + slot;
    const done = queue.done[slot] as number;
    const chain = queue.chains[slot] as Chain;
    switch (queue.types[slot]) {
      case BLK_IN: {
        const left = (queue.lengths[slot] as number) - done;
        const length = left < STEP_BYTES ? left : STEP_BYTES;
        return this.disk.read(token, chain, done, length, (queue.positions[slot] as number) + done);
      }
      case BLK_OUT: {
        const left = (queue.lengths[slot] as number) - done;
        const length = left < STEP_BYTES ? left : STEP_BYTES;
        const position = (queue.positions[slot] as number) + done;
        return this.disk.write(token, chain, BLK_HEADER_SIZE + done, length, position, this.durable);
      }
      case BLK_DISCARD:
      case BLK_WRITE_ZEROES: {
        const segment = queue.segments[slot]?.[queue.segmentsDone[slot] as number];
        if (segment === undefined) return this.disk.flush(token);
        const position = segment.sector * BLK_SECTOR + done;
        const length = segment.sectors * BLK_SECTOR - done;
        if (length === 0) return 0;
        if (queue.types[slot] === BLK_DISCARD) return this.disk.discard(token, position, length);
        return this.disk.zero(token, position, length, segment.unmap);
      }
      default:
        return this.disk.flush(token);
    }
  }

  /** An operation of a request ended. True when the request did. */
  private settle(queue: BlockQueue, slot: number, result: number): boolean {
    const type = queue.types[slot];
    // A signal came before anything was done; to try again is part of the turn.
    if (result === -EINTR) return false;
    if (type === BLK_IN || type === BLK_OUT) {
      if (result <= 0) {
        // Nothing was moved: the file ends here, or the disk failed.
        this.failures++;
        this.refuse(queue, slot, BLK_IOERR);
        return true;
      }
      const done = (queue.done[slot] as number) + result;
      queue.done[slot] = done;
      if (done < (queue.lengths[slot] as number)) return false;
      this.finish(queue, slot, BLK_OK);
      return true;
    }
    if (result < 0) {
      this.failures++;
      this.refuse(queue, slot, BLK_IOERR);
      return true;
    }
    if ((type === BLK_DISCARD || type === BLK_WRITE_ZEROES) && !this.settleSegment(queue, slot, result)) return false;
    this.finish(queue, slot, BLK_OK);
    return true;
  }

  /** A step of a discard or write-zeroes ended. True when the request did. */
  private settleSegment(queue: BlockQueue, slot: number, result: number): boolean {
    const segments = queue.segments[slot] ?? NO_SEGMENTS;
    const index = queue.segmentsDone[slot] as number;
    const segment = segments[index];
    // Behind the last segment comes a flush, with `durable`.
    if (segment === undefined) return true;
    const done = (queue.done[slot] as number) + result;
    queue.done[slot] = done;
    if (done < segment.sectors * BLK_SECTOR) return false;
    queue.done[slot] = 0;
    queue.segmentsDone[slot] = index + 1;
    return index + 1 === segments.length && !this.durable;
  }

  /** A request ends with an error: what of its device-writable bytes was not filled becomes zeros (§2.7.8.2). */
  private refuse(queue: BlockQueue, slot: number, status: number): void {
    queue.segments[slot] = NO_SEGMENTS;
    const chain = queue.chains[slot] as Chain;
    this.fillUp(chain, queue.types[slot] === BLK_IN ? (queue.done[slot] as number) : 0);
    this.finish(queue, slot, status);
  }

  /** Zeros from the `from`th device-writable byte to the status. */
  private fillUp(chain: Chain, from: number): void {
    const end = chain.writableBytes - 1;
    for (let at = from; at < end; ) at += chain.write(at, ZEROS, 0, Math.min(ZEROS.length, end - at));
  }

  /** Writes the status, the last byte of all, and gives the request back. */
  private finish(queue: BlockQueue, slot: number, status: number): void {
    const chain = queue.chains[slot] as Chain;
    const last = chain.pieces - 1;
    const region = chain.regions[last] as Region;
    region.bytes[(chain.offsets[last] as number) + (chain.lengths[last] as number) - 1] = status;
    queue.ring?.give(chain.id, chain.writableBytes);
    queue.release(slot);
    queue.unpublished = true;
  }

  /** Lets the driver see what was given back. */
  private tell(queue: BlockQueue): void {
    if (!queue.unpublished || queue.ring === null) return;
    queue.unpublished = false;
    queue.ring.publish();
    this.link?.notify(queue.index);
  }

  private tellAll(): void {
    for (const queue of this.queues) if (queue.unpublished) this.tell(queue);
  }

  /** The disk ended an operation that was pending. */
  private completed(token: number, result: number): void {
    const queue = this.queueOf(token);
    if (queue === undefined) return;
    const slot = token - queue.base;
    if (queue.states[slot] === ORPHAN) queue.release(slot);
    else if (!this.settle(queue, slot, result)) this.work(queue, slot);
  }

  private queueOf(token: number): BlockQueue | undefined {
    return this.queues[Math.floor(token / this.shape.queueSize)];
  }

  /** Ends what the disk ended, and goes on with what used up its turn. */
  poll(): boolean {
    const { disk } = this;
    let active = false;
    if (disk.pending > 0 && disk.reap() > 0) active = true;
    if (this.later.length > 0) {
      active = true;
      this.goOn();
    }
    if (active) {
      disk.submit();
      this.tellAll();
    }
    return active;
  }

  private goOn(): void {
    const { later } = this;
    this.later = [];
    for (const token of later) {
      const queue = this.queueOf(token);
      if (queue === undefined) continue;
      const slot = token - queue.base;
      if (queue.states[slot] === ORPHAN) queue.release(slot);
      else this.work(queue, slot);
    }
  }

  /** The disk's own descriptor wakes the reactor; a turn that was used up needs another at once. */
  prepareToSleep(): boolean {
    return this.later.length > 0 || this.disk.prepareToSleep();
  }

  /** Waits for the disk, at most DRAIN_MILLISECONDS; what it has not ended then is given up, and the driver told so. */
  stopQueue(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || queue.ring === null) return;
    const { disk } = this;
    const until = this.now() + DRAIN_MILLISECONDS;
    while (queue.busy > 0) {
      if (this.later.length > 0) this.goOn();
      disk.submit();
      const left = until - this.now();
      if (queue.busy === 0 || this.later.length > 0) continue;
      if (left <= 0) break;
      disk.wait(left);
    }
    this.tellAll();
    if (queue.busy > 0) this.link?.needsReset(stuck(queue.busy));
    queue.abandon();
    queue.ring = null;
  }

  stop(): void {
    this.link = null;
    this.negotiated = NO_FEATURES;
  }

  close(): void {
    this.disk.close();
  }
}

function stuck(count: number): Problem {
  return {
    code: 'disk-stuck',
    message: `the disk did not end ${count} requests in ${DRAIN_MILLISECONDS / 1000} s`,
    hint: 'they are given up; the kernel may still write into their buffers',
  };
}
