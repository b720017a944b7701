/** How fast is a block device behind a vhost-user socket, seen by a driver that copies everything through its own pool? */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { BLK_IN, BLK_OK, BLK_OUT, BLK_SECTOR } from '@airlock/virtio/request/block.ts';
import { BROKEN, DONE } from '@airlock/virtio/ring/queue.ts';
import { drainEventFd } from '../event-fd.ts';
import { BlockDriver, NO_ROOM } from './block-driver.ts';
import type { FrontQueue } from './driver-queues.ts';
import { FrontEnd, type FrontEndOptions } from './front-end.ts';
import { Latency } from './latency.ts';
import { pollWait, type Wait } from './wait.ts';

export interface BlockBenchOptions extends FrontEndOptions {
  readonly seconds: number;
  /** Requests in flight in each queue. */
  readonly depth: number;
  /** Bytes of a request, a multiple of 512. */
  readonly blockSize: number;
  readonly pattern: 'randread' | 'randwrite';
  readonly queues: number;
  /** Look for completions without sleeping. */
  readonly poll: boolean;
  /** Feature bits not to ask for. */
  readonly withoutFeatures?: readonly number[];
}

export interface BlockBenchReport {
  readonly requests: number;
  /** Requests that were not answered with OK. */
  readonly errors: number;
  readonly seconds: number;
  readonly requestsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Microseconds from the making of a request to its end. */
  readonly latency: {
    readonly min: number;
    readonly mean: number;
    readonly p50: number;
    readonly p99: number;
    readonly p999: number;
    readonly max: number;
  };
  readonly queues: number;
  readonly packed: boolean;
}

/** Requests between two looks at the clock's end. */
const ROUND = 64;

/**
 * Codes: those of `FrontEnd.connect` and `BlockDriver.open`, `driver-timeout`, `driver-queue-broken`,
 * `driver-request-invalid` (the disk is smaller than a block, or read-only and to be written).
 */
export function benchBlock(path: string, options: BlockBenchOptions): Result<BlockBenchReport> {
  const connected = FrontEnd.connect(path, options);
  if (!connected.ok) return connected;
  const front = connected.value;
  const measured = measure(front, options);
  if (measured.ok) front.stop();
  front.close();
  return measured;
}

function measure(front: FrontEnd, options: BlockBenchOptions): Result<BlockBenchReport> {
  const { depth, blockSize, queues } = options;
  // Three elements a request, where there are no indirect tables.
  const size = 2 ** Math.ceil(Math.log2(Math.max(2, depth * 3)));
  const opened = BlockDriver.open(front, {
    queues,
    size: Math.min(size, 1024),
    transfer: blockSize,
    depth: depth * queues,
    without: options.withoutFeatures ?? [],
  });
  if (!opened.ok) return opened;
  const disk = opened.value;
  const blocks = Math.floor((disk.capacity * BLK_SECTOR) / blockSize);
  if (blocks < 1)
    return fail('driver-request-invalid', `a disk of ${disk.capacity} sectors, blocks of ${blockSize} bytes`);
  const writes = options.pattern === 'randwrite';
  if (writes && disk.readOnly) return fail('driver-request-invalid', 'the disk is read-only');
  return new Load(front, disk, options, blocks, writes).run();
}

class Load {
  private readonly front: FrontEnd;
  private readonly disk: BlockDriver;
  private readonly options: BlockBenchOptions;
  private readonly blocks: number;
  private readonly source: Uint8Array | null;
  private readonly target: Uint8Array | null;
  private readonly began: Float64Array;
  private readonly latency = new Latency();
  private readonly wait: Wait;
  private errors = 0;
  private random = 0x9e3779b9;

  constructor(front: FrontEnd, disk: BlockDriver, options: BlockBenchOptions, blocks: number, writes: boolean) {
    this.front = front;
    this.disk = disk;
    this.options = options;
    this.blocks = blocks;
    this.source = writes ? new Uint8Array(options.blockSize).map((_, i) => i & 0xff) : null;
    this.target = writes ? null : new Uint8Array(options.blockSize);
    this.began = new Float64Array(options.depth * options.queues);
    this.wait = options.wait ?? pollWait(front.calls);
  }

