import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { verdictFor } from '../src/verdict.ts';
import { compile, device, nic, rules } from './policy-fixtures.ts';

const look = (
  text: string,
  given: Parameters<typeof device>[0],
  phase: 'before-bind' | 'after-bind' = 'before-bind',
) => {
  const { level, rule, reason, pending } = verdictFor(compile(text), device(given), undefined, phase);
  return { level, rule: rule?.rule.id ?? null, reason, pending };
};

const root = rules('{ id: root, match: { type: block, serial: root }, level: limited }');

test('a rule that would connect on an unknown serial number is provisional, then decided again', () => {
  assert.deepEqual(look(root, {}), { level: 'limited', rule: 'root', reason: 'rule-matched', pending: ['serial'] });
  assert.equal(look(root, {}, 'after-bind').level, 'disconnected');
  assert.deepEqual(look(root, { serial: 'root' }, 'after-bind').pending, []);
  assert.equal(look(root, { serial: 'root' }, 'after-bind').level, 'limited');
  assert.equal(look(root, { serial: 'Root' }).level, 'disconnected');
  assert.deepEqual(look(root, { serial: null }), { level: 'disconnected', rule: null, reason: 'default', pending: [] });
});

test('looking is never done above limited, whatever the rule gives in the end', () => {
  const text = rules('{ id: a, match: { type: block, serial: x }, level: tcb, require: { identity: bound } }');
  const claim = { device: device().id, tier: 'bound', because: '' } as const;
  assert.equal(verdictFor(compile(text), device(), claim).level, 'limited');
  assert.equal(verdictFor(compile(text), device({ serial: 'x' }), claim).level, 'tcb');
});

test('a rule that would disconnect is not skipped because its fact is unknown', () => {
  const text = rules(
    '{ id: bad, match: { type: block, serial: bad }, level: disconnected }',
    '{ id: any, match: { type: block }, level: limited }',
  );
  assert.deepEqual(look(text, {}), { level: 'limited', rule: 'any', reason: 'rule-matched', pending: ['serial'] });
  assert.deepEqual(look(text, { serial: 'bad' }, 'after-bind').rule, 'bad');
  assert.deepEqual(look(text, { serial: 'good' }, 'after-bind').rule, 'any');
  // Still hidden after binding: it counts against the device.
  assert.deepEqual(look(text, {}, 'after-bind'), {
    level: 'disconnected',
    rule: 'bad',
    reason: 'fact-unknown',
    pending: [],
  });
});

test('where nothing further down connects, there is nothing to wait for', () => {
  const text = rules('{ id: bad, match: { type: block, serial: bad }, level: disconnected }');
  assert.deepEqual(look(text, {}), { level: 'disconnected', rule: null, reason: 'default', pending: [] });
});

test('facts that no binding shows never connect, and hold against the device at once', () => {
  const { revision: _, ...hidden } = nic();
  const connect = compile(rules('{ id: a, match: { vendor: 0x15b3, revision: ">=2" }, level: limited }'));
  const deny = compile(
    rules(
      '{ id: old, match: { vendor: 0x15b3, revision: "<2" }, level: disconnected }',
      '{ id: a, match: {}, level: limited }',
    ),
  );
  assert.equal(verdictFor(connect, hidden).level, 'disconnected');
  assert.deepEqual([verdictFor(deny, hidden).level, verdictFor(deny, hidden).reason], ['disconnected', 'fact-unknown']);
  assert.equal(verdictFor(deny, nic({ revision: null })).level, 'limited', 'absent is not unknown');
});

test('a rule that misses one fact binding shows and one that nothing shows: no connecting, but looking before denying', () => {
  const { revision: _, ...half } = device();
  const both = '{ type: block, revision: 1, serial: root }';
  assert.equal(verdictFor(compile(rules(`{ id: a, match: ${both}, level: limited }`)), half).level, 'disconnected');
  const deny = compile(
    rules(`{ id: bad, match: ${both}, level: disconnected }`, '{ id: any, match: { type: block }, level: limited }'),
  );
  assert.deepEqual(verdictFor(deny, half).pending, ['serial']);
  assert.equal(verdictFor(deny, { ...half, serial: 'other' }, undefined, 'after-bind').rule?.rule.id, 'any');
  assert.equal(verdictFor(deny, { ...half, serial: 'root' }, undefined, 'after-bind').reason, 'fact-unknown');
});

test('where no gate saw the boot, every device counts as hot-plugged', () => {
  const { origin: _, ...unseen } = device();
  const text = rules('{ id: boot, match: { hotplugged: false }, level: limited }');
  assert.equal(verdictFor(compile(text), unseen).level, 'disconnected');
  const plugged = rules(
    '{ id: later, match: { hotplugged: true }, level: disconnected }',
    '{ id: a, match: {}, level: limited }',
  );
  assert.equal(verdictFor(compile(plugged), unseen).rule?.rule.id, 'later');
});

test('kinds of devices that never show a serial number have none', () => {
  const text = rules(
    '{ id: bad, match: { serial: bad }, level: disconnected }',
    '{ id: a, match: {}, level: limited }',
  );
  assert.equal(look(text, { type: 'net', virtioId: 1 }, 'after-bind').level, 'limited');
  assert.equal(look(text, { type: 'block' }, 'after-bind').level, 'disconnected');
  assert.equal(verdictFor(compile(text), nic({ type: 'nvme', class: 0x010802 })).pending[0], 'serial');
});

