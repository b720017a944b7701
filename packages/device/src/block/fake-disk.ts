/** A disk in memory whose operations can be held, cut short or made to fail: what tests put behind a block device. */
import type { Chain } from '@airlock/virtio/ring/chain.ts';
import { type Completed, type Disk, EROFS, PENDING } from './disk.ts';

export type DiskCall = 'read' | 'write' | 'flush' | 'discard' | 'zero';

export interface FakeCall {
  readonly call: DiskCall;
  readonly token: number;
  readonly position: number;
  readonly length: number;
  readonly flag: boolean;
}

export class FakeDisk implements Disk {
  readonly size: number;
  readonly blockSize: number;
  readonly physicalBlockSize = 4096;
  readonly readOnly: boolean;
  readonly canDiscard: boolean;
  /** What can be read. */
  readonly bytes: Uint8Array;
  /** What would be there after the power failed: all of `bytes` as of the last flush, and durable writes. */
  readonly medium: Uint8Array;
  readonly calls: FakeCall[] = [];
  /** Operations stay pending until `release`. */
  holding = false;
  /** At most so many bytes a transfer. */
  most = Number.POSITIVE_INFINITY;
  /** The outcome of the next calls, one each, as a negative errno or 0 bytes; null lets a call pass. */
  readonly outcomes: (number | null)[] = [];
  submits = 0;
  expected = 0;
  closed = false;
  private readonly ended: { token: number; result: number }[] = [];
  private readonly held: { token: number; run: () => number }[] = [];
  private completed: Completed = () => {};

  constructor(
    size: number,
    options: { readonly readOnly?: boolean; readonly blockSize?: number; readonly canDiscard?: boolean } = {},
  ) {
    this.size = size;
    this.blockSize = options.blockSize ?? 512;
    this.readOnly = options.readOnly ?? false;
    this.canDiscard = options.canDiscard ?? true;
    this.bytes = new Uint8Array(size);
    this.medium = new Uint8Array(size);
  }

  get pending(): number {
    return this.held.length + this.ended.length;
  }

  /** Operations that wait for `release`. */
  get kept(): number {
    return this.held.length;
  }

  bind(_limit: number, completed: Completed): void {
    this.completed = completed;
  }

  expect(count: number): void {
    this.expected = count;
  }

  read(token: number, chain: Chain, skip: number, length: number, position: number): number {
    return this.begin('read', token, position, length, false, () =>
      chain.write(skip, this.bytes, position, Math.min(length, this.most)),
    );
  }

  write(token: number, chain: Chain, skip: number, length: number, position: number, durable: boolean): number {
    return this.begin('write', token, position, length, durable, () => {
      const done = chain.read(skip, this.bytes, position, Math.min(length, this.most));
      if (durable) this.medium.set(this.bytes.subarray(position, position + done), position);
      return done;
    });
  }

  flush(token: number): number {
    return this.begin('flush', token, 0, 0, false, () => {
      this.medium.set(this.bytes);
      return 0;
    });
  }

  sync(): number {
    this.medium.set(this.bytes);
    return 0;
  }

  discard(token: number, position: number, length: number): number {
    return this.begin('discard', token, position, length, false, () => {
      const done = Math.min(length, this.most);
      this.bytes.fill(0, position, position + done);
      return done;
    });
  }

  zero(token: number, position: number, length: number, unmap: boolean): number {
    return this.begin('zero', token, position, length, unmap, () => {
      const done = Math.min(length, this.most);
      this.bytes.fill(0, position, position + done);
      return done;
    });
  }

  private begin(
    call: DiskCall,
    token: number,
    position: number,
    length: number,
    flag: boolean,
    work: () => number,
  ): number {
    this.calls.push({ call, token, position, length, flag });
    const outcome = this.outcomes.shift() ?? null;
    const changes = call !== 'read' && call !== 'flush';
    const run = () => (outcome !== null ? outcome : changes && this.readOnly ? -EROFS : work());
    if (!this.holding) return run();
    this.held.push({ token, run });
    return PENDING;
  }

  /** Ends held operations, the one at `at` or all in their order; `reap` tells of it. */
  release(at?: number): void {
    const ended = at === undefined ? this.held.splice(0) : this.held.splice(at, 1);
    for (const { token, run } of ended) this.ended.push({ token, result: run() });
  }

  submit(): void {
    this.submits++;
  }

  reap(): number {
    const ended = this.ended.splice(0);
    for (const { token, result } of ended) this.completed(token, result);
    return ended.length;
  }

  prepareToSleep(): boolean {
    return this.ended.length > 0;
  }

  /** Nothing ends by itself while `holding`. */
  wait(_milliseconds: number): number {
    if (!this.holding) this.release();
    return this.reap();
  }

  close(): void {
    this.closed = true;
  }
}
