/** A front-end written by hand, byte by byte: it sends what it is told to, right or wrong, and reads what comes back. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import type { Result } from '@airlock/core/result.ts';
import { createEventFd, drainEventFd, signalEventFd } from '@airlock/transport/event-fd.ts';
import { type FakeReactor, fakeReactor } from '@airlock/transport/fake-reactor.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import { createSharedMemory, type Mapping, mapSharedMemory } from '@airlock/transport/shared-memory.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { receive, send, socketPair } from '@airlock/transport/unix-socket.ts';
import { type BackEnd, type BackEndEvent, serveConnection } from '@airlock/transport/vhost-user/back-end.ts';
import { encodeMessage } from '@airlock/transport/vhost-user/message.ts';
import { NO_PAYLOAD, type Payload, type RegionEntry } from '@airlock/transport/vhost-user/payload.ts';
import {
  FRONT_END_MESSAGES,
  type FrontEndMessage,
  HEADER_SIZE,
  NEED_REPLY,
  PROTOCOL_FEATURES_BIT,
  type ProtocolFeature,
  protocolFeatureSet,
} from '@airlock/transport/vhost-user/protocol.ts';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDriverQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import { type QueueAddresses, queueLayout } from '@airlock/virtio/ring/layout.ts';
import type { DriverQueue } from '@airlock/virtio/ring/queue.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';

export function must<T>(result: Result<T>): T {
  assert.ok(result.ok, result.ok ? '' : `${result.error.code}: ${result.error.message}`);
  return result.value;
}

export const systemCalls: SystemCalls = must(await loadSystemCalls());

/** Open descriptors of this process. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Stretches of shared memory that are mapped into this process. */
export function mappedFiles(): number {
  return readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .filter((line) => line.includes('/memfd:')).length;
}

export const ALL_PROTOCOL_FEATURES: readonly ProtocolFeature[] = [
  'MQ',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
];

/** Addresses that are not those of the test itself, so that nothing works by accident. */
export const GUEST_BASE = 0x1_0000_0000;
export const USER_BASE = 0x7f00_0000_0000;

export interface Reply {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: readonly number[];
}

export interface SharedRam {
  readonly fd: number;
  readonly mapping: Mapping;
  readonly region: RegionEntry;
}

/** Sealed memory of `length` bytes, mapped here too. */
export function sharedRam(length: number, guestAddress = GUEST_BASE, userAddress = USER_BASE): SharedRam {
  const { fd, length: whole } = must(createSharedMemory(systemCalls, 'test-ram', length));
  const mapping = must(
    mapSharedMemory(systemCalls, fd, { name: 'test-ram', offset: 0, length: whole, writable: true }),
  );
  return { fd, mapping, region: { guestAddress, userAddress, size: whole, offset: 0 } };
}

export class ScriptedFrontEnd {
  readonly reactor: FakeReactor;
  readonly events: BackEndEvent[] = [];
  readonly backEnd: BackEnd;
  readonly fd: number;
  private readonly backFd: number;
  private readonly owned: number[] = [];
  private readonly mappings: Mapping[] = [];

  constructor(device: ServedDevice, reactor: FakeReactor = fakeReactor()) {
    this.reactor = reactor;
    const [near, far] = must(socketPair(systemCalls));
    this.fd = near;
    this.backFd = far;
    const report = (event: BackEndEvent): void => void this.events.push(event);
    this.backEnd = serveConnection({ calls: systemCalls, reactor, device, report }, far);
  }

  /** Codes of what the back-end refused, and of why it ended the connection. */
  get problems(): string[] {
    return this.events.flatMap((event) =>
      event.kind === 'problem' ? [event.problem.code] : event.kind === 'disconnected' ? [event.why.code] : [],
    );
  }

  get connected(): boolean {
    return this.backEnd.connected;
  }

  /** Sends bytes as they are, and lets the back-end look. */
  raw(bytes: Uint8Array, fds: readonly number[] = []): void {
    const sent = send(systemCalls, this.fd, bytes, fds);
    if (sent.ok) assert.equal(sent.value, bytes.length);
    this.pump();
  }

  /** Sends as much as there is room for. False when the back-end does not read any more. */
  tryRaw(bytes: Uint8Array): boolean {
    const sent = send(systemCalls, this.fd, bytes);
    this.pump();
    return sent.ok && sent.value === bytes.length;
  }

  pump(): void {
    for (let i = 0; i < 8 && this.connected; i++) this.reactor.makeReady(this.backFd, READABLE);
  }

  tell(name: FrontEndMessage, payload: Payload = NO_PAYLOAD, fds: readonly number[] = [], flags = 0): void {
    this.raw(encodeMessage(FRONT_END_MESSAGES[name].number, flags, payload), fds);
  }

