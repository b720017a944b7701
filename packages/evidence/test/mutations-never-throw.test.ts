import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runCampaign, runReaders } from '../fuzz/campaign.ts';
import { makeTargets } from '../fuzz/targets.ts';

test('some thousand mutations: coded reasons only, and nothing changed is believed', (t) => {
  const targets = makeTargets();
  const readers = runReaders(targets, 20_261_120, 20_000);
  const tally = runCampaign(targets, 20_261_120, 1000);
  assert.ok(readers.refused > 15_000, `${readers.refused} refused`);
  assert.ok(tally.rejected > 900, `${tally.rejected} rejected`);
  t.diagnostic(`${readers.mutations + tally.mutations} mutations, ${tally.rejected} of ${tally.mutations} rejected`);
});
