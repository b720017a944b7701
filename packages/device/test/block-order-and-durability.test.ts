/** What may be believed after a reply: §5.2.5 (write-back and write-through), §5.2.6.2 (flush), and what a stop leaves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeDisk } from '@airlock/device/block/fake-disk.ts';
import {
  BLK_DISCARD,
  BLK_FLUSH,
  BLK_IN,
  BLK_IOERR,
  BLK_OK,
  BLK_OUT,
  BLK_WRITE_ZEROES,
} from '@airlock/virtio/request/block.ts';
import fc from 'fast-check';
import { driveDisk, NO_STATUS, segment } from './support/disk-driver.ts';

const MIB = 2 ** 20;
const FLUSH = 9;
const CONFIG_WCE = 11;
/** All device features but these, and no ring features. */
const without = (...bits: number[]) => Array.from({ length: 24 }, (_, bit) => bit).filter((bit) => !bits.includes(bit));
const ones = new Uint8Array(512).fill(1);

test('with a write cache a write is not durable, a flush makes it so', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk);
  ask({ type: BLK_OUT, out: ones });
  assert.equal(disk.calls[0]?.flag, false);
  assert.equal(disk.medium[0], 0);
  ask({ type: BLK_FLUSH });
  assert.equal(disk.medium[0], 1);
});

test('a driver that knows neither FLUSH nor CONFIG_WCE never loses what it was told is written', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk, {}, { bits: without(FLUSH, CONFIG_WCE) });
  ask({ type: BLK_OUT, out: ones });
  assert.equal(disk.medium[0], 1);
});

test('a driver that knows FLUSH and not CONFIG_WCE has a write cache', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk, {}, { bits: without(CONFIG_WCE) });
  ask({ type: BLK_OUT, out: ones });
  assert.equal(disk.medium[0], 0);
});

test('the driver turns the write cache off and on', () => {
  const disk = new FakeDisk(MIB);
  const { ask, device } = driveDisk(disk);
  assert.equal(device.writeConfig(32, Uint8Array.of(0)), true);
  assert.equal(device.readConfig()[32], 0);
  ask({ type: BLK_OUT, out: ones });
  assert.equal(disk.medium[0], 1);
  assert.equal(device.writeConfig(32, Uint8Array.of(1)), true);
  ask({ type: BLK_OUT, sector: 1, out: ones });
  assert.equal(disk.medium[512], 0);
});

test('what was written with the cache on is durable when the cache is off', () => {
  const disk = new FakeDisk(MIB);
  const { ask, device } = driveDisk(disk);
  ask({ type: BLK_OUT, out: ones });
  device.writeConfig(32, Uint8Array.of(0));
  assert.equal(disk.medium[0], 1);
});

test('nothing else of the configuration can be written, nor other values, nor without CONFIG_WCE', () => {
  const { device } = driveDisk(new FakeDisk(MIB));
  const before = device.readConfig().slice();
  for (const [offset, bytes] of [
    [0, [1]],
    [31, [1, 1]],
    [32, [1, 1]],
    [32, [2]],
    [33, [1]],
    [32, []],
    [-1, [1]],
    [2 ** 32, [1]],
  ] as const) {
    assert.equal(device.writeConfig(offset, Uint8Array.from(bytes)), false, `${offset}: ${bytes}`);
  }
  assert.deepEqual(device.readConfig(), before);
  const plain = driveDisk(new FakeDisk(MIB), {}, { bits: without(CONFIG_WCE) });
  assert.equal(plain.device.writeConfig(32, Uint8Array.of(0)), false);
});

test('a device made write-through begins so again with every driver', () => {
  const disk = new FakeDisk(MIB);
  const { device, ask, driven } = driveDisk(disk, { writeback: false });
  ask({ type: BLK_OUT, out: ones });
  assert.equal(disk.medium[0], 1);
  device.writeConfig(32, Uint8Array.of(1));
  driven.stop();
  device.start({ features: device.features, notify() {}, configChanged() {}, needsReset() {} });
  assert.equal(device.readConfig()[32], 0);
});

test('write-through: discards and zeros are flushed before they are told', () => {
  const disk = new FakeDisk(MIB);
  const { ask } = driveDisk(disk, { writeback: false });
  ask({ type: BLK_DISCARD, out: segment(0, 8) });
  ask({ type: BLK_WRITE_ZEROES, out: new Uint8Array([...segment(0, 8), ...segment(8, 8)]) });
  assert.deepEqual(
    disk.calls.map(({ call }) => call),
    ['discard', 'flush', 'zero', 'zero', 'flush'],
  );
  disk.outcomes.push(null, -5);
  assert.equal(ask({ type: BLK_DISCARD, out: segment(0, 8) }).status, BLK_IOERR, 'the flush behind it failed');
});

