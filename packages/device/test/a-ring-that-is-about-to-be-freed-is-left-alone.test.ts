/**
 * Linux takes a queue's vector away right before it frees the queue's ring, and one driver (sound, 6.12) resets the device
 * only after that: what stands where the ring was is then somebody else's.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureSet } from '@airlock/virtio/features.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { virtioPciFunction } from '../src/register/virtio-pci.ts';
import { RegisterDriver } from './support/register-driver.ts';

const NO_VECTOR = 0xffff;

function running(bits: readonly number[], first = 1) {
  const device = new EntropyDevice((target) => target.fill(1));
  const made = virtioPciFunction(device);
  assert.ok(made.ok);
  const { pci, side } = made.value;
  const driver = new RegisterDriver(pci);
  const features = featureSet(bits);
  assert.ok(driver.negotiate(features));
  const vector = (value: number) => {
    driver.common(0x16, 2, 0); // queue_select
    driver.common(0x1a, 2, value); // queue_msix_vector
  };
  const queue = driver.queue(0, 256, features);
  vector(first);
  driver.status = 15;
  const buffer = driver.allocate(65_536);
  const submit = (token: number, bytes: number) => {
    queue.writable(buffer, bytes);
    assert.equal(queue.submit(token), DONE);
  };
  const ask = (token: number) => {
    submit(token, 64);
    queue.publish();
  };
  return { side, driver, queue, vector, submit, ask };
}

for (const bits of [
  [32, 33],
  [32, 33, 29],
  [32, 33, 34],
]) {
  test(`features ${bits.join(', ')}: without its vector a queue is not looked at before it is notified`, () => {
    const { side, driver, queue, vector, ask } = running(bits);
    ask(1);
    vector(NO_VECTOR);
    assert.equal(queue.complete(), DONE, 'what was there is served first');
    ask(2);
    assert.equal(side.poll(), false);
    assert.equal(side.prepareToSleep(), false);
    assert.equal(queue.complete(), NONE);
    assert.equal(queue.shouldNotify(), true, 'the driver was asked to tell');
    driver.kick(0);
    assert.equal(queue.complete(), DONE);
    ask(3);
    assert.equal(side.poll(), true, 'its driver goes on without interrupts');
    assert.equal(queue.complete(), DONE);
    vector(1);
    vector(NO_VECTOR);
    ask(4);
    assert.equal(side.poll(), false, 'taken away once more, it is left once more');
    vector(1);
    assert.equal(side.poll(), true);
    assert.equal(queue.complete(), DONE);
    // A reset forgets it.
    vector(NO_VECTOR);
    driver.status = 0;
    assert.equal(side.status, 0);
  });
}

test('a driver that goes on without interrupts is served to the end, however much it asks for at once', () => {
  const { side, driver, queue, vector, submit, ask } = running([32, 33, 29]);
  vector(NO_VECTOR);
  for (let token = 0; token < 256; token++) submit(token, 65_536);
  queue.publish();
  assert.equal(queue.shouldNotify(), true);
  driver.kick(0);
  const settle = () => {
    while (side.poll() || side.prepareToSleep());
  };
  settle();
  for (let token = 0; token < 256; token++) assert.equal(queue.complete(), DONE);
  ask(256);
  if (queue.shouldNotify()) driver.kick(0);
  settle();
  assert.equal(queue.complete(), DONE);
});

test('nor is a queue whose memory the VMM shows anew while it is left', () => {
  const { side, queue, vector, ask } = running([32, 33]);
  vector(NO_VECTOR);
  side.quiesce();
  side.settle();
  ask(1);
  assert.equal(side.poll(), false);
  assert.equal(queue.complete(), NONE);
  side.quiesce();
  ask(2);
  side.settle();
  assert.equal(queue.complete(), NONE);
});

test('a queue that never had a vector is looked at as any other, also when it is told so again', () => {
  const { side, queue, vector, ask } = running([32, 33], NO_VECTOR);
  vector(NO_VECTOR);
  ask(1);
  assert.equal(side.poll(), true);
  assert.equal(queue.complete(), DONE);
});
