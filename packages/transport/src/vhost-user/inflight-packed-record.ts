/** The record of a packed queue as bytes: its fields, and what a new life reads from what the old one left. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { AVAIL, DESCRIPTOR_SIZE, type RingArea, USED } from '@airlock/virtio/ring/layout.ts';
import type { DevicePosition } from '@airlock/virtio/ring/queue.ts';
import {
  COUNT_AT,
  INFLIGHT_VERSION,
  type InflightPart,
  PACKED_ENTRY,
  PACKED_HEADER,
  readCounter,
  VERSION_AT,
} from './inflight-area.ts';

export const FREE_HEAD = 12;
export const OLD_FREE_HEAD = 14;
export const USED_AT = 16;
export const OLD_USED_AT = 18;
export const USED_WRAP = 20;
export const OLD_USED_WRAP = 21;
/** Of an entry. */
export const INFLIGHT = 0;
export const NEXT = 2;
export const LAST = 4;
export const NUM = 6;
export const COUNTER = 8;
export const ID = 16;
export const FLAGS = 18;
export const LENGTH = 20;
export const ADDRESS = 24;

/** Ends a list of entries; 32768 is the largest queue. */
export const NO_ENTRY = 0xffff;

interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
}

/** A list of an earlier life: its buffer id and a copy of its descriptors. */
export interface Left {
  readonly entry: number;
  readonly id: number;
  readonly counter: number;
  readonly descriptors: readonly Descriptor[];
}

export interface Found {
  readonly left: readonly Left[];
  /** Private: which entry follows which, among the free ones and within each list in flight. */
  readonly next: Uint16Array;
  readonly freeHead: number;
  readonly position: DevicePosition;
}

/**
 * What an earlier life left in flight, and where the queue stands. A part that was never used begins at `position`.
 * Code: `vhost-user-inflight-invalid`.
 */
export function recover(part: InflightPart, size: number, ring: RingArea, position: DevicePosition): Result<Found> {
  const { view, base } = part;
  const entry = (at: number): number => base + PACKED_HEADER + at * PACKED_ENTRY;
  if (view.getUint16(base + VERSION_AT, true) !== INFLIGHT_VERSION || view.getUint16(base + COUNT_AT, true) !== size) {
    new Uint8Array(view.buffer, view.byteOffset + base, PACKED_HEADER + size * PACKED_ENTRY).fill(0);
    view.setUint16(base + COUNT_AT, size, true);
    for (const at of [USED_AT, OLD_USED_AT]) view.setUint16(base + at, position.used, true);
    for (const at of [USED_WRAP, OLD_USED_WRAP]) view.setUint8(base + at, position.usedWrap ? 1 : 0);
    for (let i = 0; i < size; i++) view.setUint16(entry(i) + NEXT, i + 1 < size ? i + 1 : NO_ENTRY, true);
    view.setUint16(base + VERSION_AT, INFLIGHT_VERSION, true);
  }
  const oldUsed = view.getUint16(base + OLD_USED_AT, true);
  if (oldUsed >= size) return invalid(`used position ${oldUsed} of ${size}`);
  const oldWrap = view.getUint8(base + OLD_USED_WRAP) === 1;
  const round = view.getUint8(base + USED_WRAP) === view.getUint8(base + OLD_USED_WRAP) ? 0 : size;
  const moved = view.getUint16(base + USED_AT, true) + round - oldUsed;
  if (moved !== 0) {
    // A batch was under way. Did the driver get to see it? Then the record follows. A step back is the end of that very
    // record: its wrap counter was written, its place not yet.
    const flags = ring.view.getUint16(ring.base + oldUsed * DESCRIPTOR_SIZE + 14, true);
    const untouched = ((flags & AVAIL) !== 0) === oldWrap && ((flags & USED) !== 0) !== oldWrap;
    if (!untouched || moved < 0) commit(part);
  }
  const used = view.getUint16(base + OLD_USED_AT, true);
  const usedWrap = view.getUint8(base + OLD_USED_WRAP) === 1;
  if (used >= size) return invalid(`used position ${used} of ${size}`);

  // Whatever is on the free list is not in flight.
  const free = new Uint8Array(size);
  let at = view.getUint16(base + OLD_FREE_HEAD, true);
  while (at < size && free[at] === 0) {
    free[at] = 1;
    view.setUint8(entry(at) + INFLIGHT, 0);
    at = view.getUint16(entry(at) + NEXT, true);
  }
  const found = collect(part, size, free, used, usedWrap);
  if (found.ok) hideUnshown(ring, size, found.value.position);
  return found;
}

