import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appraise } from '../src/appraise.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { createVerifierPool } from '../src/node-pool.ts';
import { recognise } from '../src/recognise.ts';
import { snpMachine } from './support/snp-machine.ts';

const asOf = Date.parse('2026-01-01');
const machine = snpMachine();
const collateral = machine.certificates.map(({ der }, i) => ({ name: `certificate ${i}`, bytes: der }));
const options = { asOf, roots: machine.roots };
const flipped = machine.report.bytes.slice();
flipped[0x90] = (flipped[0x90] ?? 0) ^ 1;

test('every thread answers as one alone does, good and bad', async () => {
  const pool = createVerifierPool({ collateral, size: 2 });
  const chain = collateral.flatMap(({ name, bytes }) => recognise(name, bytes).found);
  const alone = (bytes: Uint8Array) =>
    appraise(recognise('report', bytes).found, chain, { ...options, crypto: nodeCrypto() });
  const files = Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? machine.report.bytes : flipped));
  const answers = await Promise.all(files.map((bytes) => pool.verify([{ name: 'report', bytes }], options)));
  for (const [i, answer] of answers.entries()) {
    assert.ok(answer.ok);
    const expected = alone(files[i] ?? flipped);
    assert.equal(answer.value.report?.verdict, i % 2 === 0 ? 'accepted' : 'rejected');
    assert.deepEqual(structuredClone(expected), answer.value.report);
  }
  await pool.close();
});

test('files that hold nothing give null and say why', async () => {
  const pool = createVerifierPool({ size: 1 });
  const answer = await pool.verify([{ name: 'x', bytes: Uint8Array.of(1, 2, 3) }], options);
  assert.ok(answer.ok && answer.value.report === null);
  assert.equal(answer.value.problems[0]?.problem.code, 'file-not-recognised');
  await pool.close();
});

test('who waits for a pool that is closed is told', async () => {
  const pool = createVerifierPool({ collateral, size: 1 });
  const waiting = pool.verify([{ name: 'report', bytes: machine.report.bytes }], options);
  await pool.close();
  const answer = await waiting;
  assert.ok(!answer.ok);
  assert.equal(answer.error.code, 'verifier-gone');
  const late = await pool.verify([], options);
  assert.ok(!late.ok && late.error.code === 'verifier-gone');
});
