/** The queue of a 9P device: a request in the readable part of each chain, its reply in the writable part. */
import { configSize, encodeConfig } from '@airlock/virtio/config/space.ts';
import { p9 } from '@airlock/virtio/device/p9.ts';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { P9_HEADER_SIZE, parseP9Header } from '@airlock/virtio/request/p9.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';
import { MSIZE_LIMIT, type Session } from './session.ts';

const MOUNT_TAG = 0;
const QUEUE_SIZE = 128;
/** Linux makes chains of up to 128 pieces. */
const CHAIN_LIMIT = 256;
/** Requests in one go: each may read or write half a megabyte. */
const SERVE_LIMIT = 32;

export class P9Device implements ServedDevice {
  readonly type = p9;
  readonly features: Features = featureSet([...OFFERED_RING_FEATURES, MOUNT_TAG]);
  readonly queueSizes = [QUEUE_SIZE];
  readonly chainLimit = CHAIN_LIMIT;
  /** Requests that were none. */
  malformed = 0;

  private readonly config: Uint8Array;
  private readonly session: Session;
  private readonly closeShare: () => void;
  private readonly chain = new Chain(2 * CHAIN_LIMIT);
  private readonly header = new Uint8Array(P9_HEADER_SIZE);
  private queue: DeviceQueue | null = null;
  private link: DeviceLink | null = null;

  /** `tag`: 1 to 255 bytes of plain ASCII. */
  constructor(tag: string, session: Session, closeShare: () => void) {
    const config = encodeConfig(p9, this.features, { tag_len: tag.length, tag });
    this.config = config.ok ? config.value : new Uint8Array(configSize(p9));
    this.session = session;
    this.closeShare = closeShare;
  }

  readConfig(): Uint8Array {
    return this.config;
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
    const { queue, chain } = this;
    if (index !== 0 || queue === null) return 0;
    let taken = 0;
    while (taken < SERVE_LIMIT) {
      const outcome = queue.take(chain);
      if (outcome === DONE) queue.give(chain.id, this.answer());
      else if (outcome !== MALFORMED) {
        if (outcome === BROKEN && queue.violation !== null) this.link?.needsReset(queue.violation);
        break;
      }
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      this.link?.notify(0);
    }
    return taken;
  }

  /** Answers the request in the chain; bytes of the reply. */
  private answer(): number {
    const { chain, session } = this;
    const got = chain.read(0, this.header);
    const header = parseP9Header(this.header.subarray(0, got), Math.min(chain.readableBytes, MSIZE_LIMIT));
    if (!header.ok) {
      this.malformed++;
      return got < P9_HEADER_SIZE ? 0 : this.put(session.refuse(this.header, chain.writableBytes));
    }
    const { size } = header.value;
    // The header that was looked at, not the one that may stand there now.
    session.input.bytes.set(this.header);
    chain.read(P9_HEADER_SIZE, session.input.bytes, P9_HEADER_SIZE, size - P9_HEADER_SIZE);
    return this.put(session.answer(size, chain.writableBytes));
  }

  private put(length: number): number {
    return this.chain.write(0, this.session.output.bytes, 0, length);
  }

  stopQueue(index: number): void {
    // Every request that was taken has been answered within the same call of `serve`.
    if (index === 0) this.queue = null;
  }

  stop(): void {
    this.queue = null;
    this.link = null;
    this.session.reset();
  }

  close(): void {
    this.stop();
    this.closeShare();
  }
}
