import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PlatformAttestation } from '@airlock/policy/attestation.ts';
import { appraise } from '../src/appraise.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { type SnpOptions, snpMachine } from './support/snp-machine.ts';
import {
  identity,
  lists,
  quoteBytes,
  rootCertificate,
  tcbCertificate,
  tcbInfo,
  tdInput,
} from './support/td-machine.ts';

const crypto = nodeCrypto();
const at = { file: 'p.yaml', line: 1, column: 1 };

function snp(platform: Omit<PlatformAttestation, 'at'>, options: SnpOptions = {}, asOf = '2026-01-01') {
  const { report, certificates, roots } = snpMachine(options);
  const found = [
    { item: { kind: 'snp-report' as const, report }, source: 'report' },
    ...certificates.map((certificate) => ({ item: { kind: 'certificate' as const, certificate }, source: 'chain' })),
  ];
  const judged = appraise(found, [], { crypto, asOf: Date.parse(asOf), roots, platform: { ...platform, at } });
  assert.ok(judged !== null);
  const failed = judged.appraisals.flatMap(({ checks }) => checks.filter(({ status }) => status === 'failed'));
  return { verdict: judged.verdict, failed: failed.map(({ id, subject }) => `${id} ${subject ?? ''}`.trim()) };
}
const migratable = (bytes: Uint8Array) => {
  bytes[0x0a] = (bytes[0x0a] ?? 0) | 0x04;
};
const highLevel = (bytes: Uint8Array) => {
  bytes[0x30] = 2;
};

test('an SNP machine that the policy accepts is accepted, others are refused with what is wrong', () => {
  const tcb = { snp: 24, microcode: 200 };
  const good = {
    kinds: ['amd-sev-snp'],
    products: ['Genoa'],
    minimumTcb: [{ product: 'Genoa', ...tcb }],
    vmpl: 0,
  } as const;
  assert.deepEqual(snp(good), { verdict: 'accepted', failed: [] });
  assert.deepEqual(snp(good, { product: 'Milan' }).failed, ['policy.platform products']);
  assert.deepEqual(snp(good, { tcb: { bootloader: 4, tee: 1, snp: 23, microcode: 200 } }).failed, [
    'policy.platform minimum-tcb',
  ]);
  assert.deepEqual(snp(good, { edit: highLevel }).failed, ['policy.platform vmpl']);
  assert.deepEqual(snp({ measurements: ['77'.repeat(48)] }).failed, []);
  assert.deepEqual(snp({ measurements: ['78'.repeat(48)] }).failed, ['policy.platform measurements']);
  const distrust = { distrust: [{ product: 'Milan', from: Date.parse('2026-02-01'), reason: 'seed' }] } as const;
  assert.deepEqual(snp(distrust, { product: 'Milan' }).failed, []);
  assert.deepEqual(snp(distrust, { product: 'Milan' }, '2026-02-01').failed, ['policy.platform distrust']);
});

test('what the policy allows is waived, and nothing else', () => {
  assert.deepEqual(snp({ vmpl: 3 }, { edit: migratable }).failed, [
    'snp.policy.migration',
    'policy.platform migration',
  ]);
  assert.equal(snp({ migration: 'allowed' }, { edit: migratable }).verdict, 'accepted');
  assert.deepEqual(snp({ debug: 'allowed' }, { edit: migratable }).failed, [
    'snp.policy.migration',
    'policy.platform migration',
  ]);
});

test('a TDX quote is held to kinds and to the date of its TCB level', () => {
  const { quote, roots, asOf } = tdInput(quoteBytes());
  const found = [{ item: { kind: 'tdx-quote' as const, quote }, source: 'quote' }];
  const collateral = [
    ...[tcbCertificate, rootCertificate].map((certificate) => ({
      item: { kind: 'certificate' as const, certificate },
      source: 'c',
    })),
    ...lists.map((list) => ({ item: { kind: 'revocation-list' as const, list }, source: 'c' })),
    ...[tcbInfo(), identity()].map((document) => ({ item: { kind: 'collateral' as const, document }, source: 'c' })),
  ];
  const judge = (platform: Omit<PlatformAttestation, 'at'>) => {
    const given = { crypto, asOf, platform: { ...platform, at }, ...(roots === undefined ? {} : { roots }) };
    const judged = appraise(found, collateral, given);
    const failed = judged?.appraisals.flatMap(({ checks }) => checks.filter(({ status }) => status === 'failed')) ?? [];
    return failed.map(({ subject }) => subject);
  };
  assert.deepEqual(judge({ kinds: ['intel-tdx'], minimumTcbDate: Date.parse('2025-05-01') }), []);
  assert.deepEqual(judge({ kinds: ['amd-sev-snp'], minimumTcbDate: Date.parse('2025-05-02') }), [
    'kinds',
    'minimum-tcb-date',
  ]);
});
