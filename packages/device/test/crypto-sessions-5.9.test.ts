import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { test } from 'node:test';
import { cryptoModel, SESSIONS_LIMIT } from '@airlock/device/crypto/device.ts';
import { aesCbc } from '@airlock/device/crypto/serve.ts';
import { driveModel } from './support/model-driver.ts';

const DATA = 0;
const CONTROL = 1;
const KEY = Uint8Array.from({ length: 16 }, (_, i) => i);
const IV = new Uint8Array(16).fill(3);

function machine() {
  const one = driveModel(cryptoModel(aesCbc));
  const create = (more: { algorithm?: number; operation?: number; key?: Uint8Array; keyLength?: number } = {}) => {
    const { algorithm = 3, operation = 1, key = KEY, keyLength = key.length } = more;
    const request = new Uint8Array(72 + key.length);
    const view = new DataView(request.buffer);
    view.setUint32(0, 2, true);
    [algorithm, keyLength, operation].forEach((value, i) => {
      view.setUint32(16 + 4 * i, value, true);
    });
    view.setUint32(64, 1, true);
    request.set(key, 72);
    const reply = one.ask(CONTROL, request, 16);
    return { status: reply?.view.getUint32(8, true), id: reply?.view.getUint32(0, true) ?? 0 };
  };
  const destroy = (id: number) => {
    const request = new Uint8Array(72);
    new DataView(request.buffer).setUint32(0, 3, true);
    new DataView(request.buffer).setUint32(16, id, true);
    return one.ask(CONTROL, request, 1)?.bytes[0];
  };
  const run = (
    id: number,
    from: Uint8Array,
    more: { opcode?: number; says?: number; room?: number; iv?: number } = {},
  ) => {
    const { opcode = 0, says = from.length, room = from.length, iv = 16 } = more;
    const request = new Uint8Array(72 + 16 + from.length);
    const view = new DataView(request.buffer);
    view.setUint32(0, opcode, true);
    view.setUint32(8, id, true);
    [iv, says, says].forEach((value, i) => {
      view.setUint32(24 + 4 * i, value, true);
    });
    view.setUint32(64, 1, true);
    request.set(IV, 72);
    request.set(from, 88);
    const reply = one.ask(DATA, request, room + 1);
    return { status: reply?.bytes.at(-1), data: reply?.bytes.subarray(0, -1) };
  };
  return { one, create, destroy, run };
}

test('what a session encrypts is what OpenSSL does, and one that decrypts gives it back', () => {
  const { create, run } = machine();
  const plain = Uint8Array.from({ length: 64 }, (_, i) => i);
  const { id } = create();
  const there = run(id, plain);
  const cipher = createCipheriv('aes-128-cbc', KEY, IV).setAutoPadding(false);
  assert.deepEqual(Buffer.from(there.data ?? []), Buffer.concat([cipher.update(plain), cipher.final()]));
  assert.equal(there.status, 0);
  const back = create({ operation: 2 });
  assert.deepEqual([...(run(back.id, there.data?.slice() ?? plain, { opcode: 1 }).data ?? [])], [...plain]);
});

test('room behind the data stays as it is, and the status is the very last byte', () => {
  const { create, run } = machine();
  const { id } = create();
  const reply = run(id, new Uint8Array(16), { room: 40 });
  assert.equal(reply.status, 0);
  assert.ok(reply.data?.subarray(16).every((byte) => byte === 0xaa));
});

test('wrong lengths, IVs, directions and sessions are refused without a byte of data', () => {
  const { create, run, destroy } = machine();
  const { id } = create();
  for (const [from, more] of [
    [new Uint8Array(15), {}],
    [new Uint8Array(0), {}],
    [new Uint8Array(16), { says: 32, room: 64 }],
    [new Uint8Array(16), { says: 0xffff_fff0 }],
    [new Uint8Array(16), { iv: 8 }],
    [new Uint8Array(16), { opcode: 1 }],
    [new Uint8Array(32), { room: 31 }],
  ] as const) {
    const reply = run(id, from, more);
    assert.equal(reply.status, 1, JSON.stringify(more));
    assert.ok(reply.data?.every((byte) => byte === 0xaa));
  }
  assert.equal(run(id, new Uint8Array(16), { opcode: 77 }).status, 3);
  assert.equal(destroy(id), 0);
  assert.equal(destroy(id), 4);
  assert.equal(run(id, new Uint8Array(16)).status, 4);
});

test('sessions are made only of what is offered, and only so many; a reset ends them', () => {
  const { one, create } = machine();
  assert.equal(create({ algorithm: 2 }).status, 3);
  assert.equal(create({ keyLength: 15 }).status, 1);
  assert.equal(create({ keyLength: 32 }).status, 1); // says 32, brings 16
  assert.equal(create({ operation: 3 }).status, 1);
  for (let i = 0; i < SESSIONS_LIMIT; i++) assert.equal(create().status, 0);
  assert.equal(create().status, 5);
  one.driven.stop();
  assert.equal(one.facts()['sessions'], 0);
});
