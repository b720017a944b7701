/**
 * Replay-protected memory: a key that is set once, a counter that only grows, writes that prove both. VIRTIO 1.4 §5.12.
 * Key, counter and data outlive every reset, and end with the device's process.
 */
import { rpmb } from '@airlock/virtio/device/rpmb.ts';
import type { DeviceModel } from '../model/model.ts';

/** HMAC with SHA-256. */
export type HmacSha256 = (key: Uint8Array, data: Uint8Array) => Uint8Array;

export const FRAME = 512;
const MAC_AT = 196;
const MAC_SIZE = 32;
const DATA_AT = 228;
const BLOCK = 256;
const NONCE_AT = 484;
const COUNTER_AT = 500;
const ADDRESS_AT = 504;
const COUNT_AT = 506;
const RESULT_AT = 508;
const TYPE_AT = 510;

const PROGRAM_KEY = 1;
const GET_COUNTER = 2;
const WRITE = 3;
const READ = 4;
const RESULT_READ = 5;

const OK = 0;
const GENERAL = 1;
const AUTHENTICATION = 2;
const COUNTER = 3;
const ADDRESS = 4;
const WRITE_FAILURE = 5;
const NO_KEY = 7;
const EXPIRED = 0x80;

/** In 128 KiB. */
const CAPACITY = 1;
const BLOCKS = (CAPACITY * 128 * 1024) / BLOCK;
const COUNT_LIMIT = 16;

interface Answer {
  readonly result: number;
  /** Blocks that were read. */
  readonly data?: Uint8Array;
}

