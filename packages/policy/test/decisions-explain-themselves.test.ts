import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision } from '@airlock/core/decision.ts';
import type { Device } from '@airlock/core/device.ts';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import {
  anyClaims,
  anyHead,
  anyInventory,
  anyRules,
  compile,
  device,
  machine,
  nic,
  policyText,
  rules,
} from './policy-fixtures.ts';

function one(text: string, dev: Device, claims = {}): Decision {
  const [decision] = decide(compile(text), machine([dev]), claims);
  assert.ok(decision);
  return decision;
}
const inputs = (decision: Decision) =>
  decision.inputs.map((input) => `${input.field} ${String(input.value)} ${input.wanted} ${input.holds}`);

test('a decision names its rule with file and line', () => {
  const text = `version: 1\n\n# a comment\nrules:\n  - id: disk\n    match: { type: block }\n    level: limited\n`;
  assert.deepEqual(one(text, device()).rule, { id: 'disk', file: 'policy.yaml', line: 5 });
});

test('inputs are what the rule asked for, in its words', () => {
  const text = rules('{ id: a, match: { class: network, vendor: [0x15b3, 2], revision: ">=2" }, level: limited }');
  assert.deepEqual(inputs(one(text, nic())), [
    'vendor 0x15b3 0x15b3 or 0x0002 true',
    'class 0x020000 network true',
    'revision 2 >=2 true',
  ]);
});

test('for the default, each rule says what ruled it out', () => {
  const text = rules(
    '{ id: a, match: { type: net }, level: limited }',
    '{ id: b, match: { type: block, revision: 7 }, level: limited }',
  );
  assert.deepEqual(inputs(one(text, device())), ['type block net (a) false', 'revision 1 7 (b) false']);
});

test('changes are of near rules above: one that is for another kind of device is none', () => {
  const text = rules(
    '{ id: old, match: { type: block, revision: 7 }, level: disconnected }',
    '{ id: net, match: { type: net }, level: disconnected }',
    '{ id: far, match: { type: block, revision: 7, vendor: 7, device: 7 }, level: disconnected }',
    '{ id: disk, match: { type: block }, level: limited }',
    '{ id: below, match: { type: block, revision: 8 }, level: disconnected }',
  );
  const { changes } = one(text, device());
  assert.deepEqual(
    changes.map((change) => [change.rule?.id, change.level, change.needs]),
    [['old', 'disconnected', ['revision is 1, rule asks for 7']]],
  );
});

test('what the deciding rule itself still asks for comes first', () => {
  const text = rules(
    '{ id: a, match: { vendor: 0x15b3 }, level: tcb, require: { identity: bound, roots: a.pem }, otherwise: { level: limited } }',
  );
  assert.deepEqual(one(text, nic()).changes[0], {
    rule: { id: 'a', file: 'policy.yaml', line: 3 },
    level: 'tcb',
    needs: ['identity is claimed, rule asks for >=bound', 'roots is none, rule asks for a.pem'],
  });
  const attested = { [nic().id]: { device: nic().id, tier: 'attested', because: '', roots: ['a.pem'] } };
  assert.deepEqual(one(text, nic(), attested).changes[0]?.needs, ['identity is attested, rule asks for >=bound']);
  const capped = one(rules('{ id: a, match: {}, level: tcb }'), nic());
  assert.deepEqual(capped.changes[0]?.needs, ['identity is claimed, rule asks for >=bound for level tcb']);
});

test('features: what is there, what is missing, what is not known', () => {
  const text = rules('{ id: a, match: {}, level: limited, features: { require: [VERSION_1], forbid: [RING_PACKED] } }');
  const of = (features: Device['features']) => inputs(one(text, device(features ? { features } : {})));
  assert.deepEqual(of({ negotiated: ['RING_PACKED'] }), [
    'features.negotiated without VERSION_1 VERSION_1 false',
    'features.negotiated with RING_PACKED no RING_PACKED false',
  ]);
  assert.deepEqual(of({ offered: ['VERSION_1'] })[0], 'features.offered all there VERSION_1 true');
  assert.deepEqual(of(undefined)[1], 'features.negotiated undefined no RING_PACKED unknown');
});

test('platform and grants are told', () => {
  const denied = decide(
    compile('version: 1\nplatform: { require: [memory-encryption] }\n'),
    machine([device()], { confidential: null }),
    {},
  );
  assert.match(denied[0]?.detail ?? '', /^memory-encryption does not hold: not a confidential VM/);
  assert.deepEqual(inputs(denied[0] ?? assert.fail()), [
    'platform.memory-encryption not a confidential VM a confidential VM false',
  ]);
  const forbidden = one('version: 1\nplatform: { forbid: [hotplug] }\n', device({ origin: 'hotplug' }));
  assert.deepEqual(inputs(forbidden), ['hotplugged hotplug not hotplug (platform forbid) false']);
});

test('explanations are bounded, and a rule is never said to change a device to the level that it has', () => {
  const world = anyInventory.chain((inventory) =>
    fc.record({ inventory: fc.constant(inventory), claims: anyClaims(inventory), head: anyHead, rules: anyRules }),
  );
  fc.assert(
    fc.property(world, ({ inventory, claims, head, rules: list }) => {
      for (const decision of decide(compile(policyText(head, list)), inventory, claims)) {
        assert.ok(decision.inputs.length <= 40 && decision.changes.length <= 4);
        for (const change of decision.changes) {
          assert.ok(change.needs.length > 0);
          if (change.rule !== null && change.rule.id !== decision.rule?.id)
            assert.notEqual(change.level, decision.level);
        }
      }
    }),
    { numRuns: 300 },
  );
});
