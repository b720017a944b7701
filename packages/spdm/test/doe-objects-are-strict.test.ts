import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { doeBinding } from '../src/doe/binding.ts';
import { answerDiscovery, discoverFeatures } from '../src/doe/discovery.ts';
import { DOE_OBJECT_LIMIT, decodeDoeObject, encodeDoeObject } from '../src/doe/object.ts';
import { codeOf, must } from './support/must.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

test('what is encoded is decoded, padded to whole dwords', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(0xffff), fc.nat(0xff), (payload, vendor, type) => {
      const object = must(decodeDoeObject(must(encodeDoeObject(vendor, type, payload))));
      assert.equal(object.vendor, vendor);
      assert.equal(object.type, type);
      assert.equal(object.payload.length, Math.ceil(payload.length / 4) * 4);
      assert.deepEqual(object.payload.slice(0, payload.length), payload);
      assert.ok(object.payload.slice(payload.length).every((byte) => byte === 0));
    }),
  );
});

test('the objects of DMTF’s emulator', () => {
  assert.deepEqual(must(decodeDoeObject(bytes('01 00 01 00 03 00 00 00 10 84 00 00'))), {
    vendor: 1,
    type: 1,
    payload: bytes('10840000'),
  });
  assert.deepEqual(must(doeBinding.wrap('plain', bytes('10840000'))), bytes('01 00 01 00 03 00 00 00 10 84 00 00'));
});

test('a length of zero is 2^18 dwords and nothing is longer', () => {
  const largest = must(encodeDoeObject(1, 1, new Uint8Array(DOE_OBJECT_LIMIT - 8)));
  assert.deepEqual([...largest.subarray(4, 8)], [0, 0, 0, 0]);
  assert.equal(must(decodeDoeObject(largest)).payload.length, DOE_OBJECT_LIMIT - 8);
  assert.equal(codeOf(encodeDoeObject(1, 1, new Uint8Array(DOE_OBJECT_LIMIT - 7))), 'doe-object-too-large');
  assert.equal(codeOf(decodeDoeObject(bytes('0100010000000000'))), 'doe-object-invalid');
});

test('lengths, reserved fields and ends that are wrong are refused', () => {
  for (const wrong of [
    '',
    '01000100020000',
    '0100010001000000',
    '0100010002000000 00',
    '0100010003000000',
    '0100010102000000',
    '0100010002000400',
    '0100010002000080',
    '0100010002000000 00000000',
  ])
    assert.equal(codeOf(decodeDoeObject(bytes(wrong))), 'doe-object-invalid', wrong);
});

test('no bytes at all make the decoder throw, and what it takes has the form that it says', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (input) => {
      const object = decodeDoeObject(input);
      if (object.ok) assert.equal(object.value.payload.length + 8, input.length);
      else assert.equal(object.error.code, 'doe-object-invalid');
    }),
  );
});

test('an object of another type carries no SPDM', () => {
  assert.equal(codeOf(doeBinding.unwrap(bytes('0100000003000000 00000000'))), 'doe-answer-invalid');
  assert.equal(codeOf(doeBinding.unwrap(bytes('8680010003000000 00000000'))), 'doe-answer-invalid');
  assert.equal(must(doeBinding.unwrap(bytes('0100020003000000 00000000'))).kind, 'secured');
});

const asker = (features: readonly { vendor: number; type: number }[]) => async (payload: Uint8Array) =>
  answerDiscovery(features, payload);

test('discovery finds what is offered', async () => {
  const features = [
    { vendor: 1, type: 0 },
    { vendor: 1, type: 1 },
    { vendor: 0x1e98, type: 2 },
  ];
  assert.deepEqual(must(await discoverFeatures(2, asker(features))), features);
});

test('discovery that goes in circles, or starts with something else, ends', async () => {
  let asked = 0;
  const circle = await discoverFeatures(0, async ([index = 0]) => {
    asked++;
    return { ok: true, value: Uint8Array.of(1, 0, index === 0 ? 0 : 1, index === 3 ? 2 : index + 1) };
  });
  assert.equal(codeOf(circle), 'doe-discovery-invalid');
  assert.equal(asked, 4);
  assert.equal(codeOf(await discoverFeatures(0, asker([{ vendor: 1, type: 1 }]))), 'doe-discovery-invalid');
  assert.equal(codeOf(await discoverFeatures(0, asker([]))), 'doe-discovery-invalid');
  const itself = await discoverFeatures(0, async () => ({ ok: true, value: Uint8Array.of(1, 0, 0, 1) }));
  assert.equal(codeOf(itself), 'doe-discovery-invalid');
  const long = await discoverFeatures(0, async () => ({ ok: true, value: new Uint8Array(8) }));
  assert.equal(codeOf(long), 'doe-discovery-invalid');
});
