/** The queues of a vsock device: packets of the guest to the hub, packets of the hub to the guest. VIRTIO 1.4 §5.10. */
import { configSize, encodeConfig } from '@airlock/virtio/config/space.ts';
import { vsock } from '@airlock/virtio/device/vsock.ts';
import { type Features, featureSet, hasFeature } from '@airlock/virtio/features.ts';
import { encodeVsockHeader, parseVsockHeader, VSOCK_HEADER_SIZE } from '@airlock/virtio/request/vsock.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { BROKEN, type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';
import { CONNECTION_BUFFER } from './connection.ts';
import type { HostSide } from './host-side.ts';
import { type HubCounts, type Timers, VsockHub } from './hub.ts';

export const RX = 0;
export const TX = 1;
export const EVENT = 2;

const STREAM_BIT = 0;
const SEQPACKET_BIT = 1;
const RING_PACKED = 34;
/** No packet can be longer: there is no credit for it. */
const PAYLOAD_LIMIT = CONNECTION_BUFFER;
const CHAIN_LIMIT = 64;
/** Chains in one go, so that one queue does not keep the others waiting. */
const SERVE_LIMIT = 256;
/** VIRTIO_VSOCK_EVENT_TRANSPORT_RESET. */
const TRANSPORT_RESET = new Uint8Array(4);

export interface VsockOptions {
  /** From 3 to 0xfffffffe. */
  readonly guestCid: number;
  /** The most connections at a time. */
  readonly connections: number;
}

export class VsockDevice implements ServedDevice {
  readonly type = vsock;
  readonly features: Features = featureSet([...OFFERED_RING_FEATURES, STREAM_BIT, SEQPACKET_BIT]);
  readonly queueSizes = [256, 256, 64];
  readonly chainLimit = CHAIN_LIMIT;

  private readonly config: Uint8Array;
  private readonly host: HostSide;
  private readonly hub: VsockHub;
  private readonly timers: Timers;
  private readonly chain = new Chain(2 * CHAIN_LIMIT);
  private readonly headerBytes = new Uint8Array(VSOCK_HEADER_SIZE);
  private readonly payload = new Uint8Array(PAYLOAD_LIMIT);
  private readonly queues: (DeviceQueue | null)[] = [null, null, null];
  /** Queues that ran since `start`. */
  private readonly begun = new Set<number>();
  private link: DeviceLink | null = null;
  /** The driver was here before us and believes in connections that we do not have. */
  private owesTransportReset = false;
  private later: (() => void) | null = null;
  /** Packets or buffers of the guest that made no sense. */
  malformed = 0;

  constructor(options: VsockOptions, host: HostSide, timers: Timers) {
    const config = encodeConfig(vsock, this.features, { guest_cid: options.guestCid });
    this.config = config.ok ? config.value : new Uint8Array(configSize(vsock));
    this.host = host;
    this.timers = timers;
    this.hub = new VsockHub(options, host, timers, () => this.pump());
  }

