/**
 * A vhost-user front-end that does not trust its back-end: it agrees on features (never fewer than before), shares
 * nothing but a pool of its own, sets queues up and takes them down, and after the back-end died goes on with the next
 * one where the last one stopped. Synchronous: every step waits for its answer, with a limit.
 */
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { DeviceType } from '@airlock/virtio/config/field.ts';
import { type ConfigValues, decodeConfig, GENERATION_TRIES, presentFields } from '@airlock/virtio/config/space.ts';
import { chooseFeatures, type Features, featureSet, hasFeature, withoutFeatures } from '@airlock/virtio/features.ts';
import type { SizeClass } from '@airlock/virtio/memory/bounce-pool.ts';
import { ringFeatures } from '@airlock/virtio/ring/create.ts';
import type { SystemCalls } from '../system-calls.ts';
import { BackEndRequests } from './back-end-requests.ts';
import type { Caller, CallerOptions } from './caller.ts';
import { createDriverMemory, DRIVER_BASE, DRIVER_USER_BASE, type DriverMemory } from './driver-memory.ts';
import { DriverQueues } from './driver-queues.ts';
import { type Met, meet, type Offer } from './greeting.ts';
import { type InflightArea, IOTLB_UPDATE, type IotlbEntry } from './payload.ts';
import { hasProtocolFeature, LOG_ALL_BIT, PROTOCOL_FEATURES_BIT, type ProtocolFeature } from './protocol.ts';
import { pollWait, type Wait } from './wait.ts';

export interface FrontEndOptions {
  readonly calls: SystemCalls;
  /** Milliseconds that an answer may take; 5000. */
  readonly timeout?: number;
  /** For tests whose back-end lives in this thread. */
  readonly wait?: Wait;
  readonly now?: () => number;
  /** Protocol features not to agree on, though offered. */
  readonly without?: readonly ProtocolFeature[];
}

export interface SetUp {
  readonly queues: number;
  readonly size: number;
  readonly pool: readonly SizeClass[];
  /** Elements of an indirect table, where INDIRECT_DESC was agreed on; 0 for none. */
  readonly indirectLimit?: number;
}

const NOT_THE_DRIVERS: Features = featureSet([PROTOCOL_FEATURES_BIT, LOG_ALL_BIT]);
const VERSION_1: Features = featureSet([32]);
const ACCESS_PLATFORM = 33;

/** Device status, VIRTIO 1.3 §2.1. */
const ACKNOWLEDGE = 1;
const DRIVER = 2;
const DRIVER_OK = 4;
const FEATURES_OK = 8;

/** No record of requests in flight is larger. */
const INFLIGHT_LIMIT = 2 ** 28;

export class FrontEnd {
  readonly calls: SystemCalls;
  caller: Caller;
  offer: Offer;
  agreed: number;
  features: Features | null = null;
  memory: DriverMemory | null = null;
  queues: DriverQueues | null = null;
  /** Counts what the back-end said about its configuration. */
  configGeneration = 0;
  private readonly path: string;
  private readonly options: CallerOptions;
  private readonly without: readonly ProtocolFeature[];
  private type = '';
  private channel: BackEndRequests | null = null;
  private inflight: { readonly area: InflightArea; readonly fd: number } | null = null;

  private constructor(path: string, options: CallerOptions, without: readonly ProtocolFeature[], met: Met) {
    this.path = path;
    this.options = options;
    this.calls = options.calls;
    this.without = without;
    this.caller = met.caller;
    this.offer = met.offer;
    this.agreed = met.agreed;
  }

