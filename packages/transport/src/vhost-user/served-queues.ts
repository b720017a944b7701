/**
 * A device at work behind a vhost-user connection: which queues it has, when they are served, what stops them. Knows no
 * message; session.ts does.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { type Features, hasFeature, NO_FEATURES } from '@airlock/virtio/features.ts';
import { Iotlb } from '@airlock/virtio/memory/iotlb.ts';
import { READ_WRITE } from '@airlock/virtio/memory/region.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { drainPeer } from '../event-fd.ts';
import { HANGUP, type Poller, READABLE, type Reactor } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import type { BackEndChannel } from './back-end-channel.ts';
import { type InflightPart, VERSION_AT } from './inflight-area.ts';
import { MappedMemory } from './mapped-memory.ts';
import { Vring } from './vring.ts';
import { baseOf, makeQueue, touchesRing } from './vring-queue.ts';

const VERSION_1 = 32;
const ACCESS_PLATFORM = 33;
const RING_PACKED = 34;
/** A queue without a kick descriptor is looked at this often while the process sleeps, in milliseconds. */
const LOOK_INTERVAL = 1;
/** Rounds of `serve` for chains of an earlier life before a queue is stopped. */
const RESUME_ROUNDS = 1024;

export interface QueueOwner {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  /** Something that whoever runs the back-end may want to know; the device goes on. */
  readonly report: (problem: Problem) => void;
  /** Take memory that the front-end can shrink; it can then end this process. */
  readonly unsealedMemory: boolean;
  readonly inflight: (index: number, size: number, packed: boolean) => Result<InflightPart | null>;
}

export class ServedQueues implements Poller {
  readonly vrings: readonly Vring[];
  features: Features = NO_FEATURES;
  memory: MappedMemory;
  iotlb: Iotlb | null = null;
  channel: BackEndChannel | null = null;
  /** The device asked for a reset, or a queue broke a rule. */
  broken = false;
  private readonly owner: QueueOwner;
  private readonly device: ServedDevice;
  private deviceStarted = false;
  private configWaits = false;
  private running: Vring[] = [];
  private leavePollers: (() => void) | null = null;
  private stopLooking: (() => void) | null = null;
  private awake = false;

  constructor(owner: QueueOwner) {
    this.owner = owner;
    this.device = owner.device;
    this.vrings = owner.device.queueSizes.map((_, index) => new Vring(owner.calls, index));
    this.memory = new MappedMemory(owner.calls, owner.unsealedMemory);
  }

  get active(): boolean {
    return this.running.length > 0;
  }

  private get packed(): boolean {
    return hasFeature(this.features, RING_PACKED);
  }

  /** What the driver agreed on. Code: `vhost-user-order` while a queue runs. */
  setFeatures(features: Features): Result<void> {
    if (this.active) return fail('vhost-user-order', 'features change while a queue runs');
    this.stopDevice();
    this.features = features;
    this.iotlb = hasFeature(features, ACCESS_PLATFORM) ? new Iotlb(this.memory.memory.user) : null;
    return ok(undefined);
  }

  // ---- starting and stopping -------------------------------------------------------------------------------------

  /** Starts or suspends a queue as its state asks. Codes: those of `start`. */
  settle(vring: Vring): Result<void> {
    const wanted = vring.started && vring.enabled && !this.broken;
    if (wanted && vring.queue === null) return this.start(vring);
    if (!wanted) this.suspend(vring);
    return ok(undefined);
  }

