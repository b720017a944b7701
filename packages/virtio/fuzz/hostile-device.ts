/** The driver side of a queue against a device that writes what it likes, when it likes. */
import { RING_ERRORS } from '@airlock/virtio/errors.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { BROKEN, DONE, type DriverQueue, FULL, NONE, REFUSED } from '@airlock/virtio/ring/queue.ts';
import { type Random, type Tally, unwrap } from './tally.ts';
import { watchedMemory } from './watched-memory.ts';

const BASE = 0x1_2345_0000;
const RAM = 65536;
const INDIRECT = 4;

interface Request {
  readonly writable: number;
  readonly elements: readonly (readonly [number, number])[];
  published: boolean;
  /** Descriptors that it takes in the ring. */
  readonly places: number;
}

/** Runs rounds until `tally.states` has grown by `states`. Throws on the first thing that escapes. */
export function fuzzDriver(packed: boolean, states: number, next: Random, tally: Tally): void {
  const end = tally.states + states;
  while (tally.states < end) round(packed, Math.min(end - tally.states, 400 + next(4000)), next, tally);
}

function round(packed: boolean, states: number, next: Random, tally: Tally): void {
  const size = packed ? 1 + next(24) : 1 << next(6);
  const features = { packed, indirect: next(2) === 0, eventIndex: next(2) === 0, inOrder: next(3) === 0 };
  const memory = watchedMemory('ram', RAM);
  const space = new AddressSpace();
  unwrap(space.map({ start: BASE, size: RAM, region: memory.region, offset: 0, access: 3 }));
  const driverAt = Math.ceil((16 * size) / 4) * 4;
  const deviceAt = Math.ceil((driverAt + 6 + 2 * size) / 4) * 4;
  const tables = Math.ceil((deviceAt + 6 + 8 * size) / 16) * 16;
  const queue = unwrap(
    createDriverQueue(space, {
      size,
      features,
      addresses: { descriptors: BASE, driver: BASE + driverAt, device: BASE + deviceAt },
      indirect: { address: BASE + tables, limit: INDIRECT },
      strictLength: next(4) === 0,
    }),
  );
  const { raw } = memory;
  const open = new Map<number, Request>();
  const elements = { addresses: new Float64Array(64), lengths: new Uint32Array(64), readable: 0, count: 0 };
  let token = 0;
  let usedIndex = 0;
  let usedAt = 0;
  let usedWrap = 1;

  const submit = (): void => {
    const count = 1 + next(Math.min(5, size + 1));
    const readable = next(count + 1);
    const made: [number, number][] = [];
    let writable = 0;
    for (let i = 0; i < count; i++) {
      const address = BASE + 0x8000 + next(0x7000);
      const length = 1 + next(0x800);
      made.push([address, length]);
      if (i < readable) queue.readable(address, length);
      else {
        queue.writable(address, length);
        writable += length;
      }
    }
    const outcome = queue.submit(token);
    const places = features.indirect && count > 1 && count <= INDIRECT ? 1 : count;
    if (outcome === DONE) open.set(token++, { writable, elements: made, published: false, places });
    else if (outcome === REFUSED) {
      if (queue.refusal?.code !== 'request-too-long') throw new Error(`refused: ${queue.refusal?.code}`);
    } else if (outcome !== FULL && outcome !== BROKEN) throw new Error(`submit: ${outcome}`);
  };
  const publish = (): void => {
    queue.publish();
    if (queue.violation === null) for (const request of open.values()) request.published = true;
  };
  /** Something like a completion: of a head that is likely to be in flight. */
  const complete = (): void => {
    if (queue.inFlight === 0 && next(16) > 0) return;
    // What stands in the ring where the driver put the next request, mostly; anything else otherwise.
    const honest = packed
      ? raw.getUint16(16 * usedAt + 12, true)
      : raw.getUint16(driverAt + 4 + 2 * (usedIndex % size), true);
    const id = next(30) === 0 ? next(0x10000) : next(6) === 0 ? next(size) : honest;
    const length = next(10) === 0 ? 0xffffffff : next(next(2) === 0 ? 64 : 0x1000);
    if (packed) {
      const at = 16 * usedAt;
      raw.setUint32(at + 8, length, true);
      raw.setUint16(at + 12, id, true);
      raw.setUint16(at + 14, (usedWrap ? 0x8080 : 0) | (next(2) === 0 ? 2 : 0), true);
      return;
    }
    const at = deviceAt + 4 + 8 * (usedIndex % size);
    raw.setUint32(at, next(40) === 0 ? id + 0x10000 : id, true);
    raw.setUint32(at + 4, length, true);
    usedIndex = (usedIndex + (next(40) === 0 ? next(6) : 1)) & 0xffff;
    if (next(100) === 0) usedIndex = next(0x10000);
    raw.setUint16(deviceAt + 2, usedIndex, true);
  };
  const noise = (): void => {
    const at = next(4) === 0 ? next(RAM - 4) : next(deviceAt + 6 + 8 * size);
    raw.setUint32(at, next(2) === 0 ? next(8) : next(0x7fffffff) * 2, true);
  };
  memory.view.afterRead =
    next(2) === 0
      ? (offset, width) => {
          if (next(40) !== 0) return;
          if (width === 2) raw.setUint16(offset, next(0x10000), true);
          else raw.setUint32(offset, next(0x7fffffff), true);
        }
      : null;

  for (let i = 0; i < states; i++) {
    tally.states++;
    memory.view.steps = 0;
    memory.view.budget = 16 * (size + 8);
    if (next(2) === 0) submit();
    if (next(2) === 0) publish();
    queue.shouldNotify();
    const kind = next(8);
    if (kind < 5) complete();
    else if (kind === 5 && next(3) === 0) noise();
    // A completion or two; each call may read one used element and no more.
    for (let n = next(3); n >= 0; n--) {
      memory.view.steps = 0;
      memory.view.budget = 3;
      const outcome = queue.complete();
      if (outcome === NONE) break;
      if (outcome === DONE) {
        usedAt += finish(queue, open, elements).places;
        if (usedAt >= size) {
          usedAt -= size;
          usedWrap ^= 1;
        }
        tally.note('completed');
      } else if (outcome === BROKEN) {
        broken(queue, open, tally);
        usedIndex = 0;
        usedAt = 0;
        usedWrap = 1;
        break;
      } else throw new Error(`complete: ${outcome}`);
    }
    if (next(8) === 0) queue.suppressNotifications();
    if (next(8) === 0) queue.requestNotifications(1 + next(size));
    if (queue.free > size || queue.free < 0 || queue.inFlight > size) throw new Error(`free ${queue.free}`);
    if (next(4) === 0) queue.notificationOffset();
  }
  memory.checkGuards();
}