  /**
   * Connects and asks what there is. Codes: those of `connectUnix`, `vhost-user-reply-late`, `vhost-user-reply-invalid`,
   * `vhost-user-closed`, `vhost-user-refused`.
   */
  static connect(path: string, given: FrontEndOptions): Result<FrontEnd> {
    const { calls } = given;
    const options: CallerOptions = {
      calls,
      wait: given.wait ?? pollWait(calls),
      timeout: given.timeout ?? 5000,
      now: given.now ?? (() => performance.now()),
    };
    const without = given.without ?? [];
    const met = meet(path, options, without);
    if (!met.ok) return met;
    const front = new FrontEnd(path, options, without, met.value);
    const opened = front.openChannel();
    if (opened.ok) return ok(front);
    front.close();
    return opened;
  }

  /** Milliseconds that an answer may take, and the clock that measures them. */
  get timeout(): number {
    return this.options.timeout;
  }

  get now(): () => number {
    return this.options.now;
  }

  has(feature: ProtocolFeature): boolean {
    return hasProtocolFeature(this.agreed, feature);
  }

  private openChannel(): Result<void> {
    this.channel?.close();
    this.channel = null;
    if (!this.has('BACKEND_REQ')) return ok(undefined);
    const channel = BackEndRequests.open(this.calls, {
      configChanged: () => void this.configGeneration++,
      missed: (entry) => this.translate(entry),
    });
    if (!channel.ok) return channel;
    this.channel = channel.value;
    this.caller.aside = channel.value;
    const told = this.caller.tell('SET_BACKEND_REQ_FD', undefined, [channel.value.far]);
    channel.value.closeFar();
    return told;
  }

  /** Handles what the back-end said by itself. A problem means that it is not to be spoken to again. */
  serveChannel(): Problem | null {
    const problem = this.channel?.serve() ?? null;
    if (problem !== null) this.caller.broken ??= problem;
    return problem;
  }

  /** To be waited for together with a queue's call; -1 where there is none. */
  get channelFd(): number {
    return this.channel?.fd ?? -1;
  }

  /** There is one stretch of memory, so every miss is answered with all of it. */
  private translate({ address }: IotlbEntry): boolean {
    const { memory } = this;
    if (memory === null || address < DRIVER_BASE || address >= DRIVER_BASE + memory.entry.size) return false;
    const { size } = memory.entry;
    const entry = { address: DRIVER_BASE, size, userAddress: DRIVER_USER_BASE, access: 3, type: IOTLB_UPDATE };
    return this.caller.tellOnly('IOTLB_MSG', { form: 'iotlb', entry }).ok;
  }

  /**
   * Agrees on features: `wanted` as far as offered, `required` in any case, never fewer than before. VIRTIO 1.3 §3.1.1.
   * `type` is the device's, for the names and dependencies of its bits. Codes: those of `chooseFeatures`,
   * `features-refused`, those of `Caller.tell`.
   */
  negotiate(type: string, wanted: Features, required: Features = VERSION_1): Result<Features> {
    const offered = withoutFeatures(this.offer.features, NOT_THE_DRIVERS);
    const chosen = chooseFeatures(type, offered, wanted, required, this.features);
    if (!chosen.ok) return chosen;
    const status = this.setStatus(ACKNOWLEDGE | DRIVER);
    if (!status.ok) return status;
    const told = this.tellFeatures(chosen.value);
    if (!told.ok) return told;
    this.type = type;
    this.features = chosen.value;
    return chosen;
  }

  private tellFeatures(features: Features): Result<void> {
    const low = this.offer.protocol === 0 ? features[0] : (features[0] | (1 << PROTOCOL_FEATURES_BIT)) >>> 0;
    const told = this.caller.tell('SET_FEATURES', { form: 'u64', words: [low, features[1]] });
    if (!told.ok || !this.has('STATUS')) return told;
    const set = this.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if (!set.ok) return set;
    const status = this.caller.askNumber('GET_STATUS', 256);
    if (!status.ok) return status;
    if ((status.value & FEATURES_OK) !== 0) return ok(undefined);
    return fail('features-refused', 'the back-end did not keep FEATURES_OK');
  }

  private setStatus(status: number): Result<void> {
    return this.has('STATUS') ? this.caller.tell('SET_STATUS', { form: 'u64', words: [status, 0] }) : ok(undefined);
  }

