/**
 * QEMU's front-ends hand on the whole configuration structure when the driver wrote a byte of it, and refuse a driver that
 * leaves ACCESS_PLATFORM where it is offered, which Linux's balloon driver does.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceType } from '@airlock/virtio/config/field.ts';
import { deviceType } from '@airlock/virtio/device-types.ts';
import { EchoDevice } from './support/echo-device.ts';
import { ScriptedFrontEnd } from './support/scripted-front-end.ts';

class Typed extends EchoDevice {
  override readonly type: DeviceType;
  readonly writes: string[] = [];

  constructor(name: string, config: Uint8Array) {
    super({ config });
    this.type = deviceType(name) as DeviceType;
  }

  override writeConfig(offset: number, bytes: Uint8Array): boolean {
    // As every device does it: one field that is the driver's, or nothing.
    const own = this.type.name === 'balloon' ? offset === 4 && bytes.length === 4 : offset + bytes.length <= 2;
    if (!own) return false;
    this.writes.push(`${offset}: ${[...bytes].join(' ')}`);
    this.config = this.config.slice();
    this.config.set(bytes, offset);
    return true;
  }
}

function meet(name: string, config: Uint8Array) {
  const device = new Typed(name, config);
  const front = new ScriptedFrontEnd(device);
  front.negotiate();
  const write = (offset: number, bytes: readonly number[]) =>
    front.ack('SET_CONFIG', { form: 'config', span: { offset, flags: 0, bytes: Uint8Array.from(bytes) } });
  return { device, front, write };
}

test('of a whole structure the driver’s own field is taken, and what it may not write is passed over', () => {
  const { device, front, write } = meet('balloon', Uint8Array.of(9, 0, 0, 0, 0, 0, 0, 0));
  assert.equal(write(0, [8, 0, 0, 0, 5, 0, 0, 0]), 0);
  assert.deepEqual(device.writes, ['4: 5 0 0 0']);
  assert.deepEqual([...device.config], [9, 0, 0, 0, 5, 0, 0, 0]);
  // Nothing that is as it was is written again.
  assert.equal(write(0, [8, 0, 0, 0, 5, 0, 0, 0]), 0);
  assert.equal(device.writes.length, 1);
  front.end();
});

test('fields beside each other are one write, as the driver’s own was', () => {
  const { device, front, write } = meet('input', new Uint8Array(136));
  assert.equal(write(0, [1, 0, ...new Array(134).fill(7)]), 0);
  assert.deepEqual(device.writes, ['0: 1 0']);
  front.end();
});

test('a write that has nothing of the driver’s in it, or half a field, changes nothing and is refused', () => {
  const { device, front, write } = meet('balloon', new Uint8Array(8));
  for (const [offset, bytes] of [
    [0, [1, 2, 3, 4]],
    [2, [1, 2, 3, 4]],
    [5, [1, 2, 3]],
    [0, [1]],
    [300, [1]],
  ] as const) {
    assert.equal(write(offset, bytes), 1, `${offset}`);
  }
  assert.deepEqual(device.writes, []);
  assert.equal(front.connected, true);
  front.end();
});

test('ACCESS_PLATFORM is offered for every type but the balloon', () => {
  for (const [name, offered] of [
    ['balloon', false],
    ['input', true],
    ['entropy', true],
  ] as const) {
    const { front } = meet(name, new Uint8Array(8));
    const { payload } = front.ask('GET_FEATURES');
    const high = new DataView(payload.buffer, payload.byteOffset).getUint32(4, true);
    assert.deepEqual([(high & 1) !== 0, (high & 2) !== 0], [true, offered], name);
    front.end();
  }
});
