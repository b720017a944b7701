/**
 * A CAN controller on a bus where another node repeats every frame, and speaks by a control word. VIRTIO 1.4 §5.20. A
 * frame is on the bus before its request is given back, which is what VIRTIO_CAN_F_LATE_TX_ACK promises.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { can } from '@airlock/virtio/device/can.ts';
import { hasFeature } from '@airlock/virtio/features.ts';
import type { DeviceModel, ModelLink } from '../model/model.ts';

const F_CLASSIC = 0;
const F_FD = 1;
const F_RTR = 2;
const F_LATE_TX_ACK = 3;
/** §5.20.5.1 to §5.20.5.3: types of message, flags, and the bytes before the data. */
const TX = 0x0001;
const RX = 0x0101;
const START = 0x0201;
const STOP = 0x0202;
const OK = 0;
const NOT_OK = 1;
const EXTENDED = 0x8000;
const FD = 0x4000;
const RTR = 0x2000;
const HEADER = 16;
const FD_BYTES = 64;
const CLASSIC_BYTES = 8;
const RX_QUEUE = 1;
/** What CAN FD can carry above 8. */
const FD_LENGTHS = [12, 16, 20, 24, 32, 48, 64];

export function canModel(): DeviceModel {
  const config = new Uint8Array(2);
  let link: ModelLink | null = null;
  let running = false;
  const counts = { sent: 0, heard: 0, lost: 0, refused: 0 };

  /** Is it a frame that the bus can carry (§5.20.5.2)? */
  function carries(request: Uint8Array, whole: boolean): boolean {
    if (!whole || request.length < HEADER || link === null) return false;
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const [length, flags, id] = [view.getUint16(2, true), view.getUint32(8, true), view.getUint32(12, true)];
    const has = (flag: number) => (flags & flag) !== 0;
    if ((flags & ~(EXTENDED | FD | RTR)) !== 0 || id > (has(EXTENDED) ? 0x1fff_ffff : 0x7ff)) return false;
    if (has(FD) && (has(RTR) || !hasFeature(link.features, F_FD))) return false;
    if (!has(FD) && !hasFeature(link.features, F_CLASSIC)) return false;
    // A frame that asks for data has a length and no data of its own; Linux sends as many bytes all the same.
    if (has(RTR)) {
      const sized = request.length === HEADER || request.length === HEADER + length;
      return hasFeature(link.features, F_RTR) && length <= CLASSIC_BYTES && sized;
    }
    const fits = length <= CLASSIC_BYTES || (has(FD) && FD_LENGTHS.includes(length));
    return fits && request.length === HEADER + length;
  }
  function hear(frame: Uint8Array): void {
    const message = frame.slice();
    new DataView(message.buffer).setUint16(0, RX, true);
    if (link?.send(RX_QUEUE, message)) counts.heard++;
    else counts.lost++;
  }
  return {
    type: can,
    bits: [F_CLASSIC, F_FD, F_RTR, F_LATE_TX_ACK],
    queues: [
      {
        ...{ kind: 'requests', requestLimit: HEADER + FD_BYTES, replyLimit: 1 },
        answer(request, reply, { size }) {
          if (reply.length < 1) return 0;
          const type = (request[0] ?? 0) | ((request[1] ?? 0) << 8);
          const sent = running && type === TX && carries(request, size === request.length);
          if (sent) {
            counts.sent++;
            hear(request);
          } else counts.refused++;
          reply[0] = sent ? OK : NOT_OK;
          return 1;
        },
      },
      { kind: 'events', size: 128 },
      {
        ...{ kind: 'requests', requestLimit: 2, replyLimit: 1 },
        answer(request, reply) {
          if (reply.length < 1) return 0;
          const type = request.length < 2 ? 0 : (request[0] ?? 0) | ((request[1] ?? 0) << 8);
          const known = (type === START && !running) || (type === STOP && running);
          if (known) running = type === START;
          else counts.refused++;
          reply[0] = known ? OK : NOT_OK;
          return 1;
        },
      },
    ],
    config: () => config,
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      running = false;
    },
    commands: {
      /** `hear 123 00ff`: a frame of another node, as id and data in hex. */
      hear(argument): Result<unknown> {
        const [, id = '', data = ''] =
          /^([0-9a-f]{1,3}) ((?:[0-9a-f]{2}){0,8})$/.exec(`${argument}${argument.includes(' ') ? '' : ' '}`) ?? [];
        if (id === '' || Number.parseInt(id, 16) > 0x7ff)
          return fail('device-control-invalid', 'hear ID [DATA], in hex');
        if (!running) return fail('device-control-invalid', 'the controller is stopped');
        const frame = new Uint8Array(HEADER + data.length / 2);
        const view = new DataView(frame.buffer);
        view.setUint16(2, data.length / 2, true);
        view.setUint32(12, Number.parseInt(id, 16), true);
        for (let i = 0; i < data.length / 2; i++) frame[HEADER + i] = Number.parseInt(data.slice(2 * i, 2 * i + 2), 16);
        hear(frame);
        return ok(null);
      },
    },
    facts: () => ({ ...counts, running }),
  };
}