  get counts(): Readonly<HubCounts> {
    return this.hub.counts;
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(): boolean {
    return false;
  }

  start(link: DeviceLink): void {
    this.link = link;
    this.owesTransportReset = false;
    this.begun.clear();
    this.hub.seqpacket = hasFeature(link.features, SEQPACKET_BIT);
  }

  startQueue(index: number, queue: DeviceQueue): void {
    this.queues[index] = queue;
    // A queue that only paused goes on with the connections that there are.
    if (!this.begun.has(index) && this.isResumed(queue)) this.owesTransportReset = true;
    this.begun.add(index);
    // Callers are taken when there is a driver that can answer them.
    if (this.queues[RX] && this.queues[TX]) this.host.begin((caller) => this.hub.call(caller));
  }

  /** A queue that does not begin at its beginning has a driver that was here before, perhaps with another process. */
  private isResumed(queue: DeviceQueue): boolean {
    const { avail, used, availWrap, usedWrap } = queue.position();
    const wrap = this.link !== null && hasFeature(this.link.features, RING_PACKED);
    return avail !== 0 || used !== 0 || availWrap !== wrap || usedWrap !== wrap;
  }

  serve(index: number): number {
    if (index === TX) return this.serveTx();
    if (index === RX) return this.pump();
    return this.serveEvent();
  }

  stopQueue(index: number): void {
    this.queues[index] = null;
    if (index !== EVENT) this.host.end();
  }

  stop(): void {
    this.later?.();
    this.later = null;
    this.host.end();
    this.hub.clear();
    this.link = null;
  }

  close(): void {
    this.stop();
    this.host.close();
  }

  private serveTx(): number {
    const queue = this.queues[TX];
    if (!queue) return 0;
    // First, so that it does not end what the packets begin.
    this.serveEvent();
    let taken = 0;
    while (taken < SERVE_LIMIT) {
      const outcome = queue.take(this.chain);
      if (outcome === MALFORMED) this.malformed++;
      else if (outcome === DONE) this.packet(queue);
      else {
        if (outcome === BROKEN) this.broken(queue);
        break;
      }
      taken++;
    }
    if (taken > 0) this.flush(TX, queue);
    this.pump();
    return taken;
  }

  private packet(queue: DeviceQueue): void {
    const { chain } = this;
    const length = chain.read(0, this.headerBytes);
    const header = parseVsockHeader(this.headerBytes.subarray(0, length), chain.readableBytes - length);
    if (header.ok && header.value.length <= PAYLOAD_LIMIT) {
      const payload = this.payload.subarray(0, header.value.length);
      chain.read(VSOCK_HEADER_SIZE, payload);
      this.hub.receive(header.value, payload);
    } else {
      this.malformed++;
    }
    queue.give(chain.id, 0);
  }

  /** Moves packets to the guest while there are any, and buffers for them. Returns how many buffers it took. */
  private pump(): number {
    const queue = this.queues[RX];
    if (!queue) return 0;
    let taken = 0;
    while (taken < SERVE_LIMIT && this.hub.prepare()) {
      const outcome = queue.take(this.chain);
      if (outcome === DONE) queue.give(this.chain.id, this.fill());
      else if (outcome === MALFORMED) this.malformed++;
      else {
        if (outcome === BROKEN) this.broken(queue);
        break;
      }
      taken++;
    }
    if (taken > 0) this.flush(RX, queue);
    if (taken === SERVE_LIMIT) this.pumpLater();
    return taken;
  }

  /** There may be more, and nothing outside will say so. */
  private pumpLater(): void {
    if (this.later !== null) return;
    this.later = this.timers.after(0, () => {
      this.later = null;
      this.pump();
    });
  }

  /** Puts the next packet into the chain; bytes written. */
  private fill(): number {
    const { chain } = this;
    const room = chain.writableBytes - VSOCK_HEADER_SIZE;
    const packet = room < 0 ? null : this.hub.next(room);
    if (packet === null) {
      this.malformed++;
      return 0;
    }
    chain.write(VSOCK_HEADER_SIZE, packet.payload);
    chain.write(0, encodeVsockHeader(packet.header));
    return VSOCK_HEADER_SIZE + packet.payload.length;
  }

  private serveEvent(): number {
    const queue = this.queues[EVENT];
    if (!queue || !this.owesTransportReset) return 0;
    const outcome = queue.take(this.chain);
    if (outcome === BROKEN) this.broken(queue);
    if (outcome !== DONE && outcome !== MALFORMED) return 0;
    const written = outcome === DONE ? this.chain.write(0, TRANSPORT_RESET) : 0;
    if (outcome === DONE) queue.give(this.chain.id, written);
    if (written === TRANSPORT_RESET.length) {
      this.owesTransportReset = false;
      this.hub.clear();
    } else {
      this.malformed++;
    }
    this.flush(EVENT, queue);
    return 1;
  }

  private flush(index: number, queue: DeviceQueue): void {
    queue.publish();
    this.link?.notify(index);
  }

  private broken(queue: DeviceQueue): void {
    if (queue.violation !== null) this.link?.needsReset(queue.violation);
  }
}
