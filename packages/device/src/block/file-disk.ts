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
} from '@airlock/transport/sys/files.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { Bounce } from './bounce.ts';
import { type Completed, type Disk, EINTR, EIO, EOPNOTSUPP } from './disk.ts';
import { Vectors } from './vectors.ts';

/** Zeros are written in steps of so many bytes. */
const ZERO_STEP = 2 ** 20;
const VECTORS = 8192;

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
  private readonly direct: boolean;
  private readonly vectors: Vectors;
  private readonly bounce: Bounce;
  private zeroRange = true;
  private zeros = 0;
  private flushFailed = false;

  constructor(calls: SystemCalls, facts: FileFacts) {
    this.calls = calls;
    this.fd = facts.fd;
    this.size = facts.size;
    this.blockSize = facts.blockSize;
    this.physicalBlockSize = facts.physicalBlockSize;
    this.readOnly = facts.readOnly;
    this.canDiscard = facts.canDiscard;
    this.direct = facts.direct;
    this.vectors = new Vectors(calls, VECTORS);
    this.bounce = new Bounce(calls, facts.blockSize);
  }

  bind(_limit: number, _completed: Completed): void {}

  read(_token: number, chain: Chain, skip: number, length: number, position: number): number {
    const { vectors, calls, fd } = this;
    vectors.clear();
    vectors.gather(chain, true, skip, length);
    if (this.direct && (vectors.lowBits & (this.blockSize - 1)) !== 0) {
      return this.readBounced(chain, skip, length, position);
    }
    for (;;) {
      const done =
        vectors.count === 1
          ? calls.pread(fd, vectors.address, vectors.bytes, position)
          : calls.preadv2(fd, vectors.start, vectors.count, position, 0);
      if (done !== -EINTR) return done;
    }
  }

  private readBounced(chain: Chain, skip: number, length: number, position: number): number {
    const { bounce, calls, fd } = this;
    for (;;) {
      const done = calls.pread(fd, bounce.address, Math.min(length, bounce.length), position);
      if (done === -EINTR) continue;
      return done > 0 ? chain.write(skip, bounce.bytes, 0, done) : done;
    }
  }

  write(_token: number, chain: Chain, skip: number, length: number, position: number, durable: boolean): number {
    const { vectors, calls, fd } = this;
    vectors.clear();
    vectors.gather(chain, false, skip, length);
    let { count, address, bytes, start } = vectors;
    if (this.direct && (vectors.lowBits & (this.blockSize - 1)) !== 0) {
      count = 1;
      address = this.bounce.address;
      bytes = chain.read(skip, this.bounce.bytes, 0, Math.min(length, this.bounce.length));
    }
    if (durable && count === 1) start = vectors.single(address, bytes);
    for (;;) {
      const done =
        count === 1 && !durable
          ? calls.pwrite(fd, address, bytes, position)
          : calls.pwritev2(fd, start, count, position, durable ? RWF_DSYNC : 0);
      if (done !== -EINTR) return done;
    }
  }

  flush(_token: number): number {
    return this.sync();
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

  submit(): void {}

  reap(): number {
    return 0;
  }

  wait(_milliseconds: number): number {
    return 0;
  }

  close(): void {
    if (!this.readOnly) this.calls.fdatasync(this.fd);
    this.calls.close(this.fd);
  }
}

function alignedZeros(calls: SystemCalls, alignment: number): number {
  const { address } = calls.allocate(ZERO_STEP + alignment);
  return Math.ceil(address / alignment) * alignment;
}
