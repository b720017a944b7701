/**
 * Gives back what it is sent, and does nothing else: what a message costs whoever answers it in this engine. `echo-server.ts
 * SOCKET`, one client.
 */
import { writeSync } from 'node:fs';
import type { Result } from '@airlock/core/result.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { receive, send } from '@airlock/transport/unix-socket.ts';
import { pollWait } from '@airlock/transport/vhost-user/wait.ts';

function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

const calls = must(await loadSystemCalls());
const wait = pollWait(calls);
const listener = must(listenUnix(calls, process.argv[2] ?? ''));
writeSync(1, 'listening\n');
let client: number | null = null;
while (client === null) {
  wait([listener.fd], -1, 1000);
  client = must(listener.accept());
}
const room = new Uint8Array(4096);
for (;;) {
  wait([client], -1, 1000);
  const { length, closed } = must(receive(calls, client, room, 0));
  if (closed) break;
  if (length > 0) must(send(calls, client, room.subarray(0, length)));
}
