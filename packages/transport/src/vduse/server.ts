/**
 * Serves a device to the drivers of this very machine: VDUSE. The kernel keeps status, features and configuration space,
 * and bounces every buffer, so it trusts us as little as a driver trusts a device. What it asks must be answered within
 * its limit (30 s unless changed), or it takes the device for broken for good: nothing here waits.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { VIRTIO_TYPES, type VirtioTypeName } from '@airlock/core/virtio.ts';
import { type Features, featureSet, hasFeature, NO_FEATURES, withoutFeatures } from '@airlock/virtio/features.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDeviceQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import type { DevicePosition, DeviceQueue } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { createEventFd, drainEventFd } from '../event-fd.ts';
import { type Poller, READABLE, type Reactor, type Watch } from '../reactor.ts';
import { type Mapping, mapKernelMemory } from '../shared-memory.ts';
import type { Memory } from '../sys/libc.ts';
import { type SystemCalls, takeUint64 } from '../system-calls.ts';
import {
  BODY_AT,
  MESSAGE_SIZE,
  REQUEST_GET_VQ_STATE,
  REQUEST_SET_STATUS,
  REQUEST_UPDATE_IOTLB,
  RESULT_FAILED,
  RESULT_OK,
  writeQueueState,
} from './abi.ts';
import { VduseKernel } from './kernel.ts';

export interface VduseOptions {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  readonly name: string;
  readonly tell: (event: VduseEvent) => void;
}

export type VduseEvent =
  /** A driver is ready to use the device; it was reset. */
  | { readonly kind: 'connected' }
  | { readonly kind: 'disconnected' }
  | { readonly kind: 'problem'; readonly problem: Problem };

const DRIVER_OK = 4;
const VERSION_1 = 32;
const ACCESS_PLATFORM = 33;
const RING_PACKED = 34;
/** The kernel takes no configuration writes, so it refuses a disk that offers them (BLK_F_CONFIG_WCE), and no control queue. */
const NEVER: Readonly<Record<string, readonly number[]>> = { block: [11], net: [17, 18, 19, 21, 22, 23] };
/** Milliseconds between two looks whether the kernel has given the device up. */
const LOOK_EVERY = 2000;
/** Requests of the kernel that are handled before the reactor turns. */
const BATCH = 32;
const ROUNDS = 64;
/** The end of the I/O addresses that VDUSE gives out. */
const ADDRESSES = 2 ** 48 - 1;

export class VduseServer implements DeviceLink, Poller {
  features: Features = NO_FEATURES;
  private readonly options: VduseOptions;
  private readonly kernel: VduseKernel;
  private readonly space = new AddressSpace({ limit: 4096, missing: true });
  private readonly mappings = new Map<number, Mapping>();
  private readonly queues: (DeviceQueue | null)[];
  private readonly kicks: { readonly fd: number; readonly watch: Watch }[] = [];
  private readonly watch: Watch;
  private readonly message: Memory;
  private readonly removePoller: () => void;
  private stopLooking: () => void;
  private running = false;
  private broken = false;

  private constructor(options: VduseOptions, kernel: VduseKernel, kicks: readonly number[]) {
    const { calls, reactor, device } = options;
    this.options = options;
    this.kernel = kernel;
    this.queues = device.queueSizes.map(() => null);
    this.message = calls.allocate(2 * MESSAGE_SIZE);
    for (const [index, fd] of kicks.entries()) {
      const watch = reactor.watch(fd, READABLE, () => {
        drainEventFd(calls, fd);
        this.work(index);
      });
      this.kicks.push({ fd, watch });
    }
    this.watch = reactor.watch(kernel.fd, READABLE, () => this.hear());
    this.removePoller = reactor.addPoller(this);
    this.stopLooking = reactor.after(LOOK_EVERY, () => this.look());
  }

  /** Codes: those of `VduseKernel.create`, `vduse-type-unknown`, `system-call-failed`. */
  static start(options: VduseOptions): Result<VduseServer> {
    const { calls, device, name } = options;
    const type = VIRTIO_TYPES[device.type.name as VirtioTypeName];
    if (type === undefined) return fail('vduse-type-unknown', `type ${device.type.name}`);
    const offered = withoutFeatures(device.features, featureSet(NEVER[device.type.name] ?? []));
    const kernel = VduseKernel.create(calls, {
      ...{ name, type, queueSizes: device.queueSizes, config: device.readConfig() },
      features: [offered[0], (offered[1] | (1 << (VERSION_1 - 32)) | (1 << (ACCESS_PLATFORM - 32))) >>> 0],
    });
    if (!kernel.ok) return kernel;
    const kicks: number[] = [];
    for (const _ of device.queueSizes) {
      const fd = createEventFd(calls);
      if (fd.ok) {
        kicks.push(fd.value);
        continue;
      }
      for (const each of kicks) calls.close(each);
      kernel.value.close();
      return fd;
    }
    return ok(new VduseServer(options, kernel.value, kicks));
  }

