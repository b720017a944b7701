/** A driver of a model in memory: one request after another, each in buffers of its own. */
import assert from 'node:assert/strict';
import { ModelDevice } from '@airlock/device/model/device.ts';
import type { DeviceModel } from '@airlock/device/model/model.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { type DrivenDevice, type DriveOptions, drive, random } from './in-memory-driver.ts';

const GARBAGE = 0xaa;

export interface ModelReply {
  /** What stands in the device-writable buffer, garbage where nothing was written. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** As the device told it. */
  readonly written: number;
}

export interface DrivenModel {
  readonly driven: DrivenDevice;
  readonly device: ModelDevice;
  /** Puts a request of `out` and `into` writable bytes into a queue, and lets the device work; null: it waits. */
  ask(queue: number, out: Uint8Array, into: number): ModelReply | null;
  /** The next completion of a queue, of a request that had to wait or of an event; null when there is none. */
  next(queue: number): ModelReply | null;
  facts(): Readonly<Record<string, unknown>>;
}

export function driveModel(model: DeviceModel, options: DriveOptions = {}): DrivenModel {
  const device = new ModelDevice(model);
  const driven = drive(device, { memory: 32 << 20, ...options });
  const open = new Map<number, { readonly at: number; readonly length: number }>();
  let token = 0;

  const next = (queue: number): ModelReply | null => {
    const driver = driven.queues[queue]?.driver;
    assert.ok(driver !== undefined);
    if (driver.complete() !== DONE) {
      assert.equal(driver.violation, null);
      return null;
    }
    const buffer = open.get(driver.token);
    assert.ok(buffer !== undefined);
    const bytes = driven.at(buffer.at, buffer.length).slice();
    return { bytes, view: new DataView(bytes.buffer), written: driver.written };
  };
  return {
    driven,
    device,
    ask(queue, out, into) {
      const driver = driven.queues[queue]?.driver;
      assert.ok(driver !== undefined);
      if (out.length > 0) {
        const address = driven.allocate(out.length);
        driven.at(address, out.length).set(out);
        driver.readable(address, out.length);
      }
      const at = driven.allocate(Math.max(1, into));
      driven.at(at, into).fill(GARBAGE);
      if (into > 0) driver.writable(at, into);
      token++;
      open.set(token, { at, length: into });
      assert.equal(driver.submit(token), DONE);
      driver.publish();
      while (device.serve(queue) > 0);
      return next(queue);
    },
    next,
    facts: () => model.facts?.() ?? {},
  };
}

/** Little-endian words of 32 bits as bytes, with bytes behind them. */
export function words(values: readonly number[], more: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(4 * values.length + more.length);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => {
    view.setUint32(4 * i, value, true);
  });
  bytes.set(more, 4 * values.length);
  return bytes;
}

/**
 * Requests that nobody meant: random bytes and lengths, with small numbers where types stand, into every queue. Holds that
 * the model answers without an exception, that it never says it wrote more than there is, and that nothing behind what it
 * wrote is touched.
 */
export function assault(make: () => DeviceModel, rounds = 400): void {
  const draw = random(0x5eed);
  for (let life = 0; life < 4; life++) {
    const model = make();
    const one = driveModel(model);
    for (let round = 0; round < rounds / 4; round++) {
      const queue = draw(model.queues.length);
      if (model.queues[queue]?.kind === 'events') continue;
      const out = Uint8Array.from({ length: draw(200) }, (_, i) => (i % 4 === 0 || draw(4) === 0 ? draw(256) : 0));
      if (out.length > 3 && draw(2) === 0) out.set([draw(12), draw(4), 0, 0]);
      const into = draw(3) === 0 ? draw(16) : draw(700);
      const reply = one.ask(queue, out, into);
      if (reply === null) continue;
      assert.ok(reply.written <= into);
      for (const byte of reply.bytes.subarray(reply.written)) assert.equal(byte, GARBAGE);
    }
    assert.deepEqual(one.driven.resets, []);
    for (let at = 0; at < 64; at++) {
      one.device.writeConfig(at, Uint8Array.of(draw(256)));
      one.device.writeConfig(at, new Uint8Array(4).fill(draw(256)));
    }
    one.device.readConfig();
    one.driven.stop();
    // What is there after a reset is a device as at first.
    assert.equal(one.device.serve(0), 0);
    one.device.close();
  }
}
