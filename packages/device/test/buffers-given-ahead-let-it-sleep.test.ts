/** Behind registers as over vhost-user: a driver gives buffers ahead to receive into, and the process sleeps over them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureSet } from '@airlock/virtio/features.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { virtioPciFunction } from '../src/register/virtio-pci.ts';
import { RegisterDriver } from './support/register-driver.ts';

/** Takes nothing before it is allowed to. */
class ReceivingDevice extends EntropyDevice {
  wanting = false;
  served = 0;
  override serve(index: number): number {
    this.served++;
    return this.wanting ? super.serve(index) : 0;
  }
}

for (const bits of [
  [32, 33],
  [32, 33, 29],
  [32, 33, 34],
  [32, 33, 34, 29],
]) {
  test(`features ${bits.join(', ')}: it sleeps over buffers that it does not want, and wakes for those that it does`, () => {
    const device = new ReceivingDevice((target) => target.fill(1));
    const made = virtioPciFunction(device);
    assert.ok(made.ok);
    const { pci, side } = made.value;
    const driver = new RegisterDriver(pci);
    const features = featureSet(bits);
    assert.ok(driver.negotiate(features));
    const queue = driver.queue(0, 16, features);
    driver.status = 15;
    for (let i = 0; i < 4; i++) {
      queue.writable(driver.allocate(64), 64);
      assert.equal(queue.submit(i), DONE);
    }
    queue.publish();
    driver.kick(0);
    assert.equal(side.poll(), false);
    assert.equal(side.prepareToSleep(), false, 'nothing keeps it awake');
    assert.equal(queue.complete(), NONE);
    const before = device.served;
    for (let i = 0; i < 10; i++) assert.equal(side.prepareToSleep(), false);
    assert.ok(device.served - before <= 10, 'each look is one look');
    device.wanting = true;
    assert.equal(side.prepareToSleep(), true, 'there is work now');
    for (let i = 0; i < 4; i++) assert.equal(queue.complete(), DONE);
    assert.equal(side.prepareToSleep(), false);
    // What comes after it went to sleep is announced.
    queue.writable(driver.allocate(64), 64);
    assert.equal(queue.submit(9), DONE);
    queue.publish();
    assert.equal(queue.shouldNotify(), true, 'the driver was asked to tell');
  });
}
