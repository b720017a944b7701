/**
 * What does a vhost-user back-end offer, and is it sane? A driver's look at it: nothing that it stores is changed. What
 * every front-end does is done on one connection; each offence has its own, because it need not be good for more.
 */
import { ok, type Result } from '@airlock/core/result.ts';
import { featureName, type VirtioTypeName } from '@airlock/core/virtio.ts';
import type { DeviceType } from '@airlock/virtio/config/field.ts';
import { type ConfigValues, queueNames } from '@airlock/virtio/config/space.ts';
import { deviceType } from '@airlock/virtio/device-types.ts';
import {
  type Features,
  featureBits,
  featureSet,
  hasFeature,
  sameFeatures,
  unmetRequirement,
  withoutFeatures,
} from '@airlock/virtio/features.ts';
import { FrontEnd, type FrontEndOptions } from '../front-end.ts';
import { LOG_ALL_BIT, NEED_REPLY, PROTOCOL_FEATURES_BIT, protocolFeatureNames } from '../protocol.ts';
import { Findings, type ProbeFinding } from './check.ts';
import { fittingTypes, guessType } from './guess-type.ts';
import { HARMLESS_PART, HARMLESS_REQUESTS } from './harmless-request.ts';
import { probeHostile } from './hostile.ts';

export interface ProbeOptions extends FrontEndOptions {
  /** What the device is, where it is known. */
  readonly type?: VirtioTypeName;
  /** Also send what no driver sends: descriptors that lead nowhere, chains without end. */
  readonly hostile?: boolean;
}

export interface ProbeReport {
  readonly socket: string;
  /** Null where what it offers fits several types, which are in `fitting`. */
  readonly type: VirtioTypeName | null;
  /** Was the type told, or seen? */
  readonly typeFrom: 'given' | 'seen' | 'unknown';
  readonly fitting: readonly VirtioTypeName[];
  readonly features: readonly string[];
  readonly protocolFeatures: readonly string[];
  readonly queues: number | null;
  readonly memorySlots: number | null;
  readonly config: ConfigValues | null;
  readonly queueNames: readonly string[];
  readonly checks: readonly ProbeFinding[];
  /** No check failed. */
  readonly sane: boolean;
}

const QUEUE_SIZE = 16;
/** Bits that are the transport's own business. */
const NOT_THE_DEVICES: Features = featureSet([PROTOCOL_FEATURES_BIT, LOG_ALL_BIT]);
/** Ring features are tried one connection at a time; these are what every driver uses. */
const BASIC: Features = featureSet([32]);
/** Feature bits whose queues a probe does not set up. */
const MULTI_QUEUE: Readonly<Partial<Record<VirtioTypeName, readonly number[]>>> = { block: [12], net: [17, 22] };

/** Codes: those of `FrontEnd.connect`: the back-end cannot be reached, or is none. */
export function probeBackEnd(path: string, options: ProbeOptions): Result<ProbeReport> {
  const findings = new Findings();
  const connected = FrontEnd.connect(path, options);
  if (!connected.ok) return connected;
  const front = connected.value;
  const seen = look(front, options, findings);
  const type = seen.type === null ? undefined : deviceType(seen.type);
  // On the same connection: some back-ends end with their first front-end.
  const worked = drive(front, findings, seen, type);
  front.close();
  const next = FrontEnd.connect(path, options);
  findings.take('serves-again', next, () => 'it does');
  if (next.ok) {
    again(next.value, findings, seen, type);
    next.value.close();
    if (worked) offend(path, options, findings);
    if (worked && options.hostile === true) probeHostile(path, options, findings, seen.type);
  }
  const checks = findings.sorted();
  return ok({ socket: path, ...seen, checks, sane: checks.every(({ outcome }) => outcome !== 'fail') });
}

type Seen = Omit<ProbeReport, 'socket' | 'checks' | 'sane'> & { readonly offered: Features };

