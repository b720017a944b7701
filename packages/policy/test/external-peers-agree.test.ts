import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bench } from '../../../bench/decisions.ts';
import { formatReport, measure } from '../../../bench/side-by-side.ts';

test('twenty rules mean the same to Airlock, to OPA and to Cedar', async () => {
  // prepare() compares what all of them answer, device by device, and fails where they differ.
  const prepared = await bench.prepare();
  assert.ok(typeof prepared !== 'string');
  assert.deepEqual(
    [...prepared.ours, ...prepared.peers].map(({ name }) => name),
    ['airlock verdictFor', 'airlock decide', 'opa-wasm', 'cedar-wasm'],
  );
});

test('a benchmark runs its sides in turn, as often each', async () => {
  const order: string[] = [];
  const side = (name: string) => ({ name, run: (times: number) => void order.push(`${name}${times}`) });
  const shape = { name: 'x', title: 'x', unit: 'runs', show: 'time', turns: 3, turnLength: 0 } as const;
  const sides = { ours: [side('a')], peers: [side('b')], operations: 1 };
  await measure({ ...shape, prepare: async () => sides }, sides);
  assert.deepEqual(order, ['a1', 'b1', 'a1', 'b1', 'a1', 'b1']);
});

test('the table is aligned, and a ratio stands beside ours only', () => {
  const row = { least: 1, greatest: 3_000_000, more: {} };
  const text = formatReport({
    ...{ name: 'decisions', title: 'many', unit: 'decisions', show: 'rate', turns: 9, peers: ['peer'] },
    rows: [
      { ...row, name: 'ours', ours: true, median: 2_400_000, ratios: [12.6] },
      { ...row, name: 'peer', ours: false, median: 190_476.19, ratios: [] },
    ],
  });
  assert.equal(
    text,
    [
      'decisions: many',
      '        decisions/s  least   greatest  × peer',
      '  ours    2 400 000   1.00  3 000 000      13',
      '  peer      190 476   1.00  3 000 000',
      '  (medians of 9 turns)',
      '',
    ].join('\n'),
  );
});
