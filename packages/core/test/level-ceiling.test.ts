import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDENTITY_TIERS, LEVEL_CEILING, levelRank, lowerLevel, TRUST_LEVELS } from '../src/level.ts';

test('a higher tier never carries less', () => {
  const ceilings = IDENTITY_TIERS.map((tier) => levelRank(LEVEL_CEILING[tier]));
  assert.deepEqual(
    ceilings,
    [...ceilings].sort((a, b) => a - b),
  );
});

test('only bound opens private memory', () => {
  for (const tier of IDENTITY_TIERS) assert.equal(LEVEL_CEILING[tier] === 'tcb', tier === 'bound', tier);
});

test('what the host can forge never lifts the confinement', () => {
  assert.equal(LEVEL_CEILING.location, 'limited');
  assert.equal(LEVEL_CEILING.claimed, 'limited');
});

test('lowerLevel gives the lower of two, in either order', () => {
  for (const [i, a] of TRUST_LEVELS.entries()) {
    for (const [j, b] of TRUST_LEVELS.entries()) assert.equal(lowerLevel(a, b), TRUST_LEVELS[Math.min(i, j)]);
  }
});
