import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  createSharedMemory,
  type MappingRequest,
  mapPrivateMemory,
  mapSharedMemory,
} from '@airlock/transport/shared-memory.ts';
import { F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE } from '@airlock/transport/sys/files.ts';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '@airlock/transport/sys/memory.ts';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { calls, missing } from './support/calls.ts';
import { openDescriptors } from './support/descriptors.ts';

const skip = missing;
const whole = (length: number): MappingRequest => ({ name: 'guest-ram-0', offset: 0, length, writable: true });
const codeOf = (result: { ok: boolean; error?: { code: string } }) => (result.ok ? 'ok' : result.error?.code);

function memfd(length: number, seals: number): number {
  const fd = calls.memfdCreate('test', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  assert.ok(fd >= 0);
  ftruncateSync(fd, length);
  assert.equal(calls.fcntl(fd, F_ADD_SEALS, seals), 0);
  return fd;
}

function made(length: number): number {
  const memory = createSharedMemory(calls, 'test', length);
  assert.ok(memory.ok);
  return memory.value.fd;
}

test('what is made is sealed: nobody shrinks it, grows it or adds a seal', { skip }, () => {
  const fd = made(10_000);
  assert.equal(calls.fcntl(fd, F_GET_SEALS, 0) & 7, 7);
  assert.throws(() => ftruncateSync(fd, 4096), /EPERM/);
  assert.throws(() => ftruncateSync(fd, 1 << 24), /EPERM/);
  assert.ok(calls.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
  closeSync(fd);
});

test('both sides see the same bytes, the host address is that of the first one, and the fd may be closed', {
  skip,
}, () => {
  const fd = made(3 * 4096);
  // From the middle of a page to the middle of another.
  const part = mapSharedMemory(calls, fd, { name: 'part', offset: 4096 + 100, length: 5000, writable: true });
  assert.ok(part.ok);
  const { region } = part.value;
  assert.equal(region.bytes.length, 5000);
  region.bytes[0] = 0xab;
  region.view.setUint8(4999, 0xcd);
  const seen = Buffer.alloc(1);
  assert.equal(readSync(fd, seen, 0, 1, 4196), 1);
  assert.equal(seen[0], 0xab);
  assert.equal(readSync(fd, seen, 0, 1, 4196 + 4999), 1);
  assert.equal(seen[0], 0xcd);
  writeSync(fd, Buffer.from([0x11]), 0, 1, 4197);
  assert.equal(region.view.getUint8(1), 0x11);
  assert.equal(calls.pread(fd, region.host + 8, 1, 4196), 1);
  assert.equal(region.bytes[8], 0xab);
  closeSync(fd);
  assert.equal(region.bytes[0], 0xab);
  part.value.release();
});

test('a memfd without F_SEAL_SHRINK, a file, a pipe, a closed descriptor: refused, and the hint says what to do', {
  skip,
}, () => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-memory-'));
  const file = openSync(join(folder, 'file'), 'w+');
  ftruncateSync(file, 8192);
  const shm = openSync(`/dev/shm/airlock-test-${process.pid}`, 'w+');
  rmSync(`/dev/shm/airlock-test-${process.pid}`);
  ftruncateSync(shm, 8192);
  const unsealable = calls.memfdCreate('test', MFD_CLOEXEC);
  ftruncateSync(unsealable, 8192);
  const growSealed = memfd(8192, F_SEAL_GROW);
  const fds = [file, shm, unsealable, growSealed, memfd(8192, 0), calls.eventfd(0, 0), 1_000_000];
  for (const fd of fds) {
    const mapping = mapSharedMemory(calls, fd, whole(4096));
    assert.equal(codeOf(mapping), 'memory-not-sealed');
    assert.match(mapping.ok ? '' : (mapping.error.hint ?? ''), /memory-backend-memfd/);
  }
  for (const fd of fds.slice(0, -1)) closeSync(fd);
  rmSync(folder, { recursive: true });
});

test('sealed only against shrinking is enough; read-only memory is mapped read-only', { skip }, () => {
  const fd = memfd(8192, F_SEAL_SHRINK);
  const mapping = mapSharedMemory(calls, fd, whole(8192));
  assert.equal(codeOf(mapping), 'ok');
  if (mapping.ok) mapping.value.release();
  closeSync(fd);
  const frozen = memfd(8192, F_SEAL_SHRINK | F_SEAL_WRITE);
  assert.equal(codeOf(mapSharedMemory(calls, frozen, whole(8192))), 'system-call-failed');
  const looked = mapSharedMemory(calls, frozen, { ...whole(8192), writable: false });
  assert.ok(looked.ok);
  assert.equal(looked.value.region.bytes[0], 0);
  looked.value.release();
  closeSync(frozen);
});

test('a stretch that is not within the file is refused, whatever its numbers', { skip }, () => {
  const fd = made(8192);
  const size = 2 ** 53;
  for (const [offset, length] of [
    [0, 8193 + 2 ** 21],
    [2 ** 21 + 4096, 4097],
    [2 ** 21 + 8192, 1],
    [0, 0],
    [0, -1],
    [-4096, 4096],
    [0, size],
    [size - 4096, 8192],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    [0.5, 1],
    [0, Number.NaN],
  ] as const) {
    assert.equal(
      codeOf(mapSharedMemory(calls, fd, { name: 'x', offset, length, writable: true })),
      'memory-size-invalid',
      `${offset} ${length}`,
    );
  }
  closeSync(fd);
  for (const length of [0, -1, 1.5, Number.NaN, 2 ** 60]) {
    assert.equal(codeOf(createSharedMemory(calls, 'x', length)), 'memory-size-invalid');
  }
});

test('after release no view reaches the memory, and a system call at its address fails instead of finding other bytes', {
  skip,
}, () => {
  const fd = made(1 << 20);
  const mapping = mapSharedMemory(calls, fd, whole(1 << 20));
  assert.ok(mapping.ok);
  const { region, release } = mapping.value;
  const words = new Uint16Array(region.bytes.buffer, 0, 16);
  region.bytes.fill(0x5a, 0, 64);
  release();
  release();
  assert.equal(region.bytes.length, 0);
  assert.equal(region.bytes[0], undefined);
  assert.equal(words[0], undefined);
  assert.throws(() => region.view.getUint8(0), TypeError);
  assert.throws(() => region.bytes.set([1]), TypeError);
  // What lies there now is ours and empty of everything: neither source nor target.
  assert.equal(calls.errnoName(-calls.pread(fd, region.host, 16, 0)), 'EFAULT');
  assert.equal(calls.errnoName(-calls.pwrite(fd, region.host, 16, 0)), 'EFAULT');
  closeSync(fd);
});

test('a thousand mappings leave neither descriptors nor mappings behind', { skip }, () => {
  const mapped = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;
  openDescriptors();
  const before = { descriptors: openDescriptors(), maps: mapped() };
  for (let i = 0; i < 1000; i++) {
    const mapping = mapPrivateMemory(calls, 'x', 1 << 16);
    assert.ok(mapping.ok);
    mapping.value.region.bytes[i] = 1;
    mapping.value.release();
  }
  assert.deepEqual(openDescriptors(), before.descriptors);
  // Covered ranges wait, and lie side by side or not; other threads of the engine map as well.
  assert.ok(mapped() < before.maps + 200, `${mapped()} of ${before.maps}`);
  assert.doesNotMatch(readFileSync('/proc/self/maps', 'utf8'), /memfd:x/);
});

test('more than 8 GiB in one region', { skip }, () => {
  const length = 20 * 2 ** 30;
  const fd = made(length);
  const mapping = mapSharedMemory(calls, fd, whole(length));
  assert.ok(mapping.ok);
  const { bytes, view } = mapping.value.region;
  bytes[length - 1] = 7;
  assert.equal(view.getUint8(length - 1), 7);
  mapping.value.release();
  closeSync(fd);
});

test('a machine without room says so, and nothing stays open', { skip }, () => {
  openDescriptors();
  const before = openDescriptors();
  const refuse: Record<string, Partial<SystemCalls>> = {
    memfd_create: { memfdCreate: () => -24 },
    ftruncate: { ftruncate: () => -28 },
    F_ADD_SEALS: { fcntl: () => -1 },
  };
  for (const [call, fake] of Object.entries(refuse)) {
    const failed = createSharedMemory({ ...calls, ...fake }, 'x', 4096);
    assert.equal(codeOf(failed), 'system-call-failed');
    assert.match(failed.ok ? '' : failed.error.message, new RegExp(call));
  }
  const fd = made(4096);
  assert.equal(codeOf(mapSharedMemory({ ...calls, mmap: () => -12 }, fd, whole(4096))), 'system-call-failed');
  closeSync(fd);
  assert.deepEqual(openDescriptors(), before);
});

test('huge pages where the machine has them', { skip }, (t) => {
  const memory = createSharedMemory(calls, 'huge', 4096, { huge: true });
  if (!memory.ok) return t.skip(`no huge pages here: ${memory.error.message}`);
  assert.equal(memory.value.length % (1 << 20), 0);
  const mapping = mapSharedMemory(calls, memory.value.fd, whole(memory.value.length));
  closeSync(memory.value.fd);
  if (!mapping.ok) return t.skip(`no huge page is free: ${mapping.error.message}`);
  mapping.value.region.bytes[0] = 1;
  mapping.value.release();
});
