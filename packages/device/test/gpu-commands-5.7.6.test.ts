import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inflateSync } from 'node:zlib';
import { gpuModel } from '@airlock/device/gpu/device.ts';
import { displayEdid } from '@airlock/device/gpu/edid.ts';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { must } from './support/in-memory-driver.ts';

const HEADER = 24;
const AT = 0x1000;
const [WIDTH, HEIGHT] = [8, 4];
const OK = 0x1100;

/** The control queue's answers without a ring, over memory of 64 KiB at AT. */
function display(shown: AddressSpace | null = new AddressSpace()) {
  const model = gpuModel({ width: WIDTH, height: HEIGHT });
  const region = must(makeRegion('ram', new ArrayBuffer(65_536)));
  if (shown !== null) must(shown.map({ start: AT, size: 65_536, region, offset: 0, access: 3 }));
  const link = {
    features: [0, 0, 0, 0] as const,
    memory: shown,
    send: () => false,
    finish: () => false,
    configChanged() {},
  };
  model.begin?.(link);
  const queue = model.queues[0];
  assert.ok(queue?.kind === 'requests');
  const ask = (type: number, body: readonly number[], room = 2000) => {
    const request = new Uint8Array(HEADER + 4 * body.length);
    const view = new DataView(request.buffer);
    view.setUint32(0, type, true);
    body.forEach((word, i) => {
      view.setUint32(HEADER + 4 * i, word, true);
    });
    const reply = new Uint8Array(room);
    const size = request.length;
    const written = queue.answer(request, reply, { token: 0, size, room, tail: null });
    return { code: reply[0] === undefined ? 0 : new DataView(reply.buffer).getUint16(0, true), reply, written };
  };
  return { model, region, ask };
}

const CREATE = [1, 2, WIDTH, HEIGHT];
const RECT = [0, 0, WIDTH, HEIGHT];

test('a picture goes from the driver’s memory over a resource to the PNG', () => {
  const { model, region, ask } = display();
  assert.equal(ask(0x101, CREATE).code, OK);
  // In two runs, the second of which stands before the first.
  assert.equal(ask(0x106, [1, 2, AT + 4096, 0, 64, 0, AT, 0, 64, 0]).code, OK);
  region.bytes.set([1, 2, 3, 0], 4096); // blue, green, red
  region.bytes.set([4, 5, 6, 0], 64 - 4);
  assert.equal(ask(0x105, [...RECT, 0, 0, 1, 0]).code, OK);
  assert.equal(model.commands?.['screenshot']?.('').ok, false);
  assert.equal(ask(0x103, [...RECT, 0, 1]).code, OK);
  assert.equal(ask(0x104, [...RECT, 1, 0]).code, OK);
  const shot = model.commands?.['screenshot']?.('');
  assert.ok(shot?.ok);
  const png = Buffer.from((shot.value as { png: string }).png, 'base64');
  assert.equal(png.readUInt32BE(16), WIDTH);
  const pixels = inflateSync(png.subarray(41, 41 + png.readUInt32BE(33)));
  assert.deepEqual([...pixels.subarray(1, 4)], [3, 2, 1]);
  assert.deepEqual([...pixels.subarray(-3)], [6, 5, 4]);
});

test('a backing that leads outside the driver’s memory, or is too short, gives an error and no byte', () => {
  const { ask } = display();
  ask(0x101, CREATE);
  ask(0x106, [1, 1, 0xdead_0000, 0xffff, 4096, 0]);
  assert.equal(ask(0x105, [...RECT, 0, 0, 1, 0]).code, 0x1200);
  ask(0x107, [1, 0]);
  ask(0x106, [1, 1, AT, 0, 127, 0]);
  assert.equal(ask(0x105, [...RECT, 0, 0, 1, 0]).code, 0x1200);
  assert.equal(ask(0x105, [...RECT, 0xffff_ffff, 0xffff_ffff, 1, 0]).code, 0x1200);
});

test('rectangles that reach out, sums that wrap, resources and scanouts that are not there', () => {
  const { ask } = display();
  ask(0x101, CREATE);
  for (const rect of [
    [1, 0, WIDTH, HEIGHT],
    [0xffff_ffff, 0, 2, 1],
    [0, 0, 0, 0],
    [0, 0xffff_fff0, 1, 0x20],
  ]) {
    assert.equal(ask(0x105, [...rect, 0, 0, 1, 0]).code, 0x1205, String(rect));
    assert.equal(ask(0x103, [...rect, 0, 1]).code, 0x1205);
    assert.equal(ask(0x104, [...rect, 1, 0]).code, 0x1205);
  }
  assert.equal(ask(0x103, [...RECT, 1, 1]).code, 0x1202);
  assert.equal(ask(0x103, [...RECT, 0, 9]).code, 0x1203);
  assert.equal(ask(0x102, [9, 0]).code, 0x1203);
  assert.equal(ask(0x101, CREATE).code, 0x1203); // twice
  assert.equal(ask(0x106, [1, 5, AT, 0, 1, 0]).code, 0x1205); // five runs, one there
  assert.equal(ask(0x7fff, []).code, 0x1200);
});

test('pixels are bounded in all, and come back when a resource goes or the device is reset', () => {
  const { model, ask } = display();
  const big = (id: number) => ask(0x101, [id, 2, 4096, 4096]).code; // all of the limit
  assert.equal(big(1), OK);
  assert.equal(big(2), 0x1201);
  assert.equal(ask(0x102, [1, 0]).code, OK);
  assert.equal(big(2), OK);
  assert.equal(ask(0x101, [3, 2, 0xffff, 0xffff]).code, 0x1205);
  model.end?.();
  assert.equal(model.facts?.()['pixelBytes'], 0);
  for (let id = 1; id <= 256; id++) assert.equal(ask(0x101, [id, 2, 1, 1]).code, OK);
  assert.equal(ask(0x101, [257, 2, 1, 1]).code, 0x1201);
});

test('short requests and short room are answered within them', () => {
  const { ask } = display();
  for (const type of [0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x10a]) {
    const { code, written } = ask(type, [], HEADER);
    assert.ok(code >= 0x1200 && written === HEADER, type.toString(16));
  }
  assert.equal(ask(0x100, [], HEADER).code, 0x1205);
  assert.equal(ask(0x100, [], HEADER - 1).written, 0);
  assert.equal(ask(0x10a, [1, 0]).code, 0x1202);
});

test('the EDID is whole: its sum is zero, its size the display’s', () => {
  const edid = displayEdid(1024, 768);
  assert.equal(edid.length, 128);
  assert.equal(edid.reduce((sum, byte) => sum + byte, 0) % 256, 0);
  assert.equal((edid[56] ?? 0) | (((edid[58] ?? 0) >> 4) << 8), 1024);
  assert.equal((edid[59] ?? 0) | (((edid[61] ?? 0) >> 4) << 8), 768);
});

test('without a transport that shows memory a transfer is refused', () => {
  const { ask } = display(null);
  ask(0x101, CREATE);
  ask(0x106, [1, 1, AT, 0, 4096, 0]);
  assert.equal(ask(0x105, [...RECT, 0, 0, 1, 0]).code, 0x1205);
});
