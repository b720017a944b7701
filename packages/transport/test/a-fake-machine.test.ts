import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEventFd, drainEventFd, signalEventFd } from '@airlock/transport/event-fd.ts';
import { fakeSystemCalls } from '@airlock/transport/fake-system-calls.ts';
import { faultySystemCalls } from '@airlock/transport/faulty-system-calls.ts';
import { putUint64 } from '@airlock/transport/system-calls.ts';
import { createUring } from '@airlock/transport/uring.ts';

const text = (value: string) => new Uint8Array(Buffer.from(value));

test('files are read and written by address, in one piece and in several, and end where they end', () => {
  const { calls, addFile, contentOf } = fakeSystemCalls();
  const fd = addFile(text('0123456789'));
  const memory = calls.allocate(64);
  assert.equal(calls.pread(fd, memory.address + 4, 4, 8), 2);
  assert.equal(Buffer.from(memory.bytes.subarray(4, 6)).toString(), '89');
  assert.equal(calls.pread(fd, memory.address, 4, 100), 0);
  putUint64(memory.view, 32, memory.address);
  putUint64(memory.view, 40, 3);
  putUint64(memory.view, 48, memory.address + 8);
  putUint64(memory.view, 56, 3);
  assert.equal(calls.preadv2(fd, memory.address + 32, 2, 2, 0), 6);
  assert.equal(Buffer.from(memory.bytes.subarray(8, 11)).toString(), '567');
  assert.equal(calls.pwritev2(fd, memory.address + 32, 2, 9, 0), 6);
  assert.equal(Buffer.from(contentOf(fd)).toString(), '012345678234567');
  assert.equal(calls.errnoName(-calls.pread(fd, 16, 4, 0)), 'EFAULT');
  assert.equal(calls.errnoName(-calls.pread(99, memory.address, 4, 0)), 'EBADF');
});

test('what was not synchronised is lost with the power', () => {
  const { calls, addFile, durableContentOf } = fakeSystemCalls();
  const fd = addFile(text('aaaa'));
  const memory = calls.allocate(64);
  memory.bytes.set(text('bbbb'));
  calls.pwrite(fd, memory.address, 2, 0);
  assert.equal(Buffer.from(durableContentOf(fd)).toString(), 'aaaa');
  calls.fdatasync(fd);
  assert.equal(Buffer.from(durableContentOf(fd)).toString(), 'bbaa');
});

test('a full disk takes what fits and then says ENOSPC; descriptors run out with EMFILE', () => {
  const machine = fakeSystemCalls({ diskSize: 10, mostDescriptors: 2 });
  const { calls, addFile, contentOf } = machine;
  const fd = addFile(text('12345678'));
  const memory = calls.allocate(16);
  assert.equal(calls.pwrite(fd, memory.address, 8, 6), 4);
  assert.equal(contentOf(fd).length, 10);
  assert.equal(calls.errnoName(-calls.pwrite(fd, memory.address, 8, 10)), 'ENOSPC');
  assert.equal(calls.errnoName(-calls.ftruncate(fd, 11)), 'ENOSPC');
  assert.ok(calls.eventfd(0, 0) > 0);
  assert.equal(calls.errnoName(-calls.memfdCreate('x', 0)), 'EMFILE');
  assert.equal(machine.openDescriptors.length, 2);
});

test('counters count; what the machine does not have answers ENOSYS, so that io_uring is done without', () => {
  const { calls } = fakeSystemCalls();
  const fd = createEventFd(calls);
  assert.ok(fd.ok);
  assert.ok(signalEventFd(calls, fd.value));
  assert.ok(signalEventFd(calls, fd.value));
  assert.equal(drainEventFd(calls, fd.value), 2);
  assert.equal(drainEventFd(calls, fd.value), 0);
  const ring = createUring(calls, 8);
  assert.equal(ring.ok ? 'made' : ring.error.code, 'uring-unavailable');
  assert.equal(calls.errnoName(-calls.socket(1, 1, 0)), 'ENOSYS');
});

test('faults come after so many calls, so many times, for one descriptor, and are taken back', () => {
  const machine = fakeSystemCalls();
  const one = machine.addFile(text('0123456789'));
  const two = machine.addFile(text('0123456789'));
  const { calls, fail, shorten, heal, count } = faultySystemCalls(machine.calls);
  const { address } = calls.allocate(64);
  const read = (fd: number) => {
    const status = calls.pread(fd, address, 8, 0);
    return status < 0 ? calls.errnoName(-status) : status;
  };
  fail('pread', 'EIO', { after: 1, times: 2, fd: one });
  assert.deepEqual([read(one), read(two), read(one), read(one), read(one)], [8, 8, 'EIO', 'EIO', 8]);
  shorten('pread', 3);
  fail('fsync', 'ENOSPC');
  assert.equal(read(two), 3);
  assert.equal(calls.errnoName(-calls.fsync(one)), 'ENOSPC');
  heal();
  assert.equal(read(two), 8);
  assert.equal(calls.fsync(one), 0);
  assert.equal(count('pread'), 7);
});
