/**
 * What each message of a front-end does to a back-end. The session has checked form, size, descriptors and whether the
 * message was negotiated; here is what remains: its meaning, and whether this is the time for it.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import { CONFIG_SIZE_LIMIT, writableSpans } from '@airlock/virtio/config/space.ts';
import {
  acceptFeatures,
  type Features,
  featureSet,
  hasFeature,
  NO_FEATURES,
  withoutFeatures,
} from '@airlock/virtio/features.ts';
import { Iotlb } from '@airlock/virtio/memory/iotlb.ts';
import { MEMORY_SLOTS_LIMIT } from '@airlock/virtio/memory/vhost-user-table.ts';
import { QUEUE_SIZE_LIMIT } from '@airlock/virtio/ring/layout.ts';
import type { ServedDevice } from '@airlock/virtio/served-device.ts';
import type { Descriptors } from '../framed-socket.ts';
import type { Reactor } from '../reactor.ts';
import type { SystemCalls } from '../system-calls.ts';
import { setNonBlocking } from '../unix-socket.ts';
import { BackEndChannel } from './back-end-channel.ts';
import { isSignal, isStreamSocket } from './descriptor-kind.ts';
import { InflightMemory } from './inflight-memory.ts';
import { MappedMemory } from './mapped-memory.ts';
import {
  CONFIG_FROM_DRIVER,
  CONFIG_FROM_MIGRATION,
  IOTLB_INVALIDATE,
  IOTLB_UPDATE,
  type Payload,
  type RegionEntry,
  type Words,
} from './payload.ts';
import {
  type Form,
  type FrontEndMessage,
  PROTOCOL_FEATURES_BIT,
  type ProtocolFeature,
  protocolFeatureNames,
  protocolFeatureSet,
} from './protocol.ts';
import { ServedQueues } from './served-queues.ts';
import type { Vring } from './vring.ts';

/** What this back-end offers. Not offered: dirty logs (a confidential VM does not migrate by them), postcopy, in-band. */
const OFFERED_PROTOCOL: readonly ProtocolFeature[] = [
  'MQ',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
];

/** VERSION_1 and ACCESS_PLATFORM are the transport's to offer. */
const TRANSPORT_OFFERS: Features = featureSet([32, 33]);
/**
 * Whose page numbers are the guest's own whatever translates: Linux's driver of it never takes ACCESS_PLATFORM, and QEMU
 * refuses a driver that leaves it.
 */
const UNTRANSLATED_TYPES: readonly string[] = ['balloon'];
const UNTRANSLATED_OFFERS: Features = featureSet([32]);
const PROTOCOL_FEATURES_WORDS: Features = featureSet([PROTOCOL_FEATURES_BIT]);
/** Device status bits, VIRTIO 1.3 §2.1. */
const FEATURES_OK = 8;
const NEEDS_RESET = 64;

/** A reply; null where the message has none of its own. */
export type Answer = { readonly payload: Payload; readonly fds?: readonly number[] } | null;

export interface RequestsOwner {
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly device: ServedDevice;
  readonly report: (problem: Problem) => void;
  /** Take memory that the front-end can shrink; it can then end this process. */
  readonly unsealedMemory: boolean;
}

type PayloadOf<F extends Form> = Extract<Payload, { readonly form: F }>;
type Handler = (requests: Requests, payload: Payload, descriptors: Descriptors) => Result<Answer>;

export class Requests {
  readonly queues: ServedQueues;
  readonly offered: number = protocolFeatureSet(OFFERED_PROTOCOL);
  agreed = 0;
  readonly device: ServedDevice;
  readonly calls: SystemCalls;
  readonly reactor: Reactor;
  readonly report: (problem: Problem) => void;
  readonly unsealedMemory: boolean;
  readonly inflight: InflightMemory;
  features: Features | null = null;
  status = 0;

  constructor(owner: RequestsOwner) {
    this.calls = owner.calls;
    this.reactor = owner.reactor;
    this.device = owner.device;
    this.report = owner.report;
    this.unsealedMemory = owner.unsealedMemory;
    this.inflight = new InflightMemory(owner.calls);
    this.queues = new ServedQueues({
      ...owner,
      inflight: (index, size, packed) => this.inflight.part(index, size, packed),
    });
  }