  /** Codes: `feature-required`, those of `makeQueue`. */
  private start(vring: Vring): Result<void> {
    if (!hasFeature(this.features, VERSION_1)) {
      return fail('feature-required', 'VERSION_1 was not accepted; this is no legacy device');
    }
    const space = this.iotlb?.space;
    const made = makeQueue(vring, {
      rings: space ?? this.memory.memory.user,
      buffers: space ?? this.memory.memory.guest,
      features: this.features,
      chainLimit: this.device.chainLimit,
      inflight: (size, packed) => this.owner.inflight(vring.index, size, packed),
    });
    if (!made.ok) {
      if (made.error.code !== 'translation-missing' || space === undefined) return made;
      this.ask(vring, space.missAddress, READ_WRITE);
      return ok(undefined);
    }
    if (!this.deviceStarted) {
      this.deviceStarted = true;
      this.device.start(this.link());
    }
    const { queue, tracked } = made.value;
    vring.queue = queue;
    vring.tracked = tracked;
    vring.miss = null;
    if (this.awake) queue.suppressNotifications();
    else queue.requestNotifications();
    this.running.push(vring);
    this.leavePollers ??= this.owner.reactor.addPoller(this);
    this.device.startQueue(vring.index, queue);
    this.look();
    this.serve(vring);
    if (this.configWaits) this.tellConfig();
    return ok(undefined);
  }

  /** Stops the device's work on a queue and keeps its position: it can go on from there. */
  suspend(vring: Vring): void {
    const { queue, tracked } = vring;
    vring.miss = null;
    if (queue === null) return;
    // Chains of an earlier life are known only here, so they are done before the queue ends.
    for (let i = 0; i < RESUME_ROUNDS && tracked !== null && tracked.resuming > 0 && !this.broken; i++) {
      if (this.device.serve(vring.index) === 0) break;
    }
    this.device.stopQueue(vring.index);
    this.notify(vring);
    vring.base = baseOf(queue, this.packed);
    vring.queue = null;
    vring.tracked = null;
    this.running = this.running.filter((one) => one !== vring);
    if (this.running.length > 0) return;
    this.leavePollers?.();
    this.leavePollers = null;
    this.stopLooking?.();
    this.stopLooking = null;
  }

  /** For good, as GET_VRING_BASE has it: all is done, nothing is in flight. */
  finish(vring: Vring): void {
    this.suspend(vring);
    vring.started = false;
    vring.setKick(-1, null);
    const part = vring.size > 0 ? this.owner.inflight(vring.index, vring.size, this.packed) : null;
    // What is written down is of no more use: who starts the queue next says where it begins.
    if (part?.ok && part.value !== null) part.value.view.setUint16(part.value.base + VERSION_AT, 0, true);
  }

  /** Suspends every queue, calls, and lets them go on: for changes of memory under them. */
  around<T>(change: () => Result<T>): Result<T> {
    const before = [...this.running];
    for (const vring of before) this.suspend(vring);
    for (const vring of this.vrings) vring.miss = null;
    const changed = change();
    for (const vring of this.vrings) {
      if (!vring.started || !vring.enabled || vring.queue !== null) continue;
      const started = this.settle(vring);
      if (!started.ok) this.lose(vring, started.error);
    }
    return changed;
  }

  /** A queue that cannot go on where it ran before. */
  private lose(vring: Vring, problem: Problem): void {
    vring.started = false;
    vring.err();
    this.owner.report(problem);
  }

  /** Ends everything that the driver set up; descriptors and memory stay. */
  reset(): void {
    for (const vring of this.vrings) {
      this.finish(vring);
      vring.enabled = false;
      vring.base = 0;
    }
    this.stopDevice();
    this.broken = false;
  }

  private stopDevice(): void {
    if (!this.deviceStarted) return;
    this.deviceStarted = false;
    this.device.stop();
  }

  /** The connection is over. */
  close(): void {
    for (const vring of this.vrings) {
      this.suspend(vring);
      vring.close();
    }
    this.stopDevice();
    this.channel?.close();
    this.channel = null;
    this.iotlb = null;
    this.memory.close();
  }

  // ---- at work ---------------------------------------------------------------------------------------------------

  poll(): boolean {
    const { running } = this;
    if (!this.awake) {
      this.awake = true;
      for (const { queue } of running) queue?.suppressNotifications();
    }
    let taken = 0;
    for (let i = 0; i < running.length; i++) taken += this.serve(running[i] as Vring);
    return taken > 0;
  }

  prepareToSleep(): boolean {
    this.awake = false;
    let there = false;
    for (const vring of this.running) {
      // Buffers that the device has no use for yet, as a driver gives them ahead to receive into, are no work.
      if (vring.queue?.requestNotifications() === true && this.serve(vring) > 0) there = true;
    }
    return there;
  }

