import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Appraisal } from '../src/check.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { readCertificateTable } from '../src/snp/certificate-table.ts';
import { readSnpReport } from '../src/snp/report.ts';
import { type SnpInput, verifySnp } from '../src/snp/verify.ts';
import { revoke } from './support/authority.ts';
import { DEFAULT_TCB, type SnpMachine, type SnpOptions, signReport, snpMachine } from './support/snp-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');

function verify({ report, certificates, roots }: SnpMachine, more: Partial<SnpInput> = {}): Appraisal {
  return verifySnp({ crypto, report, certificates, roots, asOf, ...more });
}
const failed = (appraisal: Appraisal) =>
  appraisal.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
const of = (options: SnpOptions, more: Partial<SnpInput> = {}) => verify(snpMachine(options), more);
const set = (at: number, value: number) => (bytes: Uint8Array) => {
  bytes[at] = (bytes[at] ?? 0) | value;
};

test('versions 2 to 5 of every product, VCEK and VLEK, are accepted', () => {
  for (const product of ['Milan', 'Genoa', 'Turin'] as const) {
    for (const version of [2, 3, 4, 5]) {
      for (const kind of ['vcek', 'vlek'] as const) {
        const appraisal = of({ product, version, kind });
        assert.deepEqual(failed(appraisal), [], `${product} ${version} ${kind}`);
        assert.equal(appraisal.verdict, 'accepted');
      }
    }
  }
});

test('what a version does not have is absent, not false', () => {
  const old = of({ version: 2, product: 'Milan' }).claims;
  assert.equal(old['processor'], 'absent');
  assert.equal(old['mitigations'], 'absent');
  assert.equal((old['platform'] as Record<string, unknown>)['tio-enabled'], 'absent');
  assert.equal((old['platform'] as Record<string, unknown>)['alias-check-complete'], 'absent');
  const now = of({ version: 5 }).claims;
  assert.deepEqual(now['processor'], { family: 0x19, model: 0x11, stepping: 1 });
  assert.deepEqual(now['mitigations'], { launch: '0x0', current: '0x0' });
  assert.equal((now['platform'] as Record<string, unknown>)['tio-enabled'], false);
  const tio = of({ version: 5, edit: set(0x40, 0x80) });
  assert.equal((tio.claims['platform'] as Record<string, unknown>)['tio-enabled'], true);
  assert.equal(tio.verdict, 'accepted');
});

test('Turin’s TCB has its own layout', () => {
  const { claims } = of({ product: 'Turin', version: 5 });
  assert.deepEqual((claims['tcb'] as Record<string, unknown>)['reported'], DEFAULT_TCB);
  const milan = of({ product: 'Milan' }).claims['tcb'] as Record<string, unknown>;
  assert.deepEqual(milan['reported'], { bootloader: 4, tee: 1, snp: 24, microcode: 200 });
});

test('other versions are refused', () => {
  for (const version of [0, 1, 6, 255]) assert.ok(failed(of({ version })).includes('snp.version'), String(version));
});

test('DEBUG and migration reject, unless who asks allows them', () => {
  assert.deepEqual(failed(of({ edit: set(0x0a, 0x08) })), ['snp.policy.debug']);
  assert.deepEqual(failed(of({ edit: set(0x0a, 0x04) })), ['snp.policy.migration']);
  const allowed = of({ edit: set(0x0a, 0x08) }, { allowed: new Set(['snp.policy.debug']) });
  assert.equal(allowed.verdict, 'accepted');
  assert.ok(allowed.checks.some(({ id, status }) => id === 'snp.policy.debug' && status === 'allowed'));
});

test('nobody can allow a wrong signature', () => {
  const machine = snpMachine();
  const bytes = machine.report.bytes.slice();
  bytes[0x90] = (bytes[0x90] ?? 0) ^ 1;
  const changed = readSnpReport(bytes);
  assert.ok(changed.ok);
  const appraisal = verify({ ...machine, report: changed.value }, { allowed: new Set(['snp.signature']) });
  assert.deepEqual(failed(appraisal), ['snp.signature']);
});

test('bits without a name are told and reject nothing', () => {
  const appraisal = of({ edit: (bytes) => bytes.set([0x80, 0, 0, 0x40], 0x0c) });
  assert.equal(appraisal.verdict, 'accepted');
  const note = appraisal.checks.find(({ id }) => id === 'snp.bits');
  assert.match(note?.found ?? '', /POLICY bit 39, POLICY bit 62/);
});

test('a report that no key signed, or that the host asked for, is refused', () => {
  assert.ok(failed(of({ edit: (bytes) => bytes.set([7 << 2], 0x48) })).includes('snp.signer'));
  assert.ok(failed(of({ edit: set(0x48, 2) })).includes('snp.signer'));
  assert.deepEqual(failed(of({ edit: (bytes) => bytes.fill(0xff, 0x30, 0x34) })), ['snp.vmpl']);
});

test('a certificate of another kind, chip, TCB or product is refused', () => {
  assert.deepEqual(failed(of({ edit: (bytes) => bytes.set([1 << 2], 0x48) })), ['snp.signer']);
  assert.deepEqual(failed(of({ edit: set(0x1a0, 0x81) })), ['snp.chip-id']);
  assert.deepEqual(failed(of({ product: 'Turin', edit: set(0x1a9, 1) })), ['snp.chip-id']);
  assert.deepEqual(failed(of({ certificateTcb: { ...DEFAULT_TCB, microcode: 201 } })), ['snp.tcb.certificate']);
  assert.deepEqual(failed(of({ product: 'Genoa', certificateProduct: 'Milan-B0' })), ['snp.product']);
});