test('requests end in the order of the disk, not of the driver, each with its own data', () => {
  const disk = new FakeDisk(MIB);
  for (let i = 0; i < MIB; i++) disk.bytes[i] = i >> 9;
  const { begin, run, replies } = driveDisk(disk);
  disk.holding = true;
  const tokens = [0, 1, 2, 3].map((sector) => begin({ type: BLK_IN, sector, into: 512 }));
  run();
  assert.equal(replies().size, 0);
  for (const at of [2, 0, 1, 0]) disk.release(at);
  run();
  const found = replies();
  assert.deepEqual(
    tokens.map((token) => [found.get(token)?.status, found.get(token)?.data[511]]),
    [0, 1, 2, 3].map((sector) => [BLK_OK, sector]),
  );
});

test('what ended without a turn of the queue is told too', () => {
  const disk = new FakeDisk(MIB);
  const { begin, device, driven, replies } = driveDisk(disk);
  disk.holding = true;
  const token = begin({ type: BLK_IN, into: 512 });
  device.serve(0);
  const ended = driven.notified[0] ?? 0;
  disk.release();
  assert.equal(device.poll(), true);
  assert.equal(replies().get(token)?.status, BLK_OK);
  assert.equal(driven.notified[0], ended + 1);
  assert.equal(device.poll(), false);
});

test('the status of a request is written when it ends, and not before', () => {
  const disk = new FakeDisk(MIB);
  const { begin, run, driven } = driveDisk(disk);
  disk.holding = true;
  begin({ type: BLK_OUT, out: ones });
  run();
  const status = driven.region.bytes.lastIndexOf(NO_STATUS);
  assert.ok(status > 0);
  disk.release();
  run();
  assert.equal(driven.region.bytes[status], BLK_OK);
});

test('a queue that ends gives back everything first, and its guest memory is not touched later', () => {
  const disk = new FakeDisk(MIB);
  const { begin, run, replies, device } = driveDisk(disk);
  disk.holding = true;
  const tokens = [1, 2, 3].map((sector) => begin({ type: BLK_OUT, sector, out: ones }));
  run();
  let waits = 0;
  disk.wait = () => {
    waits++;
    disk.release(0);
    return disk.reap();
  };
  device.stopQueue(0);
  assert.equal(waits, 3);
  const found = replies();
  assert.deepEqual(
    tokens.map((token) => found.get(token)?.status),
    [BLK_OK, BLK_OK, BLK_OK],
  );
});

test('a disk that never ends does not hold the end of a queue for ever; the driver is told, the rest is left alone', () => {
  const disk = new FakeDisk(MIB);
  let clock = 0;
  const { begin, run, replies, device, driven } = driveDisk(disk);
  disk.holding = true;
  disk.wait = (milliseconds) => {
    clock += milliseconds;
    return 0;
  };
  Object.defineProperty(device, 'now', { value: () => clock });
  begin({ type: BLK_FLUSH });
  run();
  device.stopQueue(0);
  assert.equal(driven.resets[0]?.code, 'disk-stuck');
  assert.equal(clock, 30_000);
  const before = driven.region.bytes.slice();
  // It ends after all.
  disk.release();
  run();
  assert.equal(disk.pending, 0);
  assert.equal(replies().size, 0);
  assert.ok(driven.region.bytes.every((byte, at) => byte === before[at]));
});

test('a request larger than a turn lets others pass, and is finished', () => {
  const disk = new FakeDisk(16 * MIB);
  disk.bytes.fill(5);
  const { begin, device, replies } = driveDisk(disk, {}, { memory: 40 * MIB });
  const large = begin({ type: BLK_IN, into: 10 * MIB, pieces: Array.from({ length: 10 }, () => MIB) });
  const small = begin({ type: BLK_IN, into: 512 });
  device.serve(0);
  device.serve(0);
  const first = replies();
  assert.deepEqual([...first.keys()], [small]);
  while (device.poll());
  const reply = replies().get(large);
  assert.equal(reply?.status, BLK_OK);
  assert.ok(reply?.data.every((byte) => byte === 5));
  assert.ok(disk.calls.every(({ length }) => length <= MIB));
});

test('whatever order the disk ends things in, a flush covers every write that was told before it was asked', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(3), { minLength: 5, maxLength: 60 }),
      fc.array(fc.nat(100), { minLength: 60, maxLength: 60 }),
      (steps, picks) => {
        const disk = new FakeDisk(64 * 512);
        const { begin, run, replies } = driveDisk(disk);
        disk.holding = true;
        const told = new Map<number, number>();
        const writes = new Map<number, number>();
        const flushes = new Map<number, Map<number, number>>();
        const settle = () => {
          run();
          for (const [token, { status }] of replies()) {
            assert.equal(status, BLK_OK);
            const sector = writes.get(token);
            if (sector !== undefined) told.set(sector, 1);
            const expected = flushes.get(token);
            for (const written of expected?.keys() ?? []) assert.equal(disk.medium[written * 512], 1);
          }
        };
        let sector = 0;
        for (const [i, step] of steps.entries()) {
          if (step < 2) writes.set(begin({ type: BLK_OUT, sector, out: ones }), sector++);
          else if (step === 2) flushes.set(begin({ type: BLK_FLUSH }), new Map(told));
          settle();
          if (step === 3 && disk.kept > 0) disk.release((picks[i] ?? 0) % disk.kept);
          settle();
        }
        while (disk.kept > 0) disk.release(0);
        settle();
      },
    ),
    { numRuns: 60 },
  );
});
