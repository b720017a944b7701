/** VIRTIO 1.4 §4.1, §3.1: a driver that knows nothing but the registers finds, negotiates, uses and resets a device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Features, featureSet } from '@airlock/virtio/features.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EntropyDevice } from '../src/entropy/device.ts';
import { type VirtioPciOptions, virtioPciFunction } from '../src/register/virtio-pci.ts';
import { RegisterDriver } from './support/register-driver.ts';

const MODERN = featureSet([32, 33]);

function make(options: VirtioPciOptions = {}) {
  const told: string[] = [];
  const device = new EntropyDevice((target) => target.fill(0x5a));
  const made = virtioPciFunction(device, { violated: ({ code }) => told.push(code), ...options });
  assert.ok(made.ok, JSON.stringify(made));
  return { driver: new RegisterDriver(made.value.pci), side: made.value.side, pci: made.value.pci, told, device };
}

for (const [name, features] of [
  ['split', MODERN],
  ['packed', featureSet([32, 33, 34])],
  ['with event index and in order', featureSet([32, 33, 28, 29, 35])],
] as [string, Features][]) {
  test(`a request goes through a ${name} ring, and interrupts`, () => {
    const { driver } = make();
    assert.ok(driver.negotiate(features));
    const queue = driver.queue(0, 16, features, 1);
    driver.status = 15;
    const buffer = driver.allocate(64);
    queue.writable(buffer, 64);
    assert.equal(queue.submit(7), DONE);
    queue.publish();
    driver.kick(0);
    assert.equal(queue.complete(), DONE);
    assert.equal(queue.token, 7);
    assert.equal(queue.written, 64);
    assert.ok(
      driver.ram.bytes.subarray(buffer - 0x1_0000_0000, buffer - 0x1_0000_0000 + 64).every((byte) => byte === 0x5a),
    );
    // MSI-X is off: the line, and the ISR says queue; reading it acknowledges.
    assert.deepEqual(driver.link.triggers, ['intx 0']);
    assert.equal(driver.reg(3, 0, 1), 1);
    assert.equal(driver.reg(3, 0, 1), 0);
    assert.equal(driver.pci.lineAsserted, false);
  });
}

test('nothing is used before DRIVER_OK (§3.1.1)', () => {
  const { driver, device } = make();
  assert.ok(driver.negotiate(MODERN));
  const queue = driver.queue(0, 16, MODERN);
  queue.writable(driver.allocate(64), 64);
  queue.submit(1);
  queue.publish();
  driver.kick(0);
  assert.equal(queue.complete(), NONE);
  assert.equal(device.given, 0);
  driver.status = 15;
  assert.equal(queue.complete(), DONE, 'what waited is taken when the driver is ready');
});

test('features that were not offered, or without VERSION_1, are refused at FEATURES_OK (§2.2.2)', () => {
  const { driver, told } = make();
  assert.equal(driver.negotiate(featureSet([32, 0])), false);
  assert.equal(driver.negotiate(featureSet([28])), false);
  driver.status = 15;
  assert.equal(driver.status & 4, 0, 'and the device does not go live without it');
  assert.deepEqual(told, ['feature-not-offered', 'feature-required', 'feature-required'], 'each attempt is told');
  assert.ok(driver.negotiate(driver.offered()));
  driver.accept(MODERN);
  driver.common(8, 4, 1);
  assert.notEqual(driver.common(12, 4), MODERN[1], 'agreed features do not move');
});

test('status bits cannot be taken back one by one; 0 resets everything (§2.1)', () => {
  const { driver, side } = make();
  driver.negotiate(MODERN);
  driver.queue(0, 16, MODERN);
  driver.status = 15;
  driver.status = 1;
  assert.equal(driver.status, 15);
  driver.status = 0;
  assert.equal(driver.status, 0);
  driver.common(0x16, 2, 0);
  assert.equal(driver.common(0x1c, 2), 0);
  assert.equal(driver.common(0x18, 2), 256);
  assert.equal(driver.common(0x24, 4), 0);
  assert.equal(side.features[1], 0);
});

test('a queue that does not exist reads as zero and takes nothing (§4.1.4.3)', () => {
  const { driver } = make();
  driver.negotiate(MODERN);
  driver.common(0x16, 2, 1);
  assert.equal(driver.common(0x18, 2), 0);
  driver.common(0x18, 2, 16);
  driver.common(0x1c, 2, 1);
  driver.common(0x20, 4, 0xfffff000);
  assert.equal(driver.common(0x1c, 2), 0);
  assert.equal(driver.common(0x20, 4), 0);
  driver.status = 15;
  driver.kick(1);
  driver.reg(2, 0, 2, 0xffff);
  assert.equal(driver.status, 15);
});

test('sizes that the device does not have, and vectors that the function does not have, are not taken', () => {
  const { driver } = make();
  driver.common(0x16, 2, 0);
  for (const size of [0, 257, 0xffff]) {
    driver.common(0x18, 2, size);
    assert.equal(driver.common(0x18, 2), 256);
  }
  driver.common(0x1a, 2, 1);
  assert.equal(driver.common(0x1a, 2), 1);
  driver.common(0x1a, 2, 2);
  assert.equal(driver.common(0x1a, 2), 0xffff, 'NO_VECTOR says that it was refused (§4.1.5.1.2.1)');
  driver.common(0x10, 2, 77);
  assert.equal(driver.common(0x10, 2), 0xffff);
});

test('a ring at addresses that are no memory makes the device need a reset, and says so (§2.1.2)', () => {
  const { driver, told } = make();
  driver.negotiate(MODERN);
  driver.common(0x16, 2, 0);
  driver.common(0x20, 4, 0xdead_0000);
  driver.common(0x1c, 2, 1);
  driver.status = 15;
  assert.equal(driver.status & 64, 64);
  assert.equal(driver.reg(3, 0, 1) & 2, 2, 'a configuration change notification');
  assert.equal(told.length, 1);
  driver.status = 0;
  assert.equal(driver.status, 0);
});

test('a driver that breaks a rule of the ring is told, once, and nothing more is used', () => {
  const { driver, told, device } = make();
  driver.negotiate(MODERN);
  const queue = driver.queue(0, 16, MODERN);
  driver.status = 15;
  // The available ring names a descriptor beyond the queue.
  const available = driver.ram.bytes.subarray(4096);
  available[4] = 99;
  available[2] = 1;
  driver.kick(0);
  driver.kick(0);
  assert.equal(driver.status & 64, 64);
  assert.deepEqual(told, ['avail-head-out-of-range']);
  assert.equal(queue.complete(), NONE);
  assert.equal(device.given, 0);
});

test('a queue is reset alone, and set up anew (RING_RESET, §2.6.1)', () => {
  const features = featureSet([32, 33, 40]);
  const { driver } = make();
  assert.ok(driver.negotiate(features));
  driver.queue(0, 16, features);
  driver.status = 15;
  driver.common(0x16, 2, 0);
  driver.common(0x3a, 2, 1);
  assert.equal(driver.common(0x3a, 2), 0);
  assert.equal(driver.common(0x1c, 2), 0);
  const queue = driver.queue(0, 8, features);
  queue.writable(driver.allocate(16), 16);
  queue.submit(3);
  queue.publish();
  driver.kick(0);
  assert.equal(queue.complete(), DONE);
});

test('a function that does not master the bus touches no memory', () => {
  const { driver, device, side } = make();
  driver.negotiate(MODERN);
  const queue = driver.queue(0, 16, MODERN);
  driver.status = 15;
  driver.config(4, 2, 0x2);
  queue.writable(driver.allocate(16), 16);
  queue.submit(3);
  queue.publish();
  driver.kick(0);
  assert.equal(side.poll(), false);
  assert.equal(device.given, 0);
  driver.config(4, 2, 0x6);
  side.poll();
  assert.equal(queue.complete(), DONE);
});

test('when the VMM goes away the device is as after power-on', () => {
  const { driver, pci, side } = make();
  driver.negotiate(MODERN);
  driver.queue(0, 16, MODERN);
  driver.status = 15;
  pci.detach();
  assert.equal(side.status, 0);
  assert.equal(side.poll(), false);
  const again = new RegisterDriver(pci);
  assert.equal(again.config(4, 2), 0x6);
  assert.ok(again.negotiate(MODERN));
});

test('configuration space is a window onto the registers too, within bounds (§4.1.4.9)', () => {
  const { driver } = make();
  let at = driver.config(0x34, 1);
  while (at !== 0 && !(driver.config(at, 1) === 9 && driver.config(at + 3, 1) === 5)) at = driver.config(at + 1, 1);
  assert.notEqual(at, 0);
  const through = (bar: number, offset: number, length: number) => {
    driver.config(at + 4, 1, bar);
    driver.config(at + 8, 4, offset);
    driver.config(at + 12, 4, length);
    return driver.config(at + 16, 4);
  };
  assert.equal(through(0, 0x12, 2), 1, 'num_queues');
  for (const [bar, offset, length] of [
    [1, 0, 4],
    [0, 0x4000, 4],
    [0, 0xffff_fffc, 4],
    [0, 2, 4],
    [0, 0x3ffe, 4],
    [0, 0, 3],
    [0, 0, 0xffff_ffff],
  ] as const) {
    assert.equal(through(bar, offset, length), 0, `${bar} ${offset} ${length}`);
  }
});
