/**
 * Rings as Linux 7.2 (virtio_blk, Debian) and QEMU 11 left them in a guest's memory: two disks of 16 descriptors without
 * indirect ones, EVENT_IDX on, a dozen reads of 4 KiB side by side. Read out of the stopped guest with `pmemsave`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeRegion } from '@airlock/virtio/memory/region.ts';
import { AddressSpace } from '@airlock/virtio/memory/space.ts';
import { Chain } from '@airlock/virtio/ring/chain.ts';
import { createDeviceQueue, createDriverQueue } from '@airlock/virtio/ring/create.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import { bothEnds, must, PACKED, PLAIN } from './support/both-ends.ts';

const SIZE = 16;
const RINGS = 0x29ca000;
const addresses = { descriptors: RINGS, driver: RINGS + 0x100, device: RINGS + 0x140 };

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/[0-9a-f]{2}/g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** Memory with the rings in it; the guest's pages stand for each other, since only addresses matter here. */
function guest(pages: readonly number[]): { readonly space: AddressSpace; readonly ram: Uint8Array } {
  const rings = must(makeRegion('rings', new ArrayBuffer(4096)));
  const page = must(makeRegion('page', new ArrayBuffer(4096)));
  const space = new AddressSpace();
  must(space.map({ start: RINGS, size: 4096, region: rings, offset: 0, access: 3 }));
  for (const start of pages) must(space.map({ start, size: 4096, region: page, offset: 0, access: 3 }));
  return { space, ram: rings.bytes };
}

const SPLIT = {
  descriptors: `
    806886020000000010000000010001000080b80b00000000001000000300020090688602000000000100000002000f00
    006a860200000000100000000100040000b0bd0b000000000010000003000500106a8602000000000100000002000f00
    006d860200000000100000000100070000a0b60b000000000010000003000800106d8602000000000100000002000f00
    80658602000000001000000001000a000030b80b000000000010000003000b0090658602000000000100000002000c00
    00678602000000001000000001000d0000c0b70b000000000010000003000e0010678602000000000100000002000f00
    00000000000000000000000000000000`,
  avail: '00000c00000000000000000000000300060009000c00000003000600000000000000000007000000',
  used: `
    00000c000000000001100000000000000110000000000000011000000000000001100000030000000110000006000000
    01100000060000000110000003000000011000000000000001100000 0c00000001100000090000000110000000000000 01100000`,
} as const;

test('split: our device takes the chains that Linux made available, in its order', () => {
  const { space, ram } = guest([0x2866000, 0xbb88000, 0xbbdb000, 0xbb6a000, 0xbb83000, 0xbb7c000]);
  ram.set(bytes(SPLIT.descriptors), 0);
  ram.set(bytes(SPLIT.avail), 0x100);
  const device = must(
    createDeviceQueue(space, space, { size: SIZE, features: { ...PLAIN, eventIndex: true }, addresses }),
  );
  assert.equal(device.restore({ avail: 7, used: 7, availWrap: false, usedWrap: false }), null);
  const chain = new Chain(SIZE);
  const heads: number[] = [];
  while (device.take(chain) === DONE) {
    heads.push(chain.id);
    assert.deepEqual([chain.pieces, chain.readablePieces, chain.readableBytes, chain.writableBytes], [3, 1, 16, 4097]);
  }
  assert.deepEqual(heads, [9, 12, 0, 3, 6]);
  assert.equal(device.violation, null);
  assert.equal(device.take(chain), NONE);
});

test('split: our driver takes the completions that QEMU wrote', () => {
  const { space, ram } = guest([]);
  const driver = must(createDriverQueue(space, { size: SIZE, features: { ...PLAIN, eventIndex: true }, addresses }));
  const send = () => {
    driver.readable(0x2866880, 16);
    driver.writable(0xbb88000, 4096);
    driver.writable(0x2866890, 1);
    assert.equal(driver.submit(0), DONE);
    driver.publish();
  };
  // Four reads one after the other take the same head each time, in our driver as in Linux's.
  const used = bytes(SPLIT.used);
  for (let i = 0; i < 4; i++) {
    send();
    ram.set(used.subarray(0, 4 + 8 * (i + 1)), 0x140);
    ram.set([i + 1, 0], 0x142);
    assert.equal(driver.complete(), DONE, driver.violation?.code);
    assert.equal(driver.written, 4097);
    assert.equal(driver.complete(), NONE);
  }
  assert.deepEqual([...ram.subarray(0x104, 0x10c)], [...bytes(SPLIT.avail).subarray(4, 12)]);
});

