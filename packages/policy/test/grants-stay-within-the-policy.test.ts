import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { LEVEL_CEILING, levelRank, TRUST_LEVELS } from '@airlock/core/level.ts';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import { fingerprintOf, GRANT_KINDS, type Grant } from '../src/grant.ts';
import { anyHead, anyInventory, anyRules, compile, device, machine, policyText, rules } from './policy-fixtures.ts';

const grant = (one: Device, more: Partial<Grant> = {}): Grant => ({
  device: one.id,
  fingerprint: fingerprintOf(one),
  level: 'limited',
  kind: 'once',
  ...more,
});
const one = (text: string, dev: Device, grants: readonly Grant[], phase?: 'after-bind') => {
  const [decision] = decide(compile(text), machine([dev]), {}, { grants, ...(phase ? { phase } : {}) });
  assert.ok(decision);
  return decision;
};
const console_ = device({ type: 'console', virtioId: 3 });
const grantable = rules('{ id: c, match: { type: console }, level: disconnected, grant: limited }');

test('a grant raises as far as the rule lets it', () => {
  assert.equal(one(grantable, console_, []).level, 'disconnected');
  assert.equal(one(grantable, console_, []).grantable, 'limited');
  const raised = one(grantable, console_, [grant(console_, { level: 'tcb' })]);
  assert.deepEqual([raised.level, raised.reason, raised.rule?.id], ['limited', 'operator-granted', 'c']);
});

test('without grant in rule or default nothing can be raised', () => {
  const text = rules('{ id: c, match: { type: console }, level: disconnected }');
  assert.equal(one(text, console_, [grant(console_)]).level, 'disconnected');
  assert.equal(one(rules(), console_, [grant(console_)]).level, 'disconnected');
  assert.equal(one(`version: 1\ndefault-grant: limited\nrules: []\n`, console_, [grant(console_)]).level, 'limited');
});

test('another device in the same place does not inherit a grant', () => {
  const other = device({ type: 'console', virtioId: 3, revision: 9 });
  assert.equal(one(grantable, other, [grant(console_)]).level, 'disconnected');
  const serial = device({ type: 'console', virtioId: 3, serial: 'a' });
  assert.equal(
    one(grantable, device({ type: 'console', virtioId: 3, serial: 'b' }), [grant(serial)]).level,
    'disconnected',
  );
  const { revision: _, ...hidden } = device({ type: 'console', virtioId: 3 });
  assert.equal(one(grantable, hidden, [grant(console_)]).level, 'disconnected', 'a fact that is now hidden');
  // Before a driver is bound the serial number is not known; everything else is.
  assert.equal(one(grantable, console_, [grant(serial)]).level, 'limited');
});

test('a block holds for whatever sits there, and against grants', () => {
  const open = rules('{ id: c, match: {}, level: limited, grant: limited }');
  const block = grant(console_, { kind: 'block', level: 'disconnected' });
  for (const list of [[block], [grant(console_), block], [block, grant(console_)]]) {
    assert.deepEqual(
      [one(open, console_, list).level, one(open, console_, list).reason],
      ['disconnected', 'operator-blocked'],
    );
  }
  assert.equal(one(open, device({ type: 'console', virtioId: 3, revision: 9 }), [block]).level, 'disconnected');
});

test('platform, features and unknown facts are not an operator’s to allow', () => {
  const text = (body: string) => `version: 1\ndefault-grant: tcb\n${body}`;
  const packed = device({ features: { negotiated: ['RING_PACKED'] } });
  const forbids = text(
    'rules:\n  - { id: a, match: {}, level: limited, grant: limited, features: { forbid: [RING_PACKED] } }\n',
  );
  assert.equal(one(forbids, packed, [grant(packed)]).reason, 'feature-forbidden');
  const plugged = device({ origin: 'hotplug' });
  const hotplug = text('platform: { forbid: [hotplug] }\nrules: []\n');
  assert.equal(one(hotplug, plugged, [grant(plugged)]).reason, 'bus-forbidden');
  const strict = text('platform: { require: [iommu-strict] }\nrules: []\n');
  assert.equal(one(strict, console_, [grant(console_)]).reason, 'platform-requirement-failed');
});

test('whatever is granted, the tier and the policy stay the limit', () => {
  fc.assert(
    fc.property(
      anyInventory,
      anyHead,
      anyRules,
      fc.constantFrom(...TRUST_LEVELS),
      fc.constantFrom(...GRANT_KINDS),
      (inventory, head, list, level, kind) => {
        const policy = compile(policyText(head, list));
        const grants = inventory.devices.map((dev) => grant(dev, { level, kind }));
        const plain = decide(policy, inventory, {});
        const granted = decide(policy, inventory, {}, { grants });
        for (const [index, now] of granted.entries()) {
          const before = plain[index];
          assert.ok(before);
          assert.ok(levelRank(now.level) <= levelRank(LEVEL_CEILING[now.tier]));
          const most = Math.max(levelRank(before.grantable), levelRank(before.level));
          assert.ok(levelRank(now.level) <= most, `${before.level} ${before.grantable} ${now.level}`);
          if (kind === 'block') assert.ok(levelRank(now.level) <= levelRank(before.level));
        }
      },
    ),
    { numRuns: 400 },
  );
});