/** Wrap counter before place: half of it done is then told from a batch that was never shown. */
export function commit({ view, base }: InflightPart): void {
  view.setUint16(base + OLD_FREE_HEAD, view.getUint16(base + FREE_HEAD, true), true);
  view.setUint8(base + OLD_USED_WRAP, view.getUint8(base + USED_WRAP));
  view.setUint16(base + OLD_USED_AT, view.getUint16(base + USED_AT, true), true);
}

/** Reads the lists that are in flight, and makes the free list new from the entries of none of them. */
function collect(part: InflightPart, size: number, free: Uint8Array, used: number, usedWrap: boolean): Result<Found> {
  const { view, base } = part;
  const entry = (at: number): number => base + PACKED_HEADER + at * PACKED_ENTRY;
  const taken = new Uint8Array(size);
  const ids = new Uint8Array(size);
  const next = new Uint16Array(size).fill(NO_ENTRY);
  const left: Left[] = [];
  let places = 0;
  for (let head = 0; head < size; head++) {
    if (free[head] === 1 || view.getUint8(entry(head) + INFLIGHT) !== 1) continue;
    const count = view.getUint16(entry(head) + NUM, true);
    places += count;
    if (count < 1 || places > size) return invalid(`entry ${head} holds ${count} descriptors`);
    const descriptors: Descriptor[] = [];
    let id = 0;
    let at = head;
    for (let i = 0; i < count; i++) {
      if (at >= size || taken[at] === 1 || free[at] === 1) return invalid(`the list of entry ${head} leads astray`);
      taken[at] = 1;
      const place = entry(at);
      const low = view.getUint32(place + ADDRESS, true);
      const address = view.getUint32(place + ADDRESS + 4, true) * 2 ** 32 + low;
      const length = view.getUint32(place + LENGTH, true);
      descriptors.push({ address, length, flags: view.getUint16(place + FLAGS, true) });
      id = view.getUint16(place + ID, true);
      const following = view.getUint16(place + NEXT, true);
      if (i + 1 < count) next[at] = following;
      at = following;
    }
    if (id >= size || ids[id] === 1) return invalid(`buffer id ${id} of entry ${head}`);
    ids[id] = 1;
    left.push({ entry: head, id, counter: readCounter(view, entry(head) + COUNTER), descriptors });
  }
  left.sort((a, b) => a.counter - b.counter);
  let freeHead = NO_ENTRY;
  for (let i = size - 1; i >= 0; i--) {
    if (taken[i] === 1) continue;
    view.setUint8(entry(i) + INFLIGHT, 0);
    next[i] = freeHead;
    view.setUint16(entry(i) + NEXT, freeHead, true);
    freeHead = i;
  }
  for (const field of [FREE_HEAD, OLD_FREE_HEAD]) view.setUint16(base + field, freeHead, true);
  // Rolled back in the other order than it is written, so that half of it is no step back.
  view.setUint16(base + USED_AT, used, true);
  view.setUint8(base + USED_WRAP, usedWrap ? 1 : 0);
  const end = used + places;
  const avail = end % size;
  const availWrap = end >= size ? !usedWrap : usedWrap;
  return ok({ left, next, freeHead, position: { avail, availWrap, used, usedWrap } });
}

/**
 * All but the first of a batch may already look used in the ring although the driver was not shown the first, and so may
 * a malformed list whose record was not finished: made to look available again. Nothing that the driver writes looks used
 * between the used position and itself one round later.
 */
function hideUnshown(ring: RingArea, size: number, { used, usedWrap }: DevicePosition): void {
  for (let i = 0; i < size; i++) {
    const wrap = used + i < size ? usedWrap : !usedWrap;
    const at = ring.base + ((used + i) % size) * DESCRIPTOR_SIZE + 14;
    const flags = ring.view.getUint16(at, true);
    const looksUsed = ((flags & AVAIL) !== 0) === wrap && ((flags & USED) !== 0) === wrap;
    if (looksUsed) ring.view.setUint16(at, (flags & ~(AVAIL | USED)) | (wrap ? AVAIL : USED), true);
  }
}

function invalid(text: string): Result<never> {
  return fail('vhost-user-inflight-invalid', text);
}
