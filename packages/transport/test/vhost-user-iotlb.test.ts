/** ACCESS_PLATFORM over vhost-user: every address is asked for once, and nothing is used that was not given. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { socketPair } from '@airlock/transport/unix-socket.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EchoDevice } from './support/echo-device.ts';
import {
  addressPayload,
  driverOf,
  GUEST_BASE,
  must,
  openDescriptors,
  placeQueue,
  ScriptedFrontEnd,
  type SharedRam,
  systemCalls,
  USER_BASE,
} from './support/scripted-front-end.ts';

const PAGE = 4096;
/** Where the ring stands, one page for each part, and the data, as I/O virtual addresses. */
const DATA = GUEST_BASE + 0x8000;

interface Stage {
  readonly front: ScriptedFrontEnd;
  readonly device: EchoDevice;
  readonly ram: SharedRam;
  readonly driver: ReturnType<typeof driverOf>;
  /** Addresses that were asked for since the last look. */
  readonly asked: () => number[];
  readonly map: (address: number, access?: number, to?: number) => number;
}

/** A queue of 8 whose ring lies in the first page; nothing is translated yet. */
function stage(run: (on: Stage) => void): void {
  const before = openDescriptors();
  const device = new EchoDevice();
  const front = new ScriptedFrontEnd(device);
  const features = front.negotiate([32, 33]);
  const ram = front.ram(65536);
  assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
  const [near, far] = must(socketPair(systemCalls));
  front.own(near);
  front.own(far);
  assert.equal(front.ack('SET_BACKEND_REQ_FD', { form: 'none' }, [far]), 0);
  const { offsets } = placeQueue(0, 8, false);
  const driver = driverOf(ram, 0, 8, features);
  front.ack('SET_VRING_NUM', { form: 'vring', index: 0, value: 8 });
  front.ack(
    'SET_VRING_ADDR',
    addressPayload(0, {
      descriptors: GUEST_BASE + offsets.descriptors,
      driver: GUEST_BASE + offsets.driver,
      device: GUEST_BASE + offsets.device,
    }),
  );
  assert.equal(front.ack('SET_VRING_KICK', { form: 'vring-fd', index: 0, hasFd: true }, [front.eventFd()]), 0);
  assert.equal(front.ack('SET_VRING_ENABLE', { form: 'vring', index: 0, value: 1 }), 0);
  run({
    front,
    device,
    ram,
    driver,
    asked: () => front.readMisses(near).map(({ address }) => address),
    map: (address, access = 3, to = address - GUEST_BASE + USER_BASE) =>
      front.ack('IOTLB_MSG', { form: 'iotlb', entry: { address, size: PAGE, userAddress: to, access, type: 2 } }),
  });
  front.end();
  assert.equal(device.queues.size, 0);
  assert.equal(openDescriptors(), before);
}

function spin(front: ScriptedFrontEnd): void {
  for (let i = 0; i < 1000; i++) front.reactor.turn(1);
}

test('a ring starts when it is translated, and an address is asked for once', () => {
  stage(({ front, device, asked, map }) => {
    assert.deepEqual(asked(), [GUEST_BASE]);
    spin(front);
    assert.deepEqual(asked(), []);
    assert.deepEqual(device.log, []);
    // An update for something else does not help; it is asked again, once for each answer.
    assert.equal(map(GUEST_BASE + 4 * PAGE), 0);
    assert.deepEqual(asked(), [GUEST_BASE]);
    assert.equal(map(GUEST_BASE), 0);
    assert.deepEqual(asked(), []);
    assert.deepEqual(device.log, ['start', 'queue 0']);
  });
});