/** The state after the device gave all back: the first descriptor of each list was used over. */
const PACKED_RING = `
  90f49602000000000100000003008200 80f1960200000000011000000c008080 0020ab0d000000000010000006008300
  90f19602000000000100000006008200 10ea9602000000000100000006000280 80eb9602000000000110000009000000
  0030b40d000000000010000009000380 90eb9602000000000100000009000280 00ed9602000000000110000003000000
  0010b50d00000000001000000c000380 10ed960200000000010000000c000280 80ee9602000000000110000006000000
  0030ad0d000000000010000000000380 90ee9602000000000100000000000280 80f49602000000000110000000000000
  0040ad0d000000000010000003000380`;

test('packed: our device takes lists that Linux made available, one of them across the end of the ring', () => {
  const { space, ram } = guest([0x296f000, 0xdab2000, 0xdad4000]);
  const parts = { descriptors: RINGS, driver: RINGS + 0x200, device: RINGS + 0x204 };
  const device = must(
    createDeviceQueue(space, space, { size: SIZE, features: { ...PACKED, eventIndex: true }, addresses: parts }),
  );
  const chain = new Chain(SIZE);
  for (const { place, wrap, id, header, data, length } of [
    { place: 1, wrap: true, id: 6, header: 0x180, data: 0xdab2000, length: 3 },
    { place: 14, wrap: false, id: 3, header: 0x480, data: 0xdad4000, length: 3 },
  ]) {
    ram.set(bytes(PACKED_RING), 0);
    // What QEMU wrote over is put back as Linux had it: 16 bytes to read, NEXT, available in that round.
    ram.set([16, 0, 0, 0, id, 0, 1 | (wrap ? 0x80 : 0), wrap ? 0 : 0x80], 16 * place + 8);
    assert.equal(device.restore({ avail: place, used: place, availWrap: wrap, usedWrap: wrap }), null);
    assert.equal(device.take(chain), DONE, device.violation?.code ?? device.refusal?.code);
    assert.deepEqual([chain.id, chain.pieces, chain.readableBytes, chain.writableBytes], [id, length, 16, 4097]);
    assert.equal(space.translate(data, 2), 4096);
    assert.equal(chain.offsets[0], header);
    assert.deepEqual([chain.offsets[1], chain.offsets[2]], [0, header + 16]);
    // And ours is used as QEMU's was, but for the WRITE flag, which QEMU leaves out.
    device.give(id, 4097);
    device.publish();
    assert.deepEqual(
      [...ram.subarray(16 * place + 8, 16 * place + 16)],
      [1, 16, 0, 0, id, 0, wrap ? 0x82 : 2, wrap ? 0x80 : 0],
    );
  }
});

test('packed: a used descriptor as QEMU writes it, without the WRITE flag, completes a read of ours', () => {
  const ends = bothEnds(SIZE, { ...PACKED, eventIndex: true });
  const data = 0x1_0000_0000 + ends.layout.data;
  for (let i = 0; i < 5; i++) {
    ends.driver.readable(data, 16);
    ends.driver.writable(data + 16, 4096);
    ends.driver.writable(data + 4112, 1);
    assert.equal(ends.driver.submit(i), DONE);
  }
  ends.driver.publish();
  const ring = ends.memory.region.bytes;
  // Five lists of three take the ids 0, 3, 6, 9 and 12, as in Linux.
  assert.deepEqual(
    [2, 5, 8, 11, 14].map((place) => ring[16 * place + 12]),
    [0, 3, 6, 9, 12],
  );
  // Place 1 of the recording: id 12, length 0x1001, flags 0x8080.
  ring.set(bytes(PACKED_RING).subarray(24, 32), 8);
  assert.equal(ends.driver.complete(), DONE);
  assert.deepEqual([ends.driver.token, ends.driver.written], [4, 4097]);
});