  /** Codes: `vhost-user-unsupported`, `vhost-user-no-queue`, `vhost-user-order`, and those of what the message does. */
  handle(name: FrontEndMessage, payload: Payload, descriptors: Descriptors): Result<Answer> {
    const handler = HANDLERS[name];
    if (handler === undefined) return fail('vhost-user-unsupported', `${name} is not for this back-end`);
    return handler(this, payload, descriptors);
  }

  get offeredFeatures(): Features {
    const { features, type } = this.device;
    const offers = UNTRANSLATED_TYPES.includes(type.name) ? UNTRANSLATED_OFFERS : TRANSPORT_OFFERS;
    return [(features[0] | offers[0] | PROTOCOL_FEATURES_WORDS[0]) >>> 0, (features[1] | offers[1]) >>> 0, 0, 0];
  }

  /** Stops everything and lets go of memory and descriptors. */
  close(): void {
    this.queues.close();
    this.inflight.close();
  }

  vring(index: number): Result<Vring> {
    const vring = this.queues.vrings[index];
    if (vring !== undefined) return ok(vring);
    return fail('vhost-user-no-queue', `queue ${index}; the device has ${this.queues.vrings.length}`);
  }

  /** A queue that does not run. */
  idleVring(index: number, what: string): Result<Vring> {
    const vring = this.vring(index);
    if (!vring.ok || vring.value.queue === null) return vring;
    return fail('vhost-user-order', `${what} of queue ${index} while it runs`);
  }

  reset(): void {
    this.queues.reset();
    this.features = null;
    this.status = 0;
  }
}

/** A handler of messages whose payload has this form, which the table of messages promises. */
function on<F extends Form>(
  form: F,
  run: (requests: Requests, payload: PayloadOf<F>, descriptors: Descriptors) => Result<Answer>,
): Handler {
  return (requests, payload, descriptors) =>
    payload.form === form
      ? run(requests, payload as PayloadOf<F>, descriptors)
      : fail('vhost-user-payload-invalid', `${payload.form} where ${form} belongs`);
}

const nothing: Result<Answer> = ok(null);
const number = (value: number): Result<Answer> => ok({ payload: { form: 'u64', words: [value, 0] } });
const done = (result: Result<unknown>): Result<Answer> => (result.ok ? nothing : result);

