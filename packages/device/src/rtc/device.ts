/** A clock that tells UTC, and how long the device has run. VIRTIO 1.4 §5.23. */
import { rtc } from '@airlock/virtio/device/rtc.ts';
import type { DeviceModel } from '../model/model.ts';

const READ = 0x0001;
const READ_CROSS = 0x0002;
const CFG = 0x1000;
const CLOCK_CAP = 0x1001;
const CROSS_CAP = 0x1002;

const OK = 0;
const EOPNOTSUPP = 2;
const ENODEV = 3;
const EINVAL = 4;

const UTC = 0;
const MONOTONIC = 2;
const HEAD = 8;
const REQUEST_SIZE = 16;
const REPLY_SIZE = 16;

/** Nanoseconds: since 1970 without leap seconds, and of a clock that only goes forward. */
export interface Clocks {
  utc(): bigint;
  monotonic(): bigint;
}

export function rtcModel(clocks: Clocks): DeviceModel {
  const config = new Uint8Array(0);
  const known = [
    { type: UTC, read: () => clocks.utc() },
    { type: MONOTONIC, read: () => clocks.monotonic() },
  ];
  const counts = { requests: 0, refused: 0, reads: 0 };

  function execute(request: Uint8Array, reply: DataView): number {
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    if (request.length < HEAD) return EINVAL;
    const type = view.getUint16(0, true);
    if (![CFG, READ, CLOCK_CAP, CROSS_CAP, READ_CROSS].includes(type)) return EOPNOTSUPP;
    if (reply.byteLength < REPLY_SIZE) return EINVAL;
    if (type === CFG) {
      reply.setUint16(HEAD, known.length, true);
      return OK;
    }
    if (request.length < REQUEST_SIZE) return EINVAL;
    const clock = known[view.getUint16(HEAD, true)];
    if (clock === undefined) return ENODEV;
    // The guest's own counters are not ours to see: no cross timestamps, which CROSS_CAP says.
    if (type === READ_CROSS) return EOPNOTSUPP;
    if (type === READ) {
      counts.reads++;
      reply.setBigUint64(HEAD, BigInt.asUintN(64, clock.read()), true);
    } else if (type === CLOCK_CAP) reply.setUint8(HEAD, clock.type);
    return OK;
  }
  return {
    type: rtc,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: 32, replyLimit: 32 },
        answer(request, reply) {
          if (reply.length < HEAD) return 0;
          counts.requests++;
          const status = execute(request, new DataView(reply.buffer, reply.byteOffset, reply.byteLength));
          reply[0] = status;
          if (status !== OK) counts.refused++;
          return status === OK ? REPLY_SIZE : HEAD;
        },
      },
    ],
    config: () => config,
    facts: () => ({ ...counts }),
  };
}
