/**
 * A clock that tells UTC, and how long the device has run. VIRTIO 1.4 §5.23; without alarms, as the feature for them is
 * not offered, and without cross timestamps.
 */
import { rtc } from '@airlock/virtio/device/rtc.ts';
import type { DeviceModel } from '../model/model.ts';

/** §5.23.6.4, §5.23.6.5, §5.23.6.6.2: types of message. */
const READ = 0x0001;
const READ_CROSS = 0x0002;
const CFG = 0x1000;
const CLOCK_CAP = 0x1001;
const CROSS_CAP = 0x1002;
const READ_ALARM = 0x1003;
const SET_ALARM = 0x1004;
const SET_ALARM_ENABLED = 0x1005;

const OK = 0;
const EOPNOTSUPP = 2;
const ENODEV = 3;
const EINVAL = 4;

/** §5.23.6.3.1. Whether this machine smears leap seconds is not known here. */
const UTC_MAYBE_SMEARED = 4;
const MONOTONIC = 2;
/** §5.23.6.3.3: the counters of Arm and of x86, by number. */
const COUNTERS = 2;
const HEAD = 8;
const CLOCK_AT = 8;
const COUNTER_AT = 10;

/** What a message is made of: bytes of its request and its reply, and which bytes of the request are reserved. */
interface Message {
  readonly request: number;
  readonly reply: number;
  /** From the first to the one behind the last, after those of the head. */
  readonly reserved: readonly [number, number];
}

const MESSAGES: Readonly<Record<number, Message>> = {
  [CFG]: { request: 8, reply: 16, reserved: [8, 8] },
  [CLOCK_CAP]: { request: 16, reply: 16, reserved: [10, 16] },
  [CROSS_CAP]: { request: 16, reply: 16, reserved: [11, 16] },
  [READ]: { request: 16, reply: 16, reserved: [10, 16] },
  [READ_CROSS]: { request: 16, reply: 24, reserved: [11, 16] },
};

/** Nanoseconds: since 1970, and of a clock that only goes forward. */
export interface Clocks {
  utc(): bigint;
  monotonic(): bigint;
}

export function rtcModel(clocks: Clocks): DeviceModel {
  const config = new Uint8Array(0);
  const known = [
    { type: UTC_MAYBE_SMEARED, read: () => clocks.utc() },
    { type: MONOTONIC, read: () => clocks.monotonic() },
  ];
  const counts = { requests: 0, refused: 0, reads: 0 };

  /** The status, and what stands behind the head of the reply (§5.23.6.2). */
  function execute(request: Uint8Array, reply: DataView): { readonly status: number; readonly size: number } {
    const refused = (status: number) => ({ status, size: Math.min(HEAD, reply.byteLength) });
    if (request.length < HEAD) return refused(EINVAL);
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const type = view.getUint16(0, true);
    // §5.23.6.6.2.2: where alarms were not agreed on there is no device for them.
    if ([READ_ALARM, SET_ALARM, SET_ALARM_ENABLED].includes(type)) return refused(ENODEV);
    const message = MESSAGES[type];
    if (message === undefined) return refused(EOPNOTSUPP);
    if (request.length < message.request || reply.byteLength < message.reply) return refused(EINVAL);
    const reserved = [...request.subarray(2, HEAD), ...request.subarray(...message.reserved)];
    if (reserved.some((byte) => byte !== 0)) return refused(EINVAL);
    const answered = { status: OK, size: message.reply };
    if (type === CFG) {
      reply.setUint16(HEAD, known.length, true);
      return answered;
    }
    const clock = known[view.getUint16(CLOCK_AT, true)];
    if (clock === undefined) return refused(ENODEV);
    switch (type) {
      case CLOCK_CAP:
        reply.setUint8(HEAD, clock.type);
        return answered;
      case CROSS_CAP:
        // The driver's own counters are not ours to see: none is offered, and of others nothing is known.
        return view.getUint8(COUNTER_AT) < COUNTERS ? answered : refused(EOPNOTSUPP);
      case READ_CROSS:
        return refused(EOPNOTSUPP);
      default:
        counts.reads++;
        reply.setBigUint64(HEAD, BigInt.asUintN(64, clock.read()), true);
        return answered;
    }
  }
  return {
    type: rtc,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: 32, replyLimit: 32 },
        answer(request, reply) {
          // The status is the first byte: a reply without room for more has that.
          if (reply.length < 1) return 0;
          counts.requests++;
          const { status, size } = execute(request, new DataView(reply.buffer, reply.byteOffset, reply.byteLength));
          reply[0] = status;
          if (status !== OK) counts.refused++;
          return size;
        },
      },
    ],
    config: () => config,
    facts: () => ({ ...counts }),
  };
}
