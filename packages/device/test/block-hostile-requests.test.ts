/** Whatever a driver asks, on however many queues: every request goes back once, within its own buffers, and nothing throws. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeDisk } from '@airlock/device/block/fake-disk.ts';
import { BLK_IN, BLK_OK, BLK_OUT, BLK_UNSUPPORTED } from '@airlock/virtio/request/block.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import { driveDisk } from './support/disk-driver.ts';

const SECTORS = 128;
const GUARD = 0x5c;
const known = [0, 1, 4, 8, 10, 11, 13, 14];
/** All features, ring features too: indirect, event index, packed, in order. */
const bitsOf = (mask: number) =>
  Array.from({ length: 36 }, (_, bit) => bit).filter(
    (bit) => bit < 24 || [28, 29, 34, 35].some((ring, i) => ring === bit && ((mask >> i) & 1) === 1),
  );

const request = fc.record({
  type: fc.oneof(fc.constantFrom(...known), fc.integer({ min: 0, max: 0xffffffff })),
  sector: fc.oneof(fc.nat(SECTORS + 2), fc.constantFrom(2 ** 32, 2 ** 44, 2 ** 53, 2 ** 63)),
  readable: fc.array(fc.oneof(fc.nat(40), fc.constantFrom(16, 512, 1024)), { maxLength: 4 }),
  writable: fc.array(fc.oneof(fc.nat(40), fc.constantFrom(1, 512, 1024)), { maxLength: 4 }),
  queue: fc.nat(2),
  hold: fc.boolean(),
  outcome: fc.constantFrom(null, null, null, -5, -4, -28, 0),
});

test('any header over any buffers', () => {
  fc.assert(
    fc.property(fc.nat(15), fc.array(request, { minLength: 1, maxLength: 10 }), fc.nat(), (mask, requests, seed) => {
      const disk = new FakeDisk(SECTORS * 512);
      const { driven, device, run } = driveDisk(disk, { queues: 3 }, { bits: bitsOf(mask), memory: 2 ** 18 });
      const open = new Map<number, { status: number; writable: number; guards: number[] }>();
      for (const [token, one] of requests.entries()) {
        const queue = driven.queues[one.queue];
        assert.ok(queue !== undefined);
        const guards: number[] = [];
        const guard = () => {
          const at = driven.allocate(16);
          driven.at(at, 16).fill(GUARD);
          guards.push(at);
        };
        guard();
        let status = 0;
        let count = 0;
        for (const [i, length] of one.readable.entries()) {
          const at = driven.allocate(Math.max(1, length));
          if (i === 0 && length >= 16) {
            const view = new DataView(driven.region.bytes.buffer, driven.at(at, 16).byteOffset, 16);
            view.setUint32(0, one.type, true);
            view.setUint32(8, one.sector % 2 ** 32, true);
            view.setUint32(12, Math.floor(one.sector / 2 ** 32), true);
          }
          queue.driver.readable(at, length);
          count += length;
          guard();
        }
        let writable = 0;
        for (const length of one.writable) {
          const at = driven.allocate(Math.max(1, length));
          driven.at(at, length).fill(0xee);
          queue.driver.writable(at, length);
          writable += length;
          if (length > 0) status = at + length - 1;
          guard();
        }
        disk.holding = one.hold;
        if (one.outcome !== null && disk.outcomes.length === 0) disk.outcomes.push(one.outcome);
        if (queue.driver.submit(token) !== DONE) continue;
        assert.ok(count + writable >= 0);
        open.set(token, { status, writable, guards });
        queue.driver.publish();
        run();
        if ((seed >> token) & 1) disk.release();
      }
      // To the end: also those that failed with EINTR and were begun again.
      disk.holding = false;
      for (let rounds = 0; disk.kept > 0 && rounds < 100; rounds++) {
        disk.release();
        run();
      }
      run();
      for (const { driver } of driven.queues) {
        while (driver.complete() === DONE) {
          const entry = open.get(driver.token);
          assert.ok(entry !== undefined, 'once');
          open.delete(driver.token);
          if (entry.writable > 0) {
            const status = driven.at(entry.status, 1)[0] ?? -1;
            assert.ok(status >= BLK_OK && status <= BLK_UNSUPPORTED, `status ${status}`);
            assert.equal(driver.written, entry.writable);
          } else {
            assert.equal(driver.written, 0);
          }
          for (const at of entry.guards) assert.ok(driven.at(at, 16).every((byte) => byte === GUARD));
        }
        assert.equal(driver.violation, null);
      }
      assert.deepEqual([...open.keys()], [], 'all came back');
      assert.deepEqual(driven.resets, []);
      device.stopQueue(0);
    }),
    { numRuns: 300 },
  );
});

test('many queues at once: each reads what was written through any of them', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ sector: fc.nat(15), queue: fc.nat(3), write: fc.boolean() }), { maxLength: 40 }),
      (steps) => {
        const disk = new FakeDisk(16 * 512);
        const { ask } = driveDisk(disk, { queues: 4 }, { bits: bitsOf(steps.length & 15) });
        const model = new Uint8Array(16);
        for (const [i, { sector, queue, write }] of steps.entries()) {
          if (write) {
            model[sector] = i + 1;
            const out = new Uint8Array(512).fill(i + 1);
            assert.equal(ask({ type: BLK_OUT, sector, out, queue }).status, BLK_OK);
          } else {
            const { status, data } = ask({ type: BLK_IN, sector, into: 512, queue });
            assert.equal(status, BLK_OK);
            assert.ok(data.every((byte) => byte === model[sector]));
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});
