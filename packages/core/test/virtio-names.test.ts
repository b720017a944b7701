import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  canonicalFeature,
  DEVICE_FEATURES,
  featureBit,
  featureName,
  featureNames,
  TRANSPORT_FEATURES,
  VIRTIO_TYPES,
  virtioTypeName,
} from '../src/virtio.ts';

// VIRTIO 1.2 §5: the types that have a section of their own.
const specified12 = [1, 2, 3, 4, 5, 8, 16, 18, 19, 20, 23, 24, 25, 26, 27, 28, 32, 34, 41];

test('all 19 types of VIRTIO 1.2 and 9p have names', () => {
  const ids = new Set<number>(Object.values(VIRTIO_TYPES));
  assert.equal(specified12.length, 19);
  for (const id of [...specified12, 9]) assert.ok(ids.has(id), `type ${id}`);
  assert.equal(ids.size, Object.keys(VIRTIO_TYPES).length, 'no id twice');
});

test('an id that no standard names is shown as its number', () => {
  assert.equal(virtioTypeName(2), 'block');
  assert.equal(virtioTypeName(6), 'virtio-6');
  assert.equal(virtioTypeName(0xffff), 'virtio-65535');
});

test('every feature name leads back to its bit', () => {
  for (const [bit, name] of Object.entries(TRANSPORT_FEATURES)) assert.equal(featureBit(name), Number(bit));
  for (const [type, table] of Object.entries(DEVICE_FEATURES)) {
    assert.ok(type in VIRTIO_TYPES, type);
    for (const [bit, name] of Object.entries(table)) {
      assert.equal(featureBit(name), Number(bit), name);
      assert.equal(featureName(type, Number(bit)), name);
      assert.equal(TRANSPORT_FEATURES[Number(bit)], undefined, `${name} shadows a transport bit`);
    }
  }
  assert.equal(new Set(featureNames()).size, featureNames().length);
});

test('names as the standard writes them are understood', () => {
  assert.equal(featureBit('VIRTIO_F_RING_PACKED'), 34);
  assert.equal(featureBit('VIRTIO_NET_F_MQ'), 22);
  assert.equal(canonicalFeature('VIRTIO_F_INDIRECT_DESC'), 'INDIRECT_DESC');
});

test('every bit of 128 has a name that is found again', () => {
  fc.assert(
    fc.property(fc.constantFrom(null, ...Object.keys(VIRTIO_TYPES)), fc.integer({ min: 0, max: 127 }), (type, bit) => {
      assert.equal(featureBit(featureName(type, bit)), bit);
    }),
  );
});

test('a bit beyond 127 or not a number is no feature', () => {
  for (const name of ['bit-128', 'bit--1', 'bit-1.5', 'bit-x', 'bit-1e1000', 'NO_SUCH'])
    assert.equal(featureBit(name), undefined, name);
});