export function rpmbModel(hmac: HmacSha256): DeviceModel {
  const config = Uint8Array.of(CAPACITY, COUNT_LIMIT, COUNT_LIMIT);
  const memory = new Uint8Array(BLOCKS * BLOCK);
  let key: Uint8Array | null = null;
  let counter = 0;
  /** Of the last programming or write, for RESULT_READ. */
  let last = { type: 0, result: GENERAL, address: 0 };
  const counts = { requests: 0, refused: 0, writes: 0, reads: 0 };

  /** Is the frames' own code, which stands in the last one, that of their data? */
  function authentic(frames: Uint8Array): boolean {
    const made = code(frames);
    const given = frames.subarray(frames.length - FRAME + MAC_AT, frames.length - FRAME + MAC_AT + MAC_SIZE);
    // Every byte is looked at, so that time tells nothing.
    return made !== null && made.reduce((differ, byte, i) => differ | (byte ^ (given[i] ?? 0)), 0) === 0;
  }
  function code(frames: Uint8Array): Uint8Array | null {
    if (key === null) return null;
    const parts = new Uint8Array((frames.length / FRAME) * (FRAME - DATA_AT));
    for (let at = 0, put = 0; at < frames.length; at += FRAME, put += FRAME - DATA_AT) {
      parts.set(frames.subarray(at + DATA_AT, at + FRAME), put);
    }
    return hmac(key, parts);
  }
  /** §5.12.6.1.1. */
  function program(frame: Uint8Array, view: DataView): number {
    if (frame.length !== FRAME || view.getUint16(COUNT_AT) !== 1) return GENERAL;
    if (key !== null) return WRITE_FAILURE;
    key = frame.slice(MAC_AT, MAC_AT + MAC_SIZE);
    return OK;
  }
  /** §5.12.6.1.3, in its order. */
  function write(frames: Uint8Array, view: DataView): number {
    const [address, count] = [view.getUint16(ADDRESS_AT), view.getUint16(COUNT_AT)];
    if (key === null) return NO_KEY;
    if (count < 1 || count > COUNT_LIMIT || frames.length !== count * FRAME) return GENERAL;
    if (counter === 0xffff_ffff) return EXPIRED;
    if (address + count > BLOCKS) return ADDRESS;
    if (!authentic(frames)) return AUTHENTICATION;
    if (view.getUint32(COUNTER_AT) !== counter) return COUNTER;
    for (let i = 0; i < count; i++) {
      const from = i * FRAME + DATA_AT;
      memory.set(frames.subarray(from, from + BLOCK), (address + i) * BLOCK);
    }
    counter++;
    counts.writes++;
    return OK;
  }
  /** §5.12.6.1.2. */
  function readCounter(view: DataView): number {
    if (key === null) return NO_KEY;
    return view.getUint16(COUNT_AT) === 1 ? OK : GENERAL;
  }
  /** §5.12.6.1.4. */
  function read(view: DataView, frames: number): Answer {
    const [address, count] = [view.getUint16(ADDRESS_AT), view.getUint16(COUNT_AT)];
    if (key === null) return { result: NO_KEY };
    if (count < 1 || count > COUNT_LIMIT || frames < count) return { result: GENERAL };
    if (address + count > BLOCKS) return { result: ADDRESS };
    counts.reads++;
    return { result: OK, data: memory.subarray(address * BLOCK, (address + count) * BLOCK) };
  }
  /** Fills the reply's frames and puts their code into the last one; bytes of it. */
  function respond(reply: Uint8Array, type: number, nonce: Uint8Array, address: number, answer: Answer): number {
    const count = Math.max(1, (answer.data?.length ?? 0) / BLOCK);
    const frames = reply.subarray(0, count * FRAME);
    for (let i = 0; i < count; i++) {
      const frame = frames.subarray(i * FRAME, (i + 1) * FRAME);
      const view = new DataView(frame.buffer, frame.byteOffset, FRAME);
      if (answer.data) frame.set(answer.data.subarray(i * BLOCK, (i + 1) * BLOCK), DATA_AT);
      frame.set(nonce, NONCE_AT);
      view.setUint32(COUNTER_AT, type === READ ? 0 : counter);
      view.setUint16(ADDRESS_AT, address);
      view.setUint16(COUNT_AT, answer.data ? count : 0);
      view.setUint16(RESULT_AT, answer.result);
      view.setUint16(TYPE_AT, type << 8);
    }
    const made = code(frames);
    if (made !== null) frames.set(made, frames.length - FRAME + MAC_AT);
    return frames.length;
  }
  /** The result of the last programming or write; `count` is that of the request for it (§5.12.6.1.5). */
  function showResult(reply: Uint8Array, count: number): number {
    const result = count === 1 ? last.result : GENERAL;
    return respond(reply.subarray(0, FRAME), last.type, NO_NONCE, last.address, { result });
  }
  function answer(request: Uint8Array, reply: Uint8Array, size: number): number {
    counts.requests++;
    const room = reply.length - (reply.length % FRAME);
    const whole = size === request.length && size >= FRAME && size % FRAME === 0;
    if (!whole) {
      counts.refused++;
      return room < FRAME ? 0 : respond(reply.subarray(0, room), 0, NO_NONCE, 0, { result: GENERAL });
    }
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const type = view.getUint16(TYPE_AT);
    const nonce = request.subarray(NONCE_AT, NONCE_AT + 16);
    const address = view.getUint16(ADDRESS_AT);
    if (type === PROGRAM_KEY || type === WRITE) {
      // §5.12.6: a request for the result may stand behind the frames; without one there is no answer.
      const tail = request.length - FRAME;
      const asked = tail >= FRAME && view.getUint16(tail + TYPE_AT) === RESULT_READ;
      const frames = asked ? request.subarray(0, tail) : request;
      const result = type === WRITE ? write(frames, view) : program(frames, view);
      last = { type, result, address };
      if (result !== OK) counts.refused++;
      if (!asked || room < FRAME) return 0;
      return showResult(reply, view.getUint16(tail + COUNT_AT));
    }
    if (room < FRAME) return 0;
    const out = reply.subarray(0, room);
    if (type === RESULT_READ) return showResult(out, view.getUint16(COUNT_AT));
    if (type === GET_COUNTER) return respond(out, type, nonce, 0, { result: readCounter(view) });
    const outcome = type === READ ? read(view, room / FRAME) : { result: GENERAL };
    if (outcome.result !== OK) counts.refused++;
    return respond(out, type & 0xff, nonce, address, outcome);
  }
  return {
    type: rpmb,
    queues: [
      {
        ...{ kind: 'requests', requestLimit: (COUNT_LIMIT + 1) * FRAME, replyLimit: COUNT_LIMIT * FRAME },
        answer: (request, reply, { size }) => answer(request, reply, size),
      },
    ],
    config: () => config,
    close() {
      key?.fill(0);
      memory.fill(0);
    },
    facts: () => ({ ...counts, counter, keyed: key !== null }),
  };
}

const NO_NONCE = new Uint8Array(16);
