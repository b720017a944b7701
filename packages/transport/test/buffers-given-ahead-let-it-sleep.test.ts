/** A driver gives buffers ahead to receive into; that is no work, and the process sleeps until there is some. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EchoDevice } from './support/echo-device.ts';
import { ScriptedFrontEnd, startQueue, submit } from './support/scripted-front-end.ts';

/** Takes nothing before it is allowed to. */
class ReceivingDevice extends EchoDevice {
  wanting = false;
  served = 0;
  override serve(index: number): number {
    this.served++;
    return this.wanting ? super.serve(index) : 0;
  }
}

for (const bits of [[32], [32, 29], [32, 34], [32, 34, 29]]) {
  test(`features ${bits.join(', ')}: it sleeps over buffers that it does not want, and wakes for those that it does`, () => {
    const device = new ReceivingDevice();
    const front = new ScriptedFrontEnd(device);
    const features = front.negotiate(bits);
    const ram = front.ram(4 * 65536);
    assert.equal(front.ack('ADD_MEM_REG', { form: 'region', region: ram.region }, [ram.fd]), 0);
    const queue = startQueue(front, ram, 0, 16, features);
    for (let at = 0; at < 4; at++) submit(ram, queue, at, Uint8Array.of(1, 2, 3));
    queue.driver.publish();
    front.reactor.turn();
    assert.equal(front.reactor.trySleep(), true);
    const before = device.served;
    assert.equal(front.reactor.turn(10), 0, 'no round found work');
    assert.ok(device.served - before <= 10);
    device.wanting = true;
    assert.equal(front.reactor.trySleep(), false, 'there is work now');
    front.reactor.turn();
    assert.equal(device.taken.length, 4);
    assert.equal(front.reactor.trySleep(), true);
    front.end();
  });
}