const HANDLERS: Partial<Record<FrontEndMessage, Handler>> = {
  GET_FEATURES: on('none', (requests) => {
    const [low, high] = requests.offeredFeatures;
    return ok({ payload: { form: 'u64', words: [low, high] } });
  }),
  SET_FEATURES: on('u64', (requests, { words }) => setFeatures(requests, words)),
  SET_OWNER: on('none', () => nothing),
  // Deprecated; what it once meant is not agreed upon.
  RESET_OWNER: on('none', () => nothing),
  GET_PROTOCOL_FEATURES: on('none', (requests) => number(requests.offered)),
  SET_PROTOCOL_FEATURES: on('u64', (requests, { words: [low, high] }) => {
    const extra = (low & ~requests.offered) >>> 0;
    if (extra !== 0 || high !== 0) {
      const names = [...protocolFeatureNames(extra), ...(high === 0 ? [] : ['above bit 31'])];
      return fail('vhost-user-protocol-features', `not offered: ${names.join(', ')}`);
    }
    requests.agreed = low;
    return nothing;
  }),
  GET_QUEUE_NUM: on('none', (requests) => number(requests.queues.vrings.length)),

  SET_MEM_TABLE: on('regions', (requests, { regions }, descriptors) => setMemTable(requests, regions, descriptors)),
  GET_MAX_MEM_SLOTS: on('none', () => number(MEMORY_SLOTS_LIMIT)),
  ADD_MEM_REG: on('region', (requests, { region }, descriptors) => {
    const added = withFd(requests, descriptors, (fd) => requests.queues.memory.add(region, fd));
    return done(added);
  }),
  REM_MEM_REG: on('region', (requests, { region }) => {
    const { queues } = requests;
    if (!queues.memory.has(region)) return done(queues.memory.remove(region));
    return done(
      queues.around(() => {
        // Translations lead to the regions themselves; the front-end will be asked again.
        queues.iotlb?.space.clear();
        return queues.memory.remove(region);
      }),
    );
  }),

  SET_VRING_NUM: on('vring', (requests, { index, value }) => {
    const vring = requests.idleVring(index, 'SET_VRING_NUM');
    if (!vring.ok) return vring;
    const most = Math.min(requests.device.queueSizes[index] ?? 0, QUEUE_SIZE_LIMIT);
    if (value < 1 || value > most) return fail('queue-size-invalid', `queue ${index} of ${value}; 1 to ${most} may be`);
    vring.value.size = value;
    return nothing;
  }),
  SET_VRING_ADDR: on('vring-address', (requests, { addresses }) => {
    const vring = requests.vring(addresses.index);
    if (!vring.ok) return vring;
    if (addresses.flags !== 0) return fail('vhost-user-unsupported', 'a log of dirty pages was not offered');
    const next = { descriptors: addresses.descriptors, driver: addresses.available, device: addresses.used };
    const now = vring.value.addresses;
    if (now?.descriptors === next.descriptors && now.driver === next.driver && now.device === next.device)
      return nothing;
    if (vring.value.queue !== null) return fail('vhost-user-order', `the ring of queue ${addresses.index} moves`);
    vring.value.addresses = next;
    return nothing;
  }),
  SET_VRING_BASE: on('vring', (requests, { index, value }) => {
    const vring = requests.idleVring(index, 'SET_VRING_BASE');
    if (!vring.ok) return vring;
    vring.value.base = value;
    return nothing;
  }),
  GET_VRING_BASE: on('vring', (requests, { index }) => {
    const vring = requests.vring(index);
    if (!vring.ok) return vring;
    requests.queues.finish(vring.value);
    return ok({ payload: { form: 'vring', index, value: vring.value.base } });
  }),
  SET_VRING_KICK: on('vring-fd', (requests, { index, hasFd }, descriptors) => {
    const vring = requests.vring(index);
    if (!vring.ok) return vring;
    const fd = takeSignal(requests, descriptors, hasFd);
    if (!fd.ok) return fd;
    requests.queues.setKick(vring.value, fd.value);
    vring.value.started = true;
    return settle(requests, vring.value);
  }),
  SET_VRING_CALL: on('vring-fd', (requests, { index, hasFd }, descriptors) => {
    const vring = requests.vring(index);
    if (!vring.ok) return vring;
    const fd = takeSignal(requests, descriptors, hasFd);
    if (!fd.ok) return fd;
    vring.value.setCall(fd.value);
    return nothing;
  }),
  SET_VRING_ERR: on('vring-fd', (requests, { index, hasFd }, descriptors) => {
    const vring = requests.vring(index);
    if (!vring.ok) return vring;
    const fd = takeSignal(requests, descriptors, hasFd);
    if (!fd.ok) return fd;
    vring.value.setErr(fd.value);
    return nothing;
  }),
  SET_VRING_ENABLE: on('vring', (requests, { index, value }) => {
    const vring = requests.vring(index);
    if (!vring.ok) return vring;
    if (value > 1) return fail('vhost-user-payload-invalid', `SET_VRING_ENABLE with ${value}`);
    vring.value.enabled = value === 1;
    return settle(requests, vring.value);
  }),

  SET_BACKEND_REQ_FD: on('none', (requests, _, descriptors) => {
    const fd = descriptors.take(0);
    const usable = isStreamSocket(requests.calls, fd) && setNonBlocking(requests.calls, fd).ok;
    if (!usable) {
      requests.calls.close(fd);
      return fail('vhost-user-descriptors', 'the back-end’s channel is no stream socket');
    }
    const { queues } = requests;
    queues.channel?.close();
    queues.channel = new BackEndChannel(requests.calls, requests.reactor, fd, (problem) => {
      queues.channel = null;
      // A front-end that leaves closes its channel first.
      if (problem.code !== 'vhost-user-closed') requests.report(problem);
    });
    return nothing;
  }),
  IOTLB_MSG: on('iotlb', (requests, { entry }) => {
    const { iotlb } = requests.queues;
    if (iotlb === null) return fail('vhost-user-order', 'IOTLB_MSG without ACCESS_PLATFORM');
    if (entry.type === IOTLB_INVALIDATE) {
      requests.queues.invalidate(iotlb, entry.address, entry.size);
      return nothing;
    }
    if (entry.type !== IOTLB_UPDATE) return fail('iotlb-update-invalid', `IOTLB message of type ${entry.type}`);
    const updated = iotlb.update(entry);
    if (!updated.ok) return updated;
    requests.queues.translated();
    return nothing;
  }),

  GET_CONFIG: on('config', (requests, { span }) => {
    const { offset, bytes } = span;
    if (offset + bytes.length > CONFIG_SIZE_LIMIT) {
      return fail('config-too-short', `${bytes.length} bytes at ${offset}`);
    }
    // Front-ends ask for the largest structure that they know. What this device does not have reads as zero.
    const content = new Uint8Array(bytes.length);
    content.set(requests.device.readConfig().subarray(offset, offset + bytes.length));
    return ok({ payload: { form: 'config', span: { ...span, bytes: content } } });
  }),
  SET_CONFIG: on('config', (requests, { span }) => {
    const { offset, flags, bytes } = span;
    if (flags === CONFIG_FROM_MIGRATION) return fail('vhost-user-unsupported', 'configuration of a migrated device');
    if (flags !== CONFIG_FROM_DRIVER) return fail('vhost-user-payload-invalid', `SET_CONFIG with flags ${flags}`);
    return setConfig(requests, offset, bytes);
  }),

  GET_INFLIGHT_FD: on('inflight', (requests, { area }) => {
    const idle = whileIdle(requests, 'GET_INFLIGHT_FD');
    if (!idle.ok) return idle;
    const { queueSizes } = requests.device;
    if (area.queues > queueSizes.length || area.queueSize > Math.max(...queueSizes)) {
      return fail('vhost-user-inflight-invalid', `${area.queues} queues of ${area.queueSize}`);
    }
    const made = requests.inflight.create(area.queues, area.queueSize);
    if (!made.ok) return made;
    return ok({ payload: { form: 'inflight', area: made.value.area }, fds: [made.value.fd] });
  }),
  SET_INFLIGHT_FD: on('inflight', (requests, { area }, descriptors) => {
    const idle = whileIdle(requests, 'SET_INFLIGHT_FD');
    if (!idle.ok) return idle;
    return done(withFd(requests, descriptors, (fd) => requests.inflight.adopt(area, fd)));
  }),

  RESET_DEVICE: on('none', (requests) => {
    requests.reset();
    return nothing;
  }),
  SET_STATUS: on('u64', (requests, { words }) => setStatus(requests, words)),
  GET_STATUS: on('none', (requests) => number(requests.status | (requests.queues.broken ? NEEDS_RESET : 0))),
};

