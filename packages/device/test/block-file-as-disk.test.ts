/** A file behind a disk: the same bytes whatever way they take, and errors that are told. */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { EIO, ENOSPC } from '@airlock/device/block/disk.ts';
import { openDisk } from '@airlock/device/block/open-disk.ts';
import { faultySystemCalls } from '@airlock/transport/faulty-system-calls.ts';
import fc from 'fast-check';
import { openTestDisk, realMemory, systemCalls, testFolder } from './support/disk-file.ts';

const KIB = 1024;
const SIZE = 256 * KIB;
const folder = testFolder();
const memory = realMemory(2 ** 21);
after(() => {
  folder.remove();
  memory.release();
});

const ways = [
  { name: 'page cache, ring', direct: false, ring: true },
  { name: 'page cache, no ring', direct: false, ring: false },
  { name: 'page cache, ring, map', direct: false, ring: true, map: true },
  { name: 'direct, ring', direct: true, ring: true },
  { name: 'direct, no ring', direct: true, ring: false },
] as const;

/** Cuts `length` bytes from `start` on into pieces, at places that `cuts` chooses. */
function pieces(start: number, length: number, cuts: readonly number[]): [number, number][] {
  const places = [...new Set([0, length, ...cuts.map((cut) => cut % length)])].sort((a, b) => a - b);
  return places.slice(1).map((end, i) => [start + (places[i] ?? 0), end - (places[i] ?? 0)]);
}

/** Some file systems of memory have no direct access. */
const probe = openDisk(systemCalls, {
  ...{ file: folder.image('probe.img', SIZE), readOnly: false, direct: true, blockSize: null, discard: true },
});
if (probe.ok) systemCalls.close(probe.value.fd);
const noDirect = probe.ok ? false : `no direct access below ${folder.path}`;

for (const { name, ...way } of ways) {
  const options = { skip: way.direct && noDirect };
  test(`what was written is read, in any pieces at any addresses (${name})`, options, () => {
    const file = folder.image('any.img', SIZE);
    const { disk, end } = openTestDisk(file, way);
    const model = new Uint8Array(SIZE);
    const { bytes } = memory.region;
    fc.assert(
      fc.property(
        fc.nat(SIZE / 512 - 1),
        fc.integer({ min: 1, max: 96 }),
        fc.array(fc.nat(), { maxLength: 6 }),
        fc.constantFrom(0, 512, 4096, 1, 77),
        fc.boolean(),
        fc.boolean(),
        fc.nat(255),
        (sector, sectors, cuts, shift, alone, durable, seed) => {
          const position = sector * 512;
          const length = Math.min(sectors * 512, SIZE - position);
          disk.expect(alone ? 1 : 2);
          const whole = pieces(65536 + shift, length, cuts);
          for (let i = 0; i < length; i++) bytes[65536 + shift + i] = (i * 31 + seed) & 0xff;
          const out = memory.chain([[0, 16], ...whole], [[32, 1]]);
          for (let done = 0; done < length; ) {
            const moved = end(disk.write(0, out, 16 + done, length - done, position + done, durable));
            assert.ok(moved > 0 && moved <= length - done, `write ${moved}`);
            done += moved;
          }
          model.set(bytes.subarray(65536 + shift, 65536 + shift + length), position);
          bytes.fill(0xee, 65536, 65536 + 2 ** 17);
          const into = memory.chain([[0, 16]], [...whole, [32, 1]]);
          for (let done = 0; done < length; ) {
            const moved = end(disk.read(1, into, done, length - done, position + done));
            assert.ok(moved > 0 && moved <= length - done, `read ${moved}`);
            done += moved;
          }
          assert.deepEqual(
            bytes.slice(65536 + shift, 65536 + shift + length),
            model.slice(position, position + length),
          );
          assert.equal(bytes[65536 + shift + length], 0xee);
          if (shift > 0) assert.equal(bytes[65536 + shift - 1], 0xee);
        },
      ),
      { numRuns: 60 },
    );
    assert.equal(end(disk.flush(2)), 0);
    disk.close();
    assert.deepEqual(new Uint8Array(readFileSync(file)), model);
  });

  test(`more pieces than one system call takes are gone through in steps (${name})`, options, () => {
    const { disk, end } = openTestDisk(folder.image('pieces.img', SIZE), way);
    const { bytes } = memory.region;
    const length = 2048 * 64;
    bytes.fill(0, 0, 2 ** 20);
    for (let i = 0; i < length; i++) bytes[2 ** 19 + i] = i & 0xff;
    const many = Array.from({ length: 2048 }, (_, i): [number, number] => [2 ** 19 + i * 64, 64]);
    const out = memory.chain([[0, 16], ...many], [[32, 1]]);
    for (let done = 0; done < length; ) {
      const moved = end(disk.write(0, out, 16 + done, length - done, done, false));
      assert.ok(moved > 0, String(moved));
      done += moved;
    }
    const into = memory.chain([[0, 16]], [[65536, length]]);
    for (let done = 0; done < length; ) {
      const moved = end(disk.read(0, into, done, length - done, done));
      assert.ok(moved > 0, String(moved));
      done += moved;
    }
    assert.ok(bytes.subarray(65536, 65536 + length).every((byte, i) => byte === (i & 0xff)));
    disk.close();
  });

  test(`zeros and holes are zeros (${name})`, options, () => {
    const file = folder.image('zeros.img', SIZE);
    writeFileSync(file, new Uint8Array(SIZE).fill(7));
    const { disk, end } = openTestDisk(file, way);
    const allOf = (begin: (position: number, length: number) => number, from: number, length: number) => {
      for (let done = 0; done < length; ) {
        const moved = end(begin(from + done, length - done));
        assert.ok(moved > 0, String(moved));
        done += moved;
      }
    };
    allOf((position, length) => disk.discard(0, position, length), 0, 8192);
    allOf((position, length) => disk.zero(0, position, length, true), 16384, 4096);
    allOf((position, length) => disk.zero(0, position, length, false), 32768, 512);
    assert.equal(end(disk.flush(0)), 0);
    disk.close();
    const expected = new Uint8Array(SIZE).fill(7);
    expected.fill(0, 0, 8192).fill(0, 16384, 20480).fill(0, 32768, 33280);
    assert.deepEqual(new Uint8Array(readFileSync(file)), expected);
    assert.equal(statSync(file).size, SIZE);
  });

  test(`a file that shrinks ends a read early, and harms nobody (${name})`, options, () => {
    const file = folder.image('shrinks.img', SIZE);
    const { disk, end } = openTestDisk(file, way);
    truncateSync(file, 4096);
    const into = memory.chain(
      [[0, 16]],
      [
        [65536, 8192],
        [32, 1],
      ],
    );
    assert.equal(end(disk.read(0, into, 0, 8192, 0)), 4096);
    assert.equal(end(disk.read(0, into, 4096, 4096, 4096)), 0);
    assert.equal(end(disk.read(0, into, 0, 4096, SIZE - 4096)), 0);
    disk.close();
  });
}

