import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENTROPY_REQUEST_LIMIT, EntropyDevice } from '@airlock/device/entropy/device.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { drive } from './support/in-memory-driver.ts';

const ones = (target: Uint8Array) => void target.fill(1);

function request(lengths: readonly number[], source = ones) {
  const device = new EntropyDevice(source);
  const driven = drive(device);
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  const addresses = lengths.map((length) => driven.allocate(length));
  for (const [i, length] of lengths.entries()) queue.driver.writable(addresses[i] ?? 0, length);
  assert.equal(queue.driver.submit(1), DONE);
  queue.driver.publish();
  const taken = device.serve(0);
  return { device, driven, queue, addresses, taken };
}

test('a buffer is filled to the end, and the driver is told', () => {
  const { driven, queue, addresses, taken } = request([100, 28]);
  assert.equal(taken, 1);
  assert.equal(driven.notified[0], 1);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.written, 128);
  assert.ok(driven.at(addresses[0] ?? 0, 100).every((byte) => byte === 1));
  assert.ok(driven.at(addresses[1] ?? 0, 28).every((byte) => byte === 1));
  assert.equal(driven.at((addresses[1] ?? 0) + 28, 1)[0], 0);
});

test('a huge buffer is filled in part, at least one byte (§5.4.6.1), and the rest is not touched', () => {
  const { driven, queue, addresses } = request([1024 * 1024]);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.written, ENTROPY_REQUEST_LIMIT);
  assert.equal(driven.at((addresses[0] ?? 0) + ENTROPY_REQUEST_LIMIT - 1, 2).join(), '1,0');
});

test('a buffer that only can be read goes back with nothing, and nothing is drawn for it', () => {
  let drawn = 0;
  const device = new EntropyDevice(() => drawn++);
  const driven = drive(device);
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  queue.driver.readable(driven.allocate(64), 64);
  queue.driver.submit(1);
  queue.driver.publish();
  assert.equal(device.serve(0), 1);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.written, 0);
  assert.equal(drawn, 0);
});

test('many large requests are served in turns, never all at once', () => {
  const device = new EntropyDevice(ones);
  const driven = drive(device);
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  const buffer = driven.allocate(1024 * 1024);
  for (let i = 0; i < 64; i++) {
    queue.driver.writable(buffer, 1024 * 1024);
    assert.equal(queue.driver.submit(i), DONE);
  }
  queue.driver.publish();
  let turns = 0;
  for (let done = 0; done < 64; turns++) {
    const taken = device.serve(0);
    assert.ok(taken > 0 && taken <= 4, `${taken} in one turn`);
    done += taken;
  }
  assert.equal(turns, 16);
  assert.equal(device.serve(0), 0);
});

test('the private copy of what was given is wiped', () => {
  const seen: Uint8Array[] = [];
  request([64], (target) => {
    seen.push(target);
    target.fill(7);
  });
  assert.deepEqual([...new Set(seen[0])], [0]);
});

test('a broken ring asks for a reset and ends the work; queues that do not exist are left alone', () => {
  const { device, driven, queue } = request([8]);
  new DataView(driven.region.view.buffer).setUint16(0x4000 + 2, 5000, true); // available index
  assert.equal(device.serve(0), 0);
  assert.equal(driven.resets[0]?.code, 'avail-index-jump');
  assert.equal(device.serve(1), 0);
  driven.stop();
  assert.equal(device.serve(0), 0);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.complete(), NONE);
});

test('it has no configuration space, and takes no write to it', () => {
  const device = new EntropyDevice(ones);
  assert.equal(device.readConfig().length, 0);
  assert.equal(device.writeConfig(), false);
});
