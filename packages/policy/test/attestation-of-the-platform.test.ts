import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attestationInputs, type PlatformAttestation, type PlatformClaims } from '../src/attestation.ts';
import { decodePolicy } from '../src/decode.ts';
import { parseSources } from '../src/node-source.ts';

const asOf = Date.parse('2026-06-15');
const SNP: PlatformClaims = {
  kind: 'amd-sev-snp',
  product: 'Milan',
  tcb: { bootloader: 4, tee: 0, snp: 24, microcode: 219 },
  tcbDate: null,
  debug: false,
  migration: false,
  vmpl: 0,
  measurement: 'ab'.repeat(48),
};
const TDX: PlatformClaims = {
  ...SNP,
  kind: 'intel-tdx',
  product: null,
  tcb: null,
  vmpl: null,
  tcbDate: Date.parse('2025-05-14'),
};

function decode(section: string) {
  const loaded = parseSources([
    { file: 'p.yaml', text: `version: 1\nplatform:\n  attestation: ${section}\nrules: []\n` },
  ]);
  return decodePolicy(loaded.documents);
}
function wanted(section: string): PlatformAttestation {
  const { policy, problems } = decode(section);
  assert.deepEqual(problems, []);
  const attestation = policy?.platform.attestation;
  assert.ok(attestation !== undefined);
  return attestation;
}
const failing = (section: string, claims: PlatformClaims, date = asOf) =>
  attestationInputs(wanted(section), claims, date)
    .filter(({ holds }) => holds !== true)
    .map(({ field }) => field.replace('platform.attestation.', ''));

test('product, TCB, privilege level and launch are held against what is stated', () => {
  assert.deepEqual(failing('{ kinds: [amd-sev-snp], products: [Milan], vmpl: 0 }', SNP), []);
  assert.deepEqual(failing('{ kinds: [intel-tdx] }', SNP), ['kinds']);
  assert.deepEqual(failing('{ products: [Genoa] }', SNP), ['products']);
  assert.deepEqual(failing('{ minimum-tcb: [{ product: Milan, snp: 24, microcode: 219 }] }', SNP), []);
  assert.deepEqual(failing('{ minimum-tcb: [{ product: Milan, snp: 24, microcode: 220 }] }', SNP), ['minimum-tcb']);
  assert.deepEqual(failing('{ minimum-tcb: [{ product: Genoa, microcode: 250 }] }', SNP), []);
  assert.deepEqual(failing('{ vmpl: 1 }', { ...SNP, vmpl: 2 }), ['vmpl']);
  assert.deepEqual(failing(`{ measurements: ["${'AB'.repeat(48)}"] }`, SNP), []);
  assert.deepEqual(failing(`{ measurements: ["${'cd'.repeat(48)}"] }`, SNP), ['measurements']);
});

test('debug and migration are forbidden unless they are allowed', () => {
  const open = { ...SNP, debug: true, migration: true };
  assert.deepEqual(failing('{ kinds: [amd-sev-snp] }', open), ['debug', 'migration']);
  assert.deepEqual(failing('{ kinds: [amd-sev-snp], debug: allowed, migration: allowed }', open), []);
  assert.deepEqual(failing('{ kinds: [intel-tdx] }', { ...TDX, debug: true }), ['debug']);
});

test('a product is distrusted from a day on, all of it or what is below a TCB', () => {
  const all = '{ distrust: [{ product: Milan, from: 2026-06-15, reason: seed }] }';
  assert.deepEqual(failing(all, SNP), ['distrust']);
  assert.deepEqual(failing(all, SNP, asOf - 1), []);
  assert.deepEqual(failing(all, { ...SNP, product: 'Genoa' }), []);
  const old = '{ distrust: [{ product: Milan, below: { microcode: 220 }, from: 2026-01-01, reason: seed }] }';
  assert.deepEqual(failing(old, SNP), ['distrust']);
  assert.deepEqual(failing(old, { ...SNP, tcb: { ...SNP.tcb, microcode: 220 } }), []);
});

test('Intel’s TCB level has a least date', () => {
  assert.deepEqual(failing('{ minimum-tcb-date: 2025-05-14 }', TDX), []);
  assert.deepEqual(failing('{ minimum-tcb-date: 2025-05-15 }', TDX), ['minimum-tcb-date']);
});

test('what is asked for and not stated does not hold', () => {
  const silent: PlatformClaims = {
    ...SNP,
    product: null,
    tcb: null,
    debug: null,
    migration: null,
    vmpl: null,
    measurement: null,
  };
  const section = `{ products: [Milan], minimum-tcb: [{ product: Milan, snp: 1 }], vmpl: 3, measurements: ["${'ab'.repeat(48)}"], distrust: [{ product: Milan, below: { snp: 1 }, from: 2026-01-01, reason: x }] }`;
  const expected = ['products', 'minimum-tcb', 'distrust', 'debug', 'migration', 'vmpl', 'measurements'];
  assert.deepEqual(failing(section, silent), expected);
  assert.deepEqual(failing('{ minimum-tcb-date: 2025-05-14 }', { ...TDX, tcbDate: null }), ['minimum-tcb-date']);
});

test('what a section cannot mean is refused, with its place', () => {
  for (const section of [
    '{}',
    '{ kinds: [] }',
    '{ kinds: [sgx] }',
    '{ products: [Rome] }',
    '{ vmpl: 4 }',
    '{ minimum-tcb: [{ snp: 1 }] }',
    '{ minimum-tcb: [{ product: Milan, snp: 256 }] }',
    '{ minimum-tcb-date: 2025-02-30 }',
    '{ minimum-tcb-date: soon }',
    '{ distrust: [{ product: Milan, from: 2026-01-01 }] }',
    '{ distrust: [{ product: Milan, below: {}, from: 2026-01-01, reason: x }] }',
    '{ measurements: ["abcd"] }',
    '{ debug: yes }',
    '{ more: 1 }',
  ]) {
    const { policy, problems } = decode(section);
    assert.equal(policy, undefined, section);
    assert.ok(problems.length > 0 && problems.every(({ at }) => at?.line === 3), section);
  }
});

test('two files do not add up to one statement', () => {
  const part = (file: string) => ({ file, text: 'version: 1\nplatform: { attestation: { vmpl: 0 } }\nrules: []\n' });
  const { problems } = decodePolicy(parseSources([part('a.yaml'), part('b.yaml')]).documents);
  assert.deepEqual(
    problems.map(({ code }) => code),
    ['set-twice'],
  );
});