  /** Sends a message that asks for an acknowledgement, and returns it: 0 is yes. */
  ack(name: FrontEndMessage, payload: Payload = NO_PAYLOAD, fds: readonly number[] = []): number {
    this.tell(name, payload, fds, NEED_REPLY);
    const reply = this.reply();
    assert.ok(reply !== null, `${name} was not answered: ${this.problems.join(', ')}`);
    assert.equal(reply.request, FRONT_END_MESSAGES[name].number);
    assert.equal(reply.payload.length, 8);
    return new DataView(reply.payload.buffer, reply.payload.byteOffset).getUint32(0, true);
  }

  ask(name: FrontEndMessage, payload: Payload = NO_PAYLOAD): Reply {
    this.tell(name, payload);
    const reply = this.reply();
    assert.ok(reply !== null, `${name} was not answered: ${this.problems.join(', ')}`);
    assert.equal(reply.request, FRONT_END_MESSAGES[name].number);
    return reply;
  }

  /** Low word of a reply of 64 bits. */
  askNumber(name: FrontEndMessage): number {
    const { payload } = this.ask(name);
    assert.equal(payload.length, 8);
    return new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
  }

  /** The next reply; null when there is none. */
  reply(): Reply | null {
    const head = new Uint8Array(HEADER_SIZE);
    const first = receive(systemCalls, this.fd, head, 8);
    if (!first.ok || first.value.length !== HEADER_SIZE) return null;
    const view = new DataView(head.buffer);
    const payload = new Uint8Array(view.getUint32(8, true));
    if (payload.length > 0) assert.equal(must(receive(systemCalls, this.fd, payload, 8)).length, payload.length);
    return { request: view.getUint32(0, true), flags: view.getUint32(4, true), payload, fds: first.value.fds };
  }

  own(fd: number): number {
    this.owned.push(fd);
    return fd;
  }

  eventFd(): number {
    return this.own(must(createEventFd(systemCalls)));
  }

  ram(length: number, guestAddress = GUEST_BASE, userAddress = USER_BASE): SharedRam {
    const ram = sharedRam(length, guestAddress, userAddress);
    this.own(ram.fd);
    this.mappings.push(ram.mapping);
    return ram;
  }

  /** Features and protocol features, as a well-behaved front-end agrees on them. */
  negotiate(bits: readonly number[] = [32], protocol: readonly ProtocolFeature[] = ALL_PROTOCOL_FEATURES): Features {
    const features = featureSet([...bits, PROTOCOL_FEATURES_BIT]);
    this.ask('GET_FEATURES');
    this.ask('GET_PROTOCOL_FEATURES');
    this.tell('SET_PROTOCOL_FEATURES', { form: 'u64', words: [protocolFeatureSet(protocol), 0] });
    this.tell('SET_OWNER');
    this.tell('SET_FEATURES', { form: 'u64', words: [features[0], features[1]] });
    return features;
  }

  /** Was a descriptor of this side signalled since the last look? */
  signalled(fd: number): boolean {
    return drainEventFd(systemCalls, fd) > 0;
  }

  /** Tells the back-end that its kick descriptors are ready: all that it watches besides the connection. */
  tellKick(events: number): void {
    for (let fd = 0; fd < 1024; fd++) {
      if (fd !== this.backFd && this.reactor.watchedEvents(fd) === READABLE) this.reactor.makeReady(fd, events);
    }
  }

  /** Requests of the messages that have arrived on the back-end's own channel. */
  readChannel(near: number): number[] {
    const requests: number[] = [];
    for (;;) {
      const head = new Uint8Array(HEADER_SIZE);
      if (must(receive(systemCalls, near, head, 8)).length !== HEADER_SIZE) return requests;
      const view = new DataView(head.buffer);
      requests.push(view.getUint32(0, true));
      must(receive(systemCalls, near, new Uint8Array(view.getUint32(8, true)), 8));
    }
  }

  /** The IOTLB misses that have arrived on the back-end's own channel. */
  readMisses(near: number): { readonly address: number; readonly access: number }[] {
    const misses: { address: number; access: number }[] = [];
    for (;;) {
      const bytes = new Uint8Array(HEADER_SIZE + 32);
      if (must(receive(systemCalls, near, bytes, 8)).length !== bytes.length) return misses;
      const view = new DataView(bytes.buffer);
      assert.equal(view.getUint32(0, true), 1);
      assert.equal(view.getUint8(HEADER_SIZE + 25), 1);
      const high = view.getUint32(HEADER_SIZE + 4, true);
      misses.push({
        address: high * 2 ** 32 + view.getUint32(HEADER_SIZE, true),
        access: view.getUint8(HEADER_SIZE + 24),
      });
    }
  }

  /** The other side of the connection sees the end of the stream. */
  hangUp(): void {
    systemCalls.close(this.fd);
    this.pump();
  }

  /** Closes all that a test has opened. */
  end(): void {
    this.backEnd.close();
    systemCalls.close(this.fd);
    this.closeOwned();
  }