  /** `length` bytes of the configuration space. Codes: `vhost-user-not-negotiated`, `config-too-short`, as `ask`. */
  readConfigBytes(length: number): Result<Uint8Array> {
    if (!this.has('CONFIG')) return fail('vhost-user-not-negotiated', 'the back-end does not offer CONFIG');
    const span = { offset: 0, flags: 0, bytes: new Uint8Array(length) };
    const answered = this.caller.ask('GET_CONFIG', { form: 'config', span });
    if (!answered.ok) return answered;
    const { payload } = answered.value;
    if (payload.form === 'config' && payload.span.offset === 0 && payload.span.bytes.length === length) {
      return ok(payload.span.bytes);
    }
    return fail('config-too-short', `the back-end does not give ${length} bytes of configuration`);
  }

  /**
   * The configuration, decoded with the features that were agreed on (or are offered). One message brings all of it; it
   * is asked for again while the back-end says that it changed meanwhile (§2.5.1). Codes: `config-unstable`, those of
   * `decodeConfig` and `readConfigBytes`.
   */
  readConfig(type: DeviceType): Result<ConfigValues> {
    const features = this.features ?? this.offer.features;
    const length = presentFields(type, features).reduce((most, field) => {
      const count = typeof field.count === 'number' ? field.count : 1;
      return Math.max(most, field.offset + field.width * count);
    }, 0);
    if (length === 0) return ok({});
    for (let tries = 0; tries < GENERATION_TRIES; tries++) {
      const before = this.configGeneration;
      const bytes = this.readConfigBytes(length);
      if (!bytes.ok) return bytes;
      const problem = this.serveChannel();
      if (problem !== null) return { ok: false, error: problem };
      if (this.configGeneration === before) return decodeConfig(type, features, bytes.value);
    }
    return fail('config-unstable', `${type.name}: the configuration changed ${GENERATION_TRIES} times`);
  }

  /** Writes driver-writable configuration (SET_CONFIG). Codes: `vhost-user-not-negotiated`, as `tell`. */
  writeConfig(offset: number, bytes: Uint8Array): Result<void> {
    if (!this.has('CONFIG')) return fail('vhost-user-not-negotiated', 'the back-end does not offer CONFIG');
    return this.caller.tell('SET_CONFIG', { form: 'config', span: { offset, flags: 0, bytes } });
  }

  /**
   * Allocates memory, shares it, and starts queues. Features are agreed on. Codes: `vhost-user-order`, those of
   * `createDriverMemory`, of `Caller.tell`, `vhost-user-inflight-invalid`.
   */
  setUp(plan: SetUp): Result<DriverQueues> {
    const { features } = this;
    if (features === null || this.queues !== null) return fail('vhost-user-order', 'set up without features, or twice');
    const ring = ringFeatures(features);
    const memory = createDriverMemory(this.calls, {
      ...plan,
      features: ring,
      indirectLimit: ring.indirect ? (plan.indirectLimit ?? 0) : 0,
    });
    if (!memory.ok) return memory;
    this.memory = memory.value;
    const queues = DriverQueues.create(this, memory.value, ring.packed, this.options.wait);
    if (!queues.ok) return queues;
    this.queues = queues.value;
    const begun = this.begin();
    return begun.ok ? queues : begun;
  }

  /** Tells the back-end everything that a started device needs. */
  private begin(): Result<void> {
    const { memory, queues, features } = this;
    if (memory === null || queues === null || features === null) return ok(undefined);
    const shared = this.shareMemory(memory);
    if (!shared.ok) return shared;
    const tracked = this.shareInflight(queues.all.length, queues.size);
    if (!tracked.ok) return tracked;
    const started = queues.start(hasFeature(features, ACCESS_PLATFORM), this.inflight !== null);
    if (!started.ok) return started;
    return this.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  }

