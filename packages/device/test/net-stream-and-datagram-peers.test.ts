import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openDatagrams } from '@airlock/device/net/datagram-end.ts';
import type { NetEnd } from '@airlock/device/net/end.ts';
import { FRAME_LIMIT } from '@airlock/device/net/frame.ts';
import { StreamEnd, type StreamSource } from '@airlock/device/net/stream-end.ts';
import { connectingSource, listeningSource } from '@airlock/device/net/stream-source.ts';
import { fakeReactor } from '@airlock/transport/fake-reactor.ts';
import { HANGUP, READABLE, WRITABLE } from '@airlock/transport/reactor.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';
import { connectUnix, socketPair } from '@airlock/transport/unix-socket.ts';
import fc from 'fast-check';
import { must, random } from './support/in-memory-driver.ts';
import { ethernet } from './support/net-ends.ts';

const calls = must(await loadSystemCalls());
const QEMU_LIMIT = 4096 + 65_536;
const scratch = calls.allocate(1024 * 1024);

function prefixed(...frames: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + 4 + frame.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const frame of frames) {
    view.setUint32(at, frame.length);
    bytes.set(frame, at + 4);
    at += 4 + frame.length;
  }
  return bytes;
}

interface Stream {
  readonly end: StreamEnd;
  readonly reactor: ReturnType<typeof fakeReactor>;
  readonly woken: { count: number };
  /** The peer writes; what does not fit is left out, and how many bytes went is returned. */
  write(bytes: Uint8Array): number;
  /** Everything that the peer can read now. */
  read(): Uint8Array;
  closePeer(): void;
  ready(events?: number): void;
}

function stream(t: TestContext): Stream {
  const [ours, theirs] = must(socketPair(calls));
  const reactor = fakeReactor();
  let given: number | null = ours;
  let open = true;
  const source: StreamSource = {
    name: 'pair',
    listens: false,
    connect() {
      const fd = given;
      given = null;
      return fd;
    },
    wait: () => () => {},
    close() {},
  };
  const end = new StreamEnd(calls, reactor, source);
  const woken = { count: 0 };
  end.open(() => woken.count++);
  const closePeer = () => {
    if (open) calls.close(theirs);
    open = false;
  };
  t.after(() => {
    end.close();
    closePeer();
  });
  return {
    end,
    reactor,
    woken,
    write(bytes) {
      let done = 0;
      while (done < bytes.length) {
        const part = bytes.subarray(done, done + scratch.bytes.length);
        scratch.bytes.set(part);
        const sent = calls.write(theirs, scratch.address, part.length);
        if (sent <= 0) break;
        done += sent;
      }
      return done;
    },
    read() {
      const parts: number[] = [];
      for (;;) {
        const got = calls.read(theirs, scratch.address, scratch.bytes.length);
        if (got <= 0) return Uint8Array.from(parts);
        for (let i = 0; i < got; i++) parts.push(scratch.bytes[i] ?? 0);
      }
    },
    closePeer,
    ready: (events = READABLE) => void reactor.makeReady(ours, events),
  };
}

/** All frames that are there now. */
function frames(end: NetEnd): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let frame = end.peek(); frame !== null; frame = end.peek()) {
    found.push(frame.bytes.slice(frame.start, frame.start + frame.length));
    // As a receive queue does it.
    frame.writeHeader(12, 1);
    end.advance();
  }
  return found;
}

function put(end: NetEnd, bytes: Uint8Array): boolean {
  const room = end.room();
  if (room === null) return false;
  // As a transmit queue does it: the header stands before the frame.
  room.bytes.fill(0xee, room.start - 12, room.start);
  room.bytes.set(bytes, room.start);
  room.length = bytes.length;
  end.send();
  return true;
}

test('frames go out behind their lengths, in order, with one flush', (t) => {
  const peer = stream(t);
  const sent = [ethernet(14), ethernet(60), ethernet(1514), ethernet(FRAME_LIMIT)];
  for (const frame of sent) assert.ok(put(peer.end, frame));
  assert.equal(peer.read().length, 0);
  peer.end.flush();
  assert.deepEqual(peer.read(), prefixed(...sent));
});

