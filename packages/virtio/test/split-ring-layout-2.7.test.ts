/** Bytes of a split ring, written down by hand from VIRTIO 1.3 §2.7; our other end is not asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { BASE, guardedMemory, must, PLAIN } from './support/both-ends.ts';

// Queue size 4: descriptors at 0 (64 bytes), available ring at 0x40 (14), used ring at 0x50 (38), a table at 0x100.
const addresses = { descriptors: BASE, driver: BASE + 0x40, device: BASE + 0x50 };
const BUFFERS = 0x1000;

function bytes(text: string): Uint8Array {
  return Uint8Array.from(
    text.split(/\s+/).filter((byte) => byte !== ''),
    (byte) => Number.parseInt(byte, 16),
  );
}

test('§2.7.5, §2.7.6: a request of a readable and a writable element, as the driver writes it', () => {
  const { space, region } = guardedMemory(0x2000);
  const driver = must(createDriverQueue(space, { size: 4, features: PLAIN, addresses }));
  driver.readable(BASE + BUFFERS, 16);
  driver.writable(BASE + BUFFERS + 0x10, 0x201);
  assert.equal(driver.submit(1), DONE);
  assert.equal(hex(region.bytes.slice(0x40, 0x46)), '000000000000', 'nothing is exposed before publish');
  driver.publish();
  assert.equal(
    hex(region.bytes.slice(0, 32)),
    // le64 addr,          le32 len, flags NEXT, next 1
    ['0010000001000000', '10000000', '0100', '0100', '1010000001000000', '01020000', '0200', '0000'].join(''),
  );
  assert.equal(hex(region.bytes.slice(0x40, 0x46)), ['0000', '0100', '0000'].join(''), 'flags, idx, ring[0]');
});

test('§2.7.5.3: the same with an indirect table', () => {
  const { space, region } = guardedMemory(0x2000);
  const driver = must(
    createDriverQueue(space, {
      size: 4,
      features: { ...PLAIN, indirect: true },
      addresses,
      indirect: { address: BASE + 0x100, limit: 4 },
    }),
  );
  driver.readable(BASE + BUFFERS, 16);
  driver.writable(BASE + BUFFERS + 0x10, 512);
  driver.writable(BASE + BUFFERS + 0x210, 1);
  assert.equal(driver.submit(1), DONE);
  driver.publish();
  assert.equal(hex(region.bytes.slice(0, 16)), ['0001000001000000', '30000000', '0400', '0000'].join(''));
  assert.equal(
    hex(region.bytes.slice(0x100, 0x130)),
    [
      ['0010000001000000', '10000000', '0100', '0100'],
      ['1010000001000000', '00020000', '0300', '0200'],
      ['1012000001000000', '01000000', '0200', '0000'],
    ]
      .flat()
      .join(''),
  );
  assert.equal(driver.free, 3);
});

test('§2.7.8, §2.7.13: a device takes a chain written by hand and returns a used element', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  // Descriptors 2 → 0 → 3: readable 16, readable 4, writable 8.
  ram.set(bytes('00 10 00 00 01 00 00 00  04 00 00 00  01 00  03 00'), 0);
  ram.set(bytes('20 10 00 00 01 00 00 00  10 00 00 00  01 00  00 00'), 32);
  ram.set(bytes('40 10 00 00 01 00 00 00  08 00 00 00  02 00  ff ff'), 48);
  // flags 0, idx 1, ring[0] = 2
  ram.set(bytes('00 00  01 00  02 00'), 0x40);
  for (let i = 0; i < 16; i++) ram[BUFFERS + 0x20 + i] = i;
  ram.set([100, 101, 102, 103], BUFFERS);
  const device = must(createDeviceQueue(space, space, { size: 4, features: PLAIN, addresses }));
  const chain = new Chain(4);
  assert.equal(device.take(chain), DONE);
  assert.equal(chain.id, 2);
  assert.deepEqual([chain.readableBytes, chain.writableBytes], [20, 8]);
  const question = new Uint8Array(20);
  assert.equal(chain.read(0, question), 20);
  assert.deepEqual([...question], [...Array(16).keys(), 100, 101, 102, 103]);
  assert.equal(chain.write(0, Uint8Array.of(1, 2, 3)), 3);
  assert.equal(device.give(2, 3), true);
  assert.equal(hex(ram.slice(0x52, 0x54)), '0000', 'idx does not move before publish');
  device.publish();
  assert.equal(hex(ram.slice(0x50, 0x5c)), ['0000', '0100', '02000000', '03000000'].join(''));
  assert.equal(hex(ram.slice(BUFFERS + 0x40, BUFFERS + 0x48)), '0102030000000000');
  assert.equal(device.take(chain), NONE);
});

test('§2.7.5.3.2: direct descriptors followed by one indirect descriptor whose WRITE flag means nothing', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  ram.set(bytes('00 10 00 00 01 00 00 00  04 00 00 00  01 00  01 00'), 0);
  ram.set(bytes('00 01 00 00 01 00 00 00  20 00 00 00  06 00  00 00'), 16);
  ram.set(bytes('10 10 00 00 01 00 00 00  04 00 00 00  01 00  01 00'), 0x100);
  ram.set(bytes('20 10 00 00 01 00 00 00  05 00 00 00  02 00  00 00'), 0x110);
  ram.set(bytes('00 00  01 00  00 00'), 0x40);
  const features = { ...PLAIN, indirect: true };
  const device = must(createDeviceQueue(space, space, { size: 4, features, addresses }));
  const chain = new Chain(4);
  assert.equal(device.take(chain), DONE);
  assert.deepEqual([chain.pieces, chain.readableBytes, chain.writableBytes], [3, 8, 5]);
});

test('§2.7.9: IN_ORDER, one used element stands for three buffers used completely', () => {
  const { space, region } = guardedMemory(0x2000);
  const ram = region.bytes;
  const driver = must(createDriverQueue(space, { size: 4, features: { ...PLAIN, inOrder: true }, addresses }));
  for (let i = 0; i < 3; i++) {
    driver.writable(BASE + BUFFERS + 0x100 * i, 0x40 + i);
    assert.equal(driver.submit(i), DONE);
  }
  driver.publish();
  // idx 3; the only element, where the first of the batch goes, names the third head with 7 bytes.
  ram.set(bytes('00 00  03 00  02 00 00 00  07 00 00 00'), 0x50);
  const got: number[][] = [];
  while (driver.complete() === DONE) got.push([driver.token, driver.written]);
  assert.deepEqual(got, [
    [0, 0x40],
    [1, 0x41],
    [2, 7],
  ]);
  assert.equal(driver.violation, null);
});

test('§2.7.9: IN_ORDER, the device writes one element for buffers that it filled, and each one that it did not fill', () => {
  const { space, region } = guardedMemory(0x2000);
  const features = { ...PLAIN, inOrder: true };
  const driver = must(createDriverQueue(space, { size: 4, features, addresses }));
  const device = must(createDeviceQueue(space, space, { size: 4, features, addresses }));
  for (let i = 0; i < 4; i++) {
    driver.writable(BASE + BUFFERS + 0x100 * i, 8);
    driver.submit(i);
  }
  driver.publish();
  const chain = new Chain(4);
  while (device.take(chain) === DONE);
  // Finished out of order: nothing shows before the first is done.
  for (const [id, written] of [
    [3, 8],
    [1, 8],
    [2, 5],
  ] as const) {
    device.give(id, written);
  }
  device.publish();
  assert.equal(hex(region.bytes.slice(0x50, 0x54)), '00000000');
  device.give(0, 8);
  device.publish();
  assert.equal(hex(region.bytes.slice(0x50, 0x54)), '00000400');
  assert.equal(hex(region.bytes.slice(0x54, 0x5c)), '0200000005000000', 'ring[0]: the batch 0, 1, 2');
  assert.equal(hex(region.bytes.slice(0x6c, 0x74)), '0300000008000000', 'ring[3]: the batch 3');
});

test('§2.7.5: IN_ORDER uses descriptors in ring order, the last one followed by the first', () => {
  const { space, region } = guardedMemory(0x2000);
  const features = { ...PLAIN, inOrder: true };
  const driver = must(createDriverQueue(space, { size: 4, features, addresses }));
  const device = must(createDeviceQueue(space, space, { size: 4, features, addresses }));
  const chain = new Chain(4);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 3; i++) driver.readable(BASE + BUFFERS, 1);
    assert.equal(driver.submit(round), DONE);
    driver.publish();
    assert.equal(device.take(chain), DONE);
    assert.equal(chain.id, round * 3);
    device.give(chain.id, 0);
    device.publish();
    assert.equal(driver.complete(), DONE);
  }
  // Second request: descriptors 3, 0, 1; next of 3 is 0.
  assert.equal(hex(region.bytes.slice(3 * 16 + 12, 3 * 16 + 16)), '01000000');
  assert.equal(hex(region.bytes.slice(12, 16)), '01000100');
});
