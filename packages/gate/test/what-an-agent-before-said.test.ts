import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PROOFS_LIMIT, readProofs, writeProofs } from '../src/agent/proof-store.ts';
import type { Proof } from '../src/agent/proofs.ts';

const BOOT = '11111111-2222-3333-4444-555555555555';
const proof = (more: Partial<Proof['claim']> = {}, device = 'pci:0000:00:08.0'): Proof => ({
  device,
  incarnation: '1007',
  claim: { device, tier: 'attested', because: 'x', roots: ['maker.pem'], ...more },
});

test('what was written is read again, for the same boot only', () => {
  const text = writeProofs([proof({ measurements: ['v1.yaml'], spdm: '1.3' })], BOOT);
  const [one] = readProofs(text, BOOT);
  assert.deepEqual([one?.device, one?.incarnation, one?.claim.tier], ['pci:0000:00:08.0', '1007', 'attested']);
  assert.deepEqual([one?.claim.roots, one?.claim.measurements, one?.claim.spdm], [['maker.pem'], ['v1.yaml'], '1.3']);
  assert.deepEqual(readProofs(text, 'another'), []);
  assert.deepEqual(readProofs(text, null), []);
  assert.deepEqual(readProofs(writeProofs([proof()], null), null), [], 'nobody knows of which boot it is');
});

test('never more than attested, and nothing at all where one entry does not have its form', () => {
  const forms: readonly unknown[] = [
    { device: '../../etc', incarnation: '1' },
    { device: 'pci:a', incarnation: 1 },
    { device: 'pci:a', incarnation: '1', roots: 'maker.pem' },
    { device: 'pci:a', incarnation: '1', tier: 'bound' },
    { device: 'pci:a', incarnation: '1', spdm: '9' },
    null,
  ];
  const good = { device: 'pci:a', incarnation: '1' };
  assert.equal(readProofs(JSON.stringify({ version: 1, boot: BOOT, proofs: [good] }), BOOT).length, 1);
  for (const bad of forms) {
    assert.deepEqual(readProofs(JSON.stringify({ version: 1, boot: BOOT, proofs: [good, bad] }), BOOT), []);
  }
  const many = Array.from({ length: PROOFS_LIMIT + 1 }, (_, i) => ({ device: `pci:${i}`, incarnation: '1' }));
  assert.deepEqual(readProofs(JSON.stringify({ version: 1, boot: BOOT, proofs: many }), BOOT), []);
});

test('any text at all: a list, whose claims are attested and of their device', () => {
  const entry = fc.record(
    { device: fc.string(), incarnation: fc.oneof(fc.string(), fc.nat()), roots: fc.anything(), spdm: fc.anything() },
    { requiredKeys: [] },
  );
  const whole = fc.record({ version: fc.constantFrom(1, 2), boot: fc.constant(BOOT), proofs: fc.array(entry) });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        whole.map((value) => JSON.stringify(value)),
      ),
      (text) => {
        for (const { device, claim } of readProofs(text, BOOT)) {
          assert.equal(claim.tier, 'attested');
          assert.equal(claim.device, device);
        }
      },
    ),
    { numRuns: 500 },
  );
});
