/** VIRTIO 1.4 §5.2.6: what each request does, and what it answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeDisk } from '@airlock/device/block/fake-disk.ts';
import { decodeConfig } from '@airlock/virtio/config/space.ts';
import { block } from '@airlock/virtio/device/block.ts';
import {
  BLK_DISCARD,
  BLK_FLUSH,
  BLK_GET_ID,
  BLK_GET_LIFETIME,
  BLK_IN,
  BLK_IOERR,
  BLK_OK,
  BLK_OUT,
  BLK_SECURE_ERASE,
  BLK_UNSUPPORTED,
  BLK_WRITE_ZEROES,
} from '@airlock/virtio/request/block.ts';
import { driveDisk, NO_STATUS, segment } from './support/disk-driver.ts';
import { must } from './support/in-memory-driver.ts';

const MIB = 2 ** 20;
const pattern = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);

test('what was written is read, and the used length is the data and the status', () => {
  const disk = new FakeDisk(MIB);
  const { ask, driven } = driveDisk(disk);
  const data = pattern(4096);
  assert.deepEqual(ask({ type: BLK_OUT, sector: 8, out: data }), {
    ...{ status: BLK_OK, written: 1, data: new Uint8Array(0) },
  });
  assert.deepEqual(ask({ type: BLK_IN, sector: 8, into: 4096 }), { status: BLK_OK, written: 4097, data });
  assert.equal(driven.notified[0], 2);
});

test('buffers may be cut anywhere', () => {
  const { ask } = driveDisk(new FakeDisk(MIB));
  const data = pattern(2048, 3);
  assert.equal(ask({ type: BLK_OUT, sector: 1, out: data, pieces: [1, 511, 700, 836] }).status, BLK_OK);
  assert.deepEqual(ask({ type: BLK_IN, sector: 1, into: 2048, pieces: [2000, 47, 1] }).data, data);
});

test('a transfer that the disk cuts short is finished', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  disk.most = 100;
  const data = pattern(1024);
  assert.equal(ask({ type: BLK_OUT, sector: 0, out: data, pieces: [512, 512] }).status, BLK_OK);
  assert.equal(disk.calls.length, 11);
  assert.deepEqual(ask({ type: BLK_IN, sector: 0, into: 1024 }), { status: BLK_OK, written: 1025, data });
});

test('beyond the end is an error, at the end is not, and nothing of it reaches the disk', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  const last = MIB / 512 - 1;
  assert.equal(ask({ type: BLK_IN, sector: last, into: 512 }).status, BLK_OK);
  const before = disk.calls.length;
  for (const sector of [last + 1, last + 2, 2 ** 43, 2 ** 53, 2 ** 63]) {
    assert.equal(ask({ type: BLK_IN, sector, into: 512 }).status, BLK_IOERR, String(sector));
    assert.equal(ask({ type: BLK_OUT, sector, out: pattern(512) }).status, BLK_IOERR);
  }
  assert.equal(ask({ type: BLK_IN, sector: last, into: 1024 }).status, BLK_IOERR);
  assert.equal(disk.calls.length, before);
});

test('a length that is no multiple of a sector, or none at all, is an error', () => {
  const { ask } = driveDisk(new FakeDisk(MIB));
  for (const into of [1, 511, 513]) assert.equal(ask({ type: BLK_IN, into }).status, BLK_IOERR);
  for (const length of [1, 511, 513]) assert.equal(ask({ type: BLK_OUT, out: pattern(length) }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_IN, into: 0 }).status, BLK_IOERR);
});

test('data that flows against the request is an error, and changes nothing', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  assert.equal(ask({ type: BLK_OUT, into: 512 }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_IN, out: pattern(512) }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_FLUSH, into: 16 }).status, BLK_IOERR);
  assert.equal(disk.calls.length, 0);
});

test('the buffers of a read that failed hold zeros, not what was there (§2.7.8.2)', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  disk.outcomes.push(-5);
  assert.deepEqual(ask({ type: BLK_IN, into: 1024 }), { status: BLK_IOERR, written: 1025, data: new Uint8Array(1024) });
});

test('a read that ends before its end is an error: the file shrank', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  disk.bytes.fill(9);
  disk.most = 512;
  disk.outcomes.push(null, 0);
  const reply = ask({ type: BLK_IN, into: 1024 });
  assert.equal(reply.status, BLK_IOERR);
  assert.deepEqual([reply.data[511], reply.data[512], reply.data[1023]], [9, 0, 0]);
});

test('errors of the disk are IOERR, whatever the request', () => {
  const disk = new FakeDisk(MIB);
  const { ask, device } = driveDisk(disk);
  const requests = [
    { type: BLK_IN, into: 512 },
    { type: BLK_OUT, out: pattern(512) },
    { type: BLK_FLUSH },
    { type: BLK_DISCARD, out: segment(0, 8) },
    { type: BLK_WRITE_ZEROES, out: segment(0, 8) },
  ];
  for (const request of requests) {
    for (const errno of [-5, -28, -30]) {
      disk.outcomes.push(errno);
      assert.equal(ask(request).status, BLK_IOERR);
    }
    assert.equal(ask(request).status, BLK_OK);
  }
  assert.equal(device.failures, 15);
});

test('a write that got nowhere is an error, not an endless loop', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  disk.outcomes.push(0);
  assert.equal(ask({ type: BLK_OUT, out: pattern(512) }).status, BLK_IOERR);
  assert.equal(disk.calls.length, 1);
});

test('a read-only disk takes no write, no zeros, no discard; it reads and flushes', () => {
  const disk = new FakeDisk(MIB, { readOnly: true });
  const { ask, driven } = driveDisk(disk);
  const [low] = driven.device.features;
  assert.equal((low >>> 5) & 1, 1, 'RO');
  assert.equal(low & ((1 << 13) | (1 << 14) | (1 << 11)), 0, 'no DISCARD, WRITE_ZEROES, CONFIG_WCE');
  assert.equal(ask({ type: BLK_OUT, out: pattern(512) }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_DISCARD, out: segment(0, 8) }).status, BLK_UNSUPPORTED);
  assert.equal(ask({ type: BLK_WRITE_ZEROES, out: segment(0, 8) }).status, BLK_UNSUPPORTED);
  assert.equal(disk.calls.length, 0);
  assert.equal(ask({ type: BLK_IN, into: 512 }).status, BLK_OK);
  assert.equal(ask({ type: BLK_FLUSH }).status, BLK_OK);
});

test('the serial number is 20 bytes, padded with zeros, and shorter buffers get the start of it', () => {
  const { ask } = driveDisk(new FakeDisk(MIB), { serial: 'airlock-1' });
  const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);
  assert.equal(text(ask({ type: BLK_GET_ID, into: 20 }).data), 'airlock-1'.padEnd(20, '\0'));
  assert.equal(text(ask({ type: BLK_GET_ID, into: 4 }).data), 'airl');
  const long = ask({ type: BLK_GET_ID, into: 64 });
  assert.equal(long.written, 65);
  assert.equal(text(long.data), 'airlock-1'.padEnd(64, '\0'));
});

test('requests that were not offered are unsupported', () => {
  const disk = new FakeDisk(MIB, { canDiscard: false });
  const { ask } = driveDisk(disk);
  for (const type of [2, 3, 5, 9, 12, 15, 0xffffffff]) {
    assert.equal(ask({ type, into: 512 }).status, BLK_UNSUPPORTED, String(type));
  }
  assert.equal(ask({ type: BLK_GET_LIFETIME, into: 40 }).status, BLK_UNSUPPORTED);
  assert.equal(ask({ type: BLK_SECURE_ERASE, out: segment(0, 1) }).status, BLK_UNSUPPORTED);
  assert.equal(ask({ type: BLK_DISCARD, out: segment(0, 8) }).status, BLK_UNSUPPORTED);
  assert.equal(disk.calls.length, 0);
});

test('discards and zeros: every segment, in order, with its flag', () => {
  const disk = new FakeDisk(MIB);
  disk.bytes.fill(7);
  const { ask } = driveDisk(disk);
  const two = new Uint8Array([...segment(0, 8), ...segment(16, 8)]);
  assert.equal(ask({ type: BLK_DISCARD, out: two }).status, BLK_OK);
  assert.equal(ask({ type: BLK_WRITE_ZEROES, out: segment(32, 8, 1) }).status, BLK_OK);
  assert.equal(ask({ type: BLK_WRITE_ZEROES, out: segment(48, 8, 0) }).status, BLK_OK);
  assert.deepEqual(
    disk.calls.map(({ call, position, length, flag }) => [call, position, length, flag]),
    [
      ['discard', 0, 4096, false],
      ['discard', 8192, 4096, false],
      ['zero', 16384, 4096, true],
      ['zero', 24576, 4096, false],
    ],
  );
});

test('zeros that the disk writes in steps are finished', () => {
  const disk = new FakeDisk(MIB);
  disk.bytes.fill(7);
  disk.most = 1000;
  const { ask } = driveDisk(disk);
  const two = new Uint8Array([...segment(0, 8), ...segment(16, 8)]);
  assert.equal(ask({ type: BLK_WRITE_ZEROES, out: two }).status, BLK_OK);
  assert.ok(disk.bytes.subarray(0, 4096).every((byte) => byte === 0));
  assert.ok(disk.bytes.subarray(4096, 8192).every((byte) => byte === 7));
  assert.ok(disk.bytes.subarray(8192, 12288).every((byte) => byte === 0));
});

test('segments that are wrong are refused before any of them is done', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  const sectors = MIB / 512;
  const good = segment(0, 8);
  for (const [bad, status] of [
    [segment(sectors, 1), BLK_IOERR],
    [segment(sectors - 1, 2), BLK_IOERR],
    [segment(2 ** 50, 1), BLK_IOERR],
    [segment(0, 8, 2), BLK_UNSUPPORTED],
    [segment(0, 8, 0x80000000), BLK_UNSUPPORTED],
  ] as const) {
    assert.equal(ask({ type: BLK_WRITE_ZEROES, out: new Uint8Array([...good, ...bad]) }).status, status);
  }
  assert.equal(ask({ type: BLK_DISCARD, out: segment(0, 8, 1) }).status, BLK_UNSUPPORTED, 'unmap on a discard');
  assert.equal(ask({ type: BLK_DISCARD, out: new Uint8Array(15) }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_DISCARD, out: new Uint8Array(16 * 65) }).status, BLK_IOERR, 'too many');
  assert.equal(disk.calls.length, 0);
});

test('segments of no sectors are done at once', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  const many = new Uint8Array(16 * 64);
  assert.equal(ask({ type: BLK_DISCARD, out: many }).status, BLK_OK);
  assert.equal(disk.calls.length, 0);
});

test('blocks larger than a sector: what is not made of whole blocks is an error', () => {
  const disk = new FakeDisk(MIB, { blockSize: 4096 });
  const { ask } = driveDisk(disk);
  assert.equal(ask({ type: BLK_IN, sector: 8, into: 4096 }).status, BLK_OK);
  assert.equal(ask({ type: BLK_IN, sector: 1, into: 4096 }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_IN, sector: 0, into: 512 }).status, BLK_IOERR);
  assert.equal(ask({ type: BLK_WRITE_ZEROES, out: segment(4, 8) }).status, BLK_IOERR);
});

test('a request without room for a status goes back with nothing, and the next one is served', () => {
  const disk = new FakeDisk(MIB);
  const { driven, ask } = driveDisk(disk);
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  queue.driver.readable(driven.allocate(16), 16);
  queue.driver.submit(99);
  queue.driver.publish();
  assert.equal(driven.device.serve(0), 1);
  assert.equal(queue.driver.complete(), 1);
  assert.deepEqual([queue.driver.token, queue.driver.written], [99, 0]);
  assert.equal(ask({ type: BLK_IN, into: 512 }).status, BLK_OK);
});

test('a request that ends within its header gets an error as its status', () => {
  const { driven } = driveDisk(new FakeDisk(MIB));
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  const status = driven.allocate(1);
  driven.at(status, 1)[0] = NO_STATUS;
  queue.driver.readable(driven.allocate(15), 15);
  queue.driver.writable(status, 1);
  queue.driver.submit(1);
  queue.driver.publish();
  driven.device.serve(0);
  assert.equal(queue.driver.complete(), 1);
  assert.equal(driven.at(status, 1)[0], BLK_IOERR);
});

test('the configuration says what the disk is, with the features that were offered', () => {
  const { device } = driveDisk(new FakeDisk(MIB), { queues: 4, writeback: false });
  const values = must(decodeConfig(block, device.features, device.readConfig()));
  assert.deepEqual(values, {
    capacity: 2048,
    size_max: MIB,
    seg_max: 62,
    blk_size: 512,
    'topology.physical_block_exp': 3,
    'topology.alignment_offset': 0,
    'topology.min_io_size': 8,
    'topology.opt_io_size': 0,
    writeback: 0,
    num_queues: 4,
    max_discard_sectors: 2 ** 22,
    max_discard_seg: 64,
    discard_sector_alignment: 8,
    max_write_zeroes_sectors: 2 ** 15,
    max_write_zeroes_seg: 64,
    write_zeroes_may_unmap: 1,
  });
});
