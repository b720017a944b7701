/** For each type of device a request that changes nothing, and whether its answer makes sense. */
import { asciiText } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { VirtioTypeName } from '@airlock/core/virtio.ts';
import { BLK_HEADER_SIZE, BLK_IN, BLK_OK, writeBlockHeader } from '@airlock/virtio/request/block.ts';
import { exchange } from '../exchange.ts';
import type { FrontEnd } from '../front-end.ts';

/** Bytes of the largest part of these requests. */
export const HARMLESS_PART = 4096;

interface Harmless {
  /** The queue that takes it. */
  readonly queue: number;
  /** In words: what the device answered. Codes: `driver-request-failed`, those of `exchange`. */
  readonly ask: (front: FrontEnd, queue: number) => Result<string>;
}

/** Types whose requests always do something (a packet is sent, a page given away) have none. */
export const HARMLESS_REQUESTS: Readonly<Partial<Record<VirtioTypeName, Harmless>>> = {
  block: { queue: 0, ask: readSector },
  entropy: { queue: 0, ask: takeEntropy },
  fs: { queue: 1, ask: beginFuse },
  '9p': { queue: 0, ask: agreeOnVersion },
};

interface Parts {
  readonly out: readonly Uint8Array[];
  readonly in: readonly number[];
}

function send(front: FrontEnd, index: number, { out, in: incoming }: Parts): ReturnType<typeof exchange> {
  const queue = front.queues?.all[index];
  const pool = front.memory?.pool;
  if (queue === undefined || pool === undefined) return fail('vhost-user-no-queue', `queue ${index}`);
  return exchange({ queue, pool, out, in: incoming, timeout: front.timeout, now: front.now });
}

/** VIRTIO 1.4 §5.2.6: sector 0. */
function readSector(front: FrontEnd, queue: number): Result<string> {
  const header = new Uint8Array(BLK_HEADER_SIZE);
  writeBlockHeader(new DataView(header.buffer), 0, BLK_IN, 0);
  const answer = send(front, queue, { out: [header], in: [512, 1] });
  if (!answer.ok) return answer;
  const status = answer.value.parts[1]?.[0];
  if (status !== BLK_OK) return fail('driver-request-failed', `reading sector 0: status ${status}`);
  return answer.value.written === 513
    ? ok('sector 0 was read, used length 513')
    : fail('driver-reply-short', `sector 0 was read, and the used length is ${answer.value.written}, not 513`);
}

/** §5.4.6 */
function takeEntropy(front: FrontEnd, queue: number): Result<string> {
  const answer = send(front, queue, { out: [], in: [64] });
  if (!answer.ok) return answer;
  const { written, parts } = answer.value;
  if (written === 0) return fail('driver-request-failed', 'no random bytes came');
  const some = parts[0]?.subarray(0, written) ?? new Uint8Array(0);
  if (written >= 16 && some.every((byte) => byte === some[0])) {
    return fail('driver-request-failed', `${written} bytes, all of them ${some[0]}`);
  }
  return ok(`${written} random bytes`);
}

/** §5.11.6: FUSE_INIT of protocol 7.31; fuse_in_header (40 bytes) and fuse_init_in (64 bytes). */
function beginFuse(front: FrontEnd, queue: number): Result<string> {
  const header = new Uint8Array(40);
  const view = new DataView(header.buffer);
  view.setUint32(0, 104, true);
  view.setUint32(4, 26, true);
  view.setUint32(8, 1, true);
  const init = new Uint8Array(64);
  const initView = new DataView(init.buffer);
  initView.setUint32(0, 7, true);
  initView.setUint32(4, 31, true);
  initView.setUint32(8, 65536, true);
  const answer = send(front, queue, { out: [header, init], in: [16, 64] });
  if (!answer.ok) return answer;
  const [head, body] = answer.value.parts;
  if (head === undefined || body === undefined || answer.value.written < 24) {
    return fail('driver-reply-short', `FUSE_INIT: ${answer.value.written} bytes`);
  }
  const reply = new DataView(head.buffer);
  const error = reply.getInt32(4, true);
  if (error !== 0 || reply.getUint32(8, true) !== 1) return fail('driver-request-failed', `FUSE_INIT: error ${error}`);
  const version = new DataView(body.buffer);
  const looked = lookRoot(front, queue);
  const protocol = `FUSE ${version.getUint32(0, true)}.${version.getUint32(4, true)}`;
  return looked.ok ? ok(`${protocol}; ${looked.value}`) : looked;
}

/** FUSE_GETATTR of the root: fuse_getattr_in (16 bytes), fuse_attr_out (104 bytes). */
function lookRoot(front: FrontEnd, queue: number): Result<string> {
  const out = new Uint8Array(56);
  const view = new DataView(out.buffer);
  view.setUint32(0, 56, true);
  view.setUint32(4, 3, true);
  view.setUint32(8, 2, true);
  view.setUint32(16, 1, true);
  const answer = send(front, queue, { out: [out], in: [16, 104] });
  if (!answer.ok) return answer;
  const [head, body] = answer.value.parts;
  if (head === undefined || body === undefined || answer.value.written < 120) {
    return fail('driver-reply-short', `FUSE_GETATTR: ${answer.value.written} bytes`);
  }
  const error = new DataView(head.buffer).getInt32(4, true);
  if (error !== 0) return fail('driver-request-failed', `FUSE_GETATTR: error ${error}`);
  const mode = new DataView(body.buffer).getUint32(16 + 60, true);
  if ((mode & 0o170000) !== 0o040000) {
    return fail('driver-request-failed', `the root is no folder: mode ${mode.toString(8)}`);
  }
  return ok(`its root is a folder, mode ${(mode & 0o7777).toString(8)}`);
}

/** Tversion with 9P2000.L. */
function agreeOnVersion(front: FrontEnd, queue: number): Result<string> {
  const name = '9P2000.L';
  const message = new Uint8Array(13 + name.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, message.length, true);
  view.setUint8(4, 100);
  view.setUint16(5, 0xffff, true);
  view.setUint32(7, 8192, true);
  view.setUint16(11, name.length, true);
  for (let i = 0; i < name.length; i++) message[13 + i] = name.charCodeAt(i);
  const answer = send(front, queue, { out: [message], in: [128] });
  if (!answer.ok) return answer;
  const reply = answer.value.parts[0] ?? new Uint8Array(0);
  const replied = new DataView(reply.buffer);
  if (answer.value.written < 13 || replied.getUint8(4) !== 101) {
    return fail('driver-request-failed', `Tversion: ${answer.value.written} bytes, type ${replied.getUint8(4)}`);
  }
  const length = Math.min(replied.getUint16(11, true), answer.value.written - 13);
  return ok(`9P: ${asciiText(reply.subarray(13, 13 + length))}, messages of ${replied.getUint32(7, true)} bytes`);
}
