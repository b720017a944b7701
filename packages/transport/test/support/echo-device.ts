/** A device that answers each request with its readable bytes, reversed; or keeps it until it is told to. */

import type { DeviceType } from '@airlock/virtio/config/field.ts';
import { deviceType } from '@airlock/virtio/device-types.ts';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';

export interface EchoOptions {
  readonly queues?: number;
  readonly size?: number;
  readonly features?: readonly number[];
  readonly config?: Uint8Array;
  /** Requests are taken and not answered until `finish`. */
  readonly hold?: boolean;
  /** Chains taken by one call of `serve`. */
  readonly limit?: number;
}

const entropy = deviceType('entropy') as DeviceType;

export class EchoDevice implements ServedDevice {
  readonly type: DeviceType = entropy;
  readonly features: Features;
  readonly queueSizes: readonly number[];
  readonly chainLimit = 64;
  config: Uint8Array;
  hold: boolean;
  link: DeviceLink | null = null;
  readonly queues = new Map<number, DeviceQueue>();
  /** What was asked of the device, in order: `start`, `queue 0`, `stop-queue 0`, `stop`. */
  readonly log: string[] = [];
  /** Requests taken, in order: queue and the readable bytes. */
  readonly taken: { readonly queue: number; readonly chain: Chain; readonly bytes: Uint8Array }[] = [];
  /** What a front-end may do wrong: touch the device's queue after it was stopped. */
  refusals: string[] = [];
  private readonly limit: number;

  constructor(options: EchoOptions = {}) {
    this.queueSizes = Array.from({ length: options.queues ?? 2 }, () => options.size ?? 64);
    this.features = featureSet(options.features ?? [28, 29, 34, 35]);
    this.config = options.config ?? Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    this.hold = options.hold ?? false;
    this.limit = options.limit ?? 1000;
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(offset: number, bytes: Uint8Array): boolean {
    if (offset !== 4 || bytes.length !== 1) return false;
    this.config = this.config.slice();
    this.config.set(bytes, offset);
    return true;
  }

  start(link: DeviceLink): void {
    this.log.push('start');
    this.link = link;
  }

  startQueue(index: number, queue: DeviceQueue): void {
    this.log.push(`queue ${index}`);
    this.queues.set(index, queue);
  }

  /** Calls of `serve`. */
  serves = 0;

  serve(index: number): number {
    this.serves++;
    const queue = this.queues.get(index);
    if (queue === undefined) return 0;
    let count = 0;
    let outcome = DONE;
    while (count < this.limit) {
      const chain = new Chain(64);
      outcome = queue.take(chain);
      if (outcome === MALFORMED) {
        this.refusals.push(queue.refusal?.code ?? '');
        count++;
        continue;
      }
      if (outcome !== DONE) break;
      count++;
      const bytes = new Uint8Array(chain.readableBytes);
      chain.read(0, bytes);
      this.taken.push({ queue: index, chain, bytes });
      if (!this.hold) this.answer(this.taken.length - 1);
    }
    if (count > 0) this.flush(index);
    return count;
  }

  private answer(at: number): void {
    const one = this.taken[at];
    if (one === undefined) return;
    const queue = this.queues.get(one.queue);
    queue?.give(one.chain.id, one.chain.write(0, one.bytes.slice().reverse()));
  }

  private flush(index: number): void {
    this.queues.get(index)?.publish();
    this.link?.notify(index);
  }

  /** Answers request `at` of those that were held. */
  finish(at: number): void {
    const one = this.taken[at];
    this.answer(at);
    if (one !== undefined) this.flush(one.queue);
  }

  stopQueue(index: number): void {
    this.log.push(`stop-queue ${index}`);
    const queue = this.queues.get(index);
    if (this.hold && !this.forgets) {
      this.taken.forEach((one, at) => {
        if (one.queue === index) this.answer(at);
      });
    }
    queue?.publish();
    this.queues.delete(index);
  }

  /** As after `kill -9`: what was taken is never answered. */
  forgets = false;

  stop(): void {
    this.log.push('stop');
    this.link = null;
  }

  close(): void {
    this.log.push('close');
  }
}
