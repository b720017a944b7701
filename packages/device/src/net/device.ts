/** A network device. VIRTIO 1.4 §5.1. What is at its other end is a `NetEnd`. */
import { ok, type Result } from '@airlock/core/result.ts';
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { net } from '@airlock/virtio/device/net.ts';
import { type Features, featureSet, hasFeature, NO_FEATURES } from '@airlock/virtio/features.ts';
import { NET_HEADER_SIZE } from '@airlock/virtio/request/net.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { type DeviceQueue, DONE, MALFORMED } from '@airlock/virtio/ring/queue.ts';
import type { DeviceLink, ServedDevice } from '@airlock/virtio/served-device.ts';
import { OFFERED_RING_FEATURES } from '../ring-features.ts';
import { COMMAND_OK, runCommand } from './control.ts';
import { describeDrops, zeroCounters } from './counters.ts';
import type { NetEnd } from './end.ts';
import { Filter } from './filter.ts';
import type { Frame } from './frame.ts';
import { Incoming } from './incoming.ts';
import { bothOffloads, driverOffloads, guestOffloads, NO_OFFLOADS, type Offloads } from './offloads.ts';
import { Packet } from './packet.ts';
import { AGAIN, NO_FIT, Receiver, RING_BROKEN, STARVED } from './receiver.ts';
import { Steering } from './steering.ts';
import { Transmitter } from './transmitter.ts';

export interface NetOptions {
  /** Six bytes of an address that is nobody else's, no group address. */
  readonly mac: Uint8Array;
  /** Pairs of queues: 1 to PAIRS_LIMIT. */
  readonly pairs: number;
  /** From 68; no MTU is offered when absent. */
  readonly mtu?: number;
  /** Megabits a second, full duplex; not offered when absent. */
  readonly speed?: number;
  readonly end: NetEnd;
  /** Told when a driver has gone: what was dropped while it was there. */
  readonly warn?: (text: string) => void;
}

export const PAIRS_LIMIT = 16;
const QUEUE_SIZE = 1024;
const CONTROL_SIZE = 64;
const CHAIN_LIMIT = 256;
/** A buffer may lie in more pieces of memory than it has descriptors, where pages are translated one by one. */
const CHAIN_PIECES = 2 * CHAIN_LIMIT;
/** Frames that go to the driver before somebody else has a turn, and their bytes. */
const RECEIVE_FRAMES = 256;
const RECEIVE_BYTES = 1024 * 1024;
const CONTROL_CHAINS = 16;

const LINK_UP = 1;
const FULL_DUPLEX = 1;
const LEGACY_HEADER = 10;

// Feature bits of §5.1.3, by number.
const MTU = 3;
const CTRL_VQ = 17;
const CTRL_VLAN = 19;
const MQ = 22;
const SPEED_DUPLEX = 63;
/** CSUM, GUEST_CSUM, CTRL_GUEST_OFFLOADS, MAC, HOST_TSO4/6/ECN, MRG_RXBUF, STATUS, the control queue's, and the rings'. */
const OFFERED = [0, 1, 2, 5, 11, 12, 13, 15, 16, CTRL_VQ, 18, CTRL_VLAN, 20, 23, ...OFFERED_RING_FEATURES];
const GUEST_TCP4 = 7;
const GUEST_TCP6 = 8;
const GUEST_ECN = 9;

export class NetDevice implements ServedDevice {
  readonly type = net;
  readonly features: Features;
  readonly queueSizes: readonly number[];
  readonly chainLimit = CHAIN_LIMIT;
  readonly counters = zeroCounters();

  private readonly options: NetOptions;
  private readonly end: NetEnd;
  private readonly filter = new Filter();
  private readonly steering = new Steering();
  private readonly packet = new Packet();
  private readonly controlChain = new Chain(CHAIN_PIECES);
  private mac: Uint8Array;
  private config: Uint8Array;

  private link: DeviceLink | null = null;
  private agreed: Features = NO_FEATURES;
  private broken = false;
  private linkUp = false;
  private readonly receivers: (Receiver | null)[];
  private readonly transmitters: (Transmitter | null)[];
  private control: DeviceQueue | null = null;
  private controlIndex = -1;
  /** Pairs that the driver uses. */
  private active = 1;
  private readonly incoming: Incoming;
  /** Counters as they were when drops were told last. */
  private told: Readonly<Record<string, number>> = {};
  /** There may be more to do without anybody saying so. */
  private leftover = false;

  /** Codes: those of `encodeConfig`. */
  static create(options: NetOptions): Result<NetDevice> {
    const device = new NetDevice(options);
    const config = device.writeOut();
    return config.ok ? ok(device) : config;
  }

