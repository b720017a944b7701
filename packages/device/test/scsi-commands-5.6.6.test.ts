import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySectors } from '@airlock/device/model/sector-file.ts';
import { scsiModel } from '@airlock/device/scsi/device.ts';
import { driveModel } from './support/model-driver.ts';

const REQUESTS = 2;
const CONTROL = 0;
const HEADER = 108;
const BLOCKS = 64;

function disk(readOnly = false) {
  const bytes = new Uint8Array(BLOCKS * 512);
  const file = memorySectors(bytes, readOnly);
  const one = driveModel(scsiModel({ file, serial: 'serial-1' }));
  const ask = (cdb: readonly number[], more: { out?: Uint8Array; into?: number; lun?: readonly number[] } = {}) => {
    const { out = new Uint8Array(0), into = 0, lun = [1, 0, 0x40, 0] } = more;
    const request = new Uint8Array(51 + out.length);
    request.set(lun);
    request.set(cdb, 19);
    request.set(out, 51);
    const reply = one.ask(REQUESTS, request, HEADER + into);
    assert.ok(reply !== null);
    return {
      response: reply.bytes[11],
      status: reply.bytes[10],
      residual: reply.view.getUint32(4, true),
      sense: [(reply.bytes[14] ?? 0) & 15, reply.bytes[24], reply.bytes[25]].join(' '),
      data: reply.bytes.subarray(HEADER),
      written: reply.written,
    };
  };
  return { bytes, file, one, ask };
}

test('what is written is read back, and a flush reaches the medium', () => {
  const { ask, file } = disk();
  const data = Uint8Array.from({ length: 1024 }, (_, i) => i % 251);
  assert.equal(ask([0x2a, 0, 0, 0, 0, 4, 0, 0, 2], { out: data }).status, 0);
  assert.deepEqual([...ask([0x28, 0, 0, 0, 0, 4, 0, 0, 2], { into: 1024 }).data], [...data]);
  const wide = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2];
  assert.deepEqual([...ask(wide, { into: 1024 }).data], [...data]);
  assert.equal(file.flushes, 0);
  assert.equal(ask([0x35]).status, 0);
  assert.equal(file.flushes, 1);
  assert.equal(ask([0x2a, 8, 0, 0, 0, 0, 0, 0, 1], { out: new Uint8Array(512) }).status, 0);
  assert.equal(file.flushes, 2); // FUA
});

test('beyond the end nothing is read or written, however the sum is made', () => {
  const { ask, bytes } = disk();
  for (const cdb of [
    [0x28, 0, 0, 0, 0, BLOCKS, 0, 0, 1],
    [0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1],
    [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1],
    [0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
  ]) {
    const answer = ask(cdb, { into: 512 });
    assert.deepEqual([answer.status, answer.sense, answer.written], [2, '5 33 0', HEADER]);
  }
  assert.equal(ask([0x2a, 0, 0, 0, 0, BLOCKS - 1, 0, 0, 2], { out: new Uint8Array(1024).fill(1) }).sense, '5 33 0');
  assert.ok(bytes.every((byte) => byte === 0));
});

test('a write that brings less than it says is refused; a read into less room is an overrun, and stays in it', () => {
  const { ask, bytes } = disk();
  assert.equal(ask([0x2a, 0, 0, 0, 0, 0, 0, 0, 2], { out: new Uint8Array(1023).fill(1) }).sense, '5 36 0');
  assert.ok(bytes.every((byte) => byte === 0));
  const short = ask([0x28, 0, 0, 0, 0, 0, 0, 0, 2], { into: 100 });
  assert.deepEqual([short.response, short.written], [1, HEADER + 100]);
});

test('a read-only disk says so and takes nothing', () => {
  const { ask, bytes } = disk(true);
  assert.equal(ask([0x2a, 0, 0, 0, 0, 0, 0, 0, 1], { out: new Uint8Array(512).fill(1) }).sense, '7 39 0');
  assert.equal((ask([0x1a, 0, 0x3f, 0, 255], { into: 64 }).data[2] ?? 0) & 0x80, 0x80);
  assert.ok(bytes.every((byte) => byte === 0));
});

test('inquiry, capacity and LUNs are cut at what was asked for, with the rest as residual', () => {
  const { ask } = disk();
  const inquiry = ask([0x12, 0, 0, 0, 36], { into: 64 });
  assert.equal(Buffer.from(inquiry.data.subarray(8, 15)).toString(), 'AIRLOCK');
  assert.deepEqual([inquiry.residual, inquiry.written], [28, HEADER + 36]);
  assert.equal(ask([0x12, 0, 0, 0, 5], { into: 64 }).written, HEADER + 5);
  assert.equal(Buffer.from(ask([0x12, 1, 0x80, 0, 64], { into: 64 }).data.subarray(4, 12)).toString(), 'serial-1');
  assert.equal(ask([0x12, 1, 0x55, 0, 64], { into: 64 }).sense, '5 36 0');
  assert.deepEqual([...ask([0x25], { into: 8 }).data], [0, 0, 0, BLOCKS - 1, 0, 0, 2, 0]);
  assert.equal(ask([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16], { into: 16 }).data[3], 8);
});

test('other targets, other LUNs, unknown commands', () => {
  const { ask } = disk();
  assert.equal(ask([0], { lun: [1, 1, 0x40, 0] }).response, 3);
  assert.equal(ask([0], { lun: [0, 0, 0, 0] }).response, 3);
  assert.equal(ask([0], { lun: [1, 0, 0x40, 0, 1] }).response, 3);
  assert.equal(ask([0x28, 0, 0, 0, 0, 0, 0, 0, 1], { lun: [1, 0, 0x40, 1], into: 512 }).sense, '5 37 0');
  assert.equal(ask([0x12, 0, 0, 0, 36], { lun: [1, 0, 0x40, 1], into: 36 }).data[0], 0x7f);
  assert.equal(ask([0xee]).sense, '5 32 0');
});

test('a request without its header, or without room for a response, does nothing', () => {
  const { one, bytes } = disk();
  assert.equal(one.ask(REQUESTS, new Uint8Array(50), HEADER)?.bytes[11], 9);
  const write = new Uint8Array(51 + 512).fill(1);
  write.set([1, 0, 0x40, 0, 0, 0, 0, 0]);
  write.set([0x2a, 0, 0, 0, 0, 0, 0, 0, 1], 19);
  assert.equal(one.ask(REQUESTS, write, HEADER - 1)?.written, 0);
  assert.ok(bytes.every((byte) => byte === 0));
});

test('task management of our LUN is complete at once; sizes of sense and CDB stay what they are', () => {
  const { one } = disk();
  const abort = new Uint8Array(24);
  abort.set([1, 0, 0x40, 0], 8);
  assert.equal(one.ask(CONTROL, abort, 1)?.bytes[0], 0);
  abort[4] = 99;
  assert.equal(one.ask(CONTROL, abort, 1)?.bytes[0], 11);
  assert.equal(one.device.writeConfig(20, Uint8Array.of(96, 0, 0, 0)), true);
  assert.equal(one.device.writeConfig(20, Uint8Array.of(255, 0, 0, 0)), false);
  assert.equal(one.device.writeConfig(0, Uint8Array.of(1, 0, 0, 0)), false);
});
