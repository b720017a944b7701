/** The first words between a front-end and a back-end: what is offered, and which protocol features are agreed on. */
import { ok, type Result } from '@airlock/core/result.ts';
import { type Features, hasFeature } from '@airlock/virtio/features.ts';
import { Caller, type CallerOptions } from './caller.ts';
import { hasProtocolFeature, PROTOCOL_FEATURES_BIT, type ProtocolFeature, protocolFeatureSet } from './protocol.ts';

/** What a back-end says that it is. */
export interface Offer {
  readonly features: Features;
  /** Protocol features; 0 where it knows none. */
  readonly protocol: number;
  /** By MQ; null where the back-end does not say. */
  readonly queues: number | null;
  readonly memorySlots: number | null;
}

const USED: readonly ProtocolFeature[] = [
  'MQ',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
];
/** No device of ours has as many queues, and no back-end as much memory. */
const QUEUES_LIMIT = 1025;
const SLOTS_LIMIT = 2 ** 32;

export interface Met {
  readonly caller: Caller;
  readonly offer: Offer;
  readonly agreed: number;
}

/**
 * Connects, learns what is offered, agrees on those protocol features that both know and that are not in `without`.
 * Codes: those of `connectUnix`, of `Caller.ask` and `Caller.tell`.
 */
export function meet(path: string, options: CallerOptions, without: readonly ProtocolFeature[]): Result<Met> {
  const connected = Caller.connect(options, path);
  if (!connected.ok) return connected;
  const caller = connected.value;
  const met = greet(caller, without);
  if (!met.ok) caller.close();
  return met;
}

function greet(caller: Caller, without: readonly ProtocolFeature[]): Result<Met> {
  const words = caller.askWords('GET_FEATURES');
  if (!words.ok) return words;
  const features: Features = [words.value[0], words.value[1], 0, 0];
  const plain = { features, protocol: 0, queues: null, memorySlots: null };
  if (!hasFeature(features, PROTOCOL_FEATURES_BIT)) {
    const owned = caller.tell('SET_OWNER');
    return owned.ok ? ok({ caller, offer: plain, agreed: 0 }) : owned;
  }
  const offered = caller.askWords('GET_PROTOCOL_FEATURES');
  if (!offered.ok) return offered;
  const protocol = offered.value[0];
  const wanted = protocolFeatureSet(USED.filter((name) => !without.includes(name)));
  const agreed = (protocol & wanted) >>> 0;
  const told = caller.tell('SET_PROTOCOL_FEATURES', { form: 'u64', words: [agreed, 0] });
  if (!told.ok) return told;
  caller.acknowledged = hasProtocolFeature(agreed, 'REPLY_ACK');
  const owned = caller.tell('SET_OWNER');
  if (!owned.ok) return owned;
  let queues: number | null = null;
  if (hasProtocolFeature(agreed, 'MQ')) {
    const asked = caller.askNumber('GET_QUEUE_NUM', QUEUES_LIMIT);
    if (!asked.ok) return asked;
    queues = asked.value;
  }
  let memorySlots: number | null = null;
  if (hasProtocolFeature(agreed, 'CONFIGURE_MEM_SLOTS')) {
    const asked = caller.askNumber('GET_MAX_MEM_SLOTS', SLOTS_LIMIT);
    if (!asked.ok) return asked;
    memorySlots = asked.value;
  }
  return ok({ caller, offer: { features, protocol, queues, memorySlots }, agreed });
}
