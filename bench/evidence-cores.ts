/**
 * SEV-SNP reports a second on every core through a verifier pool, beside one thread of the same, both through the door
 * that `airlock verify` uses.
 */
import { availableParallelism } from 'node:os';
import { appraise } from '@airlock/evidence/appraise.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { createVerifierPool } from '@airlock/evidence/node-pool.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { snpMachine } from '../packages/evidence/test/support/snp-machine.ts';
import type { Bench, Side } from './side-by-side.ts';

const BATCH = 64;

export const bench: Bench = {
  name: 'evidence-cores',
  title: `SEV-SNP reports verified on ${availableParallelism()} cores, beside one`,
  unit: 'reports',
  show: 'rate',
  turnLength: 400,
  async prepare() {
    const { report, certificates, roots } = snpMachine();
    const asOf = Date.parse('2026-01-01');
    const collateral = certificates.map(({ der }, i) => ({ name: `certificate ${i}`, bytes: der }));
    const pool = createVerifierPool({ collateral });
    const file = { name: 'report', bytes: report.bytes };
    const all: Side = {
      name: `airlock, ${pool.size} threads`,
      async run(times) {
        for (let i = 0; i < times; i++) {
          const answers = await Promise.all(Array.from({ length: BATCH }, () => pool.verify([file], { asOf, roots })));
          if (!answers.every((one) => one.ok && one.value.report?.verdict === 'accepted')) throw new Error('rejected');
        }
      },
    };
    const crypto = nodeCrypto();
    const known = collateral.flatMap(({ name, bytes }) => recognise(name, bytes).found);
    const one: Side = {
      name: 'one thread',
      run(times) {
        for (let i = 0; i < times * BATCH; i++)
          if (appraise(recognise('report', report.bytes).found, known, { crypto, asOf, roots })?.verdict !== 'accepted')
            throw new Error('rejected');
      },
    };
    return { ours: [all], peers: [one], operations: BATCH, close: () => pool.close() };
  },
};
