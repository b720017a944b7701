/**
 * NVIDIA reports a second, the device's chain known, beside one P-384 verification of the same bytes with an imported
 * key. Needs a folder with real evidence, AIRLOCK_EVIDENCE.
 */
import { createPublicKey, verify } from 'node:crypto';
import { appraise } from '@airlock/evidence/appraise.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { evidence, missing } from '../packages/evidence/test/support/evidence.ts';
import type { Bench, Side } from './side-by-side.ts';

export const bench: Bench = {
  name: 'evidence-nvidia',
  title: 'NVIDIA reports verified, beside what node:crypto does of the same signature',
  unit: 'reports',
  show: 'rate',
  async prepare() {
    if (missing !== false) return missing;
    const read = (name: string) => evidence(`nvidia/${name}`);
    const bytes = new Uint8Array(
      Buffer.from(Buffer.from(read('hopperAttestationReport.txt')).toString().trim(), 'hex'),
    );
    const chain = recognise('chain', read('hopperCertChain.txt')).found;
    const options = { crypto: nodeCrypto(), asOf: Date.parse('2026-01-01'), allowed: new Set(['nvidia.reference']) };
    const warm: Side = {
      name: 'airlock, chain known',
      run(times) {
        for (let i = 0; i < times; i++)
          if (appraise(recognise('report', bytes).found, chain, options)?.verdict !== 'accepted')
            throw new Error('rejected');
      },
    };
    const report = recognise('report', bytes).found[0]?.item;
    if (report?.kind !== 'nvidia-report') return 'the report could not be read';
    const { signed, signature } = report.report;
    const leaf = chain.flatMap(({ item }) =>
      item.kind === 'certificate' && !item.certificate.authority ? [item] : [],
    );
    const spki = Buffer.from(leaf[0]?.certificate.spki ?? new Uint8Array());
    const key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
    const limit: Side = {
      name: 'crypto.verify P-384',
      run(times) {
        for (let i = 0; i < times; i++)
          if (!verify('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)) throw new Error('wrong');
      },
    };
    return { ours: [warm], peers: [limit], operations: 1 };
  },
};
