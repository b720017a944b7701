import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import { plainDecide } from './plain-explanation.ts';
import { anyClaims, anyHead, anyInventory, anyRules, compile, machine, nic, policyText } from './policy-fixtures.ts';

const phases = ['before-bind', 'after-bind'] as const;

test('what is precomputed and remembered changes no byte of any decision', () => {
  const reasons = new Set<string>();
  let changes = 0;
  const world = anyInventory.chain((inventory) =>
    fc.record({ inventory: fc.constant(inventory), claims: anyClaims(inventory), head: anyHead, rules: anyRules }),
  );
  fc.assert(
    fc.property(world, ({ inventory, claims, head, rules }) => {
      const policy = compile(policyText(head, rules));
      for (const phase of phases) {
        const plain = plainDecide(policy, inventory, claims, phase);
        // Twice: what the first remembers must not change the second.
        for (let i = 0; i < 2; i++) {
          const decisions = decide(policy, inventory, claims, { phase });
          assert.equal(JSON.stringify(decisions), JSON.stringify(plain));
          for (const one of decisions) {
            reasons.add(one.reason);
            changes += one.changes.length;
          }
        }
      }
    }),
    { numRuns: 1500 },
  );
  for (const reason of ['rule-matched', 'default', 'otherwise', 'tier-ceiling', 'fact-unknown', 'requirement-failed']) {
    assert.ok(reasons.has(reason), `${reason} was tried`);
  }
  assert.ok(changes > 500, `${changes} changes were compared`);
});

test('nor where more kinds of devices are met than are remembered', () => {
  const policy = compile(
    policyText('version: 1\ndefault: disconnected', [
      '{ id: a, match: { type: network, vendor: 1 }, level: limited }',
      '{ id: d, match: { bus: virtio, type: net, location: "y*" }, level: limited }',
      '{ id: b, match: { class: 0x02, revision: 7, location: "x*" }, level: limited }',
      '{ id: c, match: { bus: pci, type: [net, ethernet], revision: 8 }, level: limited }',
    ]),
  );
  // Few that are alike in all but one fact come first, then more than are remembered.
  const devices = Array.from({ length: 700 }, (_, i) => ({
    ...nic(),
    id: `pci:${i}`,
    bus: (['pci', 'virtio', 'usb'] as const)[i % 3] ?? 'pci',
    transport: ([null, 'pci'] as const)[i % 2] ?? null,
    type: i % 5 === 0 ? null : 'network',
    class: i < 120 ? ([0x020000, 0x030000, null][Math.floor(i / 7) % 3] ?? null) : 0x01ff80 + i,
    vendor: 0x10000 + i,
    ...(i % 11 === 0 ? { virtioId: 1 } : {}),
  }));
  for (const phase of phases) {
    for (let i = 0; i < 2; i++) {
      assert.equal(
        JSON.stringify(decide(policy, machine(devices), {}, { phase })),
        JSON.stringify(plainDecide(policy, machine(devices), {}, phase)),
      );
    }
  }
});
