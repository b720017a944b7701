/** Serves a `DeviceModel`: its queues over any transport, every length bounded, every request copied before it is read. */
import type { DeviceType } from '@airlock/virtio/config/field.ts';
import { type Features, featureSet, hasFeature } from '@airlock/virtio/features.ts';
import type { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import type { SharedWindow } from '../register/virtio-pci.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';
import { type DeviceModel, LATER, type ModelLink, type RequestFacts, type RequestQueue } from './model.ts';

const QUEUE_SIZE = 64;
const CHAIN_LIMIT = 256;
const WAITING_LIMIT = 256;
/** What one call of `serve` does at most, so that other queues and devices get their turn. */
const SERVE_CHAINS = 64;
const SERVE_BYTES = 4 << 20;

/** One queue while it runs. */
interface RunningQueue {
  readonly queue: DeviceQueue;
  /** Requests that wait for `finish`. */
  readonly later: Map<number, Chain>;
}

export class ModelDevice implements ServedDevice {
  readonly type: DeviceType;
  readonly features: Features;
  readonly queueSizes: readonly number[];
  readonly chainLimit: number;
  readonly sharedMemory: readonly SharedWindow[];
  readonly model: DeviceModel;
  private link: DeviceLink | null = null;
  /** The model's queue for each number, as the negotiated features make them. */
  private order: readonly number[];
  /** By the model's own place. */
  private readonly running: (RunningQueue | null)[];
  private readonly events: Uint8Array[][];
  /** For events. */
  private readonly chain: Chain;
  /** For requests: as many as ever waited at a time. */
  private readonly spare: Chain[] = [];
  private readonly request: Uint8Array;
  private readonly reply: Uint8Array;
  private readonly facts: RequestFacts = { token: 0, size: 0, room: 0, tail: null };

  private readonly closed: () => void;

  /** `closed` is called once the device is. */
  constructor(model: DeviceModel, closed: () => void = () => {}) {
    this.model = model;
    this.closed = closed;
    this.type = model.type;
    this.features = featureSet([...OFFERED_RING_FEATURES, ...(model.bits ?? [])]);
    this.queueSizes = model.queues.map(({ size = QUEUE_SIZE }) => size);
    this.chainLimit = model.chainLimit ?? CHAIN_LIMIT;
    this.sharedMemory = model.sharedMemory ?? [];
    this.order = model.queues.map((_, place) => place);
    this.running = model.queues.map(() => null);
    this.events = model.queues.map(() => []);
    this.chain = new Chain(2 * this.chainLimit);
    const requests = model.queues.filter((queue) => queue.kind === 'requests');
    this.request = new Uint8Array(Math.max(0, ...requests.map(({ requestLimit }) => requestLimit)));
    this.reply = new Uint8Array(Math.max(0, ...requests.map(({ replyLimit }) => replyLimit)));
  }

  readConfig(): Uint8Array {
    return this.model.config();
  }

  writeConfig(offset: number, bytes: Uint8Array): boolean {
    return this.model.writeConfig?.(offset, bytes) ?? false;
  }

  start(link: DeviceLink): void {
    this.link = link;
    const { queues } = this.model;
    const there = queues.map(({ feature }) => feature === undefined || hasFeature(link.features, feature));
    this.order = [...queues.keys()].filter((place) => there[place]);
    this.model.begin?.(this.modelLink(link));
  }

  /** Good while `link` is the driver's; afterwards it leads nowhere. */
  private modelLink(link: DeviceLink): ModelLink {
    const device = this;
    return {
      features: link.features,
      get memory(): AddressSpace | null {
        return device.link === link ? (link.memory ?? null) : null;
      },
      send: (place, event) => this.link === link && this.send(place, event),
      finish: (place, token, reply) => this.link === link && this.finish(place, token, reply),
      configChanged: () => {
        if (this.link === link) link.configChanged();
      },
    };
  }

  startQueue(index: number, queue: DeviceQueue): void {
    const place = this.order[index];
    if (place !== undefined) this.running[place] = { queue, later: new Map() };
  }

  serve(index: number): number {
    const place = this.order[index];
    const model = place === undefined ? undefined : this.model.queues[place];
    const running = place === undefined ? null : this.running[place];
    if (model === undefined || place === undefined || !running) return 0;
    return model.kind === 'requests' ? this.serveRequests(index, model, running) : this.deliver(place);
  }

  private serveRequests(index: number, model: RequestQueue, { queue, later }: RunningQueue): number {
    let taken = 0;
    let bytes = 0;
    while (taken < SERVE_CHAINS && bytes < SERVE_BYTES) {
      const chain = this.spare.pop() ?? new Chain(2 * this.chainLimit);
      const outcome = queue.take(chain);
      let keeps = false;
      if (outcome === DONE) {
        bytes += Math.min(chain.readableBytes, model.requestLimit) + Math.min(chain.writableBytes, model.replyLimit);
        const written = this.ask(model, chain);
        keeps = written === LATER && later.size < (model.laterLimit ?? 0);
        if (keeps) later.set(chain.id, chain);
        else queue.give(chain.id, Math.max(written, 0));
      }
      if (!keeps) this.spare.push(chain);
      if (outcome === DONE || outcome === MALFORMED) taken++;
      else {
        if (outcome === BROKEN && queue.violation !== null) this.link?.needsReset(queue.violation);
        break;
      }
    }
    this.publish(index, queue, taken);
    return taken;
  }

  /** What the model answers; bytes written. */
  private ask(model: RequestQueue, chain: Chain): number {
    const { facts } = this;
    const size = Math.min(chain.readableBytes, model.requestLimit);
    const room = Math.min(chain.writableBytes, model.replyLimit);
    facts.token = chain.id;
    facts.size = chain.readableBytes;
    facts.room = chain.writableBytes;
    facts.tail = null;
    const got = chain.read(0, this.request, 0, size);
    const reply = this.reply.subarray(0, room);
    // What one driver was told is nobody else's to find.
    reply.fill(0);
    const written = model.answer(this.request.subarray(0, got), reply, facts);
    if (written === LATER) return LATER;
    const put = written > 0 ? chain.write(0, reply, 0, written) : 0;
    const { tail } = this.facts;
    if (tail === null || tail.length > chain.writableBytes) return put;
    chain.write(chain.writableBytes - tail.length, tail);
    return chain.writableBytes;
  }

  private finish(place: number, token: number, reply: Uint8Array): boolean {
    const running = this.running[place];
    const chain = running?.later.get(token);
    if (!running || chain === undefined) return false;
    running.later.delete(token);
    running.queue.give(token, chain.write(0, reply));
    this.spare.push(chain);
    this.publish(this.order.indexOf(place), running.queue, 1);
    return true;
  }

  private send(place: number, event: Uint8Array): boolean {
    const model = this.model.queues[place];
    const waiting = this.events[place];
    if (model?.kind !== 'events' || waiting === undefined || this.link === null) return false;
    if (waiting.length >= (model.waiting ?? WAITING_LIMIT)) return false;
    waiting.push(event.slice());
    this.deliver(place);
    return true;
  }

  /** Puts waiting events into buffers. Buffers without an event stay the driver's. */
  private deliver(place: number): number {
    const waiting = this.events[place];
    const running = this.running[place];
    if (!waiting || !running) return 0;
    const { queue } = running;
    let taken = 0;
    while (waiting.length > 0 && taken < SERVE_CHAINS) {
      const outcome = queue.take(this.chain);
      if (outcome === DONE) {
        const event = waiting.shift();
        queue.give(this.chain.id, event === undefined ? 0 : this.chain.write(0, event));
      } else if (outcome !== MALFORMED) {
        if (outcome === BROKEN && queue.violation !== null) this.link?.needsReset(queue.violation);
        break;
      }
      taken++;
    }
    this.publish(this.order.indexOf(place), queue, taken);
    return taken;
  }

  private publish(index: number, queue: DeviceQueue, given: number): void {
    if (given === 0) return;
    queue.publish();
    this.link?.notify(index);
  }

  stopQueue(index: number): void {
    const place = this.order[index];
    const running = place === undefined ? null : this.running[place];
    if (place === undefined || !running) return;
    this.running[place] = null;
    for (const [token, chain] of running.later) {
      running.queue.give(token, 0);
      this.spare.push(chain);
    }
    if (running.later.size > 0) running.queue.publish();
  }

  stop(): void {
    this.running.fill(null);
    for (const waiting of this.events) waiting.length = 0;
    if (this.link !== null) this.model.end?.();
    this.link = null;
  }

  close(): void {
    this.stop();
    this.closed();
    this.model.close?.();
  }
}