test('a masked chip id is told', () => {
  const appraisal = of({ edit: (bytes) => bytes.fill(0, 0x1a0, 0x1e0) });
  assert.equal(appraisal.verdict, 'accepted');
  assert.equal(appraisal.checks.find(({ id }) => id === 'snp.chip-id')?.status, 'noted');
});

test('a TCB above the current one is refused, one that is not committed is told', () => {
  assert.deepEqual(failed(of({ edit: (bytes) => bytes.fill(255, 0x1ee - 7, 0x1e8) })), ['snp.tcb.order']);
  const rollback = of({ edit: (bytes) => bytes.set([3], 0x1e0) });
  assert.equal(rollback.verdict, 'accepted');
  assert.equal(rollback.checks.find(({ id }) => id === 'snp.tcb.committed')?.status, 'noted');
});

test('the verifier’s own nonce, launch digest and least TCB are held', () => {
  const nonce = Uint8Array.of(1, 2, 3);
  const fresh = (bytes: Uint8Array) => bytes.set(nonce, 0x50);
  assert.deepEqual(failed(of({ edit: fresh }, { nonce })), []);
  assert.deepEqual(failed(of({}, { nonce })), ['freshness.nonce']);
  assert.deepEqual(failed(of({ edit: fresh }, { nonce: nonce.subarray(0, 2) })), ['freshness.nonce']);
  const wanted = (byte: number) => ({ requirements: { measurements: [new Uint8Array(48).fill(byte)] } });
  assert.deepEqual(failed(of({}, wanted(0x77))), []);
  assert.deepEqual(failed(of({}, wanted(0x78))), ['launch.measurement']);
  assert.deepEqual(failed(of({}, { requirements: { minimumTcb: { microcode: 200 } } })), []);
  assert.deepEqual(failed(of({}, { requirements: { minimumTcb: { microcode: 201 } } })), ['snp.tcb.minimum']);
});

test('a revoked intermediate is refused', () => {
  const machine = snpMachine();
  assert.deepEqual(failed(verify(machine, { revocationLists: [revoke({ issuer: machine.keys.ark })] })), []);
  const revocationLists = [revoke({ issuer: machine.keys.ark, serials: [7] })];
  assert.deepEqual(failed(verify(machine, { revocationLists })), ['chain.revocation']);
});

test('certificates in any order and number: the one that fits is taken, another machine’s never', () => {
  const machine = snpMachine();
  const others = [snpMachine(), snpMachine({ product: 'Milan' })].flatMap(({ certificates }) => certificates);
  const all = [...others, ...machine.certificates].reverse();
  assert.deepEqual(failed(verify({ ...machine, certificates: all })), []);
  assert.ok(failed(verify({ ...machine, certificates: others })).includes('snp.signature'));
  assert.deepEqual(failed(verify({ ...machine, certificates: [] })), ['snp.signer']);
  assert.equal(verify({ ...machine, certificates: [] }).verdict, 'rejected');
});

test('a made-up root is refused by AMD’s', () => {
  const { roots: _, ...machine } = snpMachine();
  const appraisal = verifySnp({ crypto, asOf, ...machine });
  assert.deepEqual(failed(appraisal), ['chain.root']);
});

test('no bit of a report can change', () => {
  const machine = snpMachine({ version: 5 });
  for (let at = 0; at < 1184; at++) {
    const bytes = machine.report.bytes.slice();
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
    const read = readSnpReport(bytes);
    if (!read.ok) assert.equal(read.error.code, 'snp-report-invalid');
    else assert.equal(verify({ ...machine, report: read.value }).verdict, 'rejected', `byte ${at}`);
  }
});

test('any other length is refused', () => {
  const { report } = snpMachine();
  for (const length of [0, 1, 1183]) assert.equal(readSnpReport(report.bytes.subarray(0, length)).ok, false);
  assert.equal(readSnpReport(new Uint8Array(1185)).ok, false);
});

test('what the caller does with its bytes afterwards changes nothing', () => {
  const machine = snpMachine();
  const bytes = machine.report.bytes.slice();
  const read = readSnpReport(bytes);
  assert.ok(read.ok);
  bytes.fill(0);
  assert.deepEqual(failed(verify({ ...machine, report: read.value })), []);
  assert.deepEqual(signReport(machine.report.bytes, machine.keys.vcek).length, 1184);
});

test('a certificate table that contradicts itself is refused', () => {
  const table = (offset: number, length: number, size = 128) => {
    const bytes = new Uint8Array(size);
    bytes.fill(1, 0, 16);
    new DataView(bytes.buffer).setUint32(16, offset, true);
    new DataView(bytes.buffer).setUint32(20, length, true);
    return readCertificateTable(bytes);
  };
  assert.equal(table(48, 80).ok, true);
  for (const [offset, length] of [
    [48, 81],
    [0, 10],
    [127, 2],
    [0xffffffff, 0xffffffff],
    [48, 0],
  ] as const)
    assert.equal(table(offset, length).ok, false, `${offset} ${length}`);
  assert.equal(readCertificateTable(new Uint8Array(4800).fill(1)).ok, false);
  assert.equal(readCertificateTable(new Uint8Array(10)).ok, false);
});