/** What it says about itself. */
function look(front: FrontEnd, options: ProbeOptions, findings: Findings): Seen {
  const { features, protocol, queues, memorySlots } = front.offer;
  const offered = withoutFeatures(features, NOT_THE_DEVICES);
  findings.check('version-1', hasFeature(features, 32), hasFeature(features, 32) ? 'it is' : 'it is not');
  findings.check(
    'protocol-features',
    hasFeature(features, PROTOCOL_FEATURES_BIT),
    protocolFeatureNames(protocol).join(', ') || 'none',
  );
  findings.check('reply-ack', front.has('REPLY_ACK'), front.has('REPLY_ACK') ? 'it is' : 'it is not');
  findings.check(
    'config-offered',
    front.has('CONFIG'),
    front.has('CONFIG') ? 'it can' : 'it cannot: the VMM has to know it',
  );
  if (memorySlots === null) findings.skip('memory-slots', 'CONFIGURE_MEM_SLOTS is not offered; a table holds 8');
  else findings.check('memory-slots', memorySlots >= 8, `${memorySlots} regions`);

  const bytes = longestConfig(front);
  const fitting = fittingTypes(offered, bytes, queues);
  const seen = options.type ?? guessType(offered, bytes, queues);
  const type = seen === null ? undefined : deviceType(seen);
  const names = featureBits(features).map((bit) => nameOf(seen, bit));
  const unknown = names.filter((name) => name.startsWith('bit-'));
  if (seen === null) findings.skip('features-known', 'the type of the device is not known');
  else findings.check('features-known', unknown.length === 0, unknown.length === 0 ? 'all are' : unknown.join(', '));
  const unmet = unmetRequirement(seen ?? '', offered);
  findings.check(
    'feature-dependencies',
    unmet === null,
    unmet === null
      ? 'none is'
      : `${nameOf(seen, unmet.bit)} without ${unmet.needs.map((bit) => nameOf(seen, bit)).join(' or ')}`,
  );
  const config = readConfig(front, type, findings);
  const named = type === undefined ? ok([]) : queueNames(type, offered, config ?? {});
  if (type === undefined || config === null || queues === null) findings.skip('queue-count', whyNoCount(type, queues));
  else if (!named.ok) findings.fail('queue-count', named.error);
  else findings.check('queue-count', queues >= named.value.length, `${queues}; ${named.value.length} are needed`);
  return {
    type: seen,
    typeFrom: options.type !== undefined ? 'given' : seen === null ? 'unknown' : 'seen',
    fitting,
    features: names,
    protocolFeatures: protocolFeatureNames(protocol),
    queues,
    memorySlots,
    config,
    queueNames: named.ok ? named.value : [],
    offered,
  };
}

function whyNoCount(type: DeviceType | undefined, queues: number | null): string {
  if (queues === null) return 'the back-end does not say how many queues it has (MQ)';
  return type === undefined ? 'the type of the device is not known' : 'the configuration is not known';
}

function nameOf(type: VirtioTypeName | null, bit: number): string {
  if (bit === PROTOCOL_FEATURES_BIT) return 'PROTOCOL_FEATURES';
  if (bit === LOG_ALL_BIT) return 'LOG_ALL';
  return featureName(type, bit);
}

function readConfig(front: FrontEnd, type: DeviceType | undefined, findings: Findings): ConfigValues | null {
  if (!front.has('CONFIG') || type === undefined) {
    const why = type === undefined ? 'the type of the device is not known' : 'CONFIG is not offered';
    findings.skip('config-valid', why);
    findings.skip('config-stable', why);
    return null;
  }
  const config = findings.take(
    'config-valid',
    front.readConfig(type),
    (values) => `${Object.keys(values).length} fields`,
  );
  if (config === null) {
    findings.skip('config-stable', 'the configuration is not valid');
    return null;
  }
  const second = front.readConfig(type);
  if (!second.ok) findings.fail('config-stable', second.error);
  else findings.check('config-stable', JSON.stringify(second.value) === JSON.stringify(config), 'read twice');
  return config;
}

/** As many bytes of configuration as the back-end gives; null where it gives none. */
function longestConfig(front: FrontEnd): Uint8Array | null {
  if (!front.has('CONFIG')) return null;
  for (let length = 256; length > 0; length -= 4) {
    const bytes = front.readConfigBytes(length);
    if (bytes.ok) return bytes.value;
    if (bytes.error.code !== 'config-too-short') return null;
  }
  return null;
}

/** How many queues the probe starts: those that the type has without multi-queue features. */
function queuesToStart(seen: Seen, type: DeviceType | undefined): number {
  const basic = type === undefined ? ok([]) : queueNames(type, BASIC, { ...seen.config, num_request_queues: 1 });
  const names = basic.ok ? basic.value.length : 0;
  return Math.max(1, Math.min(names === 0 ? 1 : names, seen.queues ?? names, 16));
}

