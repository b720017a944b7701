/** Bytes of a packed ring, written down by hand from VIRTIO 1.3 §2.8; our other end is not asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { BASE, guardedMemory, must, PACKED } from './support/both-ends.ts';

// Queue size 3: descriptors at 0 (48 bytes), driver event at 0x30, device event at 0x34, a table at 0x100.
const addresses = { descriptors: BASE, driver: BASE + 0x30, device: BASE + 0x34 };
const BUFFERS = 0x1000;

function bytes(text: string): Uint8Array {
  return Uint8Array.from(
    text.split(/\s+/).filter((byte) => byte !== ''),
    (byte) => Number.parseInt(byte, 16),
  );
}

test('§2.8.1, §2.8.13: a list of two, marked available in the first round: AVAIL set, USED clear', () => {
  const { space, region } = guardedMemory(0x2000);
  const driver = must(createDriverQueue(space, { size: 3, features: PACKED, addresses }));
  driver.readable(BASE + BUFFERS, 16);
  driver.writable(BASE + BUFFERS + 0x10, 512);
  assert.equal(driver.submit(1), DONE);
  assert.equal(hex(region.bytes.slice(14, 16)), '0000', '§2.8.6: the first descriptor is marked last');
  assert.equal(hex(region.bytes.slice(16, 32)), ['1010000001000000', '00020000', '0000', '8200'].join(''));
  driver.publish();
  assert.equal(hex(region.bytes.slice(0, 16)), ['0010000001000000', '10000000', '0000', '8100'].join(''));
});

test('§2.8.1: in the second round AVAIL is clear and USED set', () => {
  const { space, region } = guardedMemory(0x2000);
  const driver = must(createDriverQueue(space, { size: 3, features: PACKED, addresses }));
  const ids: number[] = [];
  for (let i = 0; i < 3; i++) {
    driver.readable(BASE + BUFFERS, 4);
    driver.submit(i);
    ids.push(region.bytes[16 * i + 12] ?? -1);
  }
  driver.publish();
  assert.deepEqual(
    [0, 1, 2].map((i) => hex(region.bytes.slice(16 * i + 14, 16 * i + 16))),
    ['8000', '8000', '8000'],
  );
  assert.deepEqual([...new Set(ids)].length, 3);
  // The device uses the third buffer first: its used descriptor goes over the first place. AVAIL and USED set.
  region.bytes.set(bytes('00 00 00 00'), 8);
  region.bytes.set([ids[2] ?? 0, 0], 12);
  region.bytes.set(bytes('80 80'), 14);
  assert.equal(driver.complete(), DONE);
  assert.equal(driver.token, 2);
  assert.equal(driver.complete(), NONE);
  driver.readable(BASE + BUFFERS, 4);
  assert.equal(driver.submit(3), DONE);
  driver.publish();
  assert.equal(hex(region.bytes.slice(12, 16)), `0${ids[2]}000080`, 'the freed id, second round');
});

test('§2.8.5, §2.8.22: a device takes a list written by hand and writes one used descriptor over its first place', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  ram.set(bytes('00 10 00 00 01 00 00 00  04 00 00 00  00 00  81 00'), 0);
  ram.set(bytes('10 10 00 00 01 00 00 00  08 00 00 00  02 00  82 00'), 16);
  const device = must(createDeviceQueue(space, space, { size: 3, features: PACKED, addresses }));
  const chain = new Chain(4);
  assert.equal(device.take(chain), DONE);
  assert.deepEqual([chain.id, chain.readableBytes, chain.writableBytes], [2, 4, 8]);
  assert.equal(device.take(chain), NONE);
  device.give(2, 6);
  assert.equal(hex(ram.slice(14, 16)), '8100', 'not shown before publish');
  device.publish();
  assert.equal(hex(ram.slice(8, 16)), ['06000000', '0200', '8280'].join(''), 'length, id, AVAIL|USED|WRITE');
  assert.equal(hex(ram.slice(30, 32)), '8200', 'the second place is skipped');
  // The next list begins at the third place and goes on in the second round.
  ram.set(bytes('00 10 00 00 01 00 00 00  04 00 00 00  00 00  81 00'), 32);
  ram.set(bytes('10 10 00 00 01 00 00 00  08 00 00 00  01 00  02 80'), 0);
  assert.equal(device.take(chain), DONE);
  assert.deepEqual([chain.id, chain.readableBytes, chain.writableBytes], [1, 4, 8]);
  device.give(1, 0);
  device.publish();
  assert.equal(hex(ram.slice(40, 48)), ['00000000', '0100', '8080'].join(''), 'nothing written: no WRITE flag');
});

test('§2.8.7: in an indirect table only WRITE counts; next and id mean nothing', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  ram.set(bytes('00 01 00 00 01 00 00 00  20 00 00 00  01 00  86 00'), 0);
  ram.set(bytes('00 10 00 00 01 00 00 00  04 00 00 00  ff ff  85 80'), 0x100);
  ram.set(bytes('10 10 00 00 01 00 00 00  05 00 00 00  ff ff  03 00'), 0x110);
  const features = { ...PACKED, indirect: true };
  const device = must(createDeviceQueue(space, space, { size: 3, features, addresses }));
  const chain = new Chain(4);
  assert.equal(device.take(chain), DONE);
  assert.deepEqual([chain.id, chain.readableBytes, chain.writableBytes], [1, 4, 5]);
});

test('§2.8.7: the table that the driver writes', () => {
  const { space, region } = guardedMemory(0x2000);
  const driver = must(
    createDriverQueue(space, {
      size: 3,
      features: { ...PACKED, indirect: true },
      addresses,
      indirect: { address: BASE + 0x100, limit: 4 },
    }),
  );
  driver.readable(BASE + BUFFERS, 16);
  driver.writable(BASE + BUFFERS + 0x10, 512);
  driver.submit(1);
  driver.publish();
  assert.equal(hex(region.bytes.slice(0, 16)), ['0001000001000000', '20000000', '0000', '8400'].join(''));
  assert.equal(
    hex(region.bytes.slice(0x100, 0x120)),
    ['0010000001000000', '10000000', '0000', '0000', '1010000001000000', '00020000', '0000', '0200'].join(''),
  );
});

test('§2.8.8: IN_ORDER, one used descriptor stands for a batch, and the next one comes after all of it', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  const driver = must(createDriverQueue(space, { size: 3, features: { ...PACKED, inOrder: true }, addresses }));
  const ids: number[] = [];
  for (let i = 0; i < 3; i++) {
    driver.writable(BASE + BUFFERS + 64 * i, 32 + i);
    driver.submit(i);
    ids.push(ram[16 * i + 12] ?? -1);
  }
  driver.publish();
  ram.set([9, 0, 0, 0, ids[1] ?? 0, 0, 0x82, 0x80], 8);
  const got: number[][] = [];
  while (driver.complete() === DONE) got.push([driver.token, driver.written]);
  assert.deepEqual(got, [
    [0, 32],
    [1, 9],
  ]);
  ram.set([1, 0, 0, 0, ids[2] ?? 0, 0, 0x82, 0x80], 40);
  assert.equal(driver.complete(), DONE);
  assert.deepEqual([driver.token, driver.written], [2, 1]);
});
