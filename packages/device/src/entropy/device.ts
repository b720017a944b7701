/** An entropy device: random bytes into whatever buffers the driver gives. VIRTIO 1.4 §5.4. */
import { entropy } from '@airlock/virtio/device/entropy.ts';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';

/** Fills `target` with random bytes that no one can foresee. Must not wait. */
export type RandomSource = (target: Uint8Array) => void;

/** The most bytes of one request: §5.4.6.1 lets a device fill less than the buffer, and 4 GiB would take seconds. */
export const ENTROPY_REQUEST_LIMIT = 65_536;
/** What one call of `serve` does at most, so that other queues of the process get their turn. */
const SERVE_BYTES = 4 * ENTROPY_REQUEST_LIMIT;
const SERVE_CHAINS = 64;
const QUEUE_SIZE = 256;
const CHAIN_LIMIT = 256;
/** A buffer may lie in more pieces of memory than it has descriptors, where pages are translated one by one. */
const CHAIN_PIECES = 2 * CHAIN_LIMIT;

export class EntropyDevice implements ServedDevice {
  readonly type = entropy;
  readonly features: Features = featureSet(OFFERED_RING_FEATURES);
  readonly queueSizes = [QUEUE_SIZE];
  readonly chainLimit = CHAIN_LIMIT;
  /** Bytes given so far. */
  given = 0;

  private readonly random: RandomSource;
  private readonly chain = new Chain(CHAIN_PIECES);
  // Wiped after every use: what one guest was given is nobody else's to find.
  private readonly pool = new Uint8Array(ENTROPY_REQUEST_LIMIT);
  private link: DeviceLink | null = null;
  private queue: DeviceQueue | null = null;

  constructor(random: RandomSource) {
    this.random = random;
  }

  readConfig(): Uint8Array {
    return NO_CONFIG;
  }

  writeConfig(): boolean {
    return false;
  }

  start(link: DeviceLink): void {
    this.link = link;
  }

  startQueue(index: number, queue: DeviceQueue): void {
    if (index === 0) this.queue = queue;
  }

  serve(index: number): number {
    const { queue, link, chain } = this;
    if (index !== 0 || queue === null || link === null) return 0;
    let taken = 0;
    let bytes = 0;
    while (taken < SERVE_CHAINS && bytes < SERVE_BYTES) {
      const outcome = queue.take(chain);
      if (outcome === DONE) {
        const length = this.fill();
        queue.give(chain.id, length);
        bytes += length;
      } else if (outcome !== MALFORMED) {
        if (outcome === BROKEN && queue.violation !== null) link.needsReset(queue.violation);
        break;
      }
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      link.notify(0);
    }
    return taken;
  }

  /** Random bytes into the device-writable part of the chain; returns how many: 0 when there is no such part. */
  private fill(): number {
    const length = Math.min(this.chain.writableBytes, ENTROPY_REQUEST_LIMIT);
    if (length === 0) return 0;
    const bytes = this.pool.subarray(0, length);
    this.random(bytes);
    this.chain.write(0, bytes);
    bytes.fill(0);
    this.given += length;
    return length;
  }

  stopQueue(index: number): void {
    // Every chain that was taken went back within the same call of `serve`.
    if (index === 0) this.queue = null;
  }

  stop(): void {
    this.link = null;
    this.queue = null;
  }

  close(): void {}
}

const NO_CONFIG = new Uint8Array(0);
