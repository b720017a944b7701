import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { F_GETFD, FD_CLOEXEC } from '@airlock/transport/sys/files.ts';
import { SOCK_STREAM } from '@airlock/transport/sys/sockets.ts';
import { putUint64, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { MOST_DESCRIPTORS, receive, send, socketPair, type UnixSocketType } from '@airlock/transport/unix-socket.ts';
import { calls, missing } from './support/calls.ts';
import { openDescriptors } from './support/descriptors.ts';

const skip = missing;
const bytes = (...values: number[]) => new Uint8Array(values);

function pair(type: UnixSocketType = 'stream'): { ours: number; theirs: number; close(): void } {
  const made = socketPair(calls, type);
  assert.ok(made.ok);
  const [ours, theirs] = made.value;
  return {
    ours,
    theirs,
    close() {
      calls.close(ours);
      calls.close(theirs);
    },
  };
}

/** The body leaves exactly the descriptors that were there before. */
function leakFree(name: string, body: () => void): void {
  test(name, { skip }, () => {
    // What loads on first use stays open.
    openDescriptors();
    const before = openDescriptors();
    body();
    assert.deepEqual(openDescriptors(), before);
  });
}

leakFree('descriptors arrive with their bytes, close on exec', () => {
  const { ours, theirs, close } = pair();
  const file = openSync('/proc/self/status', 'r');
  assert.deepEqual(send(calls, theirs, bytes(1, 2, 3), [file, file]), { ok: true, value: 3 });
  closeSync(file);
  const into = new Uint8Array(8);
  const got = receive(calls, ours, into, 2);
  assert.ok(got.ok);
  assert.equal(got.value.length, 3);
  assert.deepEqual([...into], [1, 2, 3, 0, 0, 0, 0, 0]);
  assert.equal(got.value.fds.length, 2);
  for (const fd of got.value.fds) {
    assert.equal(calls.fcntl(fd, F_GETFD, 0) & FD_CLOEXEC, FD_CLOEXEC);
    assert.match(readFileSync(fd, 'latin1'), /^Name:|^$/);
    calls.close(fd);
  }
  close();
});

for (const [most, sent] of [
  [0, 1],
  [1, 2],
  [1, 3],
  [8, 9],
  [8, MOST_DESCRIPTORS],
] as const) {
  leakFree(`${sent} descriptors where ${most} are agreed: an error, and none stays open`, () => {
    const { ours, theirs, close } = pair();
    assert.ok(send(calls, theirs, bytes(1), new Array<number>(sent).fill(theirs)).ok);
    const got = receive(calls, ours, new Uint8Array(8), most);
    assert.equal(got.ok ? 'accepted' : got.error.code, 'descriptors-cut');
    close();
  });
}

leakFree('300 descriptors: the kernel passes no more than 253 with one message, and neither do we try', () => {
  const { ours, theirs, close } = pair();
  const sent = send(calls, theirs, bytes(1), new Array<number>(300).fill(theirs));
  assert.equal(sent.ok ? 'sent' : sent.error.code, 'message-too-large');
  assert.equal(rawSend(theirs, new Array<number>(300).fill(theirs)), 'EINVAL');
  // A peer that has them in two messages: each is held to the limit on its own.
  for (let i = 0; i < 2; i++) assert.ok(send(calls, theirs, bytes(i), new Array<number>(150).fill(theirs)).ok);
  for (let i = 0; i < 2; i++) {
    const got = receive(calls, ours, new Uint8Array(8), 8);
    assert.equal(got.ok ? 'accepted' : got.error.code, 'descriptors-cut');
  }
  close();
});

leakFree('all 253 descriptors arrive where they are agreed', () => {
  const { ours, theirs, close } = pair();
  assert.ok(send(calls, theirs, bytes(1), new Array<number>(MOST_DESCRIPTORS).fill(theirs)).ok);
  const got = receive(calls, ours, new Uint8Array(8), MOST_DESCRIPTORS);
  assert.ok(got.ok);
  assert.equal(new Set(got.value.fds).size, MOST_DESCRIPTORS);
  for (const fd of got.value.fds) calls.close(fd);
  close();
});

leakFree('descriptors that nobody receives are closed with the socket', () => {
  const { theirs, close } = pair();
  for (let i = 0; i < 20; i++) assert.ok(send(calls, theirs, bytes(i), [theirs, theirs]).ok);
  close();
});

leakFree('a message longer than the buffer: cut on packets, in pieces on streams', () => {
  const packets = pair('seqpacket');
  assert.ok(send(calls, packets.theirs, new Uint8Array(100), [packets.theirs]).ok);
  const cut = receive(calls, packets.ours, new Uint8Array(10), 4);
  assert.equal(cut.ok ? 'accepted' : cut.error.code, 'message-cut');
  packets.close();
  const stream = pair();
  assert.ok(
    send(
      calls,
      stream.theirs,
      Uint8Array.from({ length: 100 }, (_, i) => i),
    ).ok,
  );
  const seen: number[] = [];
  for (let i = 0; i < 10; i++) {
    const into = new Uint8Array(10);
    const got = receive(calls, stream.ours, into, 4);
    assert.equal(got.ok && got.value.length, 10);
    seen.push(...into);
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 100 }, (_, i) => i),
  );
  stream.close();
});

