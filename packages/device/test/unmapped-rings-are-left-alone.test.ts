/**
 * A VMM takes memory away from a function (VFIO_USER_DMA_UNMAP) and may give it to somebody else as soon as it has its
 * answer: a ring that lay there is neither read nor written any more. When the memory comes back, here or elsewhere, the
 * queue goes on where it was: VMMs unmap and map while the guest is looking, when their map of the machine changes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { makeRegion, type Region } from '@airlock/virtio/memory/region.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { virtioPciFunction } from '../src/register/virtio-pci.ts';
import { RAM, RegisterDriver } from './support/register-driver.ts';

const RINGS: readonly (readonly [string, Features])[] = [
  ['split', featureSet([32, 33])],
  ['packed', featureSet([32, 33, 34])],
  ['split, event index', featureSet([32, 33, 29])],
  ['packed, event index', featureSet([32, 33, 34, 29])],
];

for (const [name, features] of RINGS) {
  const set = () => {
    const device = new EntropyDevice((target) => target.fill(0x5a));
    const made = virtioPciFunction(device);
    assert.ok(made.ok);
    const { pci, side } = made.value;
    const driver = new RegisterDriver(pci);
    assert.ok(driver.negotiate(features));
    const queue = driver.queue(0, 16, features);
    driver.status = 15;
    const buffer = driver.allocate(64);
    const submit = (token: number): void => {
      queue.writable(buffer, 64);
      assert.equal(queue.submit(token), DONE);
      queue.publish();
    };
    // As a connection does it.
    const unmap = (): void => {
      pci.quiesce();
      assert.ok(driver.space.unmap(RAM, driver.ram.bytes.length).ok);
      pci.memoryChanged();
    };
    const map = (region: Region): void => {
      assert.ok(driver.space.map({ start: RAM, size: region.bytes.length, region, offset: 0, access: 3 }).ok);
      pci.memoryChanged();
    };
    return { driver, side, queue, submit, unmap, map };
  };

  test(`${name}: nothing of an unmapped ring is touched`, () => {
    const { driver, side, submit, unmap } = set();
    submit(1);
    driver.kick(0);
    unmap();
    // It is somebody else's now.
    driver.ram.bytes.fill(0xee);
    const before = driver.ram.bytes.slice();
    for (let round = 0; round < 3; round++) {
      driver.kick(0);
      side.poll();
      assert.equal(side.prepareToSleep(), false);
    }
    assert.deepEqual(driver.ram.bytes, before);
    assert.equal(driver.status, 15, 'and that is nothing to reset for');
    driver.status = 0;
    assert.deepEqual(driver.ram.bytes, before);
  });

  test(`${name}: requests that were put into it are not seen`, () => {
    const { driver, side, queue, submit, unmap } = set();
    unmap();
    submit(1);
    driver.kick(0);
    side.poll();
    side.prepareToSleep();
    assert.equal(queue.complete(), NONE);
  });

  test(`${name}: it goes on when the memory is back, and what was put in meanwhile is done`, () => {
    const { driver, queue, submit, unmap, map } = set();
    for (let round = 0; round < 40; round++) {
      submit(round);
      driver.kick(0);
      assert.equal(queue.complete(), DONE);
      assert.equal(queue.token, round);
      unmap();
      submit(100 + round);
      map(driver.ram);
      assert.equal(queue.complete(), DONE);
      assert.equal(queue.token, 100 + round);
    }
  });

  test(`${name}: it goes on in other memory, and the old stays as it was`, () => {
    const { driver, side, submit, unmap, map } = set();
    submit(1);
    driver.kick(0);
    unmap();
    const moved = makeRegion('moved', driver.ram.bytes.slice().buffer);
    assert.ok(moved.ok);
    driver.ram.bytes.fill(0xee);
    const before = driver.ram.bytes.slice();
    map(moved.value);
    driver.kick(0);
    side.poll();
    side.prepareToSleep();
    assert.deepEqual(driver.ram.bytes, before);
  });

  test(`${name}: without bus mastering nothing is touched either, and with it the queue goes on`, () => {
    const { driver, side, queue, submit } = set();
    submit(1);
    driver.kick(0);
    assert.equal(queue.complete(), DONE);
    const command = driver.config(4, 2);
    driver.config(4, 2, command & ~4);
    submit(2);
    const before = driver.ram.bytes.slice();
    driver.kick(0);
    side.poll();
    assert.equal(side.prepareToSleep(), false);
    assert.deepEqual(driver.ram.bytes, before);
    driver.config(4, 2, command);
    assert.equal(queue.complete(), DONE);
    assert.equal(queue.token, 2);
  });

  test(`${name}: bus mastering may come after DRIVER_OK`, () => {
    const { driver } = set();
    driver.status = 0;
    const command = driver.config(4, 2);
    driver.config(4, 2, command & ~4);
    assert.ok(driver.negotiate(features));
    const late = driver.queue(0, 16, features);
    driver.status = 15;
    late.writable(driver.allocate(64), 64);
    assert.equal(late.submit(3), DONE);
    late.publish();
    driver.kick(0);
    assert.equal(late.complete(), NONE);
    driver.config(4, 2, command);
    assert.equal(late.complete(), DONE);
  });

  test(`${name}: a reset while it is away begins anew`, () => {
    const { driver, unmap, map } = set();
    unmap();
    driver.status = 0;
    map(driver.ram);
    const before = driver.ram.bytes.slice();
    driver.kick(0);
    assert.deepEqual(driver.ram.bytes, before);
    assert.ok(driver.negotiate(features));
    const queue = driver.queue(0, 16, features);
    driver.status = 15;
    queue.writable(driver.allocate(64), 64);
    assert.equal(queue.submit(9), DONE);
    queue.publish();
    driver.kick(0);
    assert.equal(queue.complete(), DONE);
  });
}
