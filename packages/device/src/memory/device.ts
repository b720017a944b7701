/**
 * Memory that comes and goes in blocks. The memory itself is the VMM's, at an address that it does not use otherwise; this
 * device says how much of it the driver is to have, and keeps account. VIRTIO 1.4 §5.15.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { memory } from '@airlock/virtio/device/memory.ts';
import type { DeviceModel, ModelLink } from '../model/model.ts';

const PLUG = 0;
const UNPLUG = 1;
const UNPLUG_ALL = 2;
const STATE = 3;

const ACK = 0;
const NACK = 1;
const ERROR = 3;

const STATE_PLUGGED = 0;
const STATE_UNPLUGGED = 1;
const STATE_MIXED = 2;

const REQUEST_SIZE = 24;
const REPLY_SIZE = 10;
const CONFIG_SIZE = 56;
const AT = { blockSize: 0, address: 16, region: 24, usable: 32, plugged: 40, requested: 48 } as const;

export interface MemoryOptions {
  /** Of the guest; multiples of the block size, below 2^53. */
  readonly address: number;
  readonly size: number;
  readonly blockSize: number;
  /** What the driver is to plug at first. */
  readonly requested: number;
}

export function memoryModel({ address, size, blockSize, requested }: MemoryOptions): DeviceModel {
  const config = new Uint8Array(CONFIG_SIZE);
  const view = new DataView(config.buffer);
  const blocks = size / blockSize;
  const plugged = new Uint8Array(blocks);
  let count = 0;
  let link: ModelLink | null = null;
  const counts = { requests: 0, refused: 0 };
  const put = (at: number, value: number) => {
    view.setUint32(at, value >>> 0, true);
    view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
  };
  let wanted = requested;
  put(AT.blockSize, blockSize);
  put(AT.address, address);
  put(AT.region, size);
  put(AT.usable, size);
  put(AT.requested, requested);

  /** First block of a range of the region, or null where it is none. */
  function rangeOf(request: DataView): { readonly first: number; readonly length: number } | null {
    const at = request.getUint32(12, true) * 2 ** 32 + request.getUint32(8, true);
    const length = request.getUint16(16, true);
    const first = (at - address) / blockSize;
    const fits = Number.isInteger(first) && first >= 0 && length > 0 && first + length <= blocks;
    return fits ? { first, length } : null;
  }
  function set(first: number, length: number, to: 0 | 1): void {
    plugged.fill(to, first, first + length);
    count += to === 1 ? length : -length;
    put(AT.plugged, count * blockSize);
  }
  function execute(type: number, request: DataView, reply: DataView): number {
    if (type === UNPLUG_ALL) {
      set(0, blocks, 0);
      count = 0;
      put(AT.plugged, 0);
      return ACK;
    }
    const range = request.byteLength >= REQUEST_SIZE ? rangeOf(request) : null;
    if (range === null) return ERROR;
    const { first, length } = range;
    const piece = plugged.subarray(first, first + length);
    if (type === STATE) {
      const there = piece.reduce((sum, one) => sum + one, 0);
      reply.setUint16(8, there === 0 ? STATE_UNPLUGGED : there === length ? STATE_PLUGGED : STATE_MIXED, true);
      return ACK;
    }
    if (type !== PLUG && type !== UNPLUG) return ERROR;
    const to = type === PLUG ? 1 : 0;
    // §5.15.6.2: all of the range is to be in the other state.
    if (piece.includes(to)) return ERROR;
    // §5.15.5.1: no more than is asked for.
    if (to === 1 && (count + length) * blockSize > wanted) return NACK;
    set(first, length, to);
    return ACK;
  }
  return {
    type: memory,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: REQUEST_SIZE, replyLimit: REPLY_SIZE },
        answer(request, reply) {
          if (reply.length < REPLY_SIZE) return 0;
          counts.requests++;
          const from = new DataView(request.buffer, request.byteOffset, request.byteLength);
          const out = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
          const outcome = request.length >= 8 ? execute(from.getUint16(0, true), from, out) : ERROR;
          if (outcome !== ACK) counts.refused++;
          out.setUint16(0, outcome, true);
          return REPLY_SIZE;
        },
      },
    ],
    config: () => config,
    begin(to) {
      link = to;
    },
    end() {
      link = null;
      // A reset unplugs nothing (§5.15.5.1): the driver may still use it.
    },
    commands: {
      request(argument): Result<unknown> {
        const mebibytes = /^[0-9]{1,9}$/.test(argument) ? Number(argument) : Number.NaN;
        const bytes = mebibytes * 2 ** 20;
        if (!(bytes <= size) || bytes % blockSize !== 0) {
          return fail(
            'device-control-invalid',
            `request MIB: at most ${size / 2 ** 20}, in blocks of ${blockSize} bytes`,
          );
        }
        wanted = bytes;
        put(AT.requested, bytes);
        link?.configChanged();
        return ok({ requested: bytes });
      },
    },
    facts: () => ({ ...counts, plugged: count * blockSize, requested: wanted }),
  };
}