leakFree('nothing there, a closed end and a peer that dies mid-message are told apart', () => {
  const { ours, theirs } = pair();
  const into = new Uint8Array(16);
  const quiet = receive(calls, ours, into, 1);
  assert.deepEqual(quiet, { ok: true, value: { length: 0, fds: [], closed: false } });
  assert.ok(send(calls, theirs, bytes(1, 2, 3)).ok);
  calls.close(theirs);
  const half = receive(calls, ours, into, 1);
  assert.deepEqual(half, { ok: true, value: { length: 3, fds: [], closed: false } });
  const end = receive(calls, ours, into, 1);
  assert.deepEqual(end, { ok: true, value: { length: 0, fds: [], closed: true } });
  const late = send(calls, ours, bytes(1));
  assert.equal(late.ok ? 'sent' : late.error.code, 'socket-closed');
  calls.close(ours);
});

leakFree('a full socket takes nothing or a part, and never a descriptor without a byte', () => {
  const { ours, theirs, close } = pair();
  let taken = 0;
  for (;;) {
    const sent = send(calls, theirs, new Uint8Array(60_000), [theirs]);
    assert.ok(sent.ok);
    if (sent.value === 0) break;
    taken += sent.value;
  }
  let got = 0;
  while (got < taken) {
    const part = receive(calls, ours, new Uint8Array(60_000), 1);
    assert.ok(part.ok && part.value.length > 0);
    got += part.value.length;
    for (const fd of part.value.fds) calls.close(fd);
  }
  assert.equal(got, taken);
  const none = send(calls, theirs, new Uint8Array(0), [theirs]);
  assert.equal(none.ok ? 'sent' : none.error.code, 'message-too-large');
  close();
});

leakFree('a descriptor that is no socket, and one that is not open, are errors', () => {
  const file = openSync('/proc/self/status', 'r');
  for (const fd of [file, 1_000_000]) {
    const got = receive(calls, fd, new Uint8Array(1), 1);
    assert.equal(got.ok ? 'received' : got.error.code, 'system-call-failed');
    const sent = send(calls, fd, bytes(1));
    assert.equal(sent.ok ? 'sent' : sent.error.code, 'system-call-failed');
  }
  closeSync(file);
});

const control: Record<string, (view: DataView) => number> = {
  'a header longer than what came': (view) => {
    putUint64(view, 80, 4096);
    return 24;
  },
  'a header shorter than itself': (view) => {
    putUint64(view, 80, 3);
    return 24;
  },
  'a header of length 0 (it would be read for ever)': (view) => {
    putUint64(view, 80, 0);
    return 64;
  },
  'another type': (view) => {
    putUint64(view, 80, 28);
    view.setInt32(88, 1, true);
    view.setInt32(92, 2, true);
    return 32;
  },
};
for (const [name, write] of Object.entries(control)) {
  leakFree(`control data of the kernel that is not as it should be (${name}): an error`, () => {
    const { ours, close } = pair();
    const forged: SystemCalls = {
      ...calls,
      recvmsg(_fd, message) {
        // The msghdr is 16 bytes into one allocation, the control data 80.
        const view = new DataView(message.view.buffer);
        putUint64(view, 16 + 40, write(view));
        return 1;
      },
    };
    const got = receive(forged, ours, new Uint8Array(8), 8);
    assert.equal(got.ok ? 'accepted' : got.error.code, 'control-malformed');
    close();
  });
}

/** sendmsg(2) without our own limits; the errno's name. */
function rawSend(socket: number, fds: readonly number[]): string {
  const memory = calls.allocate(4096);
  putUint64(memory.view, 64, memory.address + 4000);
  putUint64(memory.view, 72, 1);
  putUint64(memory.view, 16, memory.address + 64);
  putUint64(memory.view, 24, 1);
  putUint64(memory.view, 32, memory.address + 128);
  putUint64(memory.view, 40, 16 + 4 * fds.length);
  putUint64(memory.view, 128, 16 + 4 * fds.length);
  memory.view.setInt32(136, SOCK_STREAM, true);
  memory.view.setInt32(140, 1, true);
  for (const [i, fd] of fds.entries()) memory.view.setInt32(144 + 4 * i, fd, true);
  const status = calls.sendmsg(socket, memory, 0x4040);
  return status < 0 ? calls.errnoName(-status) : 'sent';
}