  /** False when the device is attached still, so that the kernel keeps it (without anybody behind it). */
  close(): boolean {
    this.stopLooking();
    this.stop();
    this.removePoller();
    this.watch.close();
    for (const { fd, watch } of this.kicks) {
      watch.close();
      this.options.calls.close(fd);
    }
    return this.kernel.close();
  }

  notify(index: number): void {
    if (this.queues[index]?.shouldNotify() === true) this.kernel.interrupt(index);
  }

  configChanged(): void {
    this.kernel.setConfig(this.options.device.readConfig());
  }

  needsReset(why: Problem): void {
    if (this.broken) return;
    this.broken = true;
    // VDUSE has no way to set NEEDS_RESET: the device stands still until its driver resets it.
    this.options.tell({ kind: 'problem', problem: why });
  }

  poll(): boolean {
    let worked = false;
    for (let index = 0; index < this.queues.length; index++) if (this.serve(index) > 0) worked = true;
    return worked;
  }

  prepareToSleep(): boolean {
    let work = false;
    for (const [index, queue] of this.queues.entries()) {
      // Buffers that the device has no use for yet, as a driver gives them ahead to receive into, are no work.
      if (queue !== null && queue.violation === null && queue.requestNotifications() && this.serve(index) > 0) {
        work = true;
      }
    }
    return work;
  }

  private look(): void {
    if (!this.kernel.broken()) {
      this.stopLooking = this.options.reactor.after(LOOK_EVERY, () => this.look());
      return;
    }
    this.stopLooking = () => {};
    this.stop();
    this.options.tell({
      kind: 'problem',
      problem: {
        code: 'vduse-broken',
        message: 'the kernel gave the device up: one of its requests was not answered in time',
        hint: 'end the server and start it anew; the limit is /sys/class/vduse/NAME/msg_timeout, in seconds',
      },
    });
  }

  private hear(): void {
    const { calls, tell } = this.options;
    for (let handled = 0; handled < BATCH; handled++) {
      const { address, bytes, view } = this.message;
      const length = calls.read(this.kernel.fd, address, MESSAGE_SIZE);
      if (length !== MESSAGE_SIZE) return;
      bytes.fill(0, MESSAGE_SIZE);
      view.setUint32(MESSAGE_SIZE, view.getUint32(4, true), true);
      const done = this.handle(view);
      view.setUint32(MESSAGE_SIZE + 4, done ? RESULT_OK : RESULT_FAILED, true);
      const written = calls.write(this.kernel.fd, address + MESSAGE_SIZE, MESSAGE_SIZE);
      if (written !== MESSAGE_SIZE) {
        tell({ kind: 'problem', problem: { code: 'vduse-refused', message: 'the kernel did not take an answer' } });
      }
    }
  }

  /** Carries out a request; what it answers besides goes into the second half of `view`. */
  private handle(view: DataView): boolean {
    switch (view.getUint32(0, true)) {
      case REQUEST_GET_VQ_STATE: {
        const index = view.getUint32(BODY_AT, true);
        const packed = hasFeature(this.features, RING_PACKED);
        const state = this.queues[index]?.position() ?? this.kernel.queue(index, packed)?.state;
        if (state === undefined) return false;
        view.setUint32(MESSAGE_SIZE + BODY_AT, index, true);
        writeQueueState(view, MESSAGE_SIZE + BODY_AT + 4, packed, state);
        return true;
      }
      case REQUEST_SET_STATUS: {
        const status = view.getUint8(BODY_AT);
        if (status === 0) this.stop();
        else if ((status & DRIVER_OK) !== 0) return this.start();
        return true;
      }
      case REQUEST_UPDATE_IOTLB:
        this.forget(takeUint64(view, BODY_AT), takeUint64(view, BODY_AT + 8));
        return true;
      default:
        return false;
    }
  }

