/** An SPI controller whose chips give back what they are sent. VIRTIO 1.4 §5.21. */
import { encodeConfig } from '@airlock/virtio/config/space.ts';
import { spi } from '@airlock/virtio/device/spi.ts';
import { NO_FEATURES } from '@airlock/virtio/features.ts';
import type { DeviceModel } from '../model/model.ts';

const HEADER = 32;
const OK = 0;
const PARAMETER = 1;
const DATA_LIMIT = 4096;
const CHIPS = 2;
const FREQUENCY_LIMIT = 50_000_000;
const DELAY_LIMIT = 1_000_000;
/** §5.21.6.1: CPHA, CPOL, chip select high, LSB first, loop. */
const MODES = 0x1f;
const WORDS = [8, 16, 32];

export function spiModel(): DeviceModel {
  const encoded = encodeConfig(spi, NO_FEATURES, {
    ...{ cs_max_number: CHIPS, cs_change_supported: 1, tx_nbits_supported: 0, rx_nbits_supported: 0 },
    ...{ bits_per_word_mask: WORDS.reduce((mask, bits) => (mask | (1 << (bits - 1))) >>> 0, 0) },
    ...{ mode_func_supported: 0x7f, max_freq_hz: FREQUENCY_LIMIT, max_word_delay_ns: DELAY_LIMIT },
    ...{ max_cs_setup_ns: DELAY_LIMIT, max_cs_hold_ns: DELAY_LIMIT, max_cs_inactive_ns: DELAY_LIMIT },
  });
  const config = encoded.ok ? encoded.value : new Uint8Array(32);
  const counts = { transfers: 0, refused: 0, bytes: 0 };

  function transfer(request: Uint8Array, into: Uint8Array): number {
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const [chip, bits, change] = [view.getUint8(0), view.getUint8(1), view.getUint8(2)];
    const delays = [16, 20, 24, 28].map((at) => view.getUint32(at, true));
    const out = request.subarray(HEADER);
    const single = [view.getUint8(3), view.getUint8(4)].every((lines) => lines <= 1);
    if (chip >= CHIPS || !WORDS.includes(bits) || change > 1 || !single) return PARAMETER;
    if ((view.getUint32(8, true) & ~MODES) !== 0 || view.getUint32(12, true) > FREQUENCY_LIMIT) return PARAMETER;
    if (delays.some((delay) => delay > DELAY_LIMIT)) return PARAMETER;
    // Both directions are as long as each other, or only one is there (§5.21.6.4).
    if (out.length > 0 && into.length > 0 && out.length !== into.length) return PARAMETER;
    const length = Math.max(out.length, into.length);
    if (length === 0 || length % (bits / 8) !== 0) return PARAMETER;
    if (out.length > 0) into.set(out.subarray(0, into.length));
    else into.fill(0xff); // a line that nobody drives
    counts.bytes += length;
    return OK;
  }
  return {
    type: spi,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: HEADER + DATA_LIMIT, replyLimit: DATA_LIMIT + 1 },
        answer(request, reply, { size, room }) {
          if (reply.length < 1 || room > reply.length) return 0;
          const whole = size === request.length && request.length >= HEADER;
          const status = whole ? transfer(request, reply.subarray(0, -1)) : PARAMETER;
          if (status === OK) counts.transfers++;
          else counts.refused++;
          reply[reply.length - 1] = status;
          return reply.length;
        },
      },
    ],
    config: () => config,
    facts: () => ({ ...counts }),
  };
}