  private serve(vring: Vring): number {
    const { queue } = vring;
    if (queue === null || vring.miss !== null || this.broken) return 0;
    const space = this.iotlb?.space;
    if (space === undefined) {
      const taken = this.device.serve(vring.index);
      if (queue.violation !== null) this.needsReset(queue.violation);
      return taken;
    }
    space.missAddress = -1;
    const taken = this.device.serve(vring.index);
    if (queue.violation !== null) this.needsReset(queue.violation);
    else if (space.missAddress >= 0) this.ask(vring, space.missAddress, space.missAccess);
    return taken;
  }

  /** Takes over `fd` (-1: none) as the queue's kick. One that fails is closed, and the queue looked at at intervals. */
  setKick(vring: Vring, fd: number): void {
    const ready = (events: number): void => {
      // A descriptor that is always ready would keep the loop awake for ever.
      if ((events & HANGUP) !== 0 || drainPeer(this.owner.calls, vring.kickFd) < 0) {
        vring.setKick(-1, null);
        this.owner.report({ code: 'vhost-user-kick-broken', message: `the kick of queue ${vring.index} failed` });
        this.look();
      }
      this.serve(vring);
    };
    vring.setKick(fd, fd < 0 ? null : this.owner.reactor.watch(fd, READABLE, ready));
    this.look();
  }

  /** While a queue has no kick, looks at intervals. */
  private look(): void {
    if (this.stopLooking !== null || !this.running.some(({ kickFd }) => kickFd < 0)) return;
    this.stopLooking = this.owner.reactor.after(LOOK_INTERVAL, () => {
      this.stopLooking = null;
      for (const vring of [...this.running]) if (vring.kickFd < 0) this.serve(vring);
      this.look();
    });
  }

  private link(): DeviceLink {
    return {
      features: this.features,
      notify: (index) => {
        const vring = this.vrings[index];
        if (vring !== undefined) this.notify(vring);
      },
      configChanged: () => this.tellConfig(),
      needsReset: (why) => this.needsReset(why),
    };
  }

  private notify(vring: Vring): void {
    if (vring.queue?.shouldNotify() !== true || vring.call()) return;
    this.owner.report({ code: 'vhost-user-call-broken', message: `the call of queue ${vring.index} failed` });
  }

  /** A suspended device sends no message, so a change waits for the next queue that runs. */
  private tellConfig(): void {
    this.configWaits = !this.active;
    if (this.active) this.channel?.configChanged();
  }

  private needsReset(why: Problem): void {
    if (this.broken) return;
    this.broken = true;
    this.owner.report(why);
    for (const vring of this.running) vring.err();
    this.tellConfig();
  }

  // ---- translation -----------------------------------------------------------------------------------------------

  /** Asks the front-end for an address: once for each queue, and not again before something was answered. */
  private ask(vring: Vring, address: number, access: number): void {
    const page = Math.floor(address / 4096);
    const asked = this.vrings.some(
      ({ miss }) => miss !== null && Math.floor(miss.address / 4096) === page && (miss.access & access) === access,
    );
    vring.miss = { address, access };
    if (!asked) this.channel?.miss(vring.miss);
  }

  /** After an IOTLB update: whoever waits tries again. */
  translated(): void {
    const waiting = this.vrings.filter(({ miss }) => miss !== null);
    for (const vring of waiting) vring.miss = null;
    for (const vring of waiting) {
      if (vring.queue !== null) {
        this.serve(vring);
        continue;
      }
      const started = this.settle(vring);
      if (!started.ok) this.lose(vring, started.error);
    }
  }

  /** An IOTLB invalidation: queues whose ring it takes away stop first, and begin again when the front-end answers. */
  invalidate(iotlb: Iotlb, address: number, size: number): void {
    const touched = this.running.filter((vring) => touchesRing(vring, this.packed, address, size));
    for (const vring of touched) this.suspend(vring);
    iotlb.invalidate(address, size);
    for (const vring of touched) {
      const started = this.settle(vring);
      if (!started.ok) this.lose(vring, started.error);
    }
  }
}
