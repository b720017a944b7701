import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSpinBudget } from '@airlock/transport/spin-budget.ts';

const LIMIT = 0.1;

test('it grows while work comes soon, up to the limit, and shrinks to nothing when it comes late', () => {
  const budget = createSpinBudget(LIMIT);
  assert.equal(budget.current, 0);
  for (let i = 0; i < 10; i++) budget.slept(i, 0.05, false);
  assert.equal(budget.current, LIMIT);
  for (let i = 0; i < 5; i++) budget.slept(100 + i, 1, true);
  assert.equal(budget.current, 0);
});

test('looking that never finds anything stops for a time that doubles, up to a second', () => {
  const budget = createSpinBudget(LIMIT);
  let now = 0;
  const quietTimes: number[] = [];
  for (let round = 0; round < 12; round++) {
    // The other side answers soon after we fall asleep, never before: it needs this core.
    let steps = 0;
    do {
      now += 0.05;
      budget.slept(now, 0.05, budget.current > 0);
      steps++;
    } while (budget.current > 0);
    assert.ok(steps < 20);
    const start = now;
    while (budget.current === 0) {
      now += 0.5;
      budget.slept(now, 0.05, false);
    }
    quietTimes.push(Math.round(now - start));
  }
  assert.deepEqual(quietTimes, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000, 1000]);
  budget.found();
  for (let i = 0; i < 20 && budget.current > 0; i++) budget.slept(now, 0.05, true);
  assert.equal(budget.current, 0);
  budget.slept(now + 9, 0.05, false);
  assert.equal(budget.current, 0);
  budget.slept(now + 11, 0.05, false);
  assert.ok(budget.current > 0);
});

test('a limit of nothing never looks', () => {
  const budget = createSpinBudget(0);
  for (let i = 0; i < 100; i++) budget.slept(i, 0, false);
  assert.equal(budget.current, 0);
});
