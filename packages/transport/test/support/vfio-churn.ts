/**
 * A vfio-user client as a process of its own that maps, unmaps, reads and writes as fast as it can, as often as it is
 * told: `vfio-churn.ts SOCKET ROUNDS`. With `-` for the socket it speaks on descriptor 3, which it may share with others.
 * Exits with 0 when it said all, or when the server ended the connection.
 */
import { createSharedMemory } from '../../src/shared-memory.ts';
import { loadSystemCalls } from '../../src/system-calls.ts';
import { connectUnix, receive, send } from '../../src/unix-socket.ts';
import { pollWait } from '../../src/vhost-user/wait.ts';

const [path = '', count = ''] = process.argv.slice(2);
const loaded = await loadSystemCalls();
if (!loaded.ok) throw new Error(loaded.error.message);
const calls = loaded.value;
const wait = pollWait(calls);
const connected = path === '-' ? 3 : connectUnix(calls, path);
if (typeof connected !== 'number' && !connected.ok) throw new Error(connected.error.message);
const socket = typeof connected === 'number' ? connected : connected.value;
const memory = createSharedMemory(calls, 'churn', 1 << 20);
if (!memory.ok) throw new Error(memory.error.message);

let id = process.pid;
function message(command: number, ...words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(16 + 4 * words.length);
  const view = new DataView(bytes.buffer);
  id = (id + 1) & 0xffff;
  view.setUint16(0, id, true);
  view.setUint16(2, command, true);
  view.setUint32(4, bytes.length, true);
  for (const [i, word] of words.entries()) view.setUint32(16 + 4 * i, word, true);
  return bytes;
}

const room = new Uint8Array(65536);
let over = false;

function say(bytes: Uint8Array, fds: readonly number[] = []): void {
  while (!over) {
    const sent = send(calls, socket, bytes, fds);
    over = !sent.ok;
    if (sent.ok && sent.value > 0) return;
    hear(10);
  }
}

function hear(milliseconds: number): void {
  if (milliseconds > 0) wait([socket], -1, milliseconds);
  const got = receive(calls, socket, room, 0);
  if (!got.ok || got.value.closed) over = true;
}

if (path !== '-') say(message(1, 0, 0x7d7b, 0));
for (let round = 0; round < Number(count) && !over; round++) {
  const page = 4096 * ((round * 7 + process.pid) % 200);
  const size = 4096 * (1 + (round % 5));
  say(message(2, 32, 3, 0, 0, page, 0, size, 0), [memory.value.fd]);
  say(message(9, 0, 0, 7, 4));
  say(message(10, 64, 0, 0, 4, round));
  say(message(3, 24, 0, page, 0, size, 0));
  if (round % 50 === 0) say(message(3, 24, 2, 0, 0, 0, 0));
  hear(0);
}
// Half of them go in the middle of a message.
if (process.pid % 2 === 0) say(message(9, 0, 0, 7, 4).subarray(0, 20));
process.exit(0);
