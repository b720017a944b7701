/**
 * A request that is refused has its buffers zeroed, and GET_ID has what is behind the twenty bytes zeroed: that is work,
 * too, and as long as the driver likes (its descriptors may all name the same megabyte). One turn of a queue stays short.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeDisk } from '@airlock/device/block/fake-disk.ts';
import { BLK_GET_ID, BLK_IN, BLK_IOERR, BLK_OK, BLK_UNSUPPORTED } from '@airlock/virtio/request/block.ts';
import { driveDisk } from './support/disk-driver.ts';

const MIB = 2 ** 20;

for (const [name, type, status] of [
  ['an unknown type', 99, BLK_UNSUPPORTED],
  ['GET_ID', BLK_GET_ID, BLK_OK],
  ['a read beyond the end', BLK_IN, BLK_IOERR],
] as const) {
  test(`${name}: a turn ends after a few megabytes, and all are answered`, () => {
    const { device, begin, run, replies } = driveDisk(new FakeDisk(512 * 128), {}, { memory: 2 ** 26 });
    const tokens = Array.from({ length: 16 }, () => begin({ type, sector: 1000, into: 2 * MIB, pieces: [MIB, MIB] }));
    for (let left = 16; left > 0; ) {
      const taken = device.serve(0);
      assert.ok(taken >= 1 && taken <= 3, `${taken} of 2 MiB each in one turn`);
      left -= taken;
    }
    run();
    const found = replies();
    for (const token of tokens) {
      const reply = found.get(token);
      assert.equal(reply?.status, status);
      assert.equal(reply?.written, 2 * MIB + 1);
      assert.ok(reply?.data.subarray(20).every((byte) => byte === 0));
    }
  });
}