test('what was read lately comes from the map, as it is now, and never from behind the end of the file', () => {
  const faulty = faultySystemCalls(systemCalls);
  const file = folder.image('mapped.img', SIZE);
  const { disk, end } = openTestDisk(file, { map: true }, faulty.calls);
  const { bytes } = memory.region;
  const into = memory.chain([[0, 16]], [[65536, 4096]]);
  const out = memory.chain(
    [
      [0, 16],
      [131072, 4096],
    ],
    [],
  );
  const read = (position: number): number => {
    disk.expect(1);
    return end(disk.read(0, into, 0, 4096, position));
  };
  bytes.fill(1, 131072, 131072 + 4096);
  for (let i = 0; i < 3; i++) assert.equal(read(8192), 4096);
  assert.equal(faulty.count('copy'), 2);
  assert.equal(end(disk.write(0, out, 16, 4096, 8192, false)), 4096);
  assert.equal(read(8192), 4096);
  assert.equal(bytes[65536], 1);
  assert.equal(end(disk.discard(0, 8192, 4096)), 4096);
  assert.equal(read(8192), 4096);
  assert.equal(bytes[65536], 0);
  const before = faulty.count('copy');
  truncateSync(file, 4096);
  assert.equal(read(8192), 0);
  assert.equal(faulty.count('copy'), before);
  disk.close();
});

test('where the file system cannot zero ranges, zeros are written', () => {
  const file = folder.image('written.img', SIZE);
  writeFileSync(file, new Uint8Array(SIZE).fill(7));
  const faulty = faultySystemCalls(systemCalls);
  faulty.fail('fallocate', 'EOPNOTSUPP');
  const { disk, end } = openTestDisk(file, {}, faulty.calls);
  assert.equal(disk.canDiscard, false);
  assert.equal(end(disk.zero(0, 0, 65536, true)), 65536);
  disk.close();
  const bytes = readFileSync(file);
  assert.ok(bytes.subarray(0, 65536).every((byte) => byte === 0));
  assert.ok(bytes.subarray(65536).every((byte) => byte === 7));
});

test('errors of the file come through: a full disk, a broken one', () => {
  const faulty = faultySystemCalls(systemCalls);
  const { disk, end } = openTestDisk(folder.image('errors.img', SIZE), { ring: false }, faulty.calls);
  const out = memory.chain(
    [
      [0, 16],
      [65536, 4096],
    ],
    [[32, 1]],
  );
  const into = memory.chain(
    [[0, 16]],
    [
      [65536, 4096],
      [32, 1],
    ],
  );
  faulty.fail('pwrite', 'ENOSPC', { times: 1 });
  faulty.fail('pread', 'EIO', { times: 1 });
  assert.equal(end(disk.write(0, out, 16, 4096, 0, false)), -ENOSPC);
  assert.equal(end(disk.read(0, into, 0, 4096, 0)), -EIO);
  assert.equal(end(disk.write(0, out, 16, 4096, 0, false)), 4096);
  assert.equal(end(disk.read(0, into, 0, 4096, 0)), 4096);
  disk.close();
});

