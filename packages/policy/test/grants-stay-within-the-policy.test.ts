import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '@airlock/core/device.ts';
import { LEVEL_CEILING, levelRank, TRUST_LEVELS } from '@airlock/core/level.ts';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import { isVirtio } from '../src/facts.ts';
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
  assert.deepEqual(one(grantable, console_, [grant(serial)]).pending, ['serial']);
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

const tolerant =
  '{ id: a, match: { type: block }, level: tcb, require: { identity: bound }, grant: limited, features: { require: [VERSION_1], forbid: [RING_PACKED] } }';
const known = (...negotiated: string[]) => device({ features: { negotiated } });

test('a grant does not pass over the features of a rule whose requirement failed', () => {
  const packed = known('VERSION_1', 'RING_PACKED');
  assert.equal(one(rules(tolerant), packed, []).reason, 'requirement-failed');
  for (const phase of [undefined, 'after-bind'] as const) {
    const denied = one(rules(tolerant), packed, [grant(packed)], phase);
    assert.deepEqual(
      [denied.level, denied.reason, denied.grantable, denied.pending],
      ['disconnected', 'feature-forbidden', 'disconnected', []],
    );
    assert.match(denied.detail, /^an operator granted it, but rule a forbids RING_PACKED/);
  }
  assert.equal(one(rules(tolerant), known('RING_RESET'), [grant(packed)]).reason, 'feature-missing');
  assert.equal(one(rules(tolerant), known('VERSION_1'), [grant(packed)], 'after-bind').reason, 'operator-granted');
  const level = rules('{ id: a, match: {}, level: disconnected, grant: limited, features: { forbid: [RING_PACKED] } }');
  assert.equal(one(level, packed, [grant(packed)]).reason, 'feature-forbidden');
});

test('a grant waits for features that only binding shows, and ends where binding does not show them', () => {
  const waits = one(rules(tolerant), device(), [grant(device())]);
  assert.deepEqual(
    [waits.level, waits.reason, waits.pending],
    ['limited', 'operator-granted', ['features.negotiated']],
  );
  assert.match(waits.detail, /provisional until features\.negotiated can be seen/);
  assert.deepEqual(one(rules(tolerant), device(), [grant(device())], 'after-bind').reason, 'fact-unknown');
  const offers = device({ features: { offered: ['VERSION_1', 'RING_PACKED'] } });
  assert.equal(one(rules(tolerant), offers, [grant(offers)]).reason, 'feature-forbidden');
});

test('a grant waits for the serial number that it was made for, and ends where binding does not show it', () => {
  const disks = rules('{ id: d, match: { type: block }, level: disconnected, grant: limited }');
  const mine = grant(device({ serial: 'mine' }));
  const before = one(disks, device(), [mine]);
  assert.deepEqual([before.level, before.reason, before.pending], ['limited', 'operator-granted', ['serial']]);
  const after = one(disks, device(), [mine], 'after-bind');
  assert.deepEqual([after.level, after.reason, after.pending], ['disconnected', 'rule-matched', []]);
  assert.match(after.detail, /for a device that shows a serial number, this one does not$/);
  assert.equal(one(disks, device({ serial: null }), [mine], 'after-bind').level, 'disconnected');
  assert.equal(one(disks, device({ serial: 'mine' }), [mine], 'after-bind').level, 'limited');
  // What is to be raised far is looked at from limited.
  const far = rules('{ id: d, match: { type: block }, level: disconnected, grant: dma }');
  const claims = { [device().id]: { device: device().id, tier: 'measured', because: '' } } as const;
  const high = { ...mine, level: 'dma' } as const;
  assert.equal(decide(compile(far), machine([device()]), claims, { grants: [high] })[0]?.level, 'limited');
  const block = grant(device(), { kind: 'block', level: 'disconnected' });
  assert.deepEqual(one(disks, device(), [mine, block]).pending, []);
});

test('after binding no grant lets in what a rule would deny for its features', () => {
  fc.assert(
    fc.property(anyInventory, anyHead, anyRules, (inventory, head, list) => {
      const policy = compile(policyText(head, list));
      const grants = inventory.devices.map((dev) => grant(dev, { level: 'tcb' }));
      for (const [i, now] of decide(policy, inventory, {}, { grants, phase: 'after-bind' }).entries()) {
        const dev = inventory.devices[i];
        const negotiated = dev?.features?.negotiated;
        if (dev === undefined || !isVirtio(dev) || negotiated === undefined || now.level === 'disconnected') continue;
        assert.ok(!now.features?.forbid.some((name) => negotiated.includes(name)), now.detail);
      }
    }),
    { numRuns: 400 },
  );
});
