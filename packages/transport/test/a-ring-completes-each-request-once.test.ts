import assert from 'node:assert/strict';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createReactor } from '@airlock/transport/event-loop.ts';
import { READABLE } from '@airlock/transport/reactor.ts';
import { mapPrivateMemory } from '@airlock/transport/shared-memory.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, RWF_DSYNC } from '@airlock/transport/sys/files.ts';
import { putUint64, type SystemCalls } from '@airlock/transport/system-calls.ts';
import { createUring, FIXED_FILE, type Uring } from '@airlock/transport/uring.ts';
import { calls, missing } from './support/calls.ts';
import { openDescriptors } from './support/descriptors.ts';

const probe = missing ? null : createUring(calls, 4);
const skip = missing || (probe?.ok ? false : `no io_uring here: ${probe?.error.message}`);
if (probe?.ok) probe.value.close(0);

const folder = mkdtempSync(join(tmpdir(), 'airlock-uring-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'file');
const KIB = 1024;
writeFileSync(
  path,
  Uint8Array.from({ length: 64 * KIB }, (_, i) => (i >> 8) & 0xff),
);

function ring(entries = 32, using: SystemCalls = calls): Uring {
  const made = createUring(using, entries);
  assert.ok(made.ok, JSON.stringify(made));
  return made.value;
}

function memory(length: number) {
  const made = mapPrivateMemory(calls, 'test', length);
  assert.ok(made.ok);
  return made.value;
}

/** Sends and waits; token → result. */
function finish(uring: Uring): Map<number, number> {
  const results = new Map<number, number>();
  while (uring.inFlight > 0) {
    assert.ok(uring.submit() >= 0);
    assert.ok(uring.wait(5000));
    uring.reap((token, result) => {
      assert.equal(results.has(token), false, `token ${token} twice`);
      results.set(token, result);
    });
  }
  return results;
}

test('reads, writes, vectors, sync and allocation, each with the result of its call', { skip }, () => {
  const uring = ring();
  const { region, release } = memory(64 * KIB);
  const fd = openSync(path, 'r+');
  const at = region.host;
  assert.ok(uring.read(fd, at, 4096, 4096, 0, 1));
  putUint64(region.view, 60 * KIB, at + 8192);
  putUint64(region.view, 60 * KIB + 8, 512);
  putUint64(region.view, 60 * KIB + 16, at + 16384);
  putUint64(region.view, 60 * KIB + 24, 1024);
  assert.ok(uring.readv(fd, at + 60 * KIB, 2, 256 * 7, 0, 2));
  assert.ok(uring.read(fd, at + 32768, 4096, 62 * KIB, 0, 0xffff_ffff));
  let results = finish(uring);
  assert.deepEqual(
    results,
    new Map([
      [1, 4096],
      [2, 1536],
      [0xffff_ffff, 2048],
    ]),
  );
  assert.deepEqual([region.bytes[0], region.bytes[8192], region.bytes[16384]], [16, 7, 9]);

  region.bytes.fill(0xee, 0, 4096);
  assert.ok(uring.write(fd, at, 4096, 8192, RWF_DSYNC, 3));
  assert.ok(uring.writev(fd, at + 60 * KIB, 2, 20 * KIB, 0, 4));
  results = finish(uring);
  assert.deepEqual([results.get(3), results.get(4)], [4096, 1536]);
  assert.ok(uring.fsync(fd, true, 5));
  assert.ok(uring.fsync(fd, false, 6));
  assert.ok(uring.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 12 * KIB, 4096, 7));
  results = finish(uring);
  assert.deepEqual([results.get(5), results.get(6)], [0, 0]);
  const seen = Buffer.alloc(1);
  readSync(fd, seen, 0, 1, 8192);
  assert.equal(seen[0], 0xee);
  if (results.get(7) === 0) {
    readSync(fd, seen, 0, 1, 12 * KIB);
    assert.equal(seen[0], 0);
  }
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('errors come back as the negative errno of that request alone', { skip }, () => {
  const uring = ring();
  const { region, release } = memory(4096);
  const fd = openSync(path, 'r');
  uring.read(fd, region.host, 16, 0, 0, 1);
  uring.write(fd, region.host, 16, 0, 0, 2);
  uring.read(1_000_000, region.host, 16, 0, 0, 3);
  uring.read(fd, 16, 16, 0, 0, 4);
  uring.read(fd, region.host, 16, 2 ** 50, 0, 5);
  uring.read(FIXED_FILE | 5, region.host, 16, 0, 0, 6);
  const results = finish(uring);
  const names = [...results]
    .sort(([a], [b]) => a - b)
    .map(([, value]) => (value < 0 ? calls.errnoName(-value) : value));
  assert.deepEqual(names, [16, 'EBADF', 'EBADF', 'EFAULT', 0, 'EBADF']);
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('offsets above 4 GiB and addresses above 4 GiB arrive whole', { skip }, () => {
  const big = join(folder, 'big');
  const fd = openSync(big, 'w+');
  ftruncateSync(fd, 2 ** 40);
  const uring = ring();
  const { region, release } = memory(4096);
  assert.ok(region.host > 2 ** 32);
  region.bytes.set([1, 2, 3, 4]);
  uring.write(fd, region.host, 4, 2 ** 40 - 4, 0, 1);
  assert.equal(finish(uring).get(1), 4);
  const seen = Buffer.alloc(4);
  readSync(fd, seen, 0, 4, 2 ** 40 - 4);
  assert.deepEqual([...seen], [1, 2, 3, 4]);
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('a full ring refuses, and every request of a hundred thousand completes once', { skip }, () => {
  const uring = ring(8);
  assert.equal(uring.capacity, 8);
  const { region, release } = memory(4096);
  const fd = openSync(path, 'r');
  const total = 100_000;
  let put = 0;
  const done = new Uint8Array(total);
  let completed = 0;
  while (completed < total) {
    while (put < total && uring.read(fd, region.host, 16, 16 * (put % 1024), 0, put)) put++;
    assert.ok(uring.inFlight <= 8);
    assert.ok(uring.submit() >= 0);
    uring.reap((token, result) => {
      assert.equal(result, 16);
      assert.equal(done[token], 0);
      done[token] = 1;
      completed++;
    });
  }
  assert.equal(uring.inFlight, 0);
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('what a completion puts in and submits is completed too, in a later reap', { skip }, () => {
  const uring = ring(4);
  const { region, release } = memory(4096);
  const fd = openSync(path, 'r');
  let left = 1000;
  for (let i = 0; i < 4; i++) uring.read(fd, region.host, 16, 0, 0, i);
  uring.submit();
  let completed = 0;
  while (uring.inFlight > 0) {
    assert.ok(uring.wait(5000));
    const reaped = uring.reap((token) => {
      completed++;
      if (left-- > 0) assert.ok(uring.read(fd, region.host, 16, 0, 0, token));
      uring.submit();
    });
    assert.ok(reaped <= 8);
  }
  assert.equal(completed, 1004);
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('the ring wakes the loop for requests that complete later, once it was asked to', { skip }, () => {
  const made = createReactor(calls);
  assert.ok(made.ok);
  const loop = made.value;
  const uring = ring();
  const { region, release } = memory(4096);
  // A pipe in which nothing is until the timer fires.
  const ends = pipe();
  assert.ok(uring.read(ends.read, region.host, 16, 0, 0, 9));
  uring.submit();
  assert.equal(uring.prepareToSleep(), false);
  let result = 0;
  let told = 0;
  const watch = loop.watch(uring.fd, READABLE, () => {
    uring.reap((token, value) => {
      assert.equal(token, 9);
      result = value;
    });
    told++;
    // Not told again after `reap`, until it is asked for.
    assert.ok(uring.read(ends.write, region.host, 16, 0, 0, 9));
    assert.equal(calls.write(ends.read, region.host + 64, 3), 3);
    uring.submit();
    loop.after(20, () => loop.stop());
  });
  loop.after(5, () => {
    assert.equal(result, 0);
    assert.equal(calls.write(ends.write, region.host + 64, 3), 3);
  });
  loop.after(5000, () => loop.stop());
  assert.ok(loop.run().ok);
  assert.equal(result, 3);
  assert.equal(told, 1);
  assert.ok(uring.prepareToSleep());
  watch.close();
  assert.ok(uring.close(1000));
  for (const fd of [ends.read, ends.write]) calls.close(fd);
  loop.close();
  release();
});

test('closing waits for requests with a limit, and says when they are not done', { skip }, () => {
  const uring = ring();
  const ends = pipe();
  const { region } = memory(4096);
  uring.read(ends.read, region.host, 16, 0, 0, 1);
  uring.submit();
  assert.equal(uring.close(5), false);
  assert.equal(uring.read(ends.read, region.host, 16, 0, 0, 2), false);
  for (const fd of [ends.read, ends.write]) calls.close(fd);
  // Not given back: the kernel may still write there.
});

test('registered files and buffers', { skip }, () => {
  const uring = ring();
  const { region, release } = memory(8192);
  const fd = openSync(path, 'r+');
  assert.ok(uring.registerFiles([fd]).ok);
  const registered = uring.registerBuffers([{ address: region.host, length: 8192 }]);
  uring.read(FIXED_FILE | 0, region.host, 16, 256 * 30, 0, 1);
  if (registered.ok) uring.readFixed(FIXED_FILE | 0, region.host + 4096, 4096, 0, 0, 2);
  const results = finish(uring);
  assert.equal(results.get(1), 16);
  assert.equal(region.bytes[0], 30);
  if (registered.ok) assert.equal(results.get(2), 4096);
  assert.ok(uring.registerBuffers([]).ok);
  assert.ok(uring.close(1000));
  closeSync(fd);
  release();
});

test('the ring can do nothing but read and write files: no opening, no sockets, no connecting', { skip }, (t) => {
  const opened: string[] = [];
  const { region, release } = memory(4096);
  region.bytes.set(Buffer.from('/etc/passwd\0'));
  let sqes: Uint32Array | undefined;
  const uring = ring(4, {
    ...calls,
    bytesAt(address, length) {
      const buffer = calls.bytesAt(address, length);
      // The table of entries is the one that holds exactly 64 bytes for each of 4.
      if (length === 256) sqes = new Uint32Array(buffer);
      return buffer;
    },
  });
  if (!uring.restricted) return t.skip('this kernel has no restrictions of rings');
  const forbidden = {
    OPENAT: 18,
    ACCEPT: 13,
    CONNECT: 16,
    SENDMSG: 9,
    SOCKET: 45,
    CLOSE: 19,
    OPENAT2: 28,
    URING_CMD: 46,
  };
  for (const [name, operation] of Object.entries(forbidden)) {
    assert.ok(uring.read(0, region.host, 16, 0, 0, operation));
    assert.ok(sqes);
    for (let i = 0; i < 64; i += 16) if (sqes[i + 8] === operation) sqes[i] = operation;
    const result = finish(uring).get(operation) ?? 0;
    assert.equal(calls.errnoName(-result), 'EACCES', name);
    opened.push(name);
  }
  assert.equal(opened.length, 8);
  assert.ok(uring.close(1000));
  release();
});

test('every way of setting up works, and a kernel without io_uring is an error with a code', { skip }, () => {
  const seen = new Set<string>();
  for (const refused of [0, 1 << 13, (1 << 13) | (1 << 8), (1 << 13) | (1 << 8) | (1 << 7), -1 & ~16]) {
    const uring = ring(8, {
      ...calls,
      ioUringSetup(entries, address) {
        const flags = new DataView(calls.bytesAt(address, 120)).getUint32(8, true);
        return (flags & refused) !== 0 ? -22 : calls.ioUringSetup(entries, address);
      },
    });
    seen.add(`${uring.modes.join('|')} ${uring.restricted}`);
    const { region, release } = memory(4096);
    const fd = openSync(path, 'r');
    uring.read(fd, region.host, 16, 256 * 3, 0, 1);
    assert.equal(finish(uring).get(1), 16);
    assert.equal(region.bytes[0], 3);
    assert.ok(uring.close(1000));
    closeSync(fd);
    release();
  }
  assert.ok(seen.has(' false'), [...seen].join(', '));
  for (const errno of [1, 38, 13]) {
    const none = createUring({ ...calls, ioUringSetup: () => -errno }, 8);
    assert.equal(none.ok ? 'made' : none.error.code, 'uring-unavailable');
  }
});

test('rings leave neither descriptors nor mappings behind', { skip }, () => {
  openDescriptors();
  ring().close(0);
  const before = openDescriptors();
  const mapped = () => readFileSync('/proc/self/maps', 'utf8').split('io_uring').length;
  const maps = mapped();
  for (let i = 0; i < 20; i++) ring().close(0);
  const failing = createUring({ ...calls, mmap: () => -12 }, 8);
  assert.equal(failing.ok ? 'made' : failing.error.code, 'system-call-failed');
  assert.deepEqual(openDescriptors(), before);
  assert.equal(mapped(), maps);
});

function pipe(): { read: number; write: number } {
  // A pair of sockets reads and waits like a pipe.
  const pair = new Int32Array(2);
  assert.equal(calls.socketpair(1, 1, 0, pair), 0);
  return { read: pair[0] ?? -1, write: pair[1] ?? -1 };
}