test('a slot that is asked for again, or not used, damages nothing that waits', (t) => {
  const peer = stream(t);
  put(peer.end, ethernet(60));
  for (let i = 0; i < 3; i++) {
    const room = peer.end.room();
    assert.ok(room !== null);
    room.bytes.fill(0xee, room.start - 12, room.start + 100);
  }
  put(peer.end, ethernet(61));
  peer.end.room()?.bytes.fill(0xee, 0, 0);
  const last = peer.end.room();
  last?.bytes.fill(0xdd, last.start - 12, last.start);
  peer.end.flush();
  assert.deepEqual(peer.read(), prefixed(ethernet(60), ethernet(61)));
});

test('frames come in whole, however the stream is cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 14, max: 3000 }), { minLength: 1, maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 4000 }), { minLength: 1, maxLength: 20 }),
      (lengths, cuts) => {
        const peer = stream(t);
        const sent = lengths.map((length) => ethernet(length));
        const bytes = prefixed(...sent);
        const got: Uint8Array[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const piece = bytes.subarray(at, at + (cuts[i % cuts.length] ?? 1));
          at += peer.write(piece);
          peer.ready();
          got.push(...frames(peer.end));
        }
        assert.deepEqual(got, sent);
        peer.end.close();
        peer.closePeer();
      },
    ),
    { numRuns: 40 },
  );
});

test('frames that are too short or too long are counted and skipped; the stream goes on', (t) => {
  const peer = stream(t);
  const odd = [new Uint8Array(1), new Uint8Array(13), new Uint8Array(FRAME_LIMIT + 1)];
  peer.write(prefixed(...odd, ethernet(60)));
  assert.deepEqual(frames(peer.end), [ethernet(60)]);
  assert.equal(peer.end.counters.malformed, 3);
  assert.ok(peer.end.up);
});

test('a length that no frame has ends the connection: nobody can tell where the next begins', (t) => {
  for (const length of [0, QEMU_LIMIT + 1, 0xffff_ffff]) {
    const peer = stream(t);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, length);
    peer.write(bytes);
    assert.deepEqual(frames(peer.end), []);
    assert.equal(peer.end.up, false);
    assert.equal(peer.end.counters.misframed, 1);
    // The device is told, but not from within its own call.
    assert.equal(peer.woken.count, 0);
    peer.reactor.advance(1);
    assert.equal(peer.woken.count, 1);
    assert.equal(peer.end.room(), null);
  }
});

test('a peer that floods with short frames gets its turn like any other', (t) => {
  const peer = stream(t);
  peer.write(prefixed(...Array.from({ length: 2000 }, () => new Uint8Array(1))));
  peer.write(prefixed(ethernet(60)));
  assert.equal(peer.end.peek(), null);
  assert.ok(peer.end.counters.malformed <= 256);
  for (let i = 0; i < 20 && peer.end.peek() === null; i++) peer.reactor.advance(1);
  assert.deepEqual(frames(peer.end), [ethernet(60)]);
  assert.equal(peer.end.counters.malformed, 2000);
});

test('a peer that does not read holds the driver up, and gets everything in order when it reads again', (t) => {
  const peer = stream(t);
  const below = random(5);
  const sent: Uint8Array[] = [];
  for (;;) {
    const frame = ethernet(14 + below(9000));
    if (!put(peer.end, frame)) break;
    sent.push(frame);
    peer.end.flush();
    assert.ok(sent.length < 10_000, 'it is bounded');
  }
  const got: Uint8Array[] = [];
  for (let i = 0; i < 50; i++) {
    got.push(peer.read());
    peer.ready(WRITABLE);
  }
  const all = Uint8Array.from(got.flatMap((part) => [...part]));
  assert.deepEqual(all, prefixed(...sent));
  assert.ok(put(peer.end, ethernet(60)));
});

test('who leaves within a frame takes nobody down; the last whole frames arrive', (t) => {
  const peer = stream(t);
  peer.write(prefixed(ethernet(60)));
  peer.write(prefixed(ethernet(1000)).subarray(0, 500));
  peer.closePeer();
  peer.ready(READABLE | HANGUP);
  assert.deepEqual(frames(peer.end), [ethernet(60)]);
  assert.equal(peer.end.up, false);
  assert.equal(put(peer.end, ethernet(60)), false);
});

test('writing to a peer that has left is no error of ours', (t) => {
  const peer = stream(t);
  peer.closePeer();
  put(peer.end, ethernet(60));
  peer.end.flush();
  assert.equal(peer.end.up, false);
  assert.equal(peer.end.counters.refused, 1);
});

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'airlock-net-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

