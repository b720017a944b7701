import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { test } from 'node:test';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { EVIDENCE_ERRORS } from '../src/errors.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { readEventLog, replay } from '../src/tpm/event-log.ts';
import { readHclReport } from '../src/tpm/hcl.ts';
import { readAttest, readTpmSignature } from '../src/tpm/quote.ts';
import { rootOf } from './support/authority.ts';
import { evidence, missing } from './support/evidence.ts';
import { snpMachine } from './support/snp-machine.ts';
import {
  identity,
  lists,
  quoteBytes,
  rootCertificate,
  tcbCertificate,
  tcbInfo,
  keys as tdKeys,
} from './support/td-machine.ts';
import { attestBytes, bincode, eventLog, hclReport, makeTpm, resigned, signAttest } from './support/tpm-machine.ts';

const crypto = nodeCrypto();
const tpm = makeTpm();
const { bytes: hcl, machine } = hclReport(tpm);
const certificates = machine.certificates.map(({ der }) => der);
const log = eventLog([
  { register: 0, data: 'firmware' },
  { register: 4, data: 'kernel' },
  { register: 9, data: 'initrd' },
  { register: 0, type: 3, data: 'no action' },
]);
const pcrs = Array.from(
  { length: 24 },
  (_, i) => log.registers.get(i) ?? new Uint8Array(32).fill(i >= 17 && i <= 22 ? 0xff : 0),
);
const nonce = Uint8Array.of(1, 2, 3);
const attest = attestBytes({ pcrs });
const rawSignature = new Uint8Array(sign('sha256', attest, tpm.key));

function judge(files: readonly (Uint8Array | string)[], more: Partial<AppraiseOptions> = {}) {
  const read = files.map((file, i) => recognise(`file ${i}`, typeof file === 'string' ? Buffer.from(file) : file));
  const report = appraise(
    read.flatMap(({ found }) => found),
    [],
    { crypto, asOf: Date.parse('2026-01-01'), roots: machine.roots, ...more },
  );
  const failed =
    report?.appraisals.flatMap(({ checks }) =>
      checks.filter(({ status }) => status === 'failed').map(({ id }) => id),
    ) ?? [];
  return {
    verdict: report?.verdict,
    failed,
    problems: read.flatMap(({ problems }) => problems.map(({ code }) => code)),
    appraisals: report?.appraisals ?? [],
  };
}
const json = JSON.stringify({
  hcl_report: Buffer.from(hcl).toString('base64url'),
  tpm_quote: {
    message: Buffer.from(attest).toString('hex'),
    signature: Buffer.from(rawSignature).toString('hex'),
    pcrs: pcrs.map((pcr) => Buffer.from(pcr).toString('hex')),
  },
});

test('a quote whose key a genuine SNP report vouches for is accepted, in every wrapping', () => {
  for (const files of [
    [hcl, bincode(attest, rawSignature, pcrs)],
    [json],
    [hcl, attest, signAttest(attest, tpm), log.bytes],
    [hcl, bincode(attest, rawSignature, pcrs), log.bytes],
  ]) {
    const { verdict, failed, problems, appraisals } = judge([...files, ...certificates], { nonce });
    assert.deepEqual([verdict, failed, problems], ['accepted', [], []]);
    assert.equal(appraisals.length, 2);
  }
});

test('the nonce is looked for in the quote, and only there', () => {
  assert.deepEqual(judge([json, ...certificates], { nonce: Uint8Array.of(9) }).failed, ['freshness.nonce']);
  // Without a quote nothing carries it.
  assert.deepEqual(judge([hcl, ...certificates], { nonce }).failed, ['freshness.nonce']);
});