  private shareMemory({ entry, fd }: DriverMemory): Result<void> {
    if (this.has('CONFIGURE_MEM_SLOTS'))
      return this.caller.tell('ADD_MEM_REG', { form: 'region', region: entry }, [fd]);
    return this.caller.tell('SET_MEM_TABLE', { form: 'regions', regions: [entry] }, [fd]);
  }

  private shareInflight(queues: number, queueSize: number): Result<void> {
    if (!this.has('INFLIGHT_SHMFD')) return ok(undefined);
    if (this.inflight === null) {
      const area = { size: 0, offset: 0, queues, queueSize };
      const answered = this.caller.ask('GET_INFLIGHT_FD', { form: 'inflight', area }, 1);
      if (!answered.ok) return answered;
      const { payload, fds } = answered.value;
      const [fd] = fds;
      if (payload.form !== 'inflight' || payload.area.size === 0 || fd === undefined) {
        if (fd !== undefined) this.calls.close(fd);
        // The back-end has none to give; then nothing can be taken up after it died.
        return ok(undefined);
      }
      const given = payload.area;
      if (!(given.size <= INFLIGHT_LIMIT && given.offset <= INFLIGHT_LIMIT)) {
        this.calls.close(fd);
        return fail('vhost-user-inflight-invalid', `${given.size} bytes at ${given.offset}`);
      }
      this.inflight = { area: { ...given, queues, queueSize }, fd };
    }
    const { area, fd } = this.inflight;
    return this.caller.tell('SET_INFLIGHT_FD', { form: 'inflight', area }, [fd]);
  }

  /** Bytes of the back-end's record of what is in flight; 0 where there is none. */
  get inflightBytes(): number {
    return this.inflight?.area.size ?? 0;
  }

  /** The back-end is gone, or is not to be spoken to again. */
  get broken(): Problem | null {
    return this.caller.broken;
  }

  /**
   * Connects to the back-end that came after the one that died, and goes on: same features, same memory, same queues;
   * requests that were in flight are done again by it. Codes: as `connect`; `feature-downgraded`;
   * `vhost-user-reconnect-loses` when requests are in flight and neither side has written them down.
   */
  reconnect(): Result<void> {
    this.caller.close();
    const waiting = this.queues?.all.some(({ driver }) => driver.inFlight > 0) ?? false;
    if (waiting && this.inflight === null) {
      return fail('vhost-user-reconnect-loses', 'requests are in flight, and the back-end kept no record of them');
    }
    const met = meet(this.path, this.options, this.without);
    if (!met.ok) return met;
    this.caller = met.value.caller;
    const before = this.agreed;
    const offered = this.offer.features;
    this.offer = met.value.offer;
    this.agreed = met.value.agreed;
    if ((before & ~this.agreed) !== 0) {
      return fail('feature-downgraded', 'the back-end offers fewer protocol features than before');
    }
    const opened = this.openChannel();
    if (!opened.ok || this.features === null) return opened;
    const status = this.setStatus(ACKNOWLEDGE | DRIVER);
    if (!status.ok) return status;
    const now = withoutFeatures(this.offer.features, NOT_THE_DRIVERS);
    const same = chooseFeatures(
      this.type,
      now,
      this.features,
      this.features,
      withoutFeatures(offered, NOT_THE_DRIVERS),
    );
    if (!same.ok) return same;
    const told = this.tellFeatures(this.features);
    return told.ok ? this.begin() : told;
  }

  /** Takes the queues down in order: what is in flight is finished by the back-end first. Codes as `ask`. */
  stop(): Result<void> {
    const stopped = this.queues?.stop() ?? ok(undefined);
    return stopped.ok ? this.setStatus(0) : stopped;
  }

  /** Lets go of everything. */
  close(): void {
    this.caller.close();
    this.channel?.close();
    this.channel = null;
    this.queues?.close();
    this.queues = null;
    this.memory?.close();
    this.memory = null;
    if (this.inflight !== null) this.calls.close(this.inflight.fd);
    this.inflight = null;
  }
}
