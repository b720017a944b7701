/** However the bytes of a stream arrive, each message comes out whole, once, with its own descriptors and no others. */
import assert from 'node:assert/strict';
import { closeSync, fstatSync, openSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Frame, FramedSocket } from '../src/framed-socket.ts';
import { loadSystemCalls } from '../src/system-calls.ts';
import { send, socketPair } from '../src/unix-socket.ts';
import { type Header, VFIO_USER_FRAMING } from '../src/vfio-user/message.ts';
import { must } from './support/vfio-client.ts';

const loaded = must(await loadSystemCalls());
const openFds = () => readdirSync('/proc/self/fd').length;

/** A message of the protocol that says its number and how long it is. */
function message(id: number, body: number): Uint8Array {
  const bytes = new Uint8Array(16 + body).fill(id & 0xff, 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id, true);
  view.setUint16(2, 9, true);
  view.setUint32(4, bytes.length, true);
  return bytes;
}

/** Both ends, with a count of the calls that read. */
function openPair(): { near: FramedSocket<Header>; far: number; reads(): number; close(): void } {
  let reads = 0;
  const calls: typeof loaded = {
    ...loaded,
    recvmsg(...args) {
      reads++;
      return loaded.recvmsg(...args);
    },
  };
  const [far, fd] = must(socketPair(loaded));
  const near = new FramedSocket(calls, fd, VFIO_USER_FRAMING);
  return {
    near,
    far,
    reads: () => reads,
    close() {
      near.close();
      loaded.close(far);
    },
  };
}

/** What one look gives. */
function look(near: FramedSocket<Header>, take: (frame: Frame<Header>) => void): number {
  let count = 0;
  for (;;) {
    const frame = must(near.next());
    if (frame === null) return count;
    count++;
    take(frame);
    frame.descriptors.close();
  }
}

test('a message that is here as a whole costs one call', () => {
  const pair = openPair();
  for (let id = 0; id < 10; id++) {
    must(send(loaded, pair.far, message(id, 20)));
    assert.equal(
      look(pair.near, ({ header }) => assert.equal(header.id, id)),
      1,
    );
  }
  assert.equal(pair.reads(), 10);
  pair.close();
});

test('a look ends: of a peer that has sent thousands, what fits into one read', () => {
  const pair = openPair();
  const many = new Uint8Array(16 * 2000);
  for (let id = 0; id < 2000; id++) many.set(message(id, 0), id * 16);
  assert.equal(must(send(loaded, pair.far, many)), many.length);
  let next = 0;
  let looks = 0;
  for (; next < 2000; looks++) {
    const got = look(pair.near, ({ header }) => assert.equal(header.id, next++));
    assert.ok(got > 0 && got <= 256, `${got}`);
  }
  assert.ok(looks >= 8);
  pair.close();
});

test('descriptors come out with the message that they were sent with, though others wait before and behind it', () => {
  const files = ['/', '/proc', '/dev'].map((path) => openSync(path, 'r'));
  const before = openFds();
  const pair = openPair();
  const sent: (readonly number[])[] = [[], [], files.slice(0, 1), [], files.slice(0, 2), files, [], [], files.slice(2)];
  for (const [id, fds] of sent.entries()) must(send(loaded, pair.far, message(id, 8 + id), fds));
  const came: (readonly number[])[] = [];
  for (let looks = 0; looks < 20 && came.length < sent.length; looks++) {
    look(pair.near, ({ header, descriptors }) => {
      assert.equal(header.id, came.length);
      const taken = Array.from({ length: descriptors.count }, (_, at) => descriptors.take(at));
      came.push(taken.map((fd) => fstatSync(fd).ino));
      for (const fd of taken) closeSync(fd);
    });
  }
  assert.deepEqual(
    came,
    sent.map((fds) => fds.map((fd) => fstatSync(fd).ino)),
  );
  pair.close();
  assert.equal(openFds(), before);
  for (const fd of files) closeSync(fd);
});

test('a stream cut anywhere, with messages of any length, gives the same messages', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(6000), { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 20 }),
      (bodies, cuts) => {
        const pair = openPair();
        const stream = Buffer.concat(bodies.map((body, id) => message(id, body)));
        let next = 0;
        const check = ({ header, payload, descriptors }: Frame<Header>) => {
          assert.equal(header.id, next);
          assert.equal(payload.length, bodies[next]);
          assert.ok(payload.every((byte) => byte === next));
          assert.equal(descriptors.count, 0);
          next++;
        };
        for (let at = 0, i = 0; at < stream.length; i++) {
          const piece = stream.subarray(at, at + (cuts[i % cuts.length] ?? 1));
          at += must(send(loaded, pair.far, piece));
          look(pair.near, check);
        }
        for (let looks = 0; looks < 100 && next < bodies.length; looks++) look(pair.near, check);
        assert.equal(next, bodies.length);
        loaded.close(pair.far);
        const end = pair.near.next();
        assert.equal(end.ok ? 'goes on' : end.error.code, 'vfio-user-gone');
        pair.near.close();
      },
    ),
    { numRuns: 60 },
  );
});

test('more descriptors than a message may have, a few with each of its bytes, end the stream and stay nowhere', () => {
  const file = openSync('/', 'r');
  const before = openFds();
  const pair = openPair();
  const bytes = message(1, 1000);
  let ended = '';
  for (let at = 0; at < bytes.length && ended === ''; at++) {
    must(
      send(
        loaded,
        pair.far,
        bytes.subarray(at, at + 1),
        Array.from({ length: 50 }, () => file),
      ),
    );
    const frame = pair.near.next();
    if (!frame.ok) ended = frame.error.code;
    assert.ok(openFds() < before + 2 + 2 * 253);
  }
  assert.equal(ended, 'vfio-user-descriptors');
  pair.close();
  assert.equal(openFds(), before);
  closeSync(file);
});

test('what the peer has no room for is kept as it was, though its maker writes the next one into the same bytes', () => {
  const pair = openPair();
  const back = new FramedSocket(loaded, pair.far, VFIO_USER_FRAMING);
  const draft = message(0, 60_000);
  const count = 20;
  for (let id = 0; id < count; id++) {
    draft.fill(id, 16);
    new DataView(draft.buffer).setUint16(0, id, true);
    must(back.send(draft));
  }
  assert.ok(back.pending, 'there was room for all: the test shows nothing');
  let next = 0;
  for (let turns = 0; turns < 1000 && next < count; turns++) {
    look(pair.near, ({ header, payload }) => {
      assert.equal(header.id, next);
      assert.ok(payload.every((byte) => byte === next));
      next++;
    });
    assert.equal(back.flush(), null);
  }
  assert.equal(next, count);
  pair.near.close();
  back.close();
});