  private start(): boolean {
    if (this.running) return true;
    const { device, tell } = this.options;
    const [low, high] = this.kernel.features();
    this.features = [low, high, 0, 0];
    this.running = true;
    device.start(this);
    for (const index of device.queueSizes.keys()) {
      const problem = this.startQueue(index);
      if (problem === null) continue;
      tell({ kind: 'problem', problem });
      this.stop();
      return false;
    }
    tell({ kind: 'connected' });
    // What the driver put in before it was ready.
    for (const index of device.queueSizes.keys()) this.work(index);
    return true;
  }

  /** `position`: where the queue stood; what the kernel says when absent. */
  private startQueue(index: number, position?: DevicePosition): Problem | null {
    const { device } = this.options;
    const features = ringFeatures(this.features);
    const info = this.kernel.queue(index, features.packed);
    if (info === null) return { code: 'vduse-refused', message: `VDUSE_VQ_GET_INFO(${index})` };
    if (!info.ready) return null;
    for (const address of [info.descriptors, info.driver, info.device]) {
      if (this.space.translate(address, 1) <= 0) this.fetch(address);
    }
    const { descriptors, driver, device: deviceArea } = info;
    const queue = createDeviceQueue(this.space, this.space, {
      ...{ size: info.size, features, chainLimit: device.chainLimit },
      addresses: { descriptors, driver, device: deviceArea },
    });
    if (!queue.ok) return queue.error;
    const problem = queue.value.restore(position ?? info.state);
    if (problem !== null) return problem;
    // The kernel forgets it with every reset; a kick that came before is signalled at once.
    if (!this.kernel.setKick(index, this.kicks[index]?.fd ?? -1)) {
      return { code: 'vduse-refused', message: `VDUSE_VQ_SETUP_KICKFD(${index})` };
    }
    this.queues[index] = queue.value;
    device.startQueue(index, queue.value);
    return null;
  }

  private stop(): void {
    if (!this.running) return;
    this.running = false;
    this.broken = false;
    const { device, tell } = this.options;
    for (const index of this.queues.keys()) {
      if (this.queues[index] !== null) device.stopQueue(index);
      this.queues[index] = null;
    }
    device.stop();
    this.forget(0, ADDRESSES);
    tell({ kind: 'disconnected' });
  }

  private work(index: number): void {
    for (let round = 0; round < ROUNDS; round++) {
      const queue = this.queues[index] ?? null;
      if (queue === null || this.broken) return;
      if (this.serve(index) > 0) continue;
      if (queue.violation !== null || !queue.requestNotifications()) return;
    }
  }

  /** Works on a queue; memory that it lacks is fetched, and the queue worked on again. */
  private serve(index: number): number {
    const queue = this.queues[index] ?? null;
    if (queue === null || this.broken) return 0;
    const { space } = this;
    space.missAddress = -1;
    const taken = this.options.device.serve(index);
    const missed: number = space.missAddress;
    if (missed < 0) return taken;
    if (this.fetch(missed)) return taken + 1;
    this.needsReset({ code: 'address-outside-memory', message: `queue ${index}: nothing is mapped at ${missed}` });
    return taken;
  }

  /** Maps the stretch that holds `address`. */
  private fetch(address: number): boolean {
    const found = this.kernel.iotlb(address, address);
    if (found === null) return false;
    const { fd, offset, start, size, access } = found;
    const writable = (access & 2) !== 0;
    const mapping = mapKernelMemory(this.options.calls, fd, { name: `vduse-${start}`, offset, length: size, writable });
    this.options.calls.close(fd);
    if (!mapping.ok) return false;
    const mapped = this.space.map({ start, size, region: mapping.value.region, offset: 0, access });
    if (mapped.ok) this.mappings.set(start, mapping.value);
    else mapping.value.release();
    return mapped.ok;
  }

  /** The kernel changed what is mapped between two addresses, both included: nothing of it may be used any more. */
  private forget(start: number, last: number): void {
    const { device } = this.options;
    const gone = this.space.mappings().filter((each) => each.start <= last && each.start + each.size > start);
    if (gone.length === 0) return;
    const stopped = [...this.queues.keys()].filter((index) => this.queues[index] !== null);
    for (const index of stopped) device.stopQueue(index);
    for (const each of gone) {
      this.space.unmap(each.start, each.size);
      this.mappings.get(each.start)?.release();
      this.mappings.delete(each.start);
    }
    for (const index of stopped) {
      // A ring may have lain there: where it is now, the queue goes on where it was.
      const position = this.queues[index]?.position();
      this.queues[index] = null;
      if (!this.running || position === undefined) continue;
      const problem = this.startQueue(index, position);
      if (problem !== null) this.needsReset(problem);
    }
  }
}
