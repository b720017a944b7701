/** A second look at shared memory is a second chance for the other side (double fetch). So there is no second look. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { watchedMemory } from '../fuzz/watched-memory.ts';
import { allFeatures, BASE, describeFeatures, must, placeRings, random } from './support/both-ends.ts';

for (const features of allFeatures()) {
  test(`${describeFeatures(features)}: no byte is read twice by one call`, () => {
    const size = 8;
    const layout = placeRings(size);
    const memory = watchedMemory('ram', layout.data + 4096);
    const space = new AddressSpace();
    must(space.map({ start: BASE, size: layout.data + 4096, region: memory.region, offset: 0, access: 3 }));
    const { addresses, indirect } = layout;
    const driver = must(createDriverQueue(space, { size, features, addresses, indirect }));
    const device = must(createDeviceQueue(space, space, { size, features, addresses }));
    let seen = new Set<number>();
    let reads = 0;
    memory.view.afterRead = (offset, width) => {
      for (let i = 0; i < width; i++) {
        assert.equal(seen.has(offset + i), false, `byte ${offset + i} is read twice`);
        seen.add(offset + i);
      }
      reads++;
    };
    const next = random(3);
    const chain = new Chain(16);
    for (let round = 0; round < 200; round++) {
      const elements = 1 + next(5);
      for (let i = 0; i < elements; i++) {
        if (i < 2) driver.readable(BASE + layout.data + 16 * i, 16);
        else driver.writable(BASE + layout.data + 16 * i, 16);
      }
      seen = new Set();
      assert.equal(driver.submit(round), DONE);
      driver.publish();
      assert.equal(reads, 0, 'the driver reads nothing to submit');
      assert.equal(device.take(chain), DONE);
      assert.ok(reads > 0);
      seen = new Set();
      reads = 0;
      device.give(chain.id, chain.writableBytes);
      device.publish();
      assert.equal(reads, 0, 'the device reads nothing to give back');
      assert.equal(driver.complete(), DONE);
      assert.ok(reads > 0);
      seen = new Set();
      reads = 0;
      assert.equal(driver.complete(), NONE);
    }
  });
}