function finish(
  queue: DriverQueue,
  open: Map<number, Request>,
  elements: { addresses: Float64Array; lengths: Uint32Array; readable: number; count: number },
): Request {
  const request = open.get(queue.token);
  if (request === undefined) throw new Error(`token ${queue.token} completed twice, or was never submitted`);
  if (!request.published) throw new Error(`token ${queue.token} completed before it was published`);
  if (!(queue.written >= 0 && queue.written <= request.writable)) {
    throw new Error(`${queue.written} bytes written of ${request.writable}`);
  }
  if (!queue.elements(elements) || elements.count !== request.elements.length) throw new Error('elements are lost');
  request.elements.forEach(([address, length], i) => {
    if (elements.addresses[i] !== address || elements.lengths[i] !== length) throw new Error('elements are changed');
  });
  open.delete(queue.token);
  return request;
}

function broken(queue: DriverQueue, open: Map<number, Request>, tally: Tally): void {
  const code = queue.violation?.code ?? 'none';
  if (!(code in RING_ERRORS)) throw new Error(`no known code: ${code}`);
  tally.note(code);
  if (queue.complete() !== BROKEN || queue.requestNotifications()) throw new Error('a poisoned queue went on');
  queue.readable(BASE, 1);
  if (queue.submit(-1) !== BROKEN) throw new Error('a poisoned queue took a request');
  const left = queue.reset().sort((a, b) => a - b);
  const expected = [...open.keys()].sort((a, b) => a - b);
  if (left.length !== expected.length || left.some((token, i) => token !== expected[i])) {
    throw new Error(`reset gave ${left.length} tokens back, ${expected.length} were open`);
  }
  open.clear();
  if (queue.free !== queue.size || queue.inFlight !== 0 || queue.violation !== null)
    throw new Error('reset is not whole');
}
