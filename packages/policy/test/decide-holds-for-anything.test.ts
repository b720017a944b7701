import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REASON_CODES } from '@airlock/core/decision.ts';
import { IDENTITY_TIERS, isConnected, LEVEL_CEILING, levelRank, TRUST_LEVELS } from '@airlock/core/level.ts';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import { NO } from '../src/facts.ts';
import { verdictFor } from '../src/verdict.ts';
import { anyClaims, anyHead, anyInventory, anyRules, compile, nic, policyText } from './policy-fixtures.ts';

const phase = fc.constantFrom('before-bind' as const, 'after-bind' as const);
const world = anyInventory.chain((inventory) =>
  fc.record({ inventory: fc.constant(inventory), claims: anyClaims(inventory), head: anyHead, rules: anyRules, phase }),
);

test('one whole decision a device, in order, never above what its tier carries', () => {
  fc.assert(
    fc.property(world, ({ inventory, claims, head, rules, phase }) => {
      const decisions = decide(compile(policyText(head, rules)), inventory, claims, { phase });
      assert.deepEqual(
        decisions.map((one) => one.device),
        inventory.devices.map((one) => one.id),
      );
      for (const decision of decisions) {
        assert.ok(TRUST_LEVELS.includes(decision.level) && REASON_CODES.includes(decision.reason));
        assert.ok(IDENTITY_TIERS.includes(decision.tier));
        assert.ok(levelRank(decision.level) <= levelRank(LEVEL_CEILING[decision.tier]), JSON.stringify(decision));
        assert.ok(levelRank(decision.grantable) <= levelRank(LEVEL_CEILING[decision.tier]));
        assert.ok(decision.detail.length > 0);
        if (decision.pending.length > 0) assert.equal(decision.level, 'limited', 'looking needs no more than limited');
        if (phase === 'after-bind') assert.deepEqual(decision.pending, []);
        assert.doesNotThrow(() => JSON.stringify(decision));
      }
    }),
    { numRuns: 600 },
  );
});

test('the same values give the same decisions', () => {
  fc.assert(
    fc.property(world, ({ inventory, claims, head, rules, phase }) => {
      const text = policyText(head, rules);
      const once = decide(compile(text), inventory, claims, { phase });
      assert.deepEqual(decide(compile(text), structuredClone(inventory), claims, { phase }), once);
    }),
    { numRuns: 200 },
  );
});

test('a rule at the end changes nothing that a rule before it decided', () => {
  fc.assert(
    fc.property(world, anyRules, ({ inventory, claims, head, rules, phase }, more) => {
      const extra = more.map((rule) => rule.replace('{ id: r', '{ id: extra'));
      const before = decide(compile(policyText(head, rules)), inventory, claims, { phase });
      const after = decide(compile(policyText(head, [...rules, ...extra])), inventory, claims, { phase });
      for (const [index, old] of before.entries()) {
        if (old.rule !== null) assert.deepEqual({ ...after[index], changes: [] }, { ...old, changes: [] });
      }
    }),
    { numRuns: 400 },
  );
});

test('what is seen after binding never gives more than the best that was possible before', () => {
  fc.assert(
    fc.property(world, ({ inventory, claims, head, rules }) => {
      const policy = compile(policyText(head, rules));
      for (const device of inventory.devices) {
        const before = verdictFor(policy, device, claims[device.id], 'before-bind');
        const after = verdictFor(policy, device, claims[device.id], 'after-bind');
        // Nothing was learned in between: what was settled stays, what was provisional cannot become a better level
        // than a rule that no longer asks for unknown facts gives.
        if (before.pending.length === 0) assert.equal(isConnected(after.level) && !isConnected(before.level), false);
      }
    }),
    { numRuns: 400 },
  );
});

test('forgetting a fact never connects a device at once', () => {
  const facts = [
    'vendor',
    'device',
    'subsystem',
    'class',
    'revision',
    'serial',
    'sriov',
    'origin',
    'features',
  ] as const;
  fc.assert(
    fc.property(world, fc.constantFrom(...facts), ({ inventory, head, rules }, fact) => {
      const policy = compile(policyText(head.replace(/default: \w+/, 'default: disconnected'), rules));
      for (const known of inventory.devices) {
        const { [fact]: _, ...rest } = known;
        const device = rest as typeof known;
        const now = verdictFor(policy, device, undefined, 'after-bind');
        if (!isConnected(now.level) || now.rule === null) continue;
        // The rule that connects it must be met by what is still known.
        for (const condition of now.rule.conditions) assert.equal(condition.test(device, now.tier), 1);
      }
    }),
    { numRuns: 400 },
  );
});

test('a rule that is left out in advance could not have matched', () => {
  fc.assert(
    fc.property(anyInventory, anyRules, (inventory, rules) => {
      const policy = compile(policyText('version: 1', rules));
      for (const device of inventory.devices) {
        const kept = policy.rulesFor(device);
        assert.deepEqual(
          policy.rules.filter((rule) => kept.includes(rule)),
          kept,
          'in order',
        );
        for (const rule of policy.rules) {
          if (kept.includes(rule)) continue;
          for (const tier of IDENTITY_TIERS) assert.equal(rule.match(device, tier), NO, JSON.stringify(device));
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('ten thousand kinds of devices are decided as one is', () => {
  const policy = compile(policyText('version: 1', ['{ id: a, match: { vendor: 4321 }, level: limited }']));
  for (let vendor = 0; vendor < 10_000; vendor++) {
    const level = vendor === 4321 ? 'limited' : 'disconnected';
    assert.equal(verdictFor(policy, nic({ vendor })).level, level);
  }
});