/** Sets it up as a driver does, asks for something, stops, goes on. Is the back-end still of use? */
function drive(front: FrontEnd, findings: Findings, seen: Seen, type: DeviceType | undefined): boolean {
  const { type: name } = seen;
  const wanted = withoutFeatures(
    seen.offered,
    featureSet([34, 35, ...(name === null ? [] : (MULTI_QUEUE[name] ?? []))]),
  );
  const chosen = findings.take(
    'features-accepted',
    front.negotiate(name ?? '', wanted, BASIC),
    (features) => `${featureBits(features).length} of ${featureBits(seen.offered).length} offered`,
  );
  if (chosen === null) return false;
  const plan = { queues: queuesToStart(seen, type), size: QUEUE_SIZE, pool: [{ size: HARMLESS_PART, count: 16 }] };
  const queues = findings.take(
    'queues-start',
    front.setUp(plan),
    (started) => `${started.all.length} of ${QUEUE_SIZE} entries`,
  );
  if (queues === null) return false;
  inflight(front, findings);
  const request = name === null ? undefined : HARMLESS_REQUESTS[name];
  const index = request?.queue ?? 0;
  let requests = 0;
  const ask = (): Result<string> => {
    if (request === undefined) return ok('');
    const before = queues.all[index]?.driver.notificationOffset() ?? 0;
    const answered = request.ask(front, index);
    requests += ((queues.all[index]?.driver.notificationOffset() ?? 0) - before) & 0xffff;
    return answered;
  };
  if (request === undefined || index >= queues.all.length) {
    const why = name === null ? 'the type of the device is not known' : `${name} has no request that changes nothing`;
    findings.skip('request-answered', why);
    findings.skip('used-length', why);
  } else {
    const answered = ask();
    findings.take('request-answered', answered, (text) => text);
    const { clamped = 0 } = queues.all[index]?.driver ?? {};
    findings.check('used-length', clamped === 0, clamped === 0 ? 'never more' : `${clamped} times more`);
    if (!answered.ok) return false;
  }
  const base = queues.stopOne(index);
  if (!base.ok) {
    findings.fail('queue-stops', base.error);
    return false;
  }
  findings.check('queue-stops', base.value === requests, `at ${base.value} after ${requests} requests`);
  const resumed = queues.startOne(index);
  if (!resumed.ok) findings.fail('queue-resumes', resumed.error);
  else findings.take('queue-resumes', ask(), (text) => text || 'it starts again');
  return resumed.ok && front.stop().ok;
}

function inflight(front: FrontEnd, findings: Findings): void {
  if (!front.has('INFLIGHT_SHMFD')) {
    findings.skip('inflight-area', 'INFLIGHT_SHMFD is not offered: requests are lost when the back-end dies');
    return;
  }
  const bytes = front.inflightBytes;
  findings.check('inflight-area', bytes >= 16 + 16 * QUEUE_SIZE, `${bytes} bytes`);
}

/** A second time from the start, on a new connection. */
function again(front: FrontEnd, findings: Findings, seen: Seen, type: DeviceType | undefined): void {
  const now = withoutFeatures(front.offer.features, NOT_THE_DEVICES);
  const lost = featureBits(withoutFeatures(seen.offered, now)).map((bit) => nameOf(seen.type, bit));
  const same = sameFeatures(now, seen.offered);
  findings.check('features-stable', same, same ? 'the same' : `without ${lost.join(', ') || 'any'}, or with others`);
  const quiet = new Findings();
  const worked = drive(front, quiet, seen, type);
  const problem = quiet.all.find(({ outcome }) => outcome === 'fail');
  findings.check('set-up-again', worked, worked ? 'it can' : `${problem?.id ?? ''}: ${problem?.found ?? ''}`);
}

/** Things that a driver must not do and a VMM may get wrong; each on a connection of its own. */
function offend(path: string, options: ProbeOptions, findings: Findings): void {
  for (const [id, offence] of [
    ['feature-not-offered', notOffered],
    ['unknown-message', unknownMessage],
    ['queue-out-of-range', queueOutOfRange],
  ] as const) {
    const connected = FrontEnd.connect(path, options);
    if (!connected.ok) {
      findings.fail(id, connected.error);
      return;
    }
    const front = connected.value;
    if (front.has('REPLY_ACK')) offence(front, findings);
    else findings.skip(id, 'REPLY_ACK is not offered: there is no answer');
    front.close();
  }
}

function notOffered(front: FrontEnd, findings: Findings): void {
  // The highest bit that nobody offers.
  const bit = [63, 62, 61, 60].find((one) => !hasFeature(front.offer.features, one)) ?? 63;
  const [low, high] = front.offer.features;
  const told = front.caller.tell('SET_FEATURES', { form: 'u64', words: [low, (high | (1 << (bit - 32))) >>> 0] });
  const refused = !told.ok;
  findings.check('feature-not-offered', refused, refused ? `refused: ${told.error.code}` : `bit ${bit} was accepted`);
}

function unknownMessage(front: FrontEnd, findings: Findings): void {
  const answer = front.caller.probe(0x7ffe, NEED_REPLY, { form: 'none' }, Math.min(front.timeout, 1000));
  if (!answer.ok) findings.check('unknown-message', false, `the connection ended: ${answer.error.message}`);
  else if (answer.value === null) findings.check('unknown-message', false, 'no answer');
  else
    findings.check(
      'unknown-message',
      answer.value !== 0,
      answer.value === 0 ? 'the answer is yes' : 'the answer is no',
    );
}

function queueOutOfRange(front: FrontEnd, findings: Findings): void {
  const told = front.caller.tell('SET_VRING_NUM', { form: 'vring', index: 254, value: 16 });
  findings.check('queue-out-of-range', !told.ok, told.ok ? 'queue 254 was accepted' : `refused: ${told.error.code}`);
}
