/**
 * A disk in a file or a block device. What the page cache can do at once is done at once, by one system call a
 * transfer: for a page that is there, every hand-over to somebody else costs more than the copy. What has to wait for the
 * medium goes through io_uring, where the system has it, so that other requests do not wait with it.
 */
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  RWF_DSYNC,
  RWF_NOWAIT,
} from '@airlock/transport/sys/files.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { FIXED_FILE, type Uring } from '@airlock/transport/uring.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { Bounce } from './bounce.ts';
import { type Completed, type Disk, EAGAIN, EINTR, EIO, EOPNOTSUPP, PENDING } from './disk.ts';
import type { FileMap } from './file-map.ts';
import { unlockImage } from './image-lock.ts';
import { Vectors } from './vectors.ts';

/** Zeros are written in steps of so many bytes. */
const ZERO_STEP = 2 ** 20;
const VECTORS = 8192;
const CLOSE_MILLISECONDS = 30_000;
/** How long to wait before the kernel is handed again what it had no memory for. */
const RETRY_MILLISECONDS = 1;
/** What `positions` holds for a token that is no read. */
const NOTHING = -1;
const FLUSHING = -2;

export interface FileFacts {
  readonly fd: number;
  readonly size: number;
  readonly blockSize: number;
  readonly physicalBlockSize: number;
  readonly readOnly: boolean;
  readonly canDiscard: boolean;
  /** Past the page cache (O_DIRECT): addresses, lengths and positions are multiples of `blockSize`. */
  readonly direct: boolean;
}

export class FileDisk implements Disk {
  readonly size: number;
  readonly blockSize: number;
  readonly physicalBlockSize: number;
  readonly readOnly: boolean;
  readonly canDiscard: boolean;
  pending = 0;

  private readonly calls: SystemCalls;
  private readonly fd: number;
  private readonly ring: Uring | null;
  /** The file, as the ring knows it. */
  private readonly ringFile: number;
  private readonly direct: boolean;
  private readonly vectors: Vectors;
  private readonly bounce: Bounce;
  /** Tells what the ring completed; made once. */
  private readonly ended: Completed;
  private completed: Completed = () => {};
  /** Of each token that the ring has: where it reads, FLUSHING or NOTHING. */
  private positions = new Float64Array(0);
  private readonly map: FileMap | null;
  private alone = true;
  /** RWF_NOWAIT before waiting. */
  private asksFirst: boolean;
  private zeroRange = true;
  private zeros = 0;
  private flushFailed = false;

  /** Without a ring everything is done at once; with a map what was read lately is copied from there. */
  constructor(calls: SystemCalls, facts: FileFacts, ring: Uring | null, map: FileMap | null = null) {
    this.calls = calls;
    this.fd = facts.fd;
    this.ring = ring;
    this.map = facts.direct ? null : map;
    this.size = facts.size;
    this.blockSize = facts.blockSize;
    this.physicalBlockSize = facts.physicalBlockSize;
    this.readOnly = facts.readOnly;
    this.canDiscard = facts.canDiscard;
    this.direct = facts.direct;
    this.vectors = new Vectors(calls, VECTORS);
    this.bounce = new Bounce(calls, facts.blockSize);
    // A registered file is not looked up and held for every request.
    this.ringFile = ring?.registerFiles([facts.fd]).ok === true ? FIXED_FILE : facts.fd;
    this.asksFirst = ring !== null;
    this.ended = (token, result) => {
      this.pending--;
      const position = this.positions[token] as number;
      if (position === FLUSHING) this.flushEnded(result);
      else if (position >= 0 && result > 0) this.map?.note(position, result);
      this.positions[token] = NOTHING;
      this.completed(token, result);
    };
  }

  expect(count: number): void {
    this.alone = count === 1;
    this.map?.refresh();
  }

  bind(limit: number, completed: Completed): void {
    this.positions = new Float64Array(limit).fill(NOTHING);
    this.completed = completed;
  }

