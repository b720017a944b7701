/** The queues of a driver behind a vhost-user connection: starting, waking, waiting, stopping. */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { QueueAddresses } from '@airlock/virtio/ring/layout.ts';
import type { DriverQueue } from '@airlock/virtio/ring/queue.ts';
import { createEventFd, drainEventFd, signalEventFd } from '../event-fd.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { Caller } from './caller.ts';
import { DRIVER_BASE, DRIVER_USER_BASE, type DriverMemory } from './driver-memory.ts';
import type { Wait } from './wait.ts';

/** What the queues need of the front-end. */
export interface QueueHost {
  readonly calls: SystemCalls;
  readonly caller: Caller;
  readonly channelFd: number;
  serveChannel(): Problem | null;
}

/** One queue: its driver side and the descriptors that both sides are woken by. */
export class FrontQueue {
  readonly index: number;
  readonly driver: DriverQueue;
  readonly addresses: QueueAddresses;
  readonly kickFd: number;
  readonly callFd: number;
  readonly errFd: number;
  private readonly host: QueueHost;
  private readonly wait: Wait;

  constructor(
    host: QueueHost,
    wait: Wait,
    index: number,
    driver: DriverQueue,
    addresses: QueueAddresses,
    fds: readonly [kick: number, call: number, err: number],
  ) {
    this.host = host;
    this.wait = wait;
    this.index = index;
    this.driver = driver;
    this.addresses = addresses;
    [this.kickFd, this.callFd, this.errFd] = fds;
  }

  /** Shows the back-end what was submitted, and wakes it where it wants that. */
  publish(): void {
    this.driver.publish();
    if (this.driver.shouldNotify()) this.kick();
  }

  kick(): void {
    signalEventFd(this.host.calls, this.kickFd);
  }

  /**
   * Sleeps until there may be a completion, at most so long. The problem of a back-end that broke a rule on its channel,
   * or said that the queue is broken; null otherwise.
   */
  sleep(milliseconds: number): Problem | null {
    const { host, driver } = this;
    if (!driver.requestNotifications() && driver.violation === null) {
      this.wait([this.callFd, this.errFd, host.channelFd], -1, milliseconds);
      drainEventFd(host.calls, this.callFd);
    }
    driver.suppressNotifications();
    if (drainEventFd(host.calls, this.errFd) > 0) {
      return { code: 'vhost-user-queue-broken', message: `the back-end says that queue ${this.index} is broken` };
    }
    return host.serveChannel();
  }
}

export class DriverQueues {
  readonly all: readonly FrontQueue[];
  readonly size: number;
  private readonly host: QueueHost;
  private readonly packed: boolean;
  private iova = false;
  private recorded = false;

  private constructor(host: QueueHost, all: readonly FrontQueue[], packed: boolean) {
    this.host = host;
    this.all = all;
    this.size = all[0]?.driver.size ?? 0;
    this.packed = packed;
  }

  /** Code: `system-call-failed`. */
  static create(host: QueueHost, memory: DriverMemory, packed: boolean, wait: Wait): Result<DriverQueues> {
    const all: FrontQueue[] = [];
    for (const [index, { driver, addresses }] of memory.queues.entries()) {
      const fds: number[] = [];
      for (let i = 0; i < 3; i++) {
        const fd = createEventFd(host.calls);
        if (!fd.ok) {
          for (const one of [...fds, ...all.flatMap((queue) => [queue.kickFd, queue.callFd, queue.errFd])]) {
            host.calls.close(one);
          }
          return fd;
        }
        fds.push(fd.value);
      }
      const [kick = -1, call = -1, err = -1] = fds;
      all.push(new FrontQueue(host, wait, index, driver, addresses, [kick, call, err]));
    }
    return ok(new DriverQueues(host, all, packed));
  }

  /**
   * Starts every queue where its driver stands. `iova`: ring addresses are I/O virtual addresses; `recorded`: the
   * back-end knows from its own record where it is to begin. Codes: `vhost-user-reconnect-loses`, as `Caller.tell`.
   */
  start(iova: boolean, recorded: boolean): Result<void> {
    this.iova = iova;
    this.recorded = recorded;
    for (const { index } of this.all) {
      const started = this.startOne(index);
      if (!started.ok) return started;
    }
    return ok(undefined);
  }

  /** Starts one queue, as the others were. Codes as `start`. */
  startOne(index: number): Result<void> {
    const { caller } = this.host;
    const { iova, recorded } = this;
    const queue = this.all[index];
    if (queue === undefined) return fail('vhost-user-no-queue', `queue ${index}`);
    const { driver } = queue;
    if (driver.inFlight > 0 && !recorded) {
      return fail('vhost-user-reconnect-loses', `queue ${index}: ${driver.inFlight} requests in flight, no record`);
    }
    const move = iova ? 0 : DRIVER_USER_BASE - DRIVER_BASE;
    const { descriptors, driver: available, device } = queue.addresses;
    const addresses = {
      index,
      flags: 0,
      descriptors: descriptors + move,
      available: available + move,
      used: device + move,
      log: 0,
    };
    const steps = [
      () => caller.tell('SET_VRING_NUM', { form: 'vring', index, value: driver.size }),
      () => caller.tell('SET_VRING_BASE', { form: 'vring', index, value: this.base(driver) }),
      () => caller.tell('SET_VRING_ADDR', { form: 'vring-address', addresses }),
      () => caller.tell('SET_VRING_CALL', { form: 'vring-fd', index, hasFd: true }, [queue.callFd]),
      () => caller.tell('SET_VRING_ERR', { form: 'vring-fd', index, hasFd: true }, [queue.errFd]),
      () => caller.tell('SET_VRING_KICK', { form: 'vring-fd', index, hasFd: true }, [queue.kickFd]),
      () => caller.tell('SET_VRING_ENABLE', { form: 'vring', index, value: 1 }),
    ];
    for (const step of steps) {
      const done = step();
      if (!done.ok) return done;
    }
    // For back-ends that start a ring at the first kick only ("Ring states").
    queue.kick();
    return ok(undefined);
  }

  /** With nothing in flight both positions are the driver's next place; otherwise the back-end has its own record. */
  private base(driver: DriverQueue): number {
    const next = driver.notificationOffset();
    return this.packed ? (next | (next << 16)) >>> 0 : next;
  }

  /** Stops every queue; the back-end finishes what it has. Codes as `Caller.ask`. */
  stop(): Result<void> {
    for (const { index } of this.all) {
      const asked = this.stopOne(index);
      if (!asked.ok) return asked;
    }
    return ok(undefined);
  }

  /** Stops one queue; where it stands now. Codes as `Caller.ask`. */
  stopOne(index: number): Result<number> {
    const { caller } = this.host;
    const asked = caller.ask('GET_VRING_BASE', { form: 'vring', index, value: 0 });
    if (!asked.ok) return asked;
    const { payload } = asked.value;
    if (payload.form === 'vring' && payload.index === index) return ok(payload.value);
    return fail('vhost-user-reply-invalid', `GET_VRING_BASE of queue ${index} answered for another`);
  }

  close(): void {
    for (const { kickFd, callFd, errFd } of this.all) {
      for (const fd of [kickFd, callFd, errFd]) this.host.calls.close(fd);
    }
  }
}
