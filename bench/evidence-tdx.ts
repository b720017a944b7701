/**
 * TDX quotes with collateral a second, beside @phala/dcap-qvl on the same quote and the same collateral. Warm: collateral
 * was read and checked before, as for a fleet; cold: quote and collateral from their bytes, no key known. The peer has no
 * state that it could keep. Needs a folder with real evidence, AIRLOCK_EVIDENCE.
 */
import { appraise } from '@airlock/evidence/appraise.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { recognise } from '@airlock/evidence/recognise.ts';
import { verify } from '@phala/dcap-qvl';
import { evidence, missing } from '../packages/evidence/test/support/evidence.ts';
import type { Bench, Side } from './side-by-side.ts';

const AS_OF = '2025-06-20';

export const bench: Bench = {
  name: 'evidence-tdx',
  title: 'TDX quotes with collateral verified, beside dcap-qvl',
  unit: 'quotes',
  show: 'rate',
  async prepare() {
    if (missing !== false) return missing;
    const read = (name: string) => evidence(`tdx/${name}`);
    const [quote, collateral] = [read('phala-tdx_quote'), read('phala-tdx_quote_collateral.json')];
    const asOf = Date.parse(AS_OF);
    const crypto = nodeCrypto();
    const known = recognise('collateral', collateral).found;
    const judge = (given: typeof known, by = crypto) =>
      appraise(recognise('quote', quote).found, given, { crypto: by, asOf })?.verdict;
    const warm: Side = {
      name: 'airlock, collateral known',
      run(times) {
        for (let i = 0; i < times; i++) if (judge(known) !== 'accepted') throw new Error('rejected');
      },
    };
    const cold: Side = {
      name: 'airlock, nothing known',
      run(times) {
        for (let i = 0; i < times; i++)
          if (judge(recognise('collateral', collateral).found, nodeCrypto({ keys: 0 })) !== 'accepted')
            throw new Error('rejected');
      },
    };
    const theirs = JSON.parse(Buffer.from(collateral).toString()) as Parameters<typeof verify>[1];
    const peer: Side = {
      name: 'dcap-qvl',
      run(times) {
        for (let i = 0; i < times; i++)
          if (verify(Buffer.from(quote), theirs, asOf / 1000).status !== 'UpToDate') throw new Error('rejected');
      },
    };
    return { ours: [warm, cold], peers: [peer], operations: 1 };
  },
};
