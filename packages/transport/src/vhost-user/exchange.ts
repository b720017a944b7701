/** One request and its answer, through bounce slices: for drivers that are in no hurry. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type BouncePool, NO_SLICE } from '@airlock/virtio/memory/bounce-pool.ts';
import { BROKEN, DONE } from '@airlock/virtio/ring/queue.ts';
import type { FrontQueue } from './driver-queues.ts';

export interface Exchange {
  readonly queue: FrontQueue;
  readonly pool: BouncePool;
  /** Device-readable parts, in order. */
  readonly out: readonly Uint8Array[];
  /** Lengths of the device-writable parts, in order. */
  readonly in: readonly number[];
  /** Milliseconds. */
  readonly timeout: number;
  readonly now: () => number;
}

export interface ExchangeAnswer {
  /** Bytes that the device says it wrote, cut to what there is room for. */
  readonly written: number;
  /** Private copies of the writable parts. */
  readonly parts: readonly Uint8Array[];
}

/**
 * Sends a request and waits for its answer. Other requests of the queue must not be in flight. After `driver-timeout` the
 * device still has the slices, so they are not given back: reset the device or close. Codes: `driver-pool-empty`,
 * `driver-request-invalid`, `driver-timeout`, `driver-queue-broken`, the code of the queue's violation, and what the
 * back-end did on its channel.
 */
export function exchange(request: Exchange): Result<ExchangeAnswer> {
  const { queue, pool } = request;
  const { driver } = queue;
  const slices: number[] = [];
  const giveBack = (): void => {
    for (const slice of slices) pool.give(slice);
  };
  const take = (length: number): number => {
    const slice = pool.take(length);
    if (slice !== NO_SLICE) slices.push(slice);
    return slice;
  };
  for (const part of request.out) {
    const slice = take(part.length);
    if (slice === NO_SLICE) break;
    pool.copyIn(slice, part);
    driver.readable(pool.addressOf(slice), part.length);
  }
  for (const length of request.in) {
    const slice = slices.length < request.out.length ? NO_SLICE : take(length);
    if (slice !== NO_SLICE) driver.writable(pool.addressOf(slice), length);
  }
  if (slices.length < request.out.length + request.in.length) {
    giveBack();
    // Nothing is submitted with a hole in it.
    driver.readable(Number.NaN, 0);
    driver.submit(0);
    return fail('driver-pool-empty', 'the bounce pool has no slice for the request');
  }
  const submitted = driver.submit(0);
  if (submitted !== DONE) {
    giveBack();
    const why = driver.violation ?? driver.refusal;
    return fail(why?.code ?? 'driver-request-invalid', why?.message ?? 'the queue has no room for the request');
  }
  queue.publish();
  const waited = waitForOne(queue, request.timeout, request.now);
  if (!waited.ok) return waited;
  const parts = request.in.map((length, i) => {
    const bytes = new Uint8Array(length);
    pool.copyOut(slices[request.out.length + i] ?? NO_SLICE, bytes, length);
    return bytes;
  });
  const { written } = driver;
  giveBack();
  return ok({ written, parts });
}

/** Waits for the next completion of a queue. Codes as `exchange`. */
export function waitForOne(queue: FrontQueue, timeout: number, now: () => number): Result<void> {
  const { driver } = queue;
  const end = now() + timeout;
  for (;;) {
    const outcome = driver.complete();
    if (outcome === DONE) return ok(undefined);
    if (outcome === BROKEN) {
      return { ok: false, error: driver.violation ?? { code: 'driver-queue-broken', message: 'the queue is broken' } };
    }
    const left = end - now();
    if (left <= 0) return fail('driver-timeout', `queue ${queue.index}: no answer within ${timeout} ms`);
    const problem = queue.sleep(left);
    if (problem !== null) return { ok: false, error: problem };
  }
}
