import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import fc from 'fast-check';
import { SPDM_VERSIONS } from '../src/algorithms.ts';
import { assembleEvidence } from '../src/attest/assemble.ts';
import { gatherEvidence } from '../src/attest/gather.ts';
import { doeBinding } from '../src/doe/binding.ts';
import { DEFAULT_PREFERENCES } from '../src/negotiate.ts';
import { Connection } from '../src/requester/connection.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import { makeDevice, spdmCrypto } from './support/device-chain.ts';
import { must } from './support/must.ts';
import { responderOf } from './support/responder.ts';

const device = makeDevice();

function kept(version: (typeof SPDM_VERSIONS)[number]) {
  const responder = responderOf(device);
  const preferences = { ...DEFAULT_PREFERENCES, versions: [version] };
  const connection = new Connection({ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null), preferences });
  const evidence = must(
    runAtOnce(gatherEvidence(connection, { device: 'x' }), (bytes) => must(responder.answer(bytes))),
  );
  const measured = evidence.statements.find(({ kind }) => kind === 'measurements');
  assert.ok(measured !== undefined);
  const own = version === '1.1' ? measured.messages : measured.messages.slice(6);
  const parts = { device: 'x', slot: evidence.slot, chain: evidence.chain, vca: concat(...evidence.vca) };
  return { evidence, measured, parts: { ...parts, measurements: concat(...own, measured.signature) } };
}

for (const version of SPDM_VERSIONS)
  test(`SPDM ${version}: transcripts without seams are cut where the messages end`, () => {
    const { evidence, measured, parts } = kept(version);
    assert.deepEqual(must(assembleEvidence(parts)), { ...evidence, statements: [measured] });
    for (let length = 0; length < parts.vca.length; length++)
      assert.equal(assembleEvidence({ ...parts, vca: parts.vca.slice(0, length) }).ok, false, `${length}`);
    for (let length = 0; length < 40; length++)
      assert.equal(assembleEvidence({ ...parts, measurements: parts.measurements.slice(0, length) }).ok, false);
  });

test('any bytes in their place end in evidence or in a code', () => {
  const { parts } = kept('1.3');
  const bytes = fc.uint8Array({ maxLength: 200 });
  fc.assert(fc.property(bytes, bytes, (vca, measurements) => void assembleEvidence({ ...parts, vca, measurements })));
  fc.assert(
    fc.property(fc.nat(parts.vca.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const vca = parts.vca.slice();
      vca[at] = (vca[at] ?? 0) ^ flip;
      assembleEvidence({ ...parts, vca });
    }),
    { numRuns: 300 },
  );
});