test('after one flush failed none is believed: the kernel forgets what it could not write', () => {
  const faulty = faultySystemCalls(systemCalls);
  const { disk, end } = openTestDisk(folder.image('flush.img', SIZE), { ring: false }, faulty.calls);
  assert.equal(end(disk.flush(0)), 0);
  faulty.fail('fdatasync', 'EIO', { times: 1 });
  assert.equal(end(disk.flush(0)), -EIO);
  assert.equal(end(disk.flush(0)), -EIO);
  assert.equal(disk.sync(), -EIO);
  disk.close();
});

test('an interrupted call is made again', () => {
  const faulty = faultySystemCalls(systemCalls);
  const { disk, end } = openTestDisk(folder.image('signals.img', SIZE), { ring: false }, faulty.calls);
  for (const name of ['pread', 'pwrite', 'pwritev2', 'fdatasync', 'fallocate'] as const) {
    faulty.fail(name, 'EINTR', { times: 2 });
  }
  const out = memory.chain(
    [
      [0, 16],
      [65536, 4096],
    ],
    [[32, 1]],
  );
  assert.equal(end(disk.write(0, out, 16, 4096, 0, false)), 4096);
  assert.equal(end(disk.write(0, out, 16, 4096, 0, true)), 4096);
  assert.equal(end(disk.read(0, memory.chain([], [[65536, 4096]]), 0, 4096, 0)), 4096);
  assert.equal(end(disk.flush(0)), 0);
  assert.equal(end(disk.discard(0, 0, 4096)), 4096);
  disk.close();
});

test('where reading without waiting is not known, it is asked for once', () => {
  const faulty = faultySystemCalls(systemCalls);
  const { disk, end } = openTestDisk(folder.image('nowait.img', SIZE), {}, faulty.calls);
  faulty.fail('preadv2', 'EOPNOTSUPP');
  const into = memory.chain([], [[65536, 4096]]);
  for (let i = 0; i < 3; i++) assert.equal(end(disk.read(0, into, 0, 4096, 0)), 4096);
  assert.equal(faulty.count('preadv2'), 1);
  disk.close();
});

test('a read that would wait goes through the ring', () => {
  const faulty = faultySystemCalls(systemCalls);
  const { disk, end } = openTestDisk(folder.image('waits.img', SIZE), {}, faulty.calls);
  faulty.fail('preadv2', 'EAGAIN');
  assert.equal(end(disk.read(0, memory.chain([], [[65536, 4096]]), 0, 4096, 0)), 4096);
  assert.equal(faulty.count('pread'), 0);
  disk.close();
});

const plain = { readOnly: false, direct: false, blockSize: null, discard: true };

test('what is no disk is refused with its reason', () => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [folder.path, 'disk-not-usable', /is a directory/],
    [`${folder.path}/none`, 'disk-not-usable', /no such file/],
    ['/dev/null', 'disk-not-usable', /neither a file nor a block device/],
    [folder.image('empty.img', 0), 'disk-size-invalid', /has 0 bytes/],
    [folder.image('odd.img', 1000), 'disk-size-invalid', /has 1000 bytes/],
  ];
  for (const [file, code, message] of cases) {
    const opened = openDisk(systemCalls, { ...plain, file });
    assert.ok(!opened.ok, file);
    assert.equal(opened.error.code, code);
    assert.match(opened.error.message, message);
  }
});

test('a disk of larger blocks has whole blocks only', () => {
  const opened = openDisk(systemCalls, { ...plain, file: folder.image('half.img', 4096 + 512), blockSize: 4096 });
  assert.ok(!opened.ok);
  assert.equal(opened.error.code, 'disk-size-invalid');
  assert.match(opened.error.hint ?? '', /truncate -s 8192/);
});

test('one image has one writer, or many readers', () => {
  const file = folder.image('locked.img', 4096);
  const first = openTestDisk(file);
  const second = openDisk(systemCalls, { ...plain, file });
  assert.equal(second.ok ? '' : second.error.code, 'disk-in-use');
  const reader = openDisk(systemCalls, { ...plain, file, readOnly: true });
  assert.equal(reader.ok ? '' : reader.error.code, 'disk-in-use');
  first.disk.close();
  const readers = [openTestDisk(file, { readOnly: true }), openTestDisk(file, { readOnly: true })];
  const writer = openDisk(systemCalls, { ...plain, file });
  assert.equal(writer.ok ? '' : writer.error.code, 'disk-in-use');
  for (const { disk } of readers) disk.close();
  openTestDisk(file).disk.close();
});
