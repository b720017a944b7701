import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { evidencePath, missing } from '../../evidence/test/support/evidence.ts';
import { snpMachine } from '../../evidence/test/support/snp-machine.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'airlock-verify-'));
after(() => rmSync(folder, { recursive: true }));
const machine = snpMachine({ version: 5 });
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content);
  return name;
};
const report = file('report.bin', machine.report.bytes);
const certificates = machine.certificates.map(({ der }, i) => file(`${i}.der`, der));
const context = (more: Parameters<typeof fakeContext>[0] = {}) => fakeContext({ cwd: folder, ...more });

test('evidence of a made-up vendor is rejected with the reason, verdict first', async () => {
  const at = context();
  assert.equal(await run(at, ['verify', report, ...certificates]), 1);
  assert.match(at.out(), /^REJECTED {2}as of \d{4}/);
  assert.match(at.out(), /✗ chain\.root {2}ARK-Genoa\n.*\n.*expected.*ARK-Milan or ARK-Genoa/s);
  assert.equal(at.err(), '');
});

test('the form of a file does not matter, nor does its name', async () => {
  const { bytes } = machine.report;
  const forms = {
    hex: Buffer.from(bytes).toString('hex'),
    'hex in lines': `0x${Buffer.from(bytes).toString('hex')}`.replace(/.{64}/g, '$&\n'),
    base64: Buffer.from(bytes).toString('base64'),
    base64url: Buffer.from(bytes).toString('base64url'),
    json: JSON.stringify({ kind: 'x', evidence: { report: Buffer.from(bytes).toString('base64url') } }),
    'json of bytes': JSON.stringify({ report: [...bytes] }),
    'answer of the guest device': Buffer.concat([Buffer.from([0, 0, 0, 0, 0xa0, 4, 0, 0]), Buffer.alloc(24), bytes]),
  };
  for (const [name, content] of Object.entries(forms)) {
    const at = context();
    assert.equal(await run(at, ['verify', '--json', file('some.txt', content), ...certificates]), 1, name);
    const printed = JSON.parse(at.out());
    assert.deepEqual(printed.problems, [], name);
    assert.equal(printed.appraisals[0].title, 'AMD SEV-SNP report, version 5, Genoa', name);
    const failed = printed.appraisals[0].checks.filter((check: { status: string }) => check.status === 'failed');
    assert.deepEqual(
      failed.map((check: { id: string }) => check.id),
      ['chain.root'],
      name,
    );
  }
});

test('what gzip packed is unpacked, once and up to a limit', async () => {
  const packed = file('report.gz', gzipSync(machine.report.bytes));
  const at = context();
  assert.equal(await run(at, ['verify', '--json', packed, ...certificates]), 1);
  assert.equal(JSON.parse(at.out()).appraisals[0].title, 'AMD SEV-SNP report, version 5, Genoa');
  for (const [name, bytes, said] of [
    ['bomb.gz', gzipSync(Buffer.alloc(64 * 1024 * 1024)), /gzip: more than 8388608 bytes/],
    ['cut.gz', gzipSync(machine.report.bytes).subarray(0, 150), /gzip: broken or cut off/],
  ] as const) {
    const refused = context();
    assert.equal(await run(refused, ['verify', file(name, bytes)]), 2);
    assert.match(refused.err(), said);
  }
  const twice = context();
  assert.equal(await run(twice, ['verify', file('twice.gz', gzipSync(gzipSync(machine.report.bytes)))]), 1);
  assert.match(twice.out(), /file-not-recognised/);
});

test('roots of the verifier’s are for what no vendor’s root is built in for, and stand in for none', async () => {
  const root = machine.certificates.at(-1)?.der ?? new Uint8Array();
  const at = context();
  assert.equal(await run(at, ['verify', report, ...certificates, '--roots', file('root.der', root)]), 1);
  assert.match(at.out(), /✗ chain\.root {2}ARK-Genoa/);
  const alone = context();
  assert.equal(await run(alone, ['verify', ...certificates, '--certificates', '--roots', 'root.der']), 0);
  const none = context();
  assert.equal(await run(none, ['verify', report, '--roots', report]), 2);
  assert.match(none.err(), /--roots report\.bin: no certificate in it/);
});