  read(token: number, chain: Chain, skip: number, length: number, position: number): number {
    const { vectors, direct, map } = this;
    if (vectors.full) this.submit();
    if (vectors.full) return this.readBounced(chain, skip, length, position);
    vectors.gather(chain, true, skip, length);
    if (map !== null && vectors.count === 1 && map.copy(vectors.address, position, vectors.bytes)) return vectors.bytes;
    if (direct) {
      if ((vectors.lowBits & (this.blockSize - 1)) !== 0) return this.readBounced(chain, skip, length, position);
    } else if (this.alone) {
      const done = this.readNow(position);
      if (done !== -EAGAIN) {
        if (done > 0) map?.note(position, done);
        return done;
      }
    }
    return this.readLater(token, position);
  }

  /** What the page cache has. -EAGAIN where it would have to wait, and there is a ring to wait in. */
  private readNow(position: number): number {
    const { vectors, calls, fd } = this;
    if (!this.asksFirst) return this.readWaiting(position);
    const { count, address, bytes } = vectors;
    const start = count === 1 ? vectors.single(address, bytes) : vectors.start;
    for (;;) {
      const done = calls.preadv2(fd, start, count, position, RWF_NOWAIT);
      if (done === -EINTR) continue;
      if (done !== -EOPNOTSUPP) return done;
      // A file system that cannot say whether it would wait.
      this.asksFirst = false;
      return this.readWaiting(position);
    }
  }

  private readWaiting(position: number): number {
    const { vectors, calls, fd } = this;
    for (;;) {
      const done =
        vectors.count === 1
          ? calls.pread(fd, vectors.address, vectors.bytes, position)
          : calls.preadv2(fd, vectors.start, vectors.count, position, 0);
      if (done !== -EINTR) return done;
    }
  }

  private readLater(token: number, position: number): number {
    const { vectors, ring, ringFile: fd } = this;
    const { count, address, bytes, start } = vectors;
    const put =
      ring !== null &&
      (count === 1
        ? ring.read(fd, address, bytes, position, 0, token)
        : ring.readv(fd, start, count, position, 0, token));
    if (!put) return this.readWaiting(position);
    this.positions[token] = position;
    this.pending++;
    return PENDING;
  }

  private readBounced(chain: Chain, skip: number, length: number, position: number): number {
    const { bounce, calls, fd } = this;
    for (;;) {
      const done = calls.pread(fd, bounce.address, Math.min(length, bounce.length), position);
      if (done === -EINTR) continue;
      return done > 0 ? chain.write(skip, bounce.bytes, 0, done) : done;
    }
  }

  write(token: number, chain: Chain, skip: number, length: number, position: number, durable: boolean): number {
    const { vectors, bounce } = this;
    if (vectors.full) this.submit();
    if (vectors.full) return this.writeBounced(chain, skip, length, position, durable);
    vectors.gather(chain, false, skip, length);
    if (this.direct && (vectors.lowBits & (this.blockSize - 1)) !== 0) {
      const bytes = chain.read(skip, bounce.bytes, 0, Math.min(length, bounce.length));
      return this.writeNow(1, vectors.single(bounce.address, bytes), bounce.address, bytes, position, durable);
    }
    const { count, address, bytes } = vectors;
    const start = durable && count === 1 ? vectors.single(address, bytes) : vectors.start;
    if (this.direct || durable) {
      const { ring, ringFile: fd } = this;
      const flags = durable ? RWF_DSYNC : 0;
      const put =
        ring !== null &&
        (count === 1
          ? ring.write(fd, address, bytes, position, flags, token)
          : ring.writev(fd, start, count, position, flags, token));
      if (put) {
        this.pending++;
        return PENDING;
      }
    }
    return this.writeNow(count, start, address, bytes, position, durable);
  }

  /** Without a vector. */
  private writeBounced(chain: Chain, skip: number, length: number, position: number, durable: boolean): number {
    const { bounce, calls, fd } = this;
    const bytes = chain.read(skip, bounce.bytes, 0, Math.min(length, bounce.length));
    for (;;) {
      const done = calls.pwrite(fd, bounce.address, bytes, position);
      if (done === -EINTR) continue;
      const synced = durable && done > 0 ? this.sync() : 0;
      return synced < 0 ? synced : done;
    }
  }

