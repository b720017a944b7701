import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW } from '@airlock/transport/sys/sockets.ts';
import { loadSystemCalls, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { netlinkAddress, openUeventSocket, type UeventSocket } from '@airlock/transport/uevent-socket.ts';
import type { UeventNotice } from '@airlock/transport/uevents.ts';

const loaded = await loadSystemCalls();
const opened = loaded.ok ? openUeventSocket(loaded.value) : loaded;
const missing = opened.ok ? false : `no netlink uevent socket here: ${opened.error.message}`;
if (opened.ok) opened.value.close();

const text = (value: string) => new Uint8Array(Buffer.from(value, 'latin1'));
const forged = text('add@/devices/pci0000:00/0000:00:1f.7\0ACTION=add\0SUBSYSTEM=pci\0SEQNUM=1\0');

let calls: SystemCalls;
let socket: UeventSocket;
let forger = -1;
const heard: UeventNotice[] = [];

before(() => {
  if (!loaded.ok || missing) return;
  calls = loaded.value;
  const mine = openUeventSocket(calls);
  assert.ok(mine.ok);
  socket = mine.value;
  socket.start((notice) => heard.push(notice));
  forger = calls.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 15);
});
after(() => {
  if (missing) return;
  socket.close();
  calls.close(forger);
});

test('a message that another process sends to our port is not an event', { skip: missing }, async (t) => {
  // To our own port only: nobody else on this machine hears it.
  const sent = calls.sendto(forger, forged, 0, netlinkAddress(socket.port, 0));
  if (sent < 0) return t.skip(`this process may not send on the uevent socket: ${calls.errnoName(-sent)}`);
  assert.equal(sent, forged.length);
  for (let i = 0; i < 200 && socket.dropped.foreign === 0; i++) await sleep(10);
  assert.equal(socket.dropped.foreign, 1);
  assert.deepEqual(heard, []);
});

test('a flood of foreign messages is announced as lost events at most, and the socket lives', {
  skip: missing,
}, async (t) => {
  const before = socket.dropped.foreign;
  const first = calls.sendto(forger, forged, 0x40, netlinkAddress(socket.port, 0));
  if (first < 0) return t.skip(`this process may not send on the uevent socket: ${calls.errnoName(-first)}`);
  let sent = 1;
  for (let i = 0; i < 20_000; i++) {
    if (calls.sendto(forger, forged, 0x40, netlinkAddress(socket.port, 0)) > 0) sent++;
  }
  for (let i = 0; i < 500 && socket.dropped.foreign < before + sent; i++) await sleep(10);
  assert.equal(socket.dropped.foreign, before + sent);
  assert.ok(heard.every((notice) => notice.kind === 'look-again'));
});

test('a closed socket says nothing more, and closing twice is no error', { skip: missing }, async () => {
  const mine = openUeventSocket(calls);
  assert.ok(mine.ok);
  const later: UeventNotice[] = [];
  mine.value.start((notice) => later.push(notice));
  mine.value.close();
  mine.value.close();
  mine.value.start((notice) => later.push(notice));
  await sleep(20);
  assert.deepEqual(later, []);
});
