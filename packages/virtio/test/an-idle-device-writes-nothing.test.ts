/** A device that asked for notifications does not ask again until it took something: the ring's memory may be gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { allFeatures, BASE, bothEnds, describeFeatures } from './support/both-ends.ts';

for (const features of allFeatures()) {
  test(`${describeFeatures(features)}: the memory of a ring is not touched while nothing happens`, () => {
    const { driver, device, memory, layout } = bothEnds(8, features);
    const buffer = BASE + layout.data;
    const chain = new Chain(8);
    const roundTrip = () => {
      driver.writable(buffer, 64);
      assert.equal(driver.submit(1), DONE);
      driver.publish();
      assert.equal(device.take(chain), DONE);
      device.give(chain.id, 0);
      device.publish();
      assert.equal(driver.complete(), DONE);
    };
    roundTrip();
    assert.equal(device.requestNotifications(), false);
    // The driver took the ring down: whatever stands there now is not the device's.
    const bytes = memory.region.bytes;
    const before = bytes.slice();
    bytes.fill(0xc7);
    for (let look = 0; look < 3; look++) device.requestNotifications();
    assert.ok(bytes.every((byte) => byte === 0xc7));
    bytes.set(before);
    // And it is asked again once there was something.
    roundTrip();
    assert.equal(device.requestNotifications(), false);
    driver.writable(buffer, 64);
    assert.equal(driver.submit(2), DONE);
    driver.publish();
    assert.equal(driver.shouldNotify(), true);
    device.reset();
  });
}
