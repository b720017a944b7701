import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelDevice } from '@airlock/device/model/device.ts';
import {
  type DeviceModel,
  LATER,
  type ModelLink,
  type RequestFacts,
  type RequestQueue,
} from '@airlock/device/model/model.ts';
import { rtc } from '@airlock/virtio/device/rtc.ts';
import { scmi } from '@airlock/virtio/device/scmi.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { drive } from './support/in-memory-driver.ts';
import { driveModel } from './support/model-driver.ts';

const CONFIG = new Uint8Array(0);

function model(answer: (request: Uint8Array, reply: Uint8Array, facts: RequestFacts) => number): DeviceModel {
  return {
    type: rtc,
    queues: [{ kind: 'requests', requestLimit: 16, replyLimit: 8, laterLimit: 2, answer }],
    config: () => CONFIG,
  };
}

test('a request is cut at its limit, and the model is told how long it was', () => {
  let seen: RequestFacts | null = null;
  let length = 0;
  const one = driveModel(
    model((request, reply, facts) => {
      seen = { ...facts };
      length = request.length;
      assert.equal(reply.length, 8);
      return 0;
    }),
  );
  one.ask(0, new Uint8Array(100), 50);
  assert.equal(length, 16);
  assert.equal((seen as RequestFacts | null)?.size, 100);
  assert.equal((seen as RequestFacts | null)?.room, 50);
});

test('what the model copied is not what a driver writes into its buffer afterwards', () => {
  let kept: Uint8Array | null = null;
  const one = driveModel(
    model((request) => {
      kept = request;
      // The driver changes its buffer between two looks.
      one.driven.region.bytes.fill(0x77, one.driven.region.bytes.length - (32 << 20));
      assert.deepEqual([...request], [1, 2, 3]);
      return 0;
    }),
  );
  one.ask(0, Uint8Array.of(1, 2, 3), 1);
  assert.ok(kept !== null);
});

test('a reply begins as zeros: nothing of an earlier one is left in it', () => {
  let round = 0;
  const one = driveModel(
    model((_request, reply) => {
      round++;
      if (round === 1) reply.fill(9);
      return reply.length;
    }),
  );
  assert.deepEqual([...(one.ask(0, Uint8Array.of(1), 8)?.bytes ?? [])], new Array(8).fill(9));
  assert.deepEqual([...(one.ask(0, Uint8Array.of(1), 8)?.bytes ?? [])], new Array(8).fill(0));
});

test('only so many requests wait; what is above goes back empty; a token is good for one answer', () => {
  const tokens: number[] = [];
  let link: ModelLink | null = null;
  const one = driveModel({
    ...model((_request, _reply, { token }) => {
      tokens.push(token);
      return LATER;
    }),
    begin(to) {
      link = to;
    },
  });
  assert.equal(one.ask(0, Uint8Array.of(1), 4), null);
  assert.equal(one.ask(0, Uint8Array.of(2), 4), null);
  assert.equal(one.ask(0, Uint8Array.of(3), 4)?.written, 0);
  const to = link as ModelLink | null;
  assert.equal(to?.finish(0, tokens[0] ?? -1, Uint8Array.of(5, 6)), true);
  const answer = one.next(0);
  assert.deepEqual([answer?.written, answer?.bytes[0], answer?.bytes[1]], [2, 5, 6]);
  assert.equal(to?.finish(0, tokens[0] ?? -1, Uint8Array.of(5)), false);
  // After the queue ended nothing of it is written to any more.
  one.device.stopQueue(0);
  assert.equal(to?.finish(0, tokens[1] ?? -1, Uint8Array.of(7)), false);
});

test('a flood is served in turns', () => {
  const device = new ModelDevice({
    ...model(() => 0),
    queues: [{ kind: 'requests', size: 256, requestLimit: 16, replyLimit: 8, answer: () => 0 }],
  });
  const driven = drive(device, { size: 256 });
  const queue = driven.queues[0];
  assert.ok(queue !== undefined);
  const buffer = driven.allocate(16);
  for (let i = 0; i < 200; i++) {
    queue.driver.readable(buffer, 16);
    assert.equal(queue.driver.submit(i), DONE);
  }
  queue.driver.publish();
  assert.equal(device.serve(0), 64);
});

test('events wait for buffers, in order, up to a limit', () => {
  let link: ModelLink | null = null;
  const one = driveModel({
    type: rtc,
    queues: [{ kind: 'events', waiting: 3 }],
    config: () => CONFIG,
    begin(to) {
      link = to;
    },
  });
  const to = link as ModelLink | null;
  assert.deepEqual(
    [1, 2, 3, 4].map((byte) => to?.send(0, Uint8Array.of(byte))),
    [true, true, true, false],
  );
  for (const byte of [1, 2, 3]) assert.equal(one.ask(0, new Uint8Array(0), 4)?.bytes[0], byte);
  assert.equal(one.ask(0, new Uint8Array(0), 4), null);
  assert.equal(to?.send(0, Uint8Array.of(9, 9)), true);
  assert.equal(one.next(0)?.written, 2);
});

test('a queue whose feature was not agreed on takes no number', () => {
  const seen: string[] = [];
  const queue = (name: string, feature?: number): RequestQueue => ({
    ...{ kind: 'requests', requestLimit: 4, replyLimit: 4 },
    ...(feature === undefined ? {} : { feature }),
    answer() {
      seen.push(name);
      return 0;
    },
  });
  const two: DeviceModel = {
    ...{ type: scmi, bits: [0, 1], config: () => CONFIG },
    queues: [queue('first'), queue('second', 0), queue('third', 1)],
  };
  const one = driveModel(two, { bits: [1], start: [0, 1] });
  one.ask(1, Uint8Array.of(1), 1);
  assert.deepEqual(seen, ['third']);
});

test('what a device offers stays the same while it runs, and a link leads nowhere after its driver', () => {
  let link: ModelLink | null = null;
  const one = driveModel(
    {
      ...{ type: scmi, bits: [0, 1], config: () => CONFIG, queues: [{ kind: 'events' }] },
      begin(to) {
        link = to;
      },
    },
    { bits: [1] },
  );
  const offered = [...one.device.features];
  const before = link as ModelLink | null;
  assert.deepEqual([(before?.features[0] ?? 0) & 3, (offered[0] ?? 0) & 3], [2, 3]);
  one.driven.stop();
  assert.deepEqual([...one.device.features], offered);
  assert.equal(before?.send(0, Uint8Array.of(1)), false);
  assert.equal(before?.memory, null);
  before?.configChanged();
  assert.equal(one.driven.configChanges.length, 0);
});
