import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rpmbModel } from '@airlock/device/rpmb/device.ts';
import { hmacSha256 } from '@airlock/device/rpmb/serve.ts';
import { driveModel } from './support/model-driver.ts';

const KEY = new Uint8Array(32).fill(0x42);
const OK = 0;

interface Fields {
  readonly type: number;
  readonly counter?: number;
  readonly address?: number;
  readonly count?: number;
  readonly data?: number;
}

function frame({ type, counter = 0, address = 0, count = 0, data = 0 }: Fields): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  bytes.fill(data, 228, 484);
  bytes.fill(9, 484, 500);
  view.setUint32(500, counter);
  view.setUint16(504, address);
  view.setUint16(506, count);
  view.setUint16(510, type);
  return bytes;
}

function sign(frames: readonly Uint8Array[], key = KEY): Uint8Array {
  const all = Buffer.concat(frames);
  const code = hmacSha256(key, Buffer.concat(frames.map((one) => one.subarray(228))));
  all.set(code, all.length - 512 + 196);
  return all;
}

function memory(keyed = true) {
  const one = driveModel(rpmbModel(hmacSha256));
  const ask = (request: Uint8Array, room = 512) => {
    const reply = one.ask(0, request, room);
    if (room < 512) return { result: -1, type: -1, reply };
    return { result: reply?.view.getUint16(508), type: reply?.view.getUint16(510), reply };
  };
  const program = frame({ type: 1, count: 1 });
  program.set(KEY, 196);
  /** With a request for the result behind it. */
  const askResult = (request: Uint8Array, count = 1) => ask(Buffer.concat([request, frame({ type: 5, count })]));
  if (keyed) assert.equal(askResult(program).result, OK);
  return { one, ask, askResult, program };
}

test('the key is set once; before it nothing is read, written or counted', () => {
  const { ask, askResult, program } = memory(false);
  assert.equal(ask(frame({ type: 2, count: 1 })).result, 7);
  assert.equal(askResult(sign([frame({ type: 3, count: 1 })])).result, 7);
  assert.equal(ask(frame({ type: 4, count: 1 })).result, 7);
  const uncounted = program.slice();
  uncounted[507] = 0;
  assert.equal(askResult(uncounted).result, 1);
  const set = askResult(program);
  assert.deepEqual([set.result, set.type], [OK, 0x100]);
  // §5.12.6.1.1: the answer is signed, with the new key.
  const code = hmacSha256(KEY, set.reply?.bytes.subarray(228) ?? new Uint8Array(0));
  assert.deepEqual(Buffer.from(set.reply?.bytes.subarray(196, 228) ?? []), Buffer.from(code));
  assert.equal(askResult(program).result, 5);
});

test('a signed write is read back, signed with the reader’s nonce; the counter grows', () => {
  const { ask, askResult } = memory();
  const frames = [1, 2].map((data) => frame({ type: 3, count: 2, address: 10, data }));
  const written = askResult(sign(frames));
  assert.deepEqual([written.result, written.type], [OK, 0x300]);
  assert.equal(ask(frame({ type: 2, count: 1 })).reply?.view.getUint32(500), 1);
  assert.equal(ask(frame({ type: 2 })).result, 1);
  const reply = ask(frame({ type: 4, count: 2, address: 10 }), 1024).reply;
  assert.ok(reply);
  assert.deepEqual([reply.bytes[228], reply.bytes[512 + 228], reply.bytes[484]], [1, 2, 9]);
  const code = hmacSha256(KEY, Buffer.concat([reply.bytes.subarray(228, 512), reply.bytes.subarray(512 + 228)]));
  assert.deepEqual(Buffer.from(reply.bytes.subarray(512 + 196, 512 + 228)), Buffer.from(code));
});

test('a replayed, altered, wrongly keyed or misplaced write changes nothing', () => {
  const { one, ask, askResult } = memory();
  const good = sign([frame({ type: 3, count: 1, data: 5 })]);
  assert.equal(askResult(good).result, OK);
  assert.equal(askResult(good).result, 3); // its counter is spent
  const now = { type: 3, counter: 1, count: 1 };
  const altered = sign([frame({ ...now, data: 6 })]);
  altered[300] = 7;
  assert.equal(askResult(altered).result, 2);
  assert.equal(askResult(sign([frame({ ...now, data: 6 })], new Uint8Array(32))).result, 2);
  assert.equal(askResult(sign([frame({ ...now, address: 512 })])).result, 4);
  assert.equal(askResult(sign([frame({ ...now, address: 511, count: 2 }), frame({ ...now, count: 2 })])).result, 4);
  assert.equal(askResult(sign([frame({ ...now, count: 2 })])).result, 1);
  assert.equal(askResult(sign([frame({ ...now, count: 0 })])).result, 1);
  assert.equal(one.facts()['counter'], 1);
  assert.equal(ask(frame({ type: 4, count: 1 })).reply?.bytes[228], 5);
});

test('the result of a write can be asked for behind it or later; pieces of frames are no request', () => {
  const { one, ask, askResult } = memory();
  const write = sign([frame({ type: 3, count: 1 })]);
  // §5.12.6: who does not ask for the result is not told.
  assert.equal(ask(write).reply?.written, 0);
  assert.equal(one.facts()['counter'], 1);
  assert.equal(ask(frame({ type: 5, count: 1 })).result, OK);
  assert.equal(ask(frame({ type: 5 })).result, 1);
  assert.equal(askResult(write).result, 3);
  assert.equal(askResult(write, 2).result, 1);
  assert.equal(ask(write.subarray(0, 511)).result, 1);
  assert.equal(ask(new Uint8Array(20 * 512)).result, 1);
  assert.equal(ask(frame({ type: 77 })).result, 1);
  assert.equal(ask(frame({ type: 4, count: 2 })).result, 1); // two frames, room for one
  assert.equal(ask(frame({ type: 4, count: 17 }), 17 * 512).result, 1);
  assert.equal(ask(frame({ type: 2, count: 1 }), 511).reply?.written, 0);
});