  private constructor(options: NetOptions) {
    const { end, pairs } = options;
    this.options = options;
    this.end = end;
    this.mac = options.mac;
    this.incoming = new Incoming(end, this.filter, this.counters);
    const bits = [...OFFERED];
    if (end.gives.tcp4) bits.push(GUEST_TCP4);
    if (end.gives.tcp6) bits.push(GUEST_TCP6);
    if (end.gives.ecn && (end.gives.tcp4 || end.gives.tcp6)) bits.push(GUEST_ECN);
    if (options.mtu !== undefined) bits.push(MTU);
    if (options.speed !== undefined) bits.push(SPEED_DUPLEX);
    if (pairs > 1) bits.push(MQ);
    this.features = featureSet(bits);
    this.queueSizes = [...Array.from({ length: 2 * pairs }, () => QUEUE_SIZE), CONTROL_SIZE];
    this.receivers = Array.from({ length: pairs }, () => null);
    this.transmitters = Array.from({ length: pairs }, () => null);
    this.linkUp = end.up;
    this.config = new Uint8Array(0);
  }

  private writeOut(): Result<void> {
    const { mtu, speed, pairs } = this.options;
    const config = encodeConfig(net, this.features, {
      mac: [...this.mac],
      status: this.linkUp ? LINK_UP : 0,
      ...(pairs > 1 ? { max_virtqueue_pairs: pairs } : {}),
      ...(mtu === undefined ? {} : { mtu }),
      ...(speed === undefined ? {} : { speed, duplex: FULL_DUPLEX }),
    });
    if (!config.ok) return config;
    this.config = config.value;
    return ok(undefined);
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(): boolean {
    // §5.1.4: all of it is read-only for the driver.
    return false;
  }

  start(link: DeviceLink): void {
    const { features } = link;
    this.link = link;
    this.agreed = features;
    this.broken = false;
    const pairs = hasFeature(features, MQ) ? this.options.pairs : 1;
    this.controlIndex = hasFeature(features, CTRL_VQ) ? 2 * pairs : -1;
    this.active = 1;
    this.filter.reset(this.mac);
    this.incoming.setMtu(hasFeature(features, MTU) ? (this.options.mtu ?? null) : null);
    this.setOffloads(bothOffloads(guestOffloads(features), this.end.gives), guestOffloads(features).checksum);
  }

  private setOffloads(offloads: Offloads, checksum: boolean): void {
    // Joined frames and checksums of the end are as it likes; that checksums may be left out is the driver's to say.
    this.incoming.offloads = { ...offloads, checksum };
    this.end.setOffloads(offloads);
  }

  startQueue(index: number, queue: DeviceQueue): void {
    const pair = index >>> 1;
    const modern = hasFeature(this.agreed, 32) || hasFeature(this.agreed, 15);
    const headerSize = modern ? NET_HEADER_SIZE : LEGACY_HEADER;
    if (index === this.controlIndex) {
      this.control = queue;
      // Who has a control queue says how many pairs and which VLANs; without one (a vhost-user front-end keeps it to
      // itself) every queue that is started is used, and nothing is filtered.
      this.filter.vlans = hasFeature(this.agreed, CTRL_VLAN);
      if (hasFeature(this.agreed, MQ)) this.active = 1;
    } else if (pair < this.receivers.length && (index & 1) === 0) {
      const form = { headerSize, mergeable: hasFeature(this.agreed, 15) };
      this.receivers[pair] = new Receiver(queue, form, CHAIN_PIECES, this.counters);
      this.countPairs();
    } else if (pair < this.transmitters.length) {
      const form = { headerSize, offloads: driverOffloads(this.agreed) };
      const learn =
        this.receivers.length > 1 ? (frame: Frame, packet: Packet) => this.steering.learn(frame, packet, pair) : null;
      this.transmitters[pair] = new Transmitter(queue, form, CHAIN_PIECES, this.end, this.counters, learn);
    }
  }

  /** Without a control queue, the pairs that are in use are those that were started. */
  private countPairs(): void {
    if (this.control !== null) return;
    this.active = Math.max(1, this.receivers.findLastIndex((receiver) => receiver !== null) + 1);
  }

  serve(index: number): number {
    if (this.broken || this.link === null) return 0;
    if (index === this.controlIndex) return this.serveControl();
    if ((index & 1) === 0) {
      const receiver = this.receivers[index >>> 1] ?? null;
      if (receiver === null) return 0;
      this.receive();
      return receiver.takeCount();
    }
    const taken = this.transmit(index >>> 1);
    // What was sent may have its answer already.
    if (taken > 0) this.receive();
    return taken;
  }

  /** Something may have changed at the other end: frames, room, or whether anybody is there. */
  wake(): void {
    if (this.end.up !== this.linkUp) this.changeLink();
    this.work();
  }

  /** Does what there is to do that no queue's notification will tell of. True when there was something. */
  work(): boolean {
    if (this.broken || this.link === null) return false;
    let worked = 0;
    for (let pair = 0; pair < this.transmitters.length; pair++) {
      if (this.transmitters[pair]?.blocked === true) worked += this.transmit(pair);
    }
    return this.receive() + worked > 0;
  }

  /** Is there work that nobody will tell of? */
  get restless(): boolean {
    return this.leftover && !this.broken && this.link !== null;
  }

  private changeLink(): void {
    this.linkUp = this.end.up;
    this.writeOut();
    if (hasFeature(this.agreed, 16)) this.link?.configChanged();
  }

  private transmit(pair: number): number {
    const transmitter = this.transmitters[pair] ?? null;
    if (transmitter === null || this.link === null) return 0;
    const taken = transmitter.serve();
    if (taken > 0) this.link.notify(2 * pair + 1);
    if (transmitter.broken) this.breakDown(transmitter.queue);
    return taken;
  }

  /** Frames of the other end to the driver, until one side has no more or it is another's turn. Returns how many. */
  private receive(): number {
    let frames = 0;
    let bytes = 0;
    this.leftover = false;
    if (!this.receivers.some((receiver) => receiver !== null)) return 0;
    for (;;) {
      if (frames >= RECEIVE_FRAMES || bytes >= RECEIVE_BYTES) {
        this.leftover = true;
        break;
      }
      const frame = this.incoming.next();
      if (frame === null) {
        this.leftover = this.incoming.gaveUp;
        break;
      }
      const receiver = this.receiverFor(frame);
      if (receiver === null) break;
      const outcome = receiver.deliver(frame);
      if (outcome === STARVED) break;
      if (outcome === AGAIN) {
        this.leftover = true;
        break;
      }
      if (outcome === RING_BROKEN) {
        this.breakDown(receiver.queue);
        break;
      }
      if (outcome !== NO_FIT) bytes += frame.length;
      frames++;
      this.incoming.done();
    }
    for (let pair = 0; pair < this.receivers.length; pair++) {
      if (this.receivers[pair]?.publish() === true) this.link?.notify(2 * pair);
    }
    return frames;
  }

  private receiverFor(frame: Frame): Receiver | null {
    const first = this.receivers[0] ?? null;
    if (this.active === 1) return first;
    const pair = this.steering.pairFor(frame, this.packet, this.active);
    // A pair that was not started, or is no more, has its flows on the first that is.
    return this.receivers[pair] ?? this.receivers.find((receiver) => receiver !== null) ?? null;
  }

  private serveControl(): number {
    const { control: queue, controlChain: chain } = this;
    if (queue === null) return 0;
    let taken = 0;
    while (taken < CONTROL_CHAINS) {
      const outcome = queue.take(chain);
      if (outcome === DONE) {
        const answer = runCommand(chain, this.agreed, this.options.pairs, {
          filter: this.filter,
          setAddress: (mac) => this.setAddress(mac),
          setPairs: (pairs) => {
            this.active = pairs;
          },
          setOffloads: (offloads) => this.setOffloads(bothOffloads(offloads, this.end.gives), offloads.checksum),
        });
        if (answer !== COMMAND_OK) this.counters.refusedCommands++;
        queue.give(chain.id, chain.write(0, Uint8Array.of(answer)));
      } else if (outcome === MALFORMED) {
        this.counters.malformedChains++;
      } else break;
      taken++;
    }
    if (taken > 0) {
      queue.publish();
      this.link?.notify(this.controlIndex);
    }
    if (queue.violation !== null) this.breakDown(queue);
    return taken;
  }

  private setAddress(mac: Uint8Array): void {
    this.mac = mac;
    this.filter.setAddress(mac);
    this.writeOut();
  }

  private breakDown(queue: DeviceQueue): void {
    this.broken = true;
    if (queue.violation !== null) this.link?.needsReset(queue.violation);
  }

  stopQueue(index: number): void {
    const pair = index >>> 1;
    if (index === this.controlIndex) {
      this.control = null;
    } else if ((index & 1) === 0) {
      if (this.receivers[pair]?.stop() === true) this.link?.notify(index);
      if (pair < this.receivers.length) this.receivers[pair] = null;
      this.countPairs();
    } else {
      this.transmitters[pair]?.stop();
      if (pair < this.transmitters.length) this.transmitters[pair] = null;
    }
  }

  stop(): void {
    this.tellDrops();
    this.receivers.fill(null);
    this.transmitters.fill(null);
    this.control = null;
    this.controlIndex = -1;
    this.link = null;
    this.agreed = NO_FEATURES;
    this.leftover = false;
    this.incoming.abandon();
    this.steering.clear();
    this.mac = this.options.mac;
    this.writeOut();
    this.setOffloads(NO_OFFLOADS, false);
  }

  private tellDrops(): void {
    const now: Record<string, number> = { ...this.counters, ...this.end.counters };
    const since = Object.fromEntries(
      Object.entries(now).map(([name, count]) => [name, count - (this.told[name] ?? 0)]),
    );
    const drops = describeDrops(since);
    if (drops !== null) this.options.warn?.(`dropped: ${drops}`);
    this.told = now;
  }

  close(): void {
    this.end.close();
  }
}