test('an accepted verdict says what nobody asked', { skip: missing }, async () => {
  const files = ['ms-milan_attestation_report.bin', 'ms-milan_vcek.pem', 'gosev-ask_ark_milan.pem'];
  const args = ['verify', ...files.map((name) => evidencePath(`snp/${name}`)), '--as-of', '2026-11-20'];
  const open = context();
  assert.equal(await run(open, args), 0);
  assert.match(open.out(), /^ACCEPTED.*\nNot asked, so not known: .*--nonce.*--measurement/s);
  const report = context();
  assert.equal(await run(report, [...args, '--json']), 0);
  const { measurement } = JSON.parse(report.out()).appraisals[0].claims;
  const asked = context();
  assert.equal(await run(asked, [...args, '--measurement', measurement]), 0);
  assert.doesNotMatch(asked.out().split('\n\n')[0] ?? '', /--measurement/);
});

test('evidence beside that of a machine is not passed over', async () => {
  const bundle = file('machine.json', writeBundle({ nonce: new Uint8Array(32), vm: [], devices: [] }));
  const beside = context();
  assert.equal(await run(beside, ['verify', bundle, report, '--nonce', '00'.repeat(32)]), 2);
  assert.match(beside.err(), /report\.bin: .*beside that of a machine/);
  const certificate = context();
  assert.notEqual(await run(certificate, ['verify', bundle, ...certificates, '--nonce', '00'.repeat(32)]), 0);
  assert.doesNotMatch(certificate.err(), /beside that of a machine/);
});

test('what is no evidence is rejected with a code, never with a stack', async () => {
  const wrong = {
    empty: '',
    noise: 'hello',
    json: '{"a":[1,2,3]}',
    'broken json': '{"a":',
    'half a report': machine.report.bytes.subarray(0, 700),
    pem: '-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n',
    'report and noise': Buffer.concat([machine.report.bytes, Buffer.alloc(100, 7)]),
  };
  for (const [name, content] of Object.entries(wrong)) {
    const at = context();
    assert.equal(await run(at, ['verify', file('wrong', content)]), 1, name);
    assert.match(at.out(), /\[[a-z0-9-]+\]\n/, name);
    assert.doesNotMatch(at.out() + at.err(), /at .*\.ts:\d+/, name);
  }
});

test('wrong use exits with 2 and says what is right', async () => {
  for (const [args, said] of [
    [[], /at least one FILE/],
    [['nowhere'], /no such file/],
    [[report, '--nonce', 'xyz'], /pairs of hex digits/],
    [[report, '--nonce', '00'.repeat(65)], /at most 64 bytes/],
    [[report, '--as-of', '2026-02-30'], /a date such as/],
    [[report, '--measurement', '00'], /48 bytes/],
    [[report, '--minimum-tcb', 'snp=300'], /0\.\.255/],
    [[report, '--allow', 'snp.signature'], /proves nothing/],
    [[report, '--allow', 'snp.policy.debg'], /did you mean snp\.policy\.debug/],
    [[report, '--collateral', 'nowhere'], /no such file/],
    [[report, '--key', 'nowhere'], /no such file/],
    [[report, '--key', report], /no RSA or EC public key/],
    [[report, '--platform-key', 'nowhere'], /no such file/],
    [[report, '--reference-key', report], /no RSA or EC public key/],
    [[report, '--platform-key', report], /no RSA or EC public key/],
    [[report, '--device-root', ...certificates.slice(0, 1)], /is for the devices of a machine/],
    [[report, '--allow', 'tpm.key'], /proves nothing/],
    [[report, '-', '-'], /once/],
    [['.'], /a directory/],
    [[report, '--ear'], /private key to sign with is missing/],
    [[report, '--ear', '--json'], /choose one|private key/],
    [[report, '--tier', 'bound'], /needs the evidence of a machine/],
    [[report, '--tier', 'best'], /one of location, claimed/],
    [[report, '--reference', 'nowhere'], /no such file/],
    [[report, '--reference', report], /references-invalid|yaml-/],
    [[report, '--policy', 'nowhere'], /--policy/],
    [[report, '--se-key', report], /not 32 bytes/],
    [[report, '--device-root', report], /no certificate in it/],
  ] as const) {
    const at = context();
    assert.equal(await run(at, ['verify', ...args]), 2, args.join(' '));
    assert.match(at.err(), said);
    assert.equal(at.out(), '');
  }
});