  private writeNow(
    count: number,
    start: number,
    address: number,
    bytes: number,
    position: number,
    durable: boolean,
  ): number {
    const { calls, fd } = this;
    for (;;) {
      const done =
        count === 1 && !durable
          ? calls.pwrite(fd, address, bytes, position)
          : calls.pwritev2(fd, start, count, position, durable ? RWF_DSYNC : 0);
      if (done !== -EINTR) return done;
    }
  }

  flush(token: number): number {
    if (this.flushFailed) return -EIO;
    if (this.ring === null || !this.ring.fsync(this.ringFile, true, token)) return this.sync();
    this.positions[token] = FLUSHING;
    this.pending++;
    return PENDING;
  }

  private flushEnded(result: number): void {
    if (result < 0) this.flushFailed = true;
  }

  sync(): number {
    // After a failed write-back the kernel takes the lost pages for written: no later flush can be believed.
    if (this.flushFailed) return -EIO;
    for (;;) {
      const status = this.calls.fdatasync(this.fd);
      if (status === -EINTR) continue;
      if (status < 0) this.flushFailed = true;
      return status;
    }
  }

  discard(_token: number, position: number, length: number): number {
    const status = this.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length);
    // A discard is a hint: where it cannot be followed nothing is lost.
    return status < 0 && status !== -EOPNOTSUPP ? status : length;
  }

  zero(_token: number, position: number, length: number, unmap: boolean): number {
    if (unmap && this.canDiscard) {
      const status = this.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length);
      if (status !== -EOPNOTSUPP) return status < 0 ? status : length;
    }
    if (this.zeroRange) {
      const status = this.allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, position, length);
      if (status !== -EOPNOTSUPP) return status < 0 ? status : length;
      this.zeroRange = false;
    }
    return this.writeZeros(position, Math.min(length, ZERO_STEP));
  }

  private allocate(mode: number, position: number, length: number): number {
    for (;;) {
      const status = this.calls.fallocate(this.fd, mode, position, length);
      if (status !== -EINTR) return status;
    }
  }

  private writeZeros(position: number, length: number): number {
    if (this.zeros === 0) this.zeros = alignedZeros(this.calls, this.blockSize);
    for (;;) {
      const done = this.calls.pwrite(this.fd, this.zeros, length, position);
      if (done !== -EINTR) return done;
    }
  }

  submit(): void {
    const { ring } = this;
    ring?.submit();
    // Without memory the kernel takes fewer: it has yet to read the vectors of the others.
    if (ring === null || ring.unsent === 0) this.vectors.clear();
  }

  reap(): number {
    return this.ring === null ? 0 : this.ring.reap(this.ended);
  }

  prepareToSleep(): boolean {
    const { ring } = this;
    if (ring === null || this.pending === 0) return false;
    if (ring.unsent > 0) {
      // Nobody wakes us for what the kernel did not take.
      this.submit();
      return true;
    }
    return ring.prepareToSleep();
  }

  wait(milliseconds: number): number {
    const { ring } = this;
    if (ring === null) return 0;
    if (ring.unsent > 0) this.submit();
    return ring.wait(ring.unsent > 0 ? Math.min(milliseconds, RETRY_MILLISECONDS) : milliseconds)
      ? ring.reap(this.ended)
      : 0;
  }

  close(): void {
    this.ring?.close(CLOSE_MILLISECONDS);
    this.map?.close();
    if (!this.readOnly) this.calls.fdatasync(this.fd);
    unlockImage(this.calls, this.fd);
    this.calls.close(this.fd);
  }
}

function alignedZeros(calls: SystemCalls, alignment: number): number {
  const { address } = calls.allocate(ZERO_STEP + alignment);
  return Math.ceil(address / alignment) * alignment;
}
