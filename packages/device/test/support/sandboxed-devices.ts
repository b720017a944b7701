/**
 * A program that opens a share and the host's side of a vsock, closes itself in, and then uses both as a guest's requests
 * would; it prints what happened as one line of JSON.
 */
import { writeSync } from 'node:fs';
import { Session, sessionMemory } from '@airlock/device/9p/session.ts';
import { Share } from '@airlock/device/9p/share.ts';
import { openHybridHost } from '@airlock/device/vsock/hybrid-host.ts';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { enterSandbox } from '@airlock/transport/sandbox.ts';
import { O_CLOEXEC, O_RDONLY, STATX_SIZE } from '@airlock/transport/sys/directories.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { must } from './in-memory-driver.ts';
import { encodeMessage, type Field } from './p9-client.ts';

const folder = process.argv[2] ?? '';
const calls = must(await loadSystemCalls());
const reactor = must(createReactor(calls));
const share = must(Share.open(calls, `${folder}/share`, { readOnly: false }));
const session = new Session(calls, share, sessionMemory(calls));
const host = must(openHybridHost(calls, reactor, `${folder}/v.sock`));
const entered = enterSandbox(calls, { unixSockets: true, rings: false });

/** 0, or the errno. */
function request(type: number, fields: readonly Field[]): { errno: number; body: Uint8Array } {
  const message = encodeMessage(type, 1, fields);
  session.input.bytes.set(message);
  const length = session.answer(message.length, 65536);
  const reply = session.output.bytes.slice(0, length);
  const errno = reply[4] === 7 ? new DataView(reply.buffer).getUint32(7, true) : 0;
  return { errno, body: reply.subarray(7) };
}

const walk = (to: number, ...names: string[]) =>
  request(110, [['u32', 0], ['u32', to], ['u16', names.length], ...names.map((name): Field => ['text', name])]).errno;

const status = calls.allocate(STATX_SIZE);
const result: Record<string, unknown> = { entered };
request(100, [
  ['u32', 65536],
  ['text', '9P2000.L'],
]);
request(104, [
  ['u32', 0],
  ['u32', 0xffffffff],
  ['text', ''],
  ['text', ''],
  ['u32', 0],
]);
walk(1, 'folder', 'file');
result['open'] = request(12, [
  ['u32', 1],
  ['u32', 2],
]).errno;
const read = request(116, [
  ['u32', 1],
  ['u64', 0],
  ['u32', 100],
]);
result['read'] = new TextDecoder().decode(read.body.subarray(4));
walk(2);
result['create'] = request(14, [
  ['u32', 2],
  ['text', 'made'],
  ['u32', 2],
  ['u32', 0o600],
  ['u32', 0],
]).errno;
result['write'] = request(118, [
  ['u32', 2],
  ['u64', 0],
  ['u32', 4],
  ['bytes', 'made'],
]).errno;
result['link'] = request(70, [
  ['u32', 0],
  ['u32', 1],
  ['text', 'second'],
]).errno;
result['mode'] = request(26, [
  ['u32', 1],
  ['u32', 1],
  ['u32', 0o640],
  ['u32', 0],
  ['u32', 0],
  ...Array.from({ length: 5 }, (): Field => ['u64', 0]),
]).errno;
walk(3, 'out');
result['out'] = request(12, [
  ['u32', 3],
  ['u32', 0],
]).errno;
result['served port'] = host.connect(80, 1) !== null;
result['other port'] = host.connect(81, 1) !== null;
result['cwd'] = process.cwd();
// What a process that was taken over would try: from every folder that is open, upwards.
result['around'] = Array.from({ length: 64 }, (_, fd) => fd)
  .filter((fd) => calls.statx(fd, Buffer.from('.\0'), 0, 1, status.address) >= 0)
  .map((fd) => calls.openat(fd, Buffer.from('../../../../etc/passwd\0'), O_RDONLY | O_CLOEXEC, 0))
  .map((found) => (found < 0 ? calls.errnoName(-found) : 'open'));
writeSync(1, `${JSON.stringify(result)}\n`);
process.exit(0);
