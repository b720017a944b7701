import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fail, ok } from '@airlock/core/result.ts';
import fc from 'fast-check';
import {
  encodeNetlinkRequest,
  endOf,
  findFamily,
  type GenericNetlink,
  readAttributes,
  splitNetlink,
} from '../src/netlink.ts';
import { readTsmEvidence } from '../src/tsm-evidence.ts';

const request = encodeNetlinkRequest({
  ...{ type: 0x10, flags: 4, sequence: 7, command: 3, version: 1 },
  attributes: [[2, new Uint8Array(Buffer.from('pci-tsm\0'))]],
});

test('a request has the kernel’s form: header, generic header, padded attributes', () => {
  assert.equal(
    Buffer.from(request).toString('hex'),
    '2000000010000500070000000000000003010000' + '0c000200' + '7063692d74736d00',
  );
  const split = splitNetlink(request);
  assert.ok(split.ok);
  assert.deepEqual(
    split.value.map(({ type, sequence }) => [type, sequence]),
    [[0x10, 7]],
  );
});

test('lengths that contradict the bytes are refused, and nothing is read beyond them', () => {
  for (const length of [0, 15, 33, 0xffff_ffff]) {
    const wrong = request.slice();
    new DataView(wrong.buffer).setUint32(0, length, true);
    assert.equal(splitNetlink(wrong).ok, false, String(length));
  }
  for (const body of [
    [1, 1, 0, 0, 3, 0, 1, 0],
    [1, 1, 0, 0, 9, 0, 1, 0],
    [1, 1, 0, 0, 4],
  ])
    assert.equal(readAttributes(Uint8Array.from(body)).ok, false);
  assert.deepEqual(endOf({ type: 2, sequence: 0, body: Uint8Array.of(0xf5, 0xff, 0xff, 0xff) }), 11);
  assert.deepEqual(endOf({ type: 3, sequence: 0, body: new Uint8Array() }), 0);
  assert.equal(endOf({ type: 0x10, sequence: 0, body: new Uint8Array(4) }), undefined);
});

test('any bytes end in messages or in a code', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const split = splitNetlink(bytes);
      if (split.ok) for (const { body } of split.value) readAttributes(body);
      else assert.equal(split.error.code, 'netlink-invalid');
    }),
    { numRuns: 500 },
  );
});

test('whatever the kernel’s socket brings, evidence is whole or has a code', async () => {
  const message = fc.record({
    type: fc.constantFrom(2, 3, 0x10, 0x21),
    sequence: fc.constantFrom(1, 2),
    body: fc.uint8Array({ maxLength: 60 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(message, { maxLength: 6 }), { maxLength: 5 }), async (answers) => {
      const left = [...answers];
      const netlink: GenericNetlink = {
        ask: async () => {
          const next = left.shift();
          return next === undefined ? fail('netlink-timeout', 'nothing') : ok(next);
        },
        close: () => undefined,
      };
      const read = await readTsmEvidence(netlink, '0000:01:00.0', 0, new Uint8Array(32));
      if (!read.ok) assert.match(read.error.code, /^(netlink-|tsm-)/);
    }),
    { numRuns: 500 },
  );
  const other: GenericNetlink = {
    ask: async () => ok([{ type: 0x10, sequence: 1, body: request.slice(16) }]),
    close: () => undefined,
  };
  assert.equal((await findFamily(other, 'pci-tsm')).ok, false, 'an answer without a number');
});
