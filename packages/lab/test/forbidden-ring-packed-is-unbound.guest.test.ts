import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readEnforcement } from '../src/airlock-state.ts';
import { bootFor, boundIn, gated, imagesOrSkip, viewOf } from './guests.ts';

const POLICY = `version: 1
mode: enforce
default: disconnected
boot-critical: [disk]
rules:
  - id: disk
    match: { bus: virtio, type: block }
    level: limited
    features: { forbid: [RING_PACKED] }
  - id: nic
    match: { bus: virtio, type: net }
    level: limited
    features: { forbid: [RING_PACKED] }
  - id: entropy
    match: { bus: virtio, type: entropy }
    level: limited
    features: { require: [RING_PACKED] }
  - id: share
    match: { bus: virtio, type: 9p }
    level: limited
    features: { require: [RING_PACKED] }
  - id: lab-serial
    match: { bus: platform, type: serial }
    level: limited
`;

test('a card that offers RING_PACKED against the policy has no driver, and it is said why', {
  timeout: 300_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const policy = join(tmpdir(), `airlock-packed-${process.pid}.yaml`);
  writeFileSync(policy, POLICY);
  t.after(() => rmSync(policy, { force: true }));
  const guest = await bootFor(t, images, await gated(images, policy), {
    tweaks: { '03.0': { packed: 'on' }, '05.0': { packed: 'on' } },
  });
  const bound = boundIn(await viewOf(guest));
  // The disk offers split rings only, the entropy source offers what is asked for, the share does not.
  assert.deepEqual(bound, ['00:02.0 virtio_blk', '00:05.0 virtio_rng']);
  const enforcement = await readEnforcement(guest);
  assert.ok(enforcement.ok, JSON.stringify(enforcement));
  const reason = (slot: string) =>
    enforcement.value.find(({ decision }) => decision.device === `pci:0000:00:${slot}`)?.decision;
  assert.deepEqual([reason('03.0')?.level, reason('03.0')?.reason], ['disconnected', 'feature-forbidden']);
  assert.match(JSON.stringify(reason('03.0')), /RING_PACKED/);
  assert.deepEqual([reason('07.0')?.level, reason('07.0')?.reason], ['disconnected', 'feature-missing']);
});
