/**
 * The memory in which a back-end writes down what it has taken and not given back, so that the one that comes after it
 * can do that again. vhost-user "Inflight I/O tracking". The front-end keeps it, and can write to it: what is read back
 * is bounded and checked, and while the back-end lives it believes only its own copy.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { Region } from '@airlock/virtio/memory/region.ts';
import { QUEUE_SIZE_LIMIT } from '@airlock/virtio/ring/layout.ts';
import type { DeviceQueue } from '@airlock/virtio/ring/queue.ts';
import type { InflightArea } from './payload.ts';

/** A queue whose chains are written down. */
export interface TrackedQueue extends DeviceQueue {
  /** Chains of an earlier life that `take` still has to hand out. */
  readonly resuming: number;
}

/** Version of a queue's part that is in use; 0 stands for one that never was. */
export const INFLIGHT_VERSION = 1;

/** Bytes before the entries, and of each entry. */
export const SPLIT_HEADER = 16;
export const SPLIT_ENTRY = 16;
export const PACKED_HEADER = 32;
export const PACKED_ENTRY = 32;

/** Where fields stand that both layouts have. */
export const VERSION_AT = 8;
export const COUNT_AT = 10;

/** The most queues that share an area. */
const QUEUES_LIMIT = 256;

/** Bytes for each queue of `size`: enough for either layout, whichever the driver will choose. */
function stride(size: number): number {
  return Math.ceil((PACKED_HEADER + PACKED_ENTRY * size) / 64) * 64;
}

/** What GET_INFLIGHT_FD answers. Code: `vhost-user-inflight-invalid`. */
export function inflightArea(queues: number, queueSize: number): Result<InflightArea> {
  if (queues < 1 || queues > QUEUES_LIMIT || queueSize < 1 || queueSize > QUEUE_SIZE_LIMIT) {
    return fail('vhost-user-inflight-invalid', `${queues} queues of ${queueSize}`);
  }
  return ok({ size: queues * stride(queueSize), offset: 0, queues, queueSize });
}

/** Checks what SET_INFLIGHT_FD names. Code: `vhost-user-inflight-invalid`. */
export function checkInflightArea(area: InflightArea): Result<void> {
  const least = inflightArea(area.queues, area.queueSize);
  if (!least.ok) return least;
  const { size, offset } = area;
  if (!Number.isSafeInteger(size + offset) || size > 4 * least.value.size || offset % 8 !== 0) {
    return fail('vhost-user-inflight-invalid', `${size} bytes at ${offset}`);
  }
  return ok(undefined);
}

/** One queue's part of a mapped area. */
export interface InflightPart {
  readonly view: DataView;
  readonly base: number;
}

/**
 * The part of queue `index` of `size` entries. Another back-end may have chosen another layout: what counts is that the
 * area divides evenly and the part is large enough. Code: `vhost-user-inflight-invalid`.
 */
export function inflightPart(
  region: Region,
  area: InflightArea,
  index: number,
  size: number,
  packed: boolean,
): Result<InflightPart> {
  const bytes = Math.floor(area.size / area.queues / 8) * 8;
  const needed = packed ? PACKED_HEADER + PACKED_ENTRY * size : SPLIT_HEADER + SPLIT_ENTRY * size;
  const base = index * bytes;
  if (index >= area.queues || size > area.queueSize || needed > bytes || base + needed > region.bytes.length) {
    const room = `${area.queues} queues of ${area.queueSize} in ${area.size} bytes`;
    return fail('vhost-user-inflight-invalid', `queue ${index} of ${size} entries has no place in ${room}`);
  }
  return ok({ view: region.view, base });
}

/** A 64-bit count; only its order matters. */
export function readCounter(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

export function writeCounter(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
