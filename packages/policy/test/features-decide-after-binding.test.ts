import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verdictFor } from '../src/verdict.ts';
import { compile, device, nic, rules } from './policy-fixtures.ts';

const strict = compile(
  rules(
    '{ id: disk, match: { type: block }, level: limited, features: { require: [VERSION_1, ACCESS_PLATFORM], forbid: [RING_PACKED, BLK_F_DISCARD] } }',
  ),
);
const good = ['VERSION_1', 'ACCESS_PLATFORM'];
type Features = { offered?: readonly string[]; negotiated?: readonly string[] };
const of = (features: Features | undefined, phase: 'before-bind' | 'after-bind' = 'before-bind') => {
  const { level, reason, pending, feature } = verdictFor(
    strict,
    device(features === undefined ? {} : { features }),
    undefined,
    phase,
  );
  return [level, reason, pending.join(), feature ?? ''];
};

test('an offered feature that Linux always accepts denies before binding', () => {
  assert.deepEqual(of({ offered: [...good, 'RING_PACKED'] }), ['disconnected', 'feature-forbidden', '', 'RING_PACKED']);
});

test('an offered feature that the driver may leave out does not', () => {
  assert.deepEqual(of({ offered: [...good, 'BLK_F_DISCARD'] }), ['limited', 'rule-matched', 'features.negotiated', '']);
  assert.deepEqual(of({ offered: [...good, 'BLK_F_DISCARD'], negotiated: good }), ['limited', 'rule-matched', '', '']);
});

test('what is negotiated decides, whatever was offered', () => {
  assert.equal(of({ offered: good, negotiated: [...good, 'RING_PACKED'] })[1], 'feature-forbidden');
  assert.equal(of({ offered: [...good, 'RING_PACKED'], negotiated: good }, 'after-bind')[0], 'limited');
});

test('what is required and not offered, or not negotiated, is missing', () => {
  assert.deepEqual(of({ offered: ['VERSION_1'] }), ['disconnected', 'feature-missing', '', 'ACCESS_PLATFORM']);
  assert.deepEqual(of({ negotiated: ['VERSION_1'] }), ['disconnected', 'feature-missing', '', 'ACCESS_PLATFORM']);
});

test('a good offer is still only an offer: the host may make another one to the driver', () => {
  assert.deepEqual(of({ offered: good }), ['limited', 'rule-matched', 'features.negotiated', '']);
});

test('features that stay hidden after binding count against the device', () => {
  assert.deepEqual(of(undefined), ['limited', 'rule-matched', 'features.negotiated', '']);
  assert.deepEqual(of(undefined, 'after-bind'), ['disconnected', 'fact-unknown', '', '']);
});

test('a device that is not virtio has no features: none to forbid, none to require', () => {
  const forbid = rules('{ id: a, match: {}, level: limited, features: { forbid: [RING_PACKED] } }');
  const require = rules('{ id: a, match: {}, level: limited, features: { require: [VERSION_1] } }');
  assert.equal(verdictFor(compile(forbid), nic()).level, 'limited');
  assert.equal(verdictFor(compile(require), nic()).reason, 'feature-missing');
});

test('features hold for the lesser level of otherwise as well', () => {
  const text = rules(
    '{ id: a, match: { type: block }, level: tcb, require: { identity: bound }, otherwise: { level: limited }, features: { forbid: [RING_PACKED] } }',
  );
  const packed = device({ features: { negotiated: ['RING_PACKED'] } });
  assert.equal(verdictFor(compile(text), packed).reason, 'feature-forbidden');
});

test('without a probe an offered feature shows itself by being negotiated', () => {
  const packed = compile(
    rules(
      '{ id: packed, match: { features: { offered: RING_PACKED } }, level: disconnected }',
      '{ id: a, match: {}, level: limited }',
    ),
  );
  assert.deepEqual(verdictFor(packed, device()).pending, ['features.negotiated']);
  assert.equal(verdictFor(packed, device({ features: { negotiated: ['VERSION_1'] } })).level, 'limited');
  assert.equal(verdictFor(packed, device({ features: { negotiated: ['RING_PACKED'] } })).level, 'disconnected');
  const own = compile(
    rules(
      '{ id: mq, match: { features: { offered: BLK_F_MQ } }, level: disconnected }',
      '{ id: a, match: {}, level: limited }',
    ),
  );
  assert.equal(verdictFor(own, device({ features: { negotiated: ['VERSION_1'] } })).reason, 'fact-unknown');
});