test('a buffer that is not translated is asked for once, and served after the answer', () => {
  stage(({ front, device, ram, driver, asked, map }) => {
    map(GUEST_BASE);
    asked();
    ram.mapping.region.bytes.set([1, 2, 3], DATA - GUEST_BASE);
    driver.readable(DATA, 3);
    driver.writable(DATA + PAGE, 8);
    assert.equal(driver.submit(0), DONE);
    driver.publish();
    front.reactor.turn();
    assert.deepEqual(asked(), [DATA]);
    const { serves } = device;
    spin(front);
    assert.equal(device.serves, serves, 'the device is left alone while it waits');
    assert.ok(front.reactor.trySleep(), 'and nobody stays awake for it');
    assert.deepEqual(asked(), []);
    assert.equal(driver.complete(), NONE);
    map(DATA);
    spin(front);
    assert.deepEqual(asked(), [DATA + PAGE]);
    map(DATA + PAGE);
    assert.equal(driver.complete(), DONE);
    assert.deepEqual(
      ram.mapping.region.bytes.slice(DATA - GUEST_BASE + PAGE, DATA - GUEST_BASE + PAGE + 3),
      Uint8Array.of(3, 2, 1),
    );
    assert.equal(device.taken.length, 1);
    assert.deepEqual(asked(), []);
    assert.deepEqual(front.problems, []);
  });
});

test('memory that may only be read is not written to', () => {
  stage(({ front, device, driver, ram, map }) => {
    map(GUEST_BASE);
    map(DATA, 1);
    ram.mapping.region.bytes.fill(0x55, DATA - GUEST_BASE, DATA - GUEST_BASE + PAGE);
    driver.readable(DATA, 3);
    driver.writable(DATA + 256, 8);
    driver.submit(0);
    driver.publish();
    front.reactor.turn();
    assert.equal(driver.complete(), DONE);
    assert.equal(driver.written, 0);
    assert.deepEqual(device.refusals, ['access-denied']);
    assert.ok(
      ram.mapping.region.bytes.subarray(DATA - GUEST_BASE, DATA - GUEST_BASE + PAGE).every((byte) => byte === 0x55),
    );
  });
});

test('a ring that is taken away stops the queue; given again it goes on where it was', () => {
  stage(({ front, device, driver, asked, map }) => {
    map(GUEST_BASE);
    map(DATA);
    asked();
    const request = (token: number): void => {
      driver.readable(DATA, 3);
      driver.writable(DATA + 256, 8);
      assert.equal(driver.submit(token), DONE);
      driver.publish();
      front.reactor.turn();
    };
    for (let token = 0; token < 5; token++) {
      request(token);
      assert.equal(driver.complete(), DONE);
    }
    const entry = { address: GUEST_BASE, size: PAGE, userAddress: 0, access: 0, type: 3 };
    assert.equal(front.ack('IOTLB_MSG', { form: 'iotlb', entry }), 0);
    assert.deepEqual(device.log, ['start', 'queue 0', 'stop-queue 0']);
    assert.deepEqual(asked(), [GUEST_BASE]);
    request(5);
    assert.equal(device.taken.length, 5);
    map(GUEST_BASE);
    front.reactor.turn();
    assert.deepEqual(device.log, ['start', 'queue 0', 'stop-queue 0', 'queue 0']);
    assert.equal(device.taken.length, 6);
    assert.equal(driver.complete(), DONE);
    // Taking away what holds no ring stops nothing.
    assert.equal(front.ack('IOTLB_MSG', { form: 'iotlb', entry: { ...entry, address: DATA } }), 0);
    assert.equal(device.log.length, 4);
    request(6);
    assert.deepEqual(asked(), [DATA]);
  });
});

test('with no channel to ask on, nothing runs until the front-end speaks', () => {
  const device = new EchoDevice();
  const front = new ScriptedFrontEnd(device);
  front.negotiate([32, 33]);
  const ram = front.ram(65536);
  front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]);
  const { offsets } = placeQueue(0, 8, false);
  front.ack('SET_VRING_NUM', { form: 'vring', index: 0, value: 8 });
  front.ack(
    'SET_VRING_ADDR',
    addressPayload(0, { descriptors: PAGE, driver: PAGE + offsets.driver, device: PAGE + offsets.device }),
  );
  front.ack('SET_VRING_KICK', { form: 'vring-fd', index: 0, hasFd: false });
  assert.equal(front.ack('SET_VRING_ENABLE', { form: 'vring', index: 0, value: 1 }), 0);
  spin(front);
  assert.deepEqual(device.log, []);
  const entry = { address: PAGE, size: PAGE, userAddress: USER_BASE, access: 3, type: 2 };
  assert.equal(front.ack('IOTLB_MSG', { form: 'iotlb', entry }), 0);
  assert.deepEqual(device.log, ['start', 'queue 0']);
  front.end();
});
