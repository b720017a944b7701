/** Feature negotiation from either side: VIRTIO 1.3 §2.2, §3.1.1. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureBit } from '@airlock/core/virtio.ts';
import { DEVICE_ERRORS } from '@airlock/virtio/errors.ts';
import {
  acceptFeatures,
  bothFeatures,
  chooseFeatures,
  type Features,
  featureBits,
  featureSet,
  hasFeature,
  NO_FEATURES,
  sameFeatures,
  unmetRequirement,
  withoutFeatures,
} from '@airlock/virtio/features.ts';
import { ringFeatures } from '@airlock/virtio/ring/create.ts';
import fc from 'fast-check';
import { must } from './support/both-ends.ts';

const set = (...names: string[]): Features => featureSet(names.map((name) => featureBit(name) ?? 999));

function code(result: { ok: boolean; error?: { code: string } }): string {
  return result.ok ? 'ok' : (result.error?.code ?? '');
}

test('bits above 31, 63 and 95 are bits like the others', () => {
  const bits = [0, 31, 32, 63, 64, 70, 127];
  const features = featureSet([...bits, 128, -1, 1.5]);
  assert.deepEqual(featureBits(features), bits);
  assert.equal(hasFeature(features, 128), false);
  assert.equal(hasFeature(features, -1), false);
});

test('what was offered before and is not offered now ends the negotiation', () => {
  const before = set('VERSION_1', 'ACCESS_PLATFORM');
  const result = chooseFeatures('block', set('VERSION_1'), before, NO_FEATURES, before);
  assert.equal(code(result), 'feature-downgraded');
  assert.match(result.ok ? '' : result.error.message, /ACCESS_PLATFORM/);
  assert.equal(code(chooseFeatures('block', set('VERSION_1'), before, NO_FEATURES)), 'ok');
});

test('a required feature that is missing ends the negotiation; a wanted one does not', () => {
  const required = set('VERSION_1', 'ACCESS_PLATFORM');
  assert.equal(code(chooseFeatures('net', set('VERSION_1'), NO_FEATURES, required)), 'feature-required');
  const chosen = must(
    chooseFeatures('net', set('VERSION_1', 'ACCESS_PLATFORM', 'NET_F_MAC'), set('NET_F_MTU'), required),
  );
  assert.deepEqual(chosen, required);
});

test('§5.1.3.1: a feature is not taken without what it requires', () => {
  const wanted = set('NET_F_GUEST_TSO4', 'NET_F_GUEST_ECN', 'NET_F_MQ', 'NET_F_MAC');
  // GUEST_CSUM is not offered, so TSO4 goes, and with it ECN; MQ goes with CTRL_VQ.
  const chosen = must(chooseFeatures('net', wanted, wanted, NO_FEATURES));
  assert.deepEqual(chosen, set('NET_F_MAC'));
  assert.equal(code(chooseFeatures('net', wanted, NO_FEATURES, set('NET_F_MQ'))), 'feature-dependency');
  assert.equal(code(acceptFeatures('net', wanted, set('NET_F_MQ'))), 'feature-dependency');
  assert.deepEqual(unmetRequirement('net', set('NET_F_GUEST_ECN')), { bit: 9, needs: [7, 8] });
  assert.equal(unmetRequirement('net', set('NET_F_GUEST_ECN', 'NET_F_GUEST_TSO6', 'NET_F_GUEST_CSUM')), null);
});

test('§2.2.2: a driver that accepts what was not offered, or not what is required, is refused', () => {
  const offered = set('VERSION_1', 'INDIRECT_DESC');
  assert.equal(code(acceptFeatures('block', offered, set('RING_PACKED'))), 'feature-not-offered');
  assert.equal(code(acceptFeatures('block', offered, set('INDIRECT_DESC'), set('VERSION_1'))), 'feature-required');
  assert.deepEqual(must(acceptFeatures('block', offered, offered, set('VERSION_1'))), offered);
});

test('§5.16.6.4, §5.20.3.1: what a driver of the type must take is taken, and a driver without it refused', () => {
  const i2c = set('VERSION_1', 'I2C_F_ZERO_LENGTH_REQUEST');
  assert.equal(code(acceptFeatures('i2c', i2c, set('VERSION_1'))), 'feature-required');
  assert.deepEqual(must(acceptFeatures('i2c', i2c, i2c)), i2c);
  assert.deepEqual(must(chooseFeatures('i2c', i2c, set('VERSION_1'), NO_FEATURES)), i2c);
  const can = set('VERSION_1', 'CAN_F_CAN_CLASSIC', 'CAN_F_CAN_FD');
  assert.equal(code(acceptFeatures('can', can, set('VERSION_1'))), 'feature-required');
  for (const one of ['CAN_F_CAN_CLASSIC', 'CAN_F_CAN_FD']) assert.ok(acceptFeatures('can', can, set(one)).ok);
});

test('what is chosen was offered, holds all that is required, and needs nothing that it does not have', () => {
  const word = fc.integer({ min: 0, max: 0xffffffff });
  const any = fc.tuple(word, word, word, word);
  fc.assert(
    fc.property(
      fc.constantFrom('net', 'gpu', 'block', 'crypto', 'i2c', 'can', 'nothing'),
      any,
      any,
      any,
      (type, offered, wanted, required) => {
        const chosen = chooseFeatures(type, offered, wanted, bothFeatures(required, offered));
        if (!chosen.ok) {
          assert.ok(chosen.error.code in DEVICE_ERRORS);
          return;
        }
        assert.ok(sameFeatures(withoutFeatures(chosen.value, offered), NO_FEATURES));
        assert.ok(sameFeatures(withoutFeatures(bothFeatures(required, offered), chosen.value), NO_FEATURES));
        assert.equal(unmetRequirement(type, chosen.value), null);
        assert.equal(acceptFeatures(type, offered, chosen.value).ok, true);
      },
    ),
  );
});

test('the ring features', () => {
  assert.deepEqual(ringFeatures(NO_FEATURES), { packed: false, indirect: false, eventIndex: false, inOrder: false });
  assert.deepEqual(ringFeatures(set('RING_PACKED', 'INDIRECT_DESC', 'EVENT_IDX', 'IN_ORDER')), {
    packed: true,
    indirect: true,
    eventIndex: true,
    inOrder: true,
  });
});
