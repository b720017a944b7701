/**
 * An I2C bus with one EEPROM of 256 bytes on it (24C02). VIRTIO 1.4 §5.16. A driver that does not take
 * VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is refused when features are agreed on (§5.16.6.4).
 */
import { i2c } from '@airlock/virtio/device/i2c.ts';
import type { DeviceModel } from '../model/model.ts';

const ZERO_LENGTH = 0;
const HEADER = 8;
const FAIL_NEXT = 1;
const READ = 2;
const OK = 0;
const ERR = 1;
const DATA_LIMIT = 4096;
export const EEPROM_ADDRESS = 0x50;
export const EEPROM_SIZE = 256;

export function i2cModel(): DeviceModel {
  const config = new Uint8Array(0);
  const bytes = new Uint8Array(EEPROM_SIZE).fill(0xff);
  let at = 0;
  /** The group that FAIL_NEXT makes has failed: so does the rest of it (§5.16.6.4). */
  let failing = false;
  const counts = { requests: 0, refused: 0, read: 0, written: 0 };

  function transfer(request: Uint8Array, into: Uint8Array, whole: boolean): number {
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    // Seven bits, from bit 1 on; bit 0 and those above are zero (§5.16.6.1).
    const address = view.getUint16(0, true) / 2;
    const reads = (view.getUint32(4, true) & READ) !== 0;
    const out = request.subarray(HEADER);
    if (!whole || address !== EEPROM_ADDRESS || (reads ? out.length > 0 : into.length > 0)) return ERR;
    if (reads) {
      for (let i = 0; i < into.length; i++) into[i] = bytes[(at + i) % EEPROM_SIZE] ?? 0;
      at = (at + into.length) % EEPROM_SIZE;
      counts.read += into.length;
      return OK;
    }
    // The first byte says where; the others are written from there on.
    out.forEach((byte, i) => {
      if (i === 0) at = byte;
      else {
        bytes[at] = byte;
        at = (at + 1) % EEPROM_SIZE;
        counts.written++;
      }
    });
    return OK;
  }
  return {
    type: i2c,
    bits: [ZERO_LENGTH],
    queues: [
      {
        ...{ kind: 'requests', requestLimit: HEADER + DATA_LIMIT, replyLimit: DATA_LIMIT + 1 },
        answer(request, reply, { size, room }) {
          if (reply.length < 1 || room > reply.length) return 0;
          counts.requests++;
          const whole = size === request.length;
          const into = reply.subarray(0, -1);
          const status = failing || request.length < HEADER ? ERR : transfer(request, into, whole);
          const more = request.length >= HEADER && ((request[4] ?? 0) & FAIL_NEXT) !== 0;
          failing = more && status === ERR;
          if (status === ERR) counts.refused++;
          reply[reply.length - 1] = status;
          return reply.length;
        },
      },
    ],
    config: () => config,
    end() {
      failing = false;
    },
    facts: () => ({ ...counts }),
  };
}