test('a report that vouches for another TPM than that of the fresh quote is not fresh', () => {
  const other = hclReport(makeTpm());
  const theirs = other.machine.certificates.map(({ der }) => der);
  const fresh = bincode(attest, rawSignature, pcrs);
  const roots = [...machine.roots, ...other.machine.roots];
  assert.equal(judge([hcl, fresh, ...certificates], { nonce, roots }).verdict, 'accepted');
  // Another VM's report, of any age.
  const stale = judge([hcl, other.bytes, fresh, ...certificates, ...theirs], { nonce, roots });
  assert.deepEqual([stale.verdict, stale.failed], ['rejected', ['freshness.nonce']]);
  const known = judge([other.bytes, fresh, ...theirs], { nonce, roots, trustedKeys: [tpm.spki] });
  assert.deepEqual([known.verdict, known.failed], ['rejected', ['freshness.nonce']]);
});

test('a key that nobody vouches for is refused, unless the verifier knows it', () => {
  const alone = [bincode(attest, rawSignature, pcrs), tpm.spki];
  assert.deepEqual(judge(alone).failed, ['tpm.key']);
  assert.deepEqual(judge(alone, { allowed: new Set(['tpm.key']) }).failed, ['tpm.key']);
  assert.equal(judge(alone, { trustedKeys: [tpm.spki] }).verdict, 'accepted');
  assert.deepEqual(judge(alone, { trustedKeys: [makeTpm().spki] }).failed, ['tpm.key']);
  assert.deepEqual(judge([bincode(attest, rawSignature, pcrs)]).failed, ['tpm.signature']);
});

test('runtime data that the report does not cover vouches for nothing', () => {
  const other = makeTpm();
  const swapped = hclReport(tpm, (text) => text.replace(tpm.jwk.n ?? '', other.jwk.n ?? '')).bytes;
  const ownCertificates = hclReport(tpm);
  const { failed } = judge([
    swapped,
    bincode(attest, new Uint8Array(sign('sha256', attest, other.key)), pcrs),
    ...ownCertificates.machine.certificates.map(({ der }) => der),
  ]);
  assert.ok(failed.includes('azure.runtime-data') && failed.includes('tpm.key'));
});

test('a rejected report vouches for nothing', () => {
  const debug = resigned(machine, (bytes) => {
    bytes[0x0a] = (bytes[0x0a] ?? 0) | 8;
  });
  const bad = hcl.slice();
  bad.set(debug, 32);
  assert.deepEqual(judge([bad, bincode(attest, rawSignature, pcrs), ...certificates]).failed, [
    'snp.policy.debug',
    'tpm.key',
  ]);
});

test('changed PCRs, a changed log or a log of another boot are refused', () => {
  const changed = pcrs.map((pcr, i) => (i === 4 ? new Uint8Array(32).fill(7) : pcr));
  assert.deepEqual(judge([hcl, bincode(attest, rawSignature, changed), ...certificates]).failed, ['tpm.pcrs']);
  assert.deepEqual(judge([hcl, bincode(attest, rawSignature, pcrs.slice(0, 20)), ...certificates]).failed, [
    'tpm.pcrs',
  ]);
  const other = eventLog([{ register: 4, data: 'another kernel' }]).bytes;
  assert.deepEqual(judge([hcl, bincode(attest, rawSignature, pcrs), other, ...certificates]).failed, ['tpm.event-log']);
  assert.deepEqual(judge([hcl, attest, signAttest(attest, tpm), other, ...certificates]).failed, ['tpm.pcrs']);
  assert.deepEqual(judge([hcl, attest, signAttest(attest, tpm), ...certificates]).failed, ['tpm.pcrs']);
});

test('what no TPM made, or is no quote, is refused', () => {
  const forged = attestBytes({ pcrs, magic: 0xff544348 });
  const read = readAttest(forged);
  assert.equal(read.ok && read.value.generated, false);
  assert.equal(readAttest(attestBytes({ pcrs, type: 0x8017 })).ok, false);
  const none = attestBytes({ pcrs, selection: new Uint8Array(3) });
  assert.deepEqual(judge([hcl, none, signAttest(none, tpm), ...certificates]).failed, ['tpm.pcrs']);
});

