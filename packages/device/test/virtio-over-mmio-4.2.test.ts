/** VIRTIO 1.4 §4.2: the register model of MMIO, from the magic value to an acknowledged interrupt. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureSet } from '@airlock/virtio/features.ts';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { createDriverQueue, ringFeatures } from '@airlock/virtio/ring/create.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { virtioMmio } from '../src/register/virtio-mmio.ts';

test('a driver goes from magic value to used buffer and acknowledged interrupt', () => {
  const line: boolean[] = [];
  const { registers, side } = virtioMmio(new EntropyDevice((target) => target.fill(7)), {
    line: (up) => line.push(up),
  });
  const view = new DataView(new ArrayBuffer(4));
  const read = (at: number) => {
    registers.read(at, new Uint8Array(view.buffer));
    return view.getUint32(0, true);
  };
  const write = (at: number, value: number) => {
    view.setUint32(0, value >>> 0, true);
    registers.write(at, new Uint8Array(view.buffer));
  };
  assert.deepEqual([read(0), read(4), read(8)], [0x74726976, 2, 4]);
  const space = new AddressSpace();
  const region = makeRegion('ram', new ArrayBuffer(65536));
  assert.ok(region.ok && space.map({ start: 0x10000, size: 65536, region: region.value, offset: 0, access: 3 }).ok);
  side.attachMemory(space);
  const features = featureSet([32, 33]);
  write(0x70, 1);
  write(0x70, 3);
  for (let i = 0; i < 4; i++) {
    write(0x24, i);
    write(0x20, features[i] ?? 0);
  }
  write(0x70, 11);
  assert.equal(read(0x70), 11);
  write(0x30, 1);
  assert.equal(read(0x34), 0, 'no such queue');
  write(0x30, 0);
  assert.equal(read(0x34), 256);
  write(0x38, 8);
  const addresses = { descriptors: 0x10000, driver: 0x11000, device: 0x12000 };
  write(0x80, addresses.descriptors);
  write(0x90, addresses.driver);
  write(0xa0, addresses.device);
  write(0x44, 1);
  assert.equal(read(0x44), 1);
  write(0x70, 15);
  const queue = createDriverQueue(space, { size: 8, features: ringFeatures(features), addresses });
  assert.ok(queue.ok);
  queue.value.writable(0x13000, 32);
  queue.value.submit(1);
  queue.value.publish();
  write(0x50, 0);
  assert.equal(queue.value.complete(), DONE);
  assert.deepEqual(line, [true]);
  assert.equal(read(0x60), 1);
  write(0x64, 1);
  assert.equal(read(0x60), 0);
  assert.deepEqual(line, [true, false]);
  write(0xac, 0);
  assert.deepEqual([read(0xb0), read(0xb4)], [0xffffffff, 0xffffffff], 'no shared memory');
  write(0x70, 0);
  assert.equal(read(0x44), 0);
  assert.equal(read(0xfc), 0);
});