  run(): Result<BlockBenchReport> {
    const { front, disk, options } = this;
    const queues = disk.queues.all;
    for (const queue of queues) {
      queue.driver.suppressNotifications();
      for (let i = 0; i < options.depth; i++) this.begin(queue);
      queue.publish();
    }
    const start = front.now();
    const end = start + options.seconds * 1000;
    const problem = this.work(queues, end, true);
    const elapsed = (front.now() - start) / 1000;
    if (problem !== null) return { ok: false, error: problem };
    const { count } = this.latency;
    const report = this.report(count, elapsed, queues);
    const left = this.work(queues, front.now() + front.timeout, false);
    return left === null ? ok(report) : { ok: false, error: left };
  }

  /** Until `end`: takes completions and, with `again`, begins a new request for each; otherwise until none is left. */
  private work(queues: readonly FrontQueue[], end: number, again: boolean): Problem | null {
    const { front, options } = this;
    for (;;) {
      let done = 0;
      let left = 0;
      for (const queue of queues) {
        const taken = this.take(queue, again);
        if (taken < 0)
          return queue.driver.violation ?? { code: 'driver-queue-broken', message: `queue ${queue.index}` };
        done += taken;
        left += queue.driver.inFlight;
      }
      if (!again && left === 0) return null;
      const now = front.now();
      if (now >= end) {
        if (again) return null;
        return { code: 'driver-timeout', message: `${left} requests were not answered within ${front.timeout} ms` };
      }
      if (done > 0 || options.poll) continue;
      const problem = this.sleep(queues, Math.min(end - now, 1000));
      if (problem !== null) return problem;
    }
  }

  /** How many were done; -1 when the queue is broken. */
  private take(queue: FrontQueue, again: boolean): number {
    const { disk } = this;
    let done = 0;
    while (done < ROUND) {
      const outcome = disk.complete(queue, this.target);
      if (outcome === BROKEN) return -1;
      if (outcome !== DONE) break;
      this.latency.add(this.front.now() - (this.began[disk.token] as number));
      if (disk.status !== BLK_OK) this.errors++;
      done++;
      if (again) this.begin(queue);
    }
    if (done > 0 && again) queue.publish();
    return done;
  }

  private begin(queue: FrontQueue): void {
    let random = this.random;
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    this.random = random >>> 0;
    const { blockSize } = this.options;
    const sector = (this.random % this.blocks) * (blockSize / BLK_SECTOR);
    const token = this.disk.submit(queue, this.source === null ? BLK_IN : BLK_OUT, sector, this.source, blockSize);
    if (token !== NO_ROOM) this.began[token] = this.front.now();
  }

  private sleep(queues: readonly FrontQueue[], milliseconds: number): Problem | null {
    const { front } = this;
    const there = queues.map(({ driver }) => driver.requestNotifications()).some((one) => one);
    if (!there) {
      this.wait([...queues.map(({ callFd }) => callFd), front.channelFd], -1, milliseconds);
      for (const { callFd } of queues) drainEventFd(front.calls, callFd);
    }
    for (const { driver } of queues) driver.suppressNotifications();
    return front.serveChannel();
  }

  private report(requests: number, seconds: number, queues: readonly FrontQueue[]): BlockBenchReport {
    const { latency } = this;
    return {
      requests,
      errors: this.errors,
      seconds,
      requestsPerSecond: requests / seconds,
      bytesPerSecond: (requests * this.options.blockSize) / seconds,
      latency: {
        min: latency.min,
        mean: latency.mean,
        p50: latency.quantile(0.5),
        p99: latency.quantile(0.99),
        p999: latency.quantile(0.999),
        max: latency.max,
      },
      queues: queues.length,
      packed: this.disk.packed,
    };
  }
}