test('no byte of a quote, a signature or a paravisor’s report can change', () => {
  const whole = bincode(attest, rawSignature, pcrs);
  for (let at = 0; at < whole.length; at += 5) {
    const bad = whole.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const { verdict, problems } = judge([hcl, bad, ...certificates], { nonce });
    assert.ok(verdict === 'rejected' || problems.length > 0 || pcrs.length === 0, `quote byte ${at}`);
  }
  for (let at = 1216; at < hcl.length; at += 3) {
    const bad = hcl.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const { verdict, problems } = judge([bad, whole, ...certificates], { nonce });
    // 1216+4..8 is the runtime data's version, which nothing covers and nothing depends on.
    if (at >= 1220 && at < 1224) continue;
    assert.ok(verdict === 'rejected' || problems.length > 0, `report byte ${at}`);
  }
});

test('cut and changed structures are refused with codes, never with a throw', () => {
  for (const [good, read] of [
    [attest, readAttest],
    [signAttest(attest, tpm), readTpmSignature],
    [log.bytes, readEventLog],
    [hcl, readHclReport],
  ] as const) {
    assert.equal(read(good).ok, true);
    for (let at = 0; at < good.length; at++) {
      const cut = read(good.subarray(0, at));
      if (!cut.ok) assert.ok(cut.error.code in EVIDENCE_ERRORS);
      for (const value of [0, 0x7f, 0xff]) {
        const bad = good.slice();
        bad[at] = value;
        const result = read(bad);
        if (!result.ok) assert.ok(result.error.code in EVIDENCE_ERRORS, result.error.code);
      }
    }
  }
  assert.equal(readEventLog(Buffer.concat([log.bytes, Buffer.alloc(500, 0xff)])).ok, true);
  assert.equal(readEventLog(Buffer.concat([log.bytes, Buffer.alloc(500, 0)])).ok, true);
  assert.equal(readEventLog(Buffer.concat([log.bytes, Buffer.alloc(500, 7)])).ok, false);
});

test('a TDX event log is held against the RTMRs', () => {
  const ccel = eventLog(
    [
      { register: 1, data: 'firmware' },
      { register: 2, data: 'kernel' },
      { register: 2, data: 'command line' },
    ],
    ['sha384'],
  );
  const quote = quoteBytes({
    edit: (td) => {
      for (const [register, value] of ccel.registers) td.set(value, 328 + (register - 1) * 48);
    },
  });
  const from = (log: Uint8Array) => {
    const found = [
      quote,
      log,
      ...[tcbCertificate, rootCertificate].map(({ der }) => der),
      ...lists.map(({ der }) => der),
    ].flatMap((file, i) => recognise(`file ${i}`, file).found);
    const collateral = [tcbInfo(), identity()].map((document) => ({
      source: 'x',
      item: { kind: 'collateral', document } as const,
    }));
    const report = appraise(found, collateral, {
      crypto,
      asOf: Date.parse('2026-01-15'),
      roots: [rootOf(tdKeys.root)],
    });
    return report?.appraisals.flatMap(({ checks }) =>
      checks.filter(({ status }) => status === 'failed').map(({ id }) => id),
    );
  };
  assert.deepEqual(from(ccel.bytes), []);
  const other = [{ register: 1, data: 'firmware' }];
  assert.deepEqual(from(eventLog(other, ['sha384']).bytes), ['tdx.event-log']);
  // With no TPM there is nothing else that it could be of.
  assert.deepEqual(from(eventLog(other, ['sha256', 'sha384']).bytes), ['tdx.event-log']);
  assert.deepEqual(from(eventLog(other, ['sha256']).bytes), ['tpm.event-log']);
});