/**
 * QEMU's front-ends hand on the whole structure, as they know it, when the driver wrote a byte of it. What is not the
 * driver's to write in it is passed over, for it may be older than ours; so is what is as it was. Code: `config-read-only`.
 */
function setConfig({ device, features }: Requests, offset: number, bytes: Uint8Array): Result<Answer> {
  if (device.writeConfig(offset, bytes)) return nothing;
  const spans = writableSpans(device.type, features ?? NO_FEATURES, offset, bytes.length);
  const taken = spans.every((span) => {
    const given = bytes.subarray(span.offset - offset, span.offset - offset + span.length);
    const now = device.readConfig().subarray(span.offset, span.offset + span.length);
    return given.every((byte, i) => byte === now[i]) || device.writeConfig(span.offset, given);
  });
  if (spans.length > 0 && taken) return nothing;
  return fail('config-read-only', `${bytes.length} bytes at ${offset}`);
}

function setFeatures(requests: Requests, [low, high]: Words): Result<Answer> {
  const given: Features = [low, high, 0, 0];
  const wanted = withoutFeatures(given, PROTOCOL_FEATURES_WORDS);
  const { type } = requests.device;
  const accepted = acceptFeatures(type.name, requests.offeredFeatures, withControlQueue(type.name, wanted));
  if (!accepted.ok) return accepted;
  const same = requests.features?.every((word, i) => word === wanted[i]) === true;
  if (!same) {
    const set = requests.queues.setFeatures(wanted);
    if (!set.ok) return set;
    requests.features = wanted;
  }
  if (hasFeature(given, PROTOCOL_FEATURES_BIT)) return nothing;
  // "Ring states": whoever does not know of protocol features does not know of SET_VRING_ENABLE.
  for (const vring of requests.queues.vrings) {
    vring.enabled = true;
    const settled = settle(requests, vring);
    if (!settled.ok) return settled;
  }
  return nothing;
}

