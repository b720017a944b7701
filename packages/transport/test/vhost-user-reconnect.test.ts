/** A back-end dies with requests in flight, or a front-end does; the next one goes on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { featureSet } from '@airlock/virtio/features.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EchoDevice } from './support/echo-device.ts';
import { type PumpedBackEnd, pumpedBackEnd } from './support/pumped.ts';
import { must, openDescriptors, systemCalls } from './support/scripted-front-end.ts';

const POOL = [{ size: 256, count: 64 }];

function frontOf(first: PumpedBackEnd, now: () => PumpedBackEnd, without: readonly 'INFLIGHT_SHMFD'[] = []): FrontEnd {
  const wait: PumpedBackEnd['wait'] = (fds, writable, milliseconds) => now().wait(fds, writable, milliseconds);
  const clock = (): number => now().now();
  return must(FrontEnd.connect(first.path, { calls: systemCalls, wait, now: clock, without, timeout: 1000 }));
}

/** Requests `from` to `to` - 1, each with its number in its first byte. */
function submit(front: FrontEnd, from: number, to: number): void {
  const { queues, memory } = front;
  const queue = queues?.all[0];
  assert.ok(queue !== undefined && memory !== null);
  for (let token = from; token < to; token++) {
    const slice = memory.pool.take(256);
    memory.pool.copyIn(slice, Uint8Array.of(token, 1, 2));
    queue.driver.readable(memory.pool.addressOf(slice), 3);
    queue.driver.writable(memory.pool.addressOf(slice) + 64, 64);
    assert.equal(queue.driver.submit(token), DONE);
  }
  queue.publish();
}

function completed(front: FrontEnd): number[] {
  const driver = front.queues?.all[0]?.driver;
  assert.ok(driver !== undefined);
  const tokens: number[] = [];
  while (driver.complete() === DONE) {
    assert.equal(driver.written, 3);
    tokens.push(driver.token);
  }
  assert.equal(driver.violation, null);
  return tokens;
}

for (const [name, bits] of [
  ['split', [28, 29]],
  ['packed', [28, 29, 34]],
  ['packed, in order, through an IOTLB', [28, 33, 34, 35]],
] as const) {
  test(`what was in flight when the back-end died is done by the next one (${name})`, () => {
    const before = openDescriptors();
    const dying = new EchoDevice({ hold: true });
    dying.forgets = true;
    let served = pumpedBackEnd(dying);
    const { path } = served;
    const front = frontOf(served, () => served);
    must(front.negotiate('entropy', featureSet([32, ...bits]), featureSet([32, ...bits])));
    must(front.setUp({ queues: 1, size: 16, pool: POOL, indirectLimit: 4 }));
    submit(front, 0, 6);
    served.reactor.pump();
    assert.deepEqual(
      dying.taken.map(({ bytes }) => bytes[0]),
      [0, 1, 2, 3, 4, 5],
    );
    // Two are answered out of order (where that is shown), then the end comes.
    dying.finish(3);
    dying.finish(0);
    const answered = completed(front);
    submit(front, 6, 9);
    served.end();
    const heir = new EchoDevice();
    served = pumpedBackEnd(heir, path);
    must(front.reconnect());
    served.reactor.pump();
    const rest = completed(front);
    assert.deepEqual([...answered, ...rest].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    // In the order in which they were taken, then what had not been taken yet.
    const again = heir.taken.map(({ bytes }) => bytes[0]);
    assert.deepEqual(again, [...again].sort());
    submit(front, 9, 12);
    served.reactor.pump();
    assert.deepEqual(completed(front), [9, 10, 11]);
    must(front.stop());
    front.close();
    served.reactor.pump();
    served.end();
    assert.equal(openDescriptors(), before);
  });
}

test('a front-end does not go on when requests would be lost', () => {
  const dying = new EchoDevice({ hold: true });
  dying.forgets = true;
  let served = pumpedBackEnd(dying);
  const { path } = served;
  const front = frontOf(served, () => served, ['INFLIGHT_SHMFD']);
  must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
  must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  submit(front, 0, 1);
  served.reactor.pump();
  served.end();
  served = pumpedBackEnd(new EchoDevice(), path);
  const again = front.reconnect();
  assert.equal(again.ok ? '' : again.error.code, 'vhost-user-reconnect-loses');
  front.close();
  served.reactor.pump();
  served.end();
});

test('a front-end does not go on with fewer features than before', () => {
  let served = pumpedBackEnd(new EchoDevice({ features: [28, 29, 34] }));
  const { path } = served;
  const front = frontOf(served, () => served);
  must(front.negotiate('entropy', featureSet([28, 32]), featureSet([32])));
  must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  served.end();
  // Not even fewer on offer, though what was agreed on would still be there.
  served = pumpedBackEnd(new EchoDevice({ features: [28, 29] }), path);
  const again = front.reconnect();
  assert.equal(again.ok ? '' : again.error.code, 'feature-downgraded');
  front.close();
  served.reactor.pump();
  served.end();
});

test('a front-end that dies mid-request leaves a device that serves the next one', () => {
  const before = openDescriptors();
  const device = new EchoDevice({ hold: true });
  const served = pumpedBackEnd(device);
  for (let round = 0; round < 20; round++) {
    device.taken.length = 0;
    const front = frontOf(served, () => served);
    must(front.negotiate('entropy', featureSet([32, 28]), featureSet([32])));
    must(front.setUp({ queues: 2, size: 16, pool: POOL }));
    submit(front, 0, 5);
    served.reactor.pump();
    assert.equal(device.taken.length, 5);
    front.close();
    served.reactor.pump();
    assert.equal(served.backEnd.connected, false);
    assert.deepEqual(device.log.slice(-3), ['stop-queue 0', 'stop-queue 1', 'stop']);
  }
  device.hold = false;
  const front = frontOf(served, () => served);
  must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
  must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  submit(front, 0, 5);
  served.reactor.pump();
  assert.deepEqual(completed(front), [0, 1, 2, 3, 4]);
  assert.equal(front.queues?.all[0]?.driver.complete(), NONE);
  front.close();
  served.reactor.pump();
  served.end();
  assert.equal(openDescriptors(), before);
});

test('a thousand front-ends come and go without a trace', () => {
  const served = pumpedBackEnd(new EchoDevice());
  const before = openDescriptors();
  for (let i = 0; i < 1000; i++) {
    const front = frontOf(served, () => served);
    if (i % 10 === 0) {
      must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
      must(front.setUp({ queues: 2, size: 8, pool: POOL }));
    }
    front.close();
    served.reactor.pump();
  }
  assert.equal(openDescriptors(), before);
  assert.equal(served.reactor.fake.pollerCount, 0);
  served.end();
  assert.equal(served.reactor.fake.watchCount, 0);
});
