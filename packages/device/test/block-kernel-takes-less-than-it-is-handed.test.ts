/**
 * io_uring takes fewer requests than it is handed when the kernel has no memory for them. What it did not take is still
 * ours: its vectors must stay as they are, it must be handed over again, and nobody may sleep over it.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { PENDING } from '@airlock/device/block/disk.ts';
import { faultySystemCalls } from '@airlock/transport/faulty-system-calls.ts';
import { openTestDisk, realMemory, systemCalls, testFolder } from './support/disk-file.ts';

const SIZE = 2 ** 20;
const folder = testFolder();
const memory = realMemory(2 ** 21);
const { bytes } = memory.region;
after(() => {
  folder.remove();
  memory.release();
});

function open(name: string) {
  const file = folder.image(name, SIZE);
  writeFileSync(
    file,
    Uint8Array.from({ length: SIZE }, (_, i) => i >> 12),
  );
  const faults = faultySystemCalls(systemCalls);
  const { disk } = openTestDisk(file, {}, faults.calls);
  const results = new Map<number, number>();
  disk.bind(64, (token, result) => void results.set(token, result));
  bytes.fill(0xee);
  disk.expect(2);
  const finish = (): void => {
    for (let tries = 0; disk.pending > 0 && tries < 100; tries++) {
      disk.submit();
      if (disk.reap() === 0) disk.wait(1000);
    }
    assert.equal(disk.pending, 0);
  };
  return { file, disk, faults, results, finish };
}

/** Two pieces of 512 bytes, 4096 apart. */
const pieces = (at: number): [number, number][] => [
  [at, 512],
  [at + 4096, 512],
];

test('a vector that was not taken is not written over by the next one', () => {
  const { disk, faults, results, finish } = open('over.img');
  faults.fail('ioUringEnter', 'EAGAIN', { times: 1 });
  assert.equal(disk.read(1, memory.chain([], pieces(0)), 0, 1024, 4096), PENDING);
  disk.submit();
  assert.equal(disk.read(2, memory.chain([], pieces(65536)), 0, 1024, 8192), PENDING);
  disk.submit();
  finish();
  assert.deepEqual(
    results,
    new Map([
      [1, 1024],
      [2, 1024],
    ]),
  );
  for (const [at, value] of [
    [0, 1],
    [4096, 1],
    [65536, 2],
    [65536 + 4096, 2],
  ] as const) {
    assert.ok(
      bytes.subarray(at, at + 512).every((byte) => byte === value),
      `${at}: ${bytes[at]}`,
    );
  }
  disk.close();
});

test('with every vector waiting to be taken, transfers go on without one, reads and writes, durable or not', () => {
  const { file, disk, faults, results, finish } = open('full.img');
  faults.fail('ioUringEnter', 'EAGAIN');
  const many = Array.from({ length: 1024 }, (_, i): [number, number] => [i * 1024, 512]);
  let begun = 0;
  // Eight of the longest vectors are all that there is room for.
  for (let token = 0; token < 16; token++) {
    disk.expect(2);
    const result = disk.read(token, memory.chain([], many), 0, 512 * 1024, 0);
    assert.ok(result === PENDING || result > 0, `${result}`);
    if (result === PENDING) begun++;
    disk.submit();
  }
  assert.ok(begun >= 7 && begun < 16, `${begun}`);
  const lot: [number, number][] = [
    [2 ** 20, 512],
    [2 ** 20 + 4096, 512],
  ];
  bytes.fill(0x77, 2 ** 20, 2 ** 20 + 8192);
  for (const durable of [false, true]) {
    const position = durable ? 65536 : 131072;
    assert.equal(disk.write(20, memory.chain(lot, []), 0, 1024, position, durable), 1024);
    assert.ok(
      readFileSync(file)
        .subarray(position, position + 1024)
        .every((byte) => byte === 0x77),
    );
  }
  faults.heal();
  finish();
  assert.equal(results.size, begun);
  for (const [, result] of results) assert.ok(result > 0);
  disk.close();
});

test('nobody sleeps over what was not taken, and it is handed over again', () => {
  const { disk, faults, results } = open('sleep.img');
  faults.fail('ioUringEnter', 'EAGAIN', { times: 1 });
  assert.equal(disk.read(1, memory.chain([], pieces(0)), 0, 1024, 4096), PENDING);
  disk.submit();
  assert.equal(disk.prepareToSleep(), true, 'the kernel knows nothing of it, and will not wake us');
  for (let tries = 0; results.size === 0 && tries < 1000; tries++) if (disk.reap() === 0) disk.wait(1000);
  assert.equal(results.get(1), 1024);
  assert.equal(disk.prepareToSleep(), false);
  disk.close();
});
