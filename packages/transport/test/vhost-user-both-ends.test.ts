/** Our front-end and our back-end against each other, with every kind of ring. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exchange } from '@airlock/transport/vhost-user/exchange.ts';
import { FrontEnd } from '@airlock/transport/vhost-user/front-end.ts';
import { featureBits, featureSet, NO_FEATURES } from '@airlock/virtio/features.ts';
import { EchoDevice } from './support/echo-device.ts';
import { type PumpedBackEnd, pumpedBackEnd } from './support/pumped.ts';
import { must, openDescriptors, systemCalls } from './support/scripted-front-end.ts';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const POOL = [{ size: 256, count: 64 }];

export function connect(served: PumpedBackEnd, without: readonly 'INFLIGHT_SHMFD'[] = []): FrontEnd {
  const { wait, now, path } = served;
  return must(FrontEnd.connect(path, { calls: systemCalls, wait, now, without, timeout: 1000 }));
}

function echo(front: FrontEnd, index: number, bytes: Uint8Array): Uint8Array {
  const queue = front.queues?.all[index];
  const pool = front.memory?.pool;
  assert.ok(queue !== undefined && pool !== undefined);
  const answer = must(exchange({ queue, pool, out: [bytes], in: [64], timeout: 1000, now: front.now }));
  return (answer.parts[0] ?? new Uint8Array(0)).slice(0, answer.written);
}

test('what is offered is what the device offers, VERSION_1 and ACCESS_PLATFORM', () => {
  const served = pumpedBackEnd(new EchoDevice({ features: [28, 34] }));
  const front = connect(served);
  assert.deepEqual(featureBits(front.offer.features), [28, 30, 32, 33, 34]);
  assert.equal(front.offer.queues, 2);
  assert.equal(front.offer.memorySlots, 509);
  front.close();
  served.end();
});

for (const [name, bits, required] of [
  ['split', [], []],
  ['split, everything', [28, 29, 35], []],
  ['packed', [34], [34]],
  ['packed, everything', [28, 29, 34, 35], [34]],
  ['split through an IOTLB', [28, 33], [33]],
  ['packed through an IOTLB', [28, 29, 33, 34], [33, 34]],
] as const) {
  for (const tracked of [true, false]) {
    test(`requests and answers (${name}${tracked ? ', written down' : ''})`, () => {
      const before = openDescriptors();
      const device = new EchoDevice();
      const served = pumpedBackEnd(device);
      const front = connect(served, tracked ? [] : ['INFLIGHT_SHMFD']);
      must(front.negotiate('entropy', featureSet([32, ...bits]), featureSet([32, ...required])));
      must(front.setUp({ queues: 2, size: 16, pool: POOL, indirectLimit: 4 }));
      for (let i = 0; i < 100; i++)
        assert.deepEqual(echo(front, i % 2, text(`number ${i}`)), text(`number ${i}`).reverse());
      must(front.stop());
      assert.deepEqual(
        device.log.filter((one) => one.startsWith('stop')),
        ['stop-queue 0', 'stop-queue 1', 'stop'],
      );
      front.close();
      served.reactor.pump();
      assert.equal(served.backEnd.connected, false);
      served.end();
      assert.deepEqual(
        served.events.filter(({ kind }) => kind === 'problem'),
        [],
      );
      assert.equal(openDescriptors(), before);
    });
  }
}

test('a queue that was stopped goes on where it was', () => {
  const served = pumpedBackEnd(new EchoDevice());
  const front = connect(served);
  must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
  const queues = must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 7; i++)
      assert.deepEqual(echo(front, 0, text(`${round} ${i}`)), text(`${round} ${i}`).reverse());
    assert.equal(must(queues.stopOne(0)), (round + 1) * 7);
    must(queues.start(false, false));
  }
  front.close();
  served.end();
});

test('the configuration is asked for again when it changes meanwhile, and a change is told', () => {
  const device = new EchoDevice({ config: Uint8Array.of(9, 8, 7, 6, 5, 4, 3, 2) });
  const served = pumpedBackEnd(device);
  const front = connect(served);
  must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
  must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  assert.deepEqual(must(front.readConfigBytes(8)), device.config);
  must(front.writeConfig(4, Uint8Array.of(77)));
  assert.equal(must(front.readConfigBytes(8))[4], 77);
  const refused = front.writeConfig(0, Uint8Array.of(1));
  assert.equal(refused.ok ? '' : refused.error.code, 'vhost-user-refused');
  device.link?.configChanged();
  assert.equal(front.serveChannel(), null);
  assert.equal(front.configGeneration, 1);
  front.close();
  served.end();
});

test('features are agreed on as a whole or not at all', () => {
  const served = pumpedBackEnd(new EchoDevice({ features: [28] }));
  const front = connect(served);
  const missing = front.negotiate('entropy', NO_FEATURES, featureSet([32, 34]));
  assert.equal(missing.ok ? '' : missing.error.code, 'feature-required');
  must(front.negotiate('entropy', featureSet([28, 29, 32]), featureSet([32])));
  assert.deepEqual(featureBits(front.features ?? NO_FEATURES), [28, 32]);
  front.close();
  served.end();
});

for (const [name, bits] of [
  ['split', []],
  ['packed', [34]],
] as const) {
  test(`a driver that starts anew after a stop begins at the beginning, whatever was written down (${name})`, () => {
    const served = pumpedBackEnd(new EchoDevice());
    const front = connect(served);
    must(front.negotiate('entropy', featureSet([32, ...bits]), featureSet([32, ...bits])));
    const queues = must(front.setUp({ queues: 1, size: 16, pool: POOL }));
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 5; i++) assert.deepEqual(echo(front, 0, text(`${i}`)), text(`${i}`));
      must(queues.stopOne(0));
      assert.deepEqual(queues.all[0]?.driver.reset(), []);
      must(queues.startOne(0));
    }
    front.close();
    served.end();
  });
}

test('a device whose queues are all stopped sends no message; what it had to say follows', () => {
  const device = new EchoDevice();
  const served = pumpedBackEnd(device);
  const front = connect(served);
  must(front.negotiate('entropy', featureSet([32]), featureSet([32])));
  const queues = must(front.setUp({ queues: 1, size: 16, pool: POOL }));
  must(queues.stopOne(0));
  for (let i = 0; i < 10; i++) device.link?.configChanged();
  assert.equal(front.serveChannel(), null);
  assert.equal(front.configGeneration, 0);
  must(queues.startOne(0));
  assert.equal(front.serveChannel(), null);
  assert.equal(front.configGeneration, 1);
  front.close();
  served.end();
});
