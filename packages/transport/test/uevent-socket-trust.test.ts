import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Memory } from '@airlock/transport/sys/libc.ts';
import { openUeventSocket, type UeventCalls } from '@airlock/transport/uevent-socket.ts';
import type { UeventNotice } from '@airlock/transport/uevents.ts';

interface Message {
  readonly port?: number;
  readonly group?: number;
  readonly family?: number;
  readonly nameLength?: number;
  readonly pid?: number;
  readonly uid?: number;
  readonly control?: 'none' | 'other-type' | 'short';
  readonly flags?: number;
  readonly text?: string;
}

const ENOBUFS = 105;
const EAGAIN = 11;
const EBADF = 9;

/** The kernel's side of recvmsg(2): fills what the msghdr points at, all within one allocation. */
function fakeCalls(messages: (Message | number)[]): UeventCalls & { wake(): void; closed: number[]; polled: boolean } {
  let wake: (() => void) | undefined;
  const state = { closed: [] as number[], polled: false };
  return {
    ...state,
    wake: () => wake?.(),
    socket: () => 7,
    bind: () => 0,
    close(fd) {
      this.closed.push(fd);
      return 0;
    },
    setsockopt: () => 0,
    getsockname: () => 12,
    allocate(length) {
      const buffer = new ArrayBuffer(length);
      return { address: 0x1000, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    },
    whenReadable(_fd, call) {
      wake = call;
      return () => {
        wake = undefined;
      };
    },
    errnoName: (errno) => ({ [ENOBUFS]: 'ENOBUFS', [EAGAIN]: 'EAGAIN', [EBADF]: 'EBADF' })[errno] ?? 'E?',
    recvmsg(_fd, header: Memory) {
      const message = messages.shift();
      if (message === undefined) return -EAGAIN;
      if (typeof message === 'number') return -message;
      const { view, bytes } = header;
      const at = (offset: number) => Number(view.getBigUint64(offset, true)) - 0x1000;
      const msghdr = header.address - 0x1000;
      const name = at(msghdr);
      view.setUint16(name, message.family ?? 16, true);
      view.setUint32(name + 4, message.port ?? 0, true);
      view.setUint32(name + 8, message.group ?? 1, true);
      view.setUint32(msghdr + 8, message.nameLength ?? 12, true);
      const control = at(msghdr + 32);
      const kind = message.control ?? 'full';
      if (kind === 'none') view.setBigUint64(msghdr + 40, 0n, true);
      else {
        view.setBigUint64(msghdr + 40, kind === 'short' ? 16n : 32n, true);
        view.setBigUint64(control, kind === 'short' ? 16n : 28n, true);
        view.setInt32(control + 8, 1, true);
        view.setInt32(control + 12, kind === 'other-type' ? 1 : 2, true);
        view.setInt32(control + 16, message.pid ?? 0, true);
        view.setUint32(control + 20, message.uid ?? 0, true);
      }
      view.setInt32(msghdr + 48, message.flags ?? 0, true);
      const payload = Buffer.from(message.text ?? 'add@/devices/x\0SUBSYSTEM=pci\0', 'latin1');
      bytes.set(payload, at(at(msghdr + 16)));
      return payload.length;
    },
  };
}

function hear(messages: (Message | number)[]) {
  const calls = fakeCalls(messages);
  const socket = openUeventSocket(calls);
  assert.ok(socket.ok);
  const notices: UeventNotice[] = [];
  socket.value.start((notice) => notices.push(notice));
  calls.wake();
  return { calls, socket: socket.value, notices };
}

test("the kernel's message is an event", () => {
  const { notices } = hear([{}]);
  assert.equal(notices.length, 1);
  assert.equal(notices[0]?.kind, 'uevent');
});

const foreign: Record<string, Message> = {
  "a sender's port that is not 0": { port: 4711 },
  "udev's group": { group: 2 },
  'no group (sent to us alone)': { group: 0 },
  'another address family': { family: 1 },
  'a short address': { nameLength: 0 },
  'credentials of a process': { pid: 1 },
  'credentials of another user': { uid: 1000 },
  'no credentials': { control: 'none' },
  'control data that is not credentials': { control: 'other-type' },
  'cut credentials': { control: 'short' },
  'control data cut off': { flags: 0x08 },
};
for (const [name, message] of Object.entries(foreign)) {
  test(`${name}: dropped and counted`, () => {
    const { notices, socket } = hear([message]);
    assert.deepEqual(notices, []);
    assert.equal(socket.dropped.foreign, 1);
  });
}

test('lost events, cut events and events that cannot be read ask for a look at everything', () => {
  const { notices, socket } = hear([ENOBUFS, {}, { flags: 0x20 }, { text: 'garbage' }]);
  assert.deepEqual(
    notices.map(({ kind }) => kind),
    ['look-again', 'uevent', 'look-again', 'look-again'],
  );
  assert.equal(socket.dropped.malformed, 2);
});

test('a socket that fails for good is closed once and announced, never read in a circle', () => {
  const { calls, notices } = hear(Array.from({ length: 1000 }, () => EBADF));
  assert.deepEqual(calls.closed, [7]);
  assert.equal(notices.length, 1);
  assert.match(JSON.stringify(notices[0]), /closed: recvmsg: EBADF/);
  calls.wake();
  assert.equal(notices.length, 1);
});

test('one call back reads a bounded number of messages', () => {
  const { calls, notices } = hear(Array.from({ length: 1000 }, () => ({})));
  assert.equal(notices.length, 256);
  calls.wake();
  assert.equal(notices.length, 512);
});