  closeOwned(): void {
    for (const fd of this.owned.splice(0)) systemCalls.close(fd);
    for (const mapping of this.mappings.splice(0)) mapping.release();
  }
}

export interface RunningQueue {
  readonly index: number;
  readonly driver: DriverQueue;
  readonly kick: number;
  readonly call: number;
  readonly addresses: QueueAddresses;
  /** Where data of the queue may stand, as an offset into the ram. */
  readonly data: number;
}

/** Bytes of ram that each queue of the scripts has to itself. */
export const QUEUE_SHARE = 65536;

/** Where queue `index` of the scripts stands in the ram. */
export function placeQueue(index: number, size: number, packed: boolean): { offsets: QueueAddresses; data: number } {
  const layout = must(queueLayout(size, packed));
  const descriptors = index * QUEUE_SHARE;
  const driver = descriptors + layout.descriptors.size;
  const device = Math.ceil((driver + layout.driver.size) / 64) * 64;
  return { offsets: { descriptors, driver, device }, data: descriptors + QUEUE_SHARE / 2 };
}

/** The driver's side of queue `index` in `ram`, with guest addresses in its descriptors. */
export function driverOf(ram: SharedRam, index: number, size: number, features: Features): DriverQueue {
  const flags = ringFeatures(features);
  const { offsets } = placeQueue(index, size, flags.packed);
  const space = new AddressSpace();
  const { guestAddress: start, size: bytes } = ram.region;
  must(space.map({ start, size: bytes, region: ram.mapping.region, offset: 0, access: 3 }));
  const addresses = {
    descriptors: start + offsets.descriptors,
    driver: start + offsets.driver,
    device: start + offsets.device,
  };
  return must(createDriverQueue(space, { size, features: flags, addresses }));
}

/** Sets a queue up and starts it, as QEMU does; ring addresses are user addresses. */
export function startQueue(
  front: ScriptedFrontEnd,
  ram: SharedRam,
  index: number,
  size: number,
  features: Features,
  given: { readonly driver?: DriverQueue; readonly base?: number; readonly address?: number } = {},
): RunningQueue {
  const { packed } = ringFeatures(features);
  const { offsets, data } = placeQueue(index, size, packed);
  const driver = given.driver ?? driverOf(ram, index, size, features);
  const from = given.address ?? ram.region.userAddress;
  const addresses = {
    descriptors: from + offsets.descriptors,
    driver: from + offsets.driver,
    device: from + offsets.device,
  };
  const kick = front.eventFd();
  const call = front.eventFd();
  const base = given.base ?? (packed ? 0x80008000 : 0);
  assert.equal(front.ack('SET_VRING_NUM', { form: 'vring', index, value: size }), 0);
  assert.equal(front.ack('SET_VRING_BASE', { form: 'vring', index, value: base }), 0);
  assert.equal(front.ack('SET_VRING_ADDR', addressPayload(index, addresses)), 0);
  assert.equal(front.ack('SET_VRING_KICK', { form: 'vring-fd', index, hasFd: true }, [kick]), 0);
  assert.equal(front.ack('SET_VRING_CALL', { form: 'vring-fd', index, hasFd: true }, [call]), 0);
  assert.equal(front.ack('SET_VRING_ENABLE', { form: 'vring', index, value: 1 }), 0);
  return { index, driver, kick, call, addresses, data };
}

export function addressPayload(index: number, addresses: QueueAddresses, flags = 0): Payload {
  const { descriptors, driver, device } = addresses;
  return {
    form: 'vring-address',
    addresses: { index, flags, descriptors, used: device, available: driver, log: 0 },
  };
}

/** Sends one request with `bytes` to be echoed; slot `at` of the queue's data. */
export function submit(ram: SharedRam, queue: RunningQueue, at: number, bytes: Uint8Array): number {
  const offset = queue.data + at * 256;
  ram.mapping.region.bytes.set(bytes, offset);
  ram.mapping.region.bytes.fill(0, offset + 128, offset + 256);
  queue.driver.readable(ram.region.guestAddress + offset, bytes.length);
  queue.driver.writable(ram.region.guestAddress + offset + 128, 128);
  return queue.driver.submit(at);
}

/** What the echo of slot `at` is, `length` bytes. */
export function echoed(ram: SharedRam, queue: RunningQueue, at: number, length: number): Uint8Array {
  const offset = queue.data + at * 256 + 128;
  return ram.mapping.region.bytes.slice(offset, offset + length);
}

export function kick(front: ScriptedFrontEnd, queue: RunningQueue): void {
  assert.ok(signalEventFd(systemCalls, queue.kick));
  // The back-end watches its own duplicate of the descriptor, so everything that is watched is told.
  front.reactor.turn();
}

/** Was the driver notified since the last look? */
export function called(queue: RunningQueue): boolean {
  return drainEventFd(systemCalls, queue.call) > 0;
}
