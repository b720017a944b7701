/**
 * The device's side of initialization for transports that are made of registers (PCI, MMIO): status, feature negotiation,
 * queue set-up, and the queues' life. VIRTIO 1.4 §2.1, §2.2, §2.6, §3.1. Registers are thin over it.
 */
import type { Problem } from '@airlock/core/result.ts';
import type { Poller } from '@airlock/transport/reactor.ts';
import {
  acceptFeatures,
  type Features,
  featureSet,
  hasFeature,
  joinFeatures,
  NO_FEATURES,
} from '@airlock/virtio/features.ts';
import type { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDeviceQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import { findRing } from '@airlock/virtio/ring/layout.ts';
import type { DevicePosition, DeviceQueue } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';

export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const DEVICE_NEEDS_RESET = 64;
export const FAILED = 128;

const VERSION_1 = 32;
const ACCESS_PLATFORM = 33;
const RING_RESET = 40;
/** What a transport of registers offers beside what the device does. */
const TRANSPORT_OFFERS = featureSet([VERSION_1, ACCESS_PLATFORM, RING_RESET]);
const REQUIRED = featureSet([VERSION_1]);

/** Chains taken in one go, before others get their turn. */
const ROUNDS = 64;

/** How a transport tells its driver. */
export interface DeviceSideEvents {
  /** A used buffer notification of a queue. */
  queueInterrupt(index: number): void;
  configInterrupt(): void;
  /** For the person who runs the server: a rule that the driver broke. */
  violated?(why: Problem): void;
}

/** One queue as the driver sets it up. */
export interface QueueSetup {
  readonly most: number;
  size: number;
  descriptors: number;
  driver: number;
  device: number;
  enabled: boolean;
}

export class DeviceSide implements DeviceLink, Poller {
  readonly served: ServedDevice;
  readonly offered: Features;
  readonly queues: readonly QueueSetup[];
  status = 0;
  /** As the driver wrote them; `features` once they are agreed on. */
  driverFeatures: Features = NO_FEATURES;
  generation = 0;
  /** May the device reach memory now? A PCI function may while it masters the bus. */
  mayTransfer: () => boolean = () => true;
  private agreed: Features = NO_FEATURES;
  private started = false;
  memory: AddressSpace | null = null;
  private readonly events: DeviceSideEvents;
  private readonly running: (DeviceQueue | null)[];
  /** Queues that would run if their rings could be reached, with where they stopped; null: at their beginning. */
  private readonly away = new Map<number, DevicePosition | null>();
  /** Queues that are not looked at until the driver notifies: it may be about to free their rings. */
  private readonly left = new Set<number>();

  /** `more`: bits that this transport offers besides those that each does. */
  constructor(served: ServedDevice, events: DeviceSideEvents, more: readonly number[] = []) {
    this.served = served;
    this.events = events;
    this.offered = joinFeatures(joinFeatures(served.features, TRANSPORT_OFFERS), featureSet(more));
    this.queues = served.queueSizes.map((most) => freshQueue(most));
    this.running = served.queueSizes.map(() => null);
  }

  get features(): Features {
    return this.agreed;
  }

  /** The memory that rings and buffers lie in; null when there is none any more. */
  attachMemory(memory: AddressSpace | null): void {
    if (memory === null) this.reset();
    this.memory = memory;
  }

  /** The driver writes the status (§2.1.1, §3.1.1). 0 resets. */
  writeStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    // Bits are only ever set; FEATURES_OK is ours to keep, NEEDS_RESET ours to set.
    const asked = value & ~this.status;
    let status = this.status | (asked & (ACKNOWLEDGE | DRIVER | FAILED));
    if ((asked & FEATURES_OK) !== 0) {
      const accepted = acceptFeatures(this.served.type.name, this.offered, this.driverFeatures, REQUIRED);
      if (accepted.ok) {
        this.agreed = accepted.value;
        status |= FEATURES_OK;
      } else this.events.violated?.(accepted.error);
    }
    this.status = status;
    // §3.1.1: DRIVER_OK comes after FEATURES_OK; without it the device does not go live.
    if ((asked & DRIVER_OK) !== 0 && (this.status & FEATURES_OK) !== 0) {
      this.status |= DRIVER_OK;
      this.start();
    }
  }

  /** §2.2.2: features are fixed once FEATURES_OK is set. */
  writeFeatures(word: number, value: number): void {
    if ((this.status & FEATURES_OK) !== 0 || word > 3) return;
    const words: [number, number, number, number] = [...this.driverFeatures];
    words[word] = value >>> 0;
    this.driverFeatures = words;
  }

  /** Makes a queue live; with DRIVER_OK it is worked on at once. §4.1.4.3.2: there is no disabling but a reset. */
  enableQueue(index: number): void {
    const setup = this.queues[index];
    if (setup === undefined || setup.enabled) return;
    setup.enabled = true;
    if (this.started) this.startQueue(index);
  }

  /** RING_RESET (§2.6.1). On return the queue is as after a reset of the device. */
  resetQueue(index: number): void {
    const setup = this.queues[index];
    if (setup === undefined || !hasFeature(this.agreed, RING_RESET)) return;
    this.stopQueue(index);
    Object.assign(setup, freshQueue(setup.most));
  }

  /** The driver's notification: there may be chains in this queue, and nobody is about to free its ring. */
  notified(index: number): void {
    this.left.delete(index);
    this.work(index);
  }

  /**
   * The driver takes a running queue's interrupt away, or gives it one. Linux takes it right before it frees the ring, and
   * Linux 6.12's sound driver resets the device only afterwards: meanwhile the ring may be somebody else's memory, and what
   * stands there is no avail index. So it is served to its end now, and then left alone until a notification. A driver
   * that goes on without interrupts gives one, and from then on its queue is looked at as any other.
   */
  interruptTaken(index: number, taken: boolean): void {
    this.left.delete(index);
    if (!taken || (this.running[index] ?? null) === null) return;
    // Of what is not served by then nobody would tell.
    if (this.work(index)) this.left.add(index);
  }

  /** Works on every queue once; true when there was something. */
  poll(): boolean {
    let worked = false;
    for (let index = 0; index < this.running.length; index++) {
      if (this.running[index] !== null && !this.left.has(index) && this.serveOnce(index) > 0) worked = true;
    }
    return worked;
  }

  prepareToSleep(): boolean {
    let work = false;
    for (const [index, queue] of this.running.entries()) {
      // Buffers that the device has no use for yet, as a driver gives them ahead to receive into, are no work.
      if (queue === null || queue.violation !== null || this.left.has(index)) continue;
      if (queue.requestNotifications() && this.serveOnce(index) > 0) work = true;
    }
    return work;
  }

  notify(index: number): void {
    if (this.running[index]?.shouldNotify() === true) this.events.queueInterrupt(index);
  }

  configChanged(): void {
    this.generation = (this.generation + 1) & 0xff;
    if ((this.status & DRIVER_OK) !== 0) this.events.configInterrupt();
  }

  needsReset(why: Problem): void {
    if ((this.status & DEVICE_NEEDS_RESET) !== 0) return;
    this.events.violated?.(why);
    this.status |= DEVICE_NEEDS_RESET;
    // §2.1.2: the driver is told, if it is there to hear it.
    if ((this.status & DRIVER_OK) !== 0) this.events.configInterrupt();
  }

  /** Ends what is under way in all queues, which stand still until `settle`: memory is about to go. */
  quiesce(): void {
    for (let index = 0; index < this.running.length; index++) this.pause(index);
  }

  private pause(index: number): void {
    const queue = this.running[index] ?? null;
    if (queue === null) return;
    const left = this.left.has(index);
    this.stopQueue(index);
    this.away.set(index, queue.position());
    if (left) this.left.add(index);
  }

  /**
   * What the device may reach has changed: queues whose rings are out of reach stop where they are, and those that are
   * within reach again go on. The device touches nothing else of a ring meanwhile, not even to ask for notifications.
   */
  settle(): void {
    for (let index = 0; index < this.running.length; index++) {
      const runs = (this.running[index] ?? null) !== null;
      if (!runs && !this.away.has(index)) continue;
      if (!this.reaches(index)) this.pause(index);
      else if (!runs) this.startQueue(index);
    }
  }

  private reaches(index: number): boolean {
    const setup = this.queues[index];
    const { memory } = this;
    if (setup === undefined || memory === null || !this.mayTransfer()) return false;
    return findRing(memory, setup.size, ringFeatures(this.agreed).packed, setup).ok;
  }

  reset(): void {
    for (let index = 0; index < this.running.length; index++) this.stopQueue(index);
    if (this.started) this.served.stop();
    this.started = false;
    this.status = 0;
    this.driverFeatures = NO_FEATURES;
    this.agreed = NO_FEATURES;
    for (const setup of this.queues) Object.assign(setup, freshQueue(setup.most));
  }

  private start(): void {
    if (this.started) return;
    this.started = true;
    this.served.start(this);
    this.queues.forEach((setup, index) => {
      if (setup.enabled) this.startQueue(index);
    });
  }

  private startQueue(index: number): void {
    const setup = this.queues[index];
    const { memory } = this;
    if (setup === undefined || memory === null || this.running[index] !== null) return;
    if (!this.mayTransfer()) {
      this.away.set(index, null);
      return;
    }
    const queue = createDeviceQueue(memory, memory, {
      size: setup.size,
      features: ringFeatures(this.agreed),
      addresses: { descriptors: setup.descriptors, driver: setup.driver, device: setup.device },
      chainLimit: this.served.chainLimit,
    });
    if (!queue.ok) {
      this.needsReset(queue.error);
      return;
    }
    const position = this.away.get(index) ?? null;
    this.away.delete(index);
    const wrong = position === null ? null : queue.value.restore(position);
    if (wrong !== null) {
      this.needsReset(wrong);
      return;
    }
    this.running[index] = queue.value;
    this.served.startQueue(index, queue.value);
    if (!this.left.has(index)) this.work(index);
  }

  private stopQueue(index: number): void {
    this.away.delete(index);
    this.left.delete(index);
    if (this.running[index] === null || this.running[index] === undefined) return;
    this.served.stopQueue(index);
    this.running[index] = null;
  }

  /** False where the device still found something to do when others had to get their turn. */
  private work(index: number): boolean {
    let idle = false;
    for (let round = 0; round < ROUNDS; round++) {
      const queue = this.running[index] ?? null;
      if (queue === null) return true;
      idle = this.serveOnce(index) === 0;
      if (idle && (queue.violation !== null || !queue.requestNotifications())) return true;
    }
    return idle;
  }

  private serveOnce(index: number): number {
    if ((this.status & DEVICE_NEEDS_RESET) !== 0 || !this.mayTransfer()) return 0;
    return this.served.serve(index);
  }
}

function freshQueue(most: number): QueueSetup {
  return { most, size: most, descriptors: 0, driver: 0, device: 0, enabled: false };
}