test('a virtio device over MMIO has no type until its transport is bound', () => {
  const text = rules('{ id: disk, match: { bus: virtio, type: block }, level: limited }');
  const { virtioId: _, vendor: __, device: ___, ...bare } = device({ transport: 'mmio', type: null });
  assert.deepEqual(verdictFor(compile(text), bare).pending, ['type']);
  assert.equal(verdictFor(compile(text), bare, undefined, 'after-bind').level, 'disconnected');
});

test('classes are those of PCI: USB has others under the same numbers', () => {
  const text = rules('{ id: hid, match: { class: 0x03 }, level: limited }');
  assert.equal(verdictFor(compile(text), nic({ class: 0x030101 })).level, 'limited');
  assert.equal(verdictFor(compile(text), nic({ bus: 'usb', class: 0x030101 })).level, 'disconnected');
});

/** A PCI function of which some facts cannot be read. */
function hiding(given: Partial<Device>, ...hidden: readonly (keyof Device)[]): Device {
  return Object.fromEntries(
    Object.entries(nic(given)).filter(([key]) => !hidden.includes(key as keyof Device)),
  ) as unknown as Device;
}

test('a function whose class cannot be read may be of every class that a rule denies', () => {
  const named = 'match: { bus: pci, vendor: 0x15b3 }, level: limited';
  const hidden = hiding({ type: null }, 'class');
  for (const type of ['display', 'ethernet', 'nvme', '[net, display]', '[serial, 3d]']) {
    const policy = compile(rules(`{ id: bad, match: { type: ${type} }, level: disconnected }`, `{ id: a, ${named} }`));
    const { level, reason, rule } = verdictFor(policy, hidden);
    assert.deepEqual([level, reason, rule?.rule.id], ['disconnected', 'fact-unknown', 'bad'], type);
    assert.equal(verdictFor(policy, hidden, undefined, 'after-bind').level, 'disconnected', type);
    const seen = type === 'ethernet' ? 'bad' : 'a';
    assert.equal(verdictFor(policy, nic()).rule?.rule.id, seen, type);
    assert.equal(
      verdictFor(policy, hiding({ class: null, type: null })).rule?.rule.id,
      'a',
      `${type}: absent is known`,
    );
  }
  const connects = compile(rules('{ id: a, match: { type: ethernet }, level: limited }'));
  assert.equal(verdictFor(connects, hidden).level, 'disconnected');
  // The type is known from elsewhere: what that leaves open is open, what it rules out is ruled out.
  const network = hiding({ type: 'network' }, 'class');
  const deny = (type: string) =>
    compile(rules(`{ id: bad, match: { type: ${type} }, level: disconnected }`, `{ id: a, ${named} }`));
  assert.equal(verdictFor(deny('ethernet'), network).reason, 'fact-unknown');
  assert.equal(verdictFor(deny('network'), network).reason, 'rule-matched');
  assert.equal(verdictFor(deny('display'), network).level, 'limited');
});

test('a function whose ids cannot be read may be every virtio device that a rule denies', () => {
  const denials = [
    'match: { type: net }',
    'match: { type: [gpu, balloon] }',
    'match: { bus: virtio }',
    'match: { transport: pci }',
    'match: { bus: virtio, type: block, serial: bad }',
    'match: { features: { offered: RING_PACKED } }',
    'match: { features: { negotiated: RING_PACKED } }',
  ];
  const unreadable = [hiding({}, 'vendor'), hiding({}, 'vendor', 'device'), hiding({ vendor: 0x1af4 }, 'device')];
  for (const denial of denials) {
    const policy = compile(
      rules(`{ id: bad, ${denial}, level: disconnected }`, '{ id: a, match: { class: network }, level: limited }'),
    );
    for (const one of unreadable) {
      const { level, reason } = verdictFor(policy, one);
      assert.deepEqual([level, reason], ['disconnected', 'fact-unknown'], denial);
    }
    assert.equal(verdictFor(policy, nic()).level, 'limited', denial);
  }
  for (const one of unreadable) {
    const connects = compile(rules('{ id: a, match: { bus: virtio, type: net }, level: limited }'));
    assert.equal(verdictFor(connects, one).level, 'disconnected');
    const forbids = compile(rules('{ id: a, match: {}, level: limited, features: { forbid: [RING_PACKED] } }'));
    assert.equal(verdictFor(forbids, one).reason, 'fact-unknown');
    const legacy = compile(`version: 1\nplatform: { forbid: [virtio-legacy] }\ndefault: limited\n`);
    assert.equal(
      verdictFor(legacy, { ...one, device: 0x1000 }).reason,
      one.vendor === undefined ? 'bus-forbidden' : 'default',
    );
  }
});

test('what is neither PCI nor virtio and has no readable type may be of every type that a rule denies', () => {
  const policy = compile(
    rules('{ id: bad, match: { type: tpm }, level: disconnected }', '{ id: a, match: {}, level: limited }'),
  );
  const other = (given: Partial<Device>) => verdictFor(policy, hiding(given, 'class', 'vendor', 'device'));
  assert.equal(other({ bus: 'platform', type: null }).reason, 'fact-unknown');
  assert.equal(other({ bus: 'platform', type: 'serial' }).level, 'limited');
  assert.equal(other({ bus: 'usb', type: null }).reason, 'fact-unknown');
  assert.equal(verdictFor(policy, nic({ bus: 'usb', type: null, class: 0 })).level, 'limited', 'a class that was read');
});
