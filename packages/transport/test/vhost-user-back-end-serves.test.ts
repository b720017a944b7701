/** A well-behaved front-end, message by message: what is offered, how queues start, work, stop and go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { EchoDevice } from './support/echo-device.ts';
import { called, echoed, openDescriptors, ScriptedFrontEnd, startQueue, submit } from './support/scripted-front-end.ts';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

for (const [name, bits] of [
  ['split', [32]],
  ['split with indirect and event index', [32, 28, 29]],
  ['packed', [32, 34]],
  ['packed in order', [32, 34, 35, 29]],
] as const) {
  test(`requests are served and come back (${name})`, () => {
    const before = openDescriptors();
    const device = new EchoDevice();
    const front = new ScriptedFrontEnd(device);
    const features = front.negotiate(bits);
    const ram = front.ram(4 * 65536);
    assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
    const queue = startQueue(front, ram, 1, 16, features);
    assert.deepEqual(device.log, ['start', 'queue 1']);
    for (let round = 0; round < 40; round++) {
      for (let at = 0; at < 4; at++) assert.equal(submit(ram, queue, at, text(`round ${round} ${at}`)), DONE);
      queue.driver.publish();
      front.reactor.turn();
      for (let at = 0; at < 4; at++) {
        assert.equal(queue.driver.complete(), DONE);
        const sent = text(`round ${round} ${queue.driver.token}`);
        assert.equal(queue.driver.written, sent.length);
        assert.deepEqual(echoed(ram, queue, queue.driver.token, sent.length), sent.reverse());
      }
      assert.equal(queue.driver.complete(), NONE);
    }
    assert.ok(called(queue));
    const { payload } = front.ask('GET_VRING_BASE', { form: 'vring', index: 1, value: 0 });
    assert.equal(new DataView(payload.buffer).getUint32(0, true), 1);
    assert.deepEqual(device.log, ['start', 'queue 1', 'stop-queue 1']);
    front.end();
    assert.deepEqual(device.log, ['start', 'queue 1', 'stop-queue 1', 'stop']);
    assert.equal(openDescriptors(), before);
    assert.deepEqual(front.problems, ['vhost-user-closed']);
  });
}