test('listening: one peer at a time; the next one is taken when it has left', (t) => {
  const path = join(folder(t), 'net.sock');
  const reactor = fakeReactor();
  const source = must(listeningSource(calls, path));
  let listener = -1;
  const end = new StreamEnd(calls, reactor, {
    ...source,
    wait: (given, ready) =>
      source.wait(
        {
          ...given,
          watch: (fd, events, call) => {
            listener = fd;
            return given.watch(fd, events, call);
          },
        },
        ready,
      ),
  });
  end.open(() => {});
  assert.equal(end.up, false);
  const first = must(connectUnix(calls, path));
  reactor.makeReady(listener, READABLE);
  assert.equal(end.up, true);
  const second = must(connectUnix(calls, path));
  reactor.makeReady(listener, READABLE);
  assert.equal(end.counters.turnedAway, 1);
  assert.equal(calls.read(second, scratch.address, 1), 0, 'it is told');
  calls.close(first);
  assert.deepEqual(frames(end), []);
  assert.equal(end.up, false);
  const third = must(connectUnix(calls, path));
  reactor.makeReady(listener, READABLE);
  assert.equal(end.up, true);
  assert.equal(end.counters.connections, 2);
  calls.close(second);
  calls.close(third);
  end.close();
  assert.equal(connectUnix(calls, path).ok, false);
});

test('connecting: tried again a second after the connection was lost, not at once', (t) => {
  const path = join(folder(t), 'net.sock');
  assert.equal(connectingSource(calls, path).ok, false);
  const server = must(listeningSource(calls, path));
  const reactor = fakeReactor();
  const end = new StreamEnd(calls, reactor, must(connectingSource(calls, path)));
  end.open(() => {});
  assert.equal(end.up, true);
  const accepted = server.connect();
  assert.ok(accepted !== null);
  calls.close(accepted);
  assert.deepEqual(frames(end), []);
  assert.equal(end.up, false);
  reactor.advance(10);
  assert.equal(end.up, false);
  reactor.advance(1000);
  assert.equal(end.up, true);
  end.close();
  server.close();
});

test('datagrams: both ways, sizes held, waiting while the other queue is full', (t) => {
  const at = folder(t);
  const [a, b] = [join(at, 'a'), join(at, 'b')];
  const fake = fakeReactor();
  const watched: number[] = [];
  const reactor = {
    ...fake,
    watch: (...args: Parameters<typeof fake.watch>) => {
      watched.push(args[0]);
      return fake.watch(...args);
    },
  };
  const one = must(openDatagrams(calls, reactor, a, b));
  one.open(() => {});
  assert.equal(openDatagrams(calls, reactor, a, b).ok, false, 'the path is taken');
  put(one, ethernet(60));
  assert.equal(one.counters.refused, 1, 'nobody is there yet');
  const two = must(openDatagrams(calls, reactor, b, a));
  two.open(() => {});
  const sent: Uint8Array[] = [];
  for (let i = 0; put(one, ethernet(14 + i)); i++) sent.push(ethernet(14 + i));
  assert.ok(sent.length > 3);
  const got = frames(two);
  for (let i = 0; i < 10; i++) {
    reactor.advance(1);
    fake.makeReady(watched[1] ?? -1, READABLE);
    got.push(...frames(two));
  }
  assert.deepEqual(got, sent);
  put(two, ethernet(FRAME_LIMIT));
  assert.deepEqual(frames(one), [ethernet(FRAME_LIMIT)]);
  one.close();
  two.close();
});

test('no descriptor is left open', (t) => {
  const count = () => readdirSync('/proc/self/fd').length;
  const at = folder(t);
  const before = count();
  for (let i = 0; i < 20; i++) {
    const reactor = fakeReactor();
    const source = must(listeningSource(calls, join(at, 's')));
    const end = new StreamEnd(calls, reactor, source);
    end.open(() => {});
    const client = must(connectUnix(calls, join(at, 's')));
    end.close();
    calls.close(client);
    const datagrams = must(openDatagrams(calls, reactor, join(at, `d${i}`), join(at, 'e')));
    datagrams.open(() => {});
    datagrams.close();
    assert.equal(reactor.watchCount, 0);
  }
  assert.equal(count(), before);
});