test('a log that no evidence beside it can explain is not passed over', () => {
  const { report, certificates: chain, roots } = snpMachine();
  const snp = [report.bytes, ...chain.map(({ der }) => der)];
  assert.deepEqual(judge(snp, { roots }).failed, []);
  const beside = judge([...snp, log.bytes], { roots });
  assert.deepEqual([beside.verdict, beside.failed], ['rejected', ['tpm.event-log']]);
});

test('a log is replayed once, however many quotes stand beside it', () => {
  const read = readEventLog(log.bytes);
  assert.ok(read.ok);
  let hashes = 0;
  const counting = {
    ...crypto,
    hash: (...given: Parameters<typeof crypto.hash>) => {
      hashes++;
      return crypto.hash(...given);
    },
  };
  const first = replay(counting, read.value, 'sha256');
  assert.equal(hashes, 3);
  assert.equal(replay(counting, read.value, 'sha256'), first);
  assert.equal(hashes, 3);
});

test('a log alone proves nothing', () => {
  const { verdict, failed, appraisals } = judge([log.bytes]);
  assert.deepEqual([verdict, failed], ['rejected', ['tpm.event-log']]);
  const claimed = JSON.stringify(appraisals[0]?.claims['pcrs']);
  assert.ok(claimed.includes(`"4":"${Buffer.from(pcrs[4] ?? []).toString('hex')}"`));
});

const real = (files: readonly string[], more: Partial<AppraiseOptions> = {}) => {
  const found = files.flatMap((file) => recognise(file, evidence(file)).found);
  const report = appraise(found, [], { crypto, asOf: Date.parse('2026-11-20'), ...more });
  return {
    verdict: report?.verdict,
    failed: report?.appraisals.flatMap(({ checks }) =>
      checks.filter(({ status }) => status === 'failed').map(({ id }) => id),
    ),
  };
};
const challenge = Buffer.from('challenge');

test('snp-azure-vtpm: report, runtime data, key and quote hold together', { skip: missing }, () => {
  const files = ['snp-azure-vtpm/hcl-report.bin', 'snp-azure-vtpm/vcek.pem', 'snp-azure-vtpm/quote.bin'];
  assert.deepEqual(real(files, { nonce: challenge }), { verdict: 'accepted', failed: [] });
  assert.deepEqual(real(['snp-azure-vtpm/evidence-v1.json', 'snp-azure-vtpm/vcek.pem'], { nonce: challenge }), {
    verdict: 'accepted',
    failed: [],
  });
  // The quote of the one is not the quote of the other.
  const mixed = real(['snp-azure-vtpm/hcl-report.bin', 'snp-azure-vtpm/vcek.pem', 'tdx-azure-vtpm/quote.bin']);
  assert.deepEqual(mixed, { verdict: 'rejected', failed: ['tpm.signature'] });
});

test('tdx-azure-vtpm: the TDX quote vouches once its TCB may be unknown', { skip: missing }, () => {
  const files = ['tdx-azure-vtpm/hcl-report.bin', 'tdx-azure-vtpm/td-quote.bin', 'tdx-azure-vtpm/quote.bin'];
  assert.deepEqual(real(files, { allowed: new Set(['tdx.collateral']), nonce: challenge }), {
    verdict: 'accepted',
    failed: [],
  });
  assert.equal(real(files).failed?.includes('tpm.key'), true);
  assert.deepEqual(real(['tdx-azure-vtpm/hcl-report.bin', 'tdx-azure-vtpm/quote.bin']).failed, ['tpm.key']);
});

test('tpm/trustee-tpm_evidence.json: good, but nobody vouches for its key', { skip: missing }, () => {
  assert.deepEqual(real(['tpm/trustee-tpm_evidence.json']), { verdict: 'rejected', failed: ['tpm.key'] });
});

test('a real event log of 45 KB replays', { skip: missing }, () => {
  const read = readEventLog(evidence('tpm/ubuntu-2404-amd-sevsnp.bin'));
  assert.ok(read.ok);
  assert.deepEqual([read.value.banks, read.value.events.length], [['sha1', 'sha256', 'sha384'], 116]);
});
