/**
 * What no driver sends, written into a split ring by hand; and whether the back-end lives on. Only ever requests to read.
 */

import { fail, ok, type Result } from '@airlock/core/result.ts';
import type { VirtioTypeName } from '@airlock/core/virtio.ts';
import { featureSet } from '@airlock/virtio/features.ts';
import { INDIRECT, NEXT, WRITES } from '@airlock/virtio/ring/layout.ts';
import { connectUnix, send } from '../../unix-socket.ts';
import { FrontEnd, type FrontEndOptions } from '../front-end.ts';
import type { CheckId, Findings } from './check.ts';
import { HARMLESS_PART, HARMLESS_REQUESTS } from './harmless-request.ts';

const SIZE = 16;
/** Milliseconds that a back-end gets to fall over. */
const PATIENCE = 200;

/** Writes an offence into the memory of queue `index`, as offsets into the shared memory. */
type Offence = (view: DataView, at: { readonly table: number; readonly avail: number; readonly data: number }) => void;

const NOWHERE = 0x7fff_0000_0000;

const OFFENCES: readonly (readonly [CheckId, string, Offence])[] = [
  [
    'hostile-address',
    'buffers outside of all memory, at its very end, and around the end of all addresses',
    (view, { table, avail }) => {
      const places = [
        [NOWHERE, 512],
        [0, 0xffff_ffff],
        [2 ** 53 - 4096, 8192],
        [2 ** 64 - 4096, 0xffff_ffff],
      ] as const;
      places.forEach(([address, length], i) => {
        descriptor(view, table, 2 * i, address, length, NEXT, 2 * i + 1);
        descriptor(view, table, 2 * i + 1, address, length, WRITES, 0);
      });
      offer(view, avail, [0, 2, 4, 6], 4);
    },
  ],
  [
    'hostile-loop',
    'a chain that leads to itself, one round the whole table, and an indirect table that is its own',
    (view, { table, avail, data }) => {
      descriptor(view, table, 0, data, 16, NEXT, 0);
      for (let i = 1; i < 8; i++) descriptor(view, table, i, data, 16, NEXT, i === 7 ? 1 : i + 1);
      descriptor(view, table, 8, table, 16, INDIRECT, 0);
      descriptor(view, table, 9, table, 15, INDIRECT, 0);
      descriptor(view, table, 10, data, 16, NEXT, 60000);
      offer(view, avail, [0, 1, 8, 9, 10], 5);
    },
  ],
  ['hostile-head', 'head 65535', (view, { avail }) => offer(view, avail, [65535], 1)],
  [
    'hostile-index',
    'an available index 40000 further, in a ring of 16',
    (view, { avail }) => offer(view, avail, [0], 40000),
  ],
];

function descriptor(
  view: DataView,
  table: number,
  index: number,
  address: number,
  length: number,
  flags: number,
  next: number,
): void {
  const at = table - BASE + index * 16;
  view.setUint32(at, address % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
  view.setUint32(at + 8, length, true);
  view.setUint16(at + 12, flags, true);
  view.setUint16(at + 14, next, true);
}

function offer(view: DataView, avail: number, heads: readonly number[], index: number): void {
  heads.forEach((head, i) => {
    view.setUint16(avail - BASE + 4 + 2 * i, head, true);
  });
  view.setUint16(avail - BASE + 2, index, true);
}

/** Address of the first byte of the shared memory, as descriptors have it. */
const BASE = 0x1000_0000;

/** After each offence the back-end must take a new connection and answer it. */
export function probeHostile(
  path: string,
  options: FrontEndOptions,
  findings: Findings,
  type: VirtioTypeName | null,
): void {
  for (const [id, what, offence] of OFFENCES) {
    const done = offend(path, options, type, offence);
    const alive = done.ok ? stillServes(path, options, type) : done;
    findings.take(id, alive, (text) => `${what}: ${text}`);
    if (!alive.ok) return;
  }
  const sent = halfMessages(path, options);
  const alive = sent.ok ? stillServes(path, options, type) : sent;
  findings.take('hostile-message', alive, (text) => text);
}

function start(path: string, options: FrontEndOptions, type: VirtioTypeName | null): Result<FrontEnd> {
  const connected = FrontEnd.connect(path, options);
  if (!connected.ok) return connected;
  const front = connected.value;
  const agreed = front.negotiate(type ?? '', featureSet([28, 32]), featureSet([32]));
  const queues = type === 'fs' || type === 'net' || type === 'console' ? 2 : type === 'vsock' ? 2 : 1;
  const started = agreed.ok ? front.setUp({ queues, size: SIZE, pool: [{ size: HARMLESS_PART, count: 8 }] }) : agreed;
  if (started.ok) return ok(front);
  front.close();
  return started;
}

function offend(path: string, options: FrontEndOptions, type: VirtioTypeName | null, offence: Offence): Result<void> {
  const started = start(path, options, type);
  if (!started.ok) return started;
  const front = started.value;
  const index = type === null ? 0 : (HARMLESS_REQUESTS[type]?.queue ?? 0);
  const queue = front.queues?.all[index];
  const { memory } = front;
  if (queue !== undefined && memory !== null) {
    const { buffer, byteOffset } = memory.pool.region.view;
    // The pool's region is the end of the shared memory; the rings stand before it.
    const view = new DataView(buffer, byteOffset - (memory.pool.address - BASE));
    const { descriptors: table, driver: avail } = queue.addresses;
    offence(view, { table, avail, data: memory.pool.address });
    queue.kick();
    const end = front.now() + PATIENCE;
    for (let left = PATIENCE; left > 0; left = end - front.now()) {
      if (queue.sleep(left) !== null) break;
    }
  }
  front.close();
  return ok(undefined);
}

function stillServes(path: string, options: FrontEndOptions, type: VirtioTypeName | null): Result<string> {
  const started = start(path, options, type);
  if (!started.ok) return fail(started.error.code, `afterwards: ${started.error.message}`);
  const front = started.value;
  const request = type === null ? undefined : HARMLESS_REQUESTS[type];
  const answered = request === undefined ? ok('it starts') : request.ask(front, request.queue);
  front.close();
  if (!answered.ok) return fail(answered.error.code, `afterwards: ${answered.error.message}`);
  return ok(`afterwards ${answered.value}`);
}

/** A header and no more; a payload longer than announced; one of four gigabytes. */
function halfMessages(path: string, options: FrontEndOptions): Result<void> {
  const { calls } = options;
  const header = (request: number, flags: number, size: number): Uint8Array =>
    new Uint8Array(Uint32Array.of(request, flags, size).buffer);
  for (const bytes of [
    header(5, 1, 8).subarray(0, 7),
    header(5, 1, 8),
    header(9, 1, 3),
    header(2, 1, 0xffff_ffff),
    header(1, 2, 0),
    new Uint8Array(64).fill(0xff),
  ]) {
    // Answered once before, so that it is not merely waiting behind the one before it.
    const front = FrontEnd.connect(path, options);
    if (!front.ok) return front;
    front.value.close();
    const fd = connectUnix(calls, path);
    if (!fd.ok) return fd;
    send(calls, fd.value, bytes);
    calls.close(fd.value);
  }
  return ok(undefined);
}
