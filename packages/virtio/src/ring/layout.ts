/** Where the parts of a virtqueue lie, and the views through which ring code reaches them. VIRTIO 1.3 §2.7, §2.8. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { READ_WRITE, type Region } from '../memory/region.ts';
import type { AddressSpace } from '../memory/space.ts';

export const QUEUE_SIZE_LIMIT = 32768;
/** Bytes of a descriptor in either ring and in an indirect table. */
export const DESCRIPTOR_SIZE = 16;

/** Descriptor flags: §2.7.5, §2.8.1. */
export const NEXT = 1;
export const WRITES = 2;
export const INDIRECT = 4;
export const AVAIL = 1 << 7;
export const USED = 1 << 15;

/** Split ring: §2.7.6, §2.7.8. */
export const AVAIL_NO_INTERRUPT = 1;
export const USED_NO_NOTIFY = 1;

/** Packed ring event suppression: §2.8.10. */
export const EVENTS_ENABLE = 0;
export const EVENTS_DISABLE = 1;
export const EVENTS_DESCRIPTOR = 2;

/** One part of a virtqueue in memory. */
export interface QueuePart {
  readonly size: number;
  readonly alignment: number;
}

/** Sizes in bytes and alignments of the three parts, by the names that transports give them. */
export interface QueueLayout {
  readonly descriptors: QueuePart;
  /** Split: the available ring. Packed: the driver's event suppression. */
  readonly driver: QueuePart;
  /** Split: the used ring. Packed: the device's event suppression. */
  readonly device: QueuePart;
}

/** §2.7, §2.8.10.1. Code: `queue-size-invalid`. The room for used_event and avail_event is always counted. */
export function queueLayout(size: number, packed: boolean): Result<QueueLayout> {
  const powerOfTwo = (size & (size - 1)) === 0;
  if (!Number.isInteger(size) || size < 1 || size > QUEUE_SIZE_LIMIT || !(packed || powerOfTwo)) {
    return fail('queue-size-invalid', `queue size ${size}`);
  }
  const descriptors = { size: DESCRIPTOR_SIZE * size, alignment: 16 };
  if (packed) return ok({ descriptors, driver: { size: 4, alignment: 4 }, device: { size: 4, alignment: 4 } });
  return ok({
    descriptors,
    driver: { size: 6 + 2 * size, alignment: 2 },
    device: { size: 6 + 8 * size, alignment: 4 },
  });
}

/** Addresses of the three parts as the driver gives them to its transport. */
export interface QueueAddresses {
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
}

/**
 * One part, found in memory. Plain fields are read and written through `view` at `base` + offset; fields on which the
 * other side waits go through `halves` (or `words`) with Atomics, which begin at the part's first byte.
 */
export interface RingArea {
  readonly view: DataView;
  readonly base: number;
  readonly halves: Uint16Array;
  /** Only where the part is aligned to 4: not the available ring. */
  readonly words: Uint32Array;
}

export interface RingAreas {
  readonly size: number;
  readonly descriptors: RingArea;
  readonly driver: RingArea;
  readonly device: RingArea;
}

/**
 * Finds the parts of a queue in memory and checks alignment and bounds. Each part must lie in one piece.
 * Codes: `queue-size-invalid`, `queue-part-misaligned`, `queue-part-outside-memory`, `translation-missing`,
 * `big-endian-host`.
 */
export function findRing(
  space: AddressSpace,
  size: number,
  packed: boolean,
  addresses: QueueAddresses,
): Result<RingAreas> {
  if (!littleEndian) return fail('big-endian-host', 'virtqueues need a little-endian machine');
  const layout = queueLayout(size, packed);
  if (!layout.ok) return layout;
  const descriptors = findPart(space, 'descriptors', addresses.descriptors, layout.value.descriptors);
  if (!descriptors.ok) return descriptors;
  const driver = findPart(space, 'driver', addresses.driver, layout.value.driver);
  if (!driver.ok) return driver;
  const device = findPart(space, 'device', addresses.device, layout.value.device);
  if (!device.ok) return device;
  return ok({ size, descriptors: descriptors.value, driver: driver.value, device: device.value });
}

function findPart(space: AddressSpace, name: string, address: number, part: QueuePart): Result<RingArea> {
  if (!Number.isSafeInteger(address) || address < 0 || address % part.alignment !== 0) {
    return fail('queue-part-misaligned', `${name} at ${address}, not a multiple of ${part.alignment}`);
  }
  const run = space.translate(address, READ_WRITE);
  if (run === -3) return fail('translation-missing', `${name} at ${address}`);
  if (run < part.size) return fail('queue-part-outside-memory', `${name}: ${part.size} bytes at ${address}`);
  return ringArea(space.region, space.offset, part);
}

/** Views on a part at `offset` of a region. Codes: `queue-part-misaligned`, `queue-part-outside-memory`. */
export function ringArea(region: Region, offset: number, part: QueuePart): Result<RingArea> {
  const { view } = region;
  if (offset < 0 || part.size > view.byteLength - offset) {
    return fail('queue-part-outside-memory', `${part.size} bytes at ${offset} of ${region.name}`);
  }
  const start = view.byteOffset + offset;
  if (start % part.alignment !== 0) {
    // The address was aligned, but the memory behind it is not: atomic access would be impossible.
    return fail('queue-part-misaligned', `${region.name} + ${offset} lies at ${start} of its buffer`);
  }
  const { buffer } = view;
  return ok({
    view,
    base: offset,
    halves: new Uint16Array(buffer, start, part.size >>> 1),
    words: start % 4 === 0 ? new Uint32Array(buffer, start, part.size >>> 2) : noWords,
  });
}

const noWords = new Uint32Array(0);
const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** The least power of two that is not below `size`: private tables have this length, so that an index can be masked. */
export function tableLength(size: number): number {
  let length = 1;
  while (length < size) length *= 2;
  return length;
}

/** Driver side: writes zero to every part, as a queue must find them when it is enabled (§2.7.10.1, §2.8.13). */
export function zeroRing(areas: RingAreas): void {
  for (const { halves } of [areas.descriptors, areas.driver, areas.device]) halves.fill(0);
}