test('control characters of a hostile file or file name never reach the terminal', async () => {
  const evil = file('a\x1b[2Jb', JSON.stringify({ ['\x1b[31mk']: Buffer.from(machine.report.bytes).toString('hex') }));
  for (const terminal of [false, true]) {
    const at = context({ terminal });
    await run(at, ['verify', '-v', evil]);
    assert.doesNotMatch(at.out().replace(/\x1b\[\d{1,2}m/g, ''), /[\x00-\x08\x0b-\x1f\x7f]/);
    assert.doesNotMatch(at.out(), /\x1b\[2J/);
  }
});

test('binary evidence comes through standard input', async () => {
  const at = context({ readStdinBytes: async () => machine.report.bytes });
  assert.equal(await run(at, ['verify', '-', ...certificates]), 1);
  assert.match(at.out(), /from standard input/);
});

test('a vendor’s certificates, which are public, are no evidence', async () => {
  const at = context();
  assert.equal(await run(at, ['verify', ...certificates]), 2);
  assert.match(at.err(), /nothing to verify.*--certificates/);
  const asked = context();
  assert.equal(await run(asked, ['verify', '--certificates', ...certificates]), 1);
  assert.match(asked.out(), /certificate of SEV-VCEK/);
  const nonce = context();
  assert.equal(await run(nonce, ['verify', '--certificates', '--nonce', '00', ...certificates]), 2);
  assert.match(nonce.err(), /--nonce: no evidence/);
});

test('evidence behind more things than are looked at does not go unseen', async () => {
  const der = machine.certificates[0]?.der ?? new Uint8Array();
  const crowd = Array.from({ length: 300 }, () => Buffer.from(der).toString('base64'));
  const crowded = file('crowd.json', JSON.stringify([...crowd, Buffer.from(machine.report.bytes).toString('base64')]));
  const at = context();
  assert.equal(await run(at, ['verify', '--certificates', crowded]), 1);
  assert.match(at.out(), /file-too-crowded/);
  const behind = file(
    'behind.json',
    JSON.stringify([...crowd.slice(0, 100), Buffer.from(machine.report.bytes).toString('base64')]),
  );
  const seen = context();
  assert.equal(await run(seen, ['verify', behind]), 1);
  assert.match(seen.out(), /AMD SEV-SNP report/);
});

test('--list names every check', async () => {
  const at = context();
  assert.equal(await run(at, ['verify', '--list']), 0);
  assert.match(at.out(), /snp\.policy\.debug +may be allowed/);
});

test('real evidence of both vendors is accepted with exit code 0', { skip: missing }, async () => {
  const snp = ['ms-milan_attestation_report.bin', 'ms-milan_vcek.pem', 'gosev-ask_ark_milan.pem'].map((name) =>
    evidencePath(`snp/${name}`),
  );
  const tdx = ['phala-tdx_quote', 'phala-tdx_quote_collateral.json'].map((name) => evidencePath(`tdx/${name}`));
  for (const [files, asOf] of [
    [snp, '2026-11-20'],
    [tdx, '2025-06-20'],
  ] as const) {
    const at = context();
    assert.equal(await run(at, ['verify', ...files, '--as-of', asOf]), 0);
    assert.match(at.out(), /^ACCEPTED/);
  }
});