/**
 * What the driver agreed to, as far as it can be told: front-ends of network cards (QEMU, DPDK) answer the control queue
 * themselves and keep NET_F_CTRL_VQ from the back-end, but pass on features such as MQ that need it.
 */
function withControlQueue(type: string, [low, ...high]: Features): Features {
  return type === 'net' ? [(low | (1 << 17)) >>> 0, ...high] : [low, ...high];
}

function settle(requests: Requests, vring: Vring): Result<Answer> {
  if (vring.started && vring.enabled && requests.features === null) {
    return fail('vhost-user-order', `queue ${vring.index} is started before SET_FEATURES`);
  }
  return done(requests.queues.settle(vring));
}

function setStatus(requests: Requests, [low, high]: Words): Result<Answer> {
  if (low > 0xff || high !== 0) return fail('vhost-user-payload-invalid', `status 0x${low.toString(16)}`);
  if (low === 0) {
    requests.reset();
    return nothing;
  }
  // §3.1.1: a device that cannot work with what was accepted does not keep FEATURES_OK.
  const withoutVersion = requests.features === null || !hasFeature(requests.features, 32);
  requests.status = withoutVersion ? low & ~FEATURES_OK : low;
  return nothing;
}

/** All regions are mapped before anything changes; then queues stop, the table changes, and they go on. */
function setMemTable(requests: Requests, regions: readonly RegionEntry[], descriptors: Descriptors): Result<Answer> {
  const { queues } = requests;
  const next = new MappedMemory(requests.calls, requests.unsealedMemory);
  for (const [i, region] of regions.entries()) {
    const fd = descriptors.take(i);
    const added = next.add(region, fd);
    requests.calls.close(fd);
    if (added.ok) continue;
    next.close();
    return added;
  }
  return done(
    queues.around(() => {
      const before = queues.memory;
      queues.memory = next;
      if (queues.iotlb !== null) queues.iotlb = new Iotlb(next.memory.user);
      before.close();
      return ok(undefined);
    }),
  );
}

function whileIdle(requests: Requests, what: string): Result<void> {
  return requests.queues.active ? fail('vhost-user-order', `${what} while a queue runs`) : ok(undefined);
}

/** Calls with the message's one descriptor, and closes it. */
function withFd<T>(requests: Requests, descriptors: Descriptors, use: (fd: number) => Result<T>): Result<T> {
  const fd = descriptors.take(0);
  const result = use(fd);
  requests.calls.close(fd);
  return result;
}

/** The descriptor that a queue is signalled by, non-blocking; -1 where there is none. Code: `vhost-user-descriptors`. */
function takeSignal(requests: Requests, descriptors: Descriptors, hasFd: boolean): Result<number> {
  if (!hasFd) return ok(-1);
  const fd = descriptors.take(0);
  if (isSignal(fd) && setNonBlocking(requests.calls, fd).ok) return ok(fd);
  requests.calls.close(fd);
  return fail('vhost-user-descriptors', 'a descriptor that is no eventfd');
}
