import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { createChecklist } from '../src/check.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { checkEventData, isOfItsData } from '../src/tpm/event-data.ts';
import { readEventLog } from '../src/tpm/event-log.ts';
import { isPcrFile, readPcrFile } from '../src/tpm/pcr-file.ts';
import { type Extra, issue, must, revoke, type Signer, signer } from './support/authority.ts';
import { join, oid, sequence } from './support/der.ts';
import { evidence, missing } from './support/evidence.ts';
import { attestBytes, digest, eventLog, makeTpm, signAttest } from './support/tpm-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');
const tpm = makeTpm();
const pcrs = Array.from({ length: 24 }, (_, i) => digest('sha256', Buffer.from(`pcr ${i}`)));
const attest = attestBytes({ pcrs });
const signature = signAttest(attest, tpm);

function judge(files: readonly Uint8Array[], more: Partial<AppraiseOptions> = {}) {
  const read = files.map((file, i) => recognise(`file ${i}`, file));
  const found = read.flatMap((one) => one.found);
  const report = appraise(found, [], { crypto, asOf, trustedKeys: [tpm.spki], ...more });
  const checks = report?.appraisals.flatMap((one) => one.checks) ?? [];
  return {
    verdict: report?.verdict,
    failed: checks.filter(({ status }) => status === 'failed').map(({ id }) => id),
    problems: read.flatMap(({ problems }) => problems.map(({ code }) => code)),
    checks,
  };
}

const u16le = (value: number) => Uint8Array.of(value & 0xff, value >> 8);
const u32le = (value: number) => join(u16le(value & 0xffff), u16le(value >>> 16));

/** As tpm2-tools writes its structures: a selection of 16 banks, lists of eight digests. */
function pcrFile(
  banks: readonly { readonly id: number; readonly pcrs: readonly number[]; readonly values: readonly Uint8Array[] }[],
): Uint8Array {
  const selections = Array.from({ length: 16 }, (_, i) => {
    const bank = banks[i];
    const bitmap = new Uint8Array(5);
    for (const pcr of bank?.pcrs ?? []) bitmap[pcr >> 3] = (bitmap[pcr >> 3] ?? 0) | (1 << (pcr & 7));
    return join(u16le(bank?.id ?? 0), Uint8Array.of(bank === undefined ? 0 : 3), bitmap);
  });
  const digests = banks.flatMap(({ values }) => values);
  const lists = Array.from({ length: Math.ceil(digests.length / 8) }, (_, i) => {
    const own = digests.slice(i * 8, i * 8 + 8);
    const slots = Array.from({ length: 8 }, (_, at) => {
      const value = own[at] ?? new Uint8Array();
      return join(u16le(value.length), value, new Uint8Array(64 - value.length));
    });
    return join(u32le(own.length), ...slots);
  });
  return join(u32le(banks.length), ...selections, u32le(lists.length), ...lists);
}
const all = Array.from({ length: 24 }, (_, i) => i);
const whole = pcrFile([{ id: 0xb, pcrs: all, values: pcrs }]);

test('PCR values in the file of tpm2_quote are those of the quote beside it', () => {
  assert.equal(whole.length, 132 + 4 + 3 * 532);
  const good = judge([attest, signature, whole]);
  assert.deepEqual([good.verdict, good.failed, good.problems], ['accepted', [], []]);
  const other = pcrFile([{ id: 0xb, pcrs: all, values: pcrs.with(4, digest('sha256', Buffer.from('other'))) }]);
  assert.deepEqual(judge([attest, signature, other]).failed, ['tpm.pcrs']);
  assert.deepEqual(judge([attest, signature]).failed, ['tpm.pcrs']);
  // A few PCRs, of two banks: those of the quote's bank count, by their numbers.
  const few = [0, 7, 9];
  const chosen = attestBytes({ pcrs, selection: Uint8Array.of(0x81, 0x02, 0) });
  const old = few.map((pcr) => digest('sha1', Buffer.from(`${pcr}`)));
  const two = pcrFile([
    { id: 4, pcrs: few, values: old },
    { id: 0xb, pcrs: few, values: few.map((pcr) => pcrs[pcr] ?? new Uint8Array()) },
  ]);
  assert.equal(judge([chosen, signAttest(chosen, tpm), two]).verdict, 'accepted');
  const missingOne = pcrFile([{ id: 0xb, pcrs: [0, 7], values: pcrs.filter((_, i) => i === 0 || i === 7) }]);
  assert.deepEqual(judge([chosen, signAttest(chosen, tpm), missingOne]).failed, ['tpm.pcrs']);
});

test('a file whose counts, sizes or banks contradict themselves has a code, and no byte of it can change a verdict', () => {
  for (const [at, value] of [
    [132 + 4, 9],
    [132 + 4, 7],
    [132 + 4 + 4, 65],
    [132 + 4 + 4, 20],
    [4 + 2, 5],
    [4 + 2, 2],
    [4 + 3, 0x7f],
  ] as const) {
    const bytes = whole.slice();
    bytes[at] = value;
    assert.ok(isPcrFile(bytes));
    const read = readPcrFile(bytes);
    assert.ok(!read.ok && read.error.code === 'quote-wrapper-invalid', `byte ${at}`);
  }
  const twice = pcrFile([
    { id: 0xb, pcrs: [1], values: pcrs.slice(1, 2) },
    { id: 0xb, pcrs: [1], values: pcrs.slice(2, 3) },
  ]);
  assert.equal(readPcrFile(twice).ok, false);
  for (let at = 0; at < whole.length; at += 7) {
    const bytes = whole.slice();
    bytes[at] = (bytes[at] ?? 0) ^ 0x81;
    const { verdict, failed, problems } = judge([attest, signature, bytes]);
    // What no digest fills is nothing; everything else must show.
    const padding = readPcrFile(bytes);
    const same =
      padding.ok &&
      [...(padding.value[0]?.values ?? [])].every(([pcr, one]) => Buffer.compare(one, pcrs[pcr] ?? one) === 0);
    if (same && padding.value[0]?.values.size === 24) assert.equal(verdict, 'accepted', `byte ${at}`);
    else assert.ok(failed.length + problems.length > 0, `byte ${at}`);
  }
  for (let size = 0; size < whole.length; size += 61) assert.equal(isPcrFile(whole.subarray(0, size)), false);
});

test('quotes in whatever tool’s JSON: names, sizes in front, PCR values as a map', () => {
  const sized = (bytes: Uint8Array) => join(Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes);
  const b64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const byNumber = Object.fromEntries(pcrs.map((one, i) => [i, b64(one)]));
  for (const value of [
    { message: b64(attest), signature: b64(signature), pcrs: pcrs.map(b64) },
    { quote: b64(attest), rawSig: b64(signature), pcrs: { hash: 'SHA256', pcrs: byNumber } },
    { akPub: 'x', quotes: [{ quote: b64(sized(attest)), rawSig: b64(signature), pcrs: { pcrs: byNumber } }] },
    { TPM: { AttestationSignature: [...signature], quoted: [...attest], pcr_values: byNumber } },
  ]) {
    const good = judge([Buffer.from(JSON.stringify(value))]);
    assert.deepEqual(
      [good.verdict, good.failed, good.problems],
      ['accepted', [], []],
      JSON.stringify(value).slice(0, 60),
    );
  }
  for (const value of [
    { quote: b64(attest), sig: b64(signature), pcrs: { 0: 'no bytes', 1: b64(pcrs[1] ?? attest) } },
    { quote: b64(attest), sig: b64(signature), pcrs: { zero: b64(pcrs[0] ?? attest) } },
    { quote: b64(attest), sig: b64(signature), pcrs: { 33: b64(pcrs[0] ?? attest) } },
  ])
    assert.deepEqual(judge([Buffer.from(JSON.stringify(value))]).problems, ['quote-wrapper-invalid']);
  const few = { quote: b64(attest), sig: b64(signature), pcrs: { 1: b64(pcrs[0] ?? attest) } };
  assert.deepEqual(judge([Buffer.from(JSON.stringify(few))]).failed, ['tpm.pcrs']);
});

test('ECDSA of a curve, plain or as a TPM writes it, and keys in the TPM’s own form', () => {
  const u16 = (value: number) => Uint8Array.of(value >> 8, value & 0xff);
  for (const [namedCurve, curve, size] of [
    ['P-256', 3, 32],
    ['P-384', 4, 48],
  ] as const) {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve });
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
    const plain = new Uint8Array(sign('sha256', attest, privateKey));
    assert.equal(judge([attest, plain, whole], { trustedKeys: [spki] }).verdict, 'accepted');
    assert.deepEqual(judge([attest, plain, whole]).failed, ['tpm.signature']);
    const [x, y] = [spki.subarray(-2 * size, -size), spki.subarray(-size)];
    const ends = [u16(curve), u16(0x10), u16(x.length), x, u16(y.length), y];
    const area = join(...[u16(0x23), u16(0xb), new Uint8Array(4), u16(0), u16(0x10), u16(0x18), u16(0xb)], ...ends);
    for (const form of [area, join(u16(area.length), area)]) {
      const [found] = recognise('ak.pub', form).found;
      assert.deepEqual(found?.item, { kind: 'public-key', spki });
      for (let at = 0; at < form.length; at++) assert.ok(recognise('ak.pub', form.subarray(0, at)).found.length === 0);
    }
  }
});

const maker = signer('TPM maker root');
const intermediate = signer('TPM maker CA');
const rootCertificate = issue({ subject: maker, issuer: maker, authority: {}, keyUsage: 6 });
const middle = issue({ subject: intermediate, issuer: maker, authority: {}, keyUsage: 6 });
const keySigner: Signer = { name: 'AK', key: tpm.key, spki: tpm.spki, curve: 'P-384' };
const purpose = (...ids: string[]): Extra => ({ oid: '2.5.29.37', value: sequence(...ids.map(oid)) });
const AIK = '2.23.133.8.3';
const certificate = (extensions: readonly Extra[] = [purpose(AIK)], more: Partial<Parameters<typeof issue>[0]> = {}) =>
  issue({ subject: keySigner, issuer: intermediate, keyUsage: 0x80, serial: 5, extensions, ...more }).der;

test('a quote by a key that a TPM maker certified is accepted by who gives the maker’s root, and by nobody else', () => {
  const files = [attest, signature, whole, certificate(), middle.der];
  const given = { trustedKeys: [], makerRoots: [rootCertificate] };
  const good = judge(files, given);
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  assert.ok(good.checks.some(({ id, found }) => id === 'chain.root' && found === 'TPM maker root'));
  assert.deepEqual(judge(files, { trustedKeys: [] }).failed, ['tpm.key']);
  // The root among the files is nobody's word.
  assert.deepEqual(judge([...files, rootCertificate.der], { trustedKeys: [] }).failed, ['tpm.key']);
  assert.equal(
    judge([attest, signature, whole, certificate([purpose('1.3.6.1.5.5.7.3.1', '2.23.133.8.1')]), middle.der], given)
      .verdict,
    'accepted',
  );
  const critical: Extra = { oid: '2.5.29.17', critical: true, value: sequence() };
  assert.equal(
    judge([attest, signature, whole, certificate([purpose(AIK), critical]), middle.der], given).verdict,
    'accepted',
  );
});

test('a certificate that is none of a TPM’s key, expired, revoked, or of another maker proves nothing', () => {
  const given = { trustedKeys: [], makerRoots: [rootCertificate] };
  const failing = (der: Uint8Array, ...more: Uint8Array[]) =>
    judge([attest, signature, whole, der, middle.der, ...more], given).failed;
  // A web server's certificate below the same root: its key can sign anything that looks like a quote.
  assert.deepEqual(failing(certificate([purpose('1.3.6.1.5.5.7.3.1')])), ['tpm.key']);
  assert.deepEqual(failing(certificate([])), ['tpm.key']);
  assert.deepEqual(failing(certificate([{ oid: '2.5.29.37', value: Uint8Array.of(4, 1, 1) }])), ['tpm.key']);
  assert.deepEqual(failing(certificate(undefined, { to: '2025-01-01' })), ['chain.validity', 'tpm.key']);
  const list = revoke({ issuer: intermediate, serials: [5] }).der;
  assert.deepEqual(failing(certificate(), list), ['chain.revocation', 'tpm.key']);
  const strange = signer('TPM maker CA');
  assert.ok(failing(certificate(undefined, { issuer: strange })).includes('chain.signature'));
  const unknown: Extra = { oid: '1.2.3', critical: true, value: sequence() };
  assert.deepEqual(failing(certificate([purpose(AIK), unknown])), ['chain.extensions', 'tpm.key']);
  assert.deepEqual(judge([attest, signature, whole, certificate()], given).failed, ['chain.path', 'tpm.key']);
  // The certificate of another key verifies nothing.
  const other = issue({
    subject: { ...keySigner, spki: makeTpm().spki },
    issuer: intermediate,
    keyUsage: 0x80,
    extensions: [purpose(AIK)],
  });
  assert.deepEqual(failing(other.der), ['tpm.signature']);
});

test('what the log tells of events whose digest is of their data must be what was measured; other events are not judged', () => {
  const log = eventLog([
    { register: 7, type: 4, data: '\0\0\0\0' },
    { register: 5, type: 0x80000007, data: 'Exit Boot Services Invocation' },
    { register: 4, type: 0x80000003, data: 'a path: the digest is of the kernel' },
  ]);
  const read = must(readEventLog(log.bytes));
  assert.deepEqual(
    read.events.map((event) => isOfItsData(crypto, event, 'sha256')),
    [true, true, undefined],
  );
  const list = createChecklist();
  checkEventData(list, crypto, read, 'sha256');
  assert.deepEqual(
    list.checks.map(({ id, status }) => [id, status]),
    [['tpm.event-data', 'passed']],
  );
  const text = Buffer.from(log.bytes);
  text[text.indexOf('Exit')] = 0x45 ^ 1;
  const forged = createChecklist();
  checkEventData(forged, crypto, must(readEventLog(text)), 'sha256');
  const [told] = forged.checks;
  assert.equal(told?.status, 'noted');
  assert.match(told?.found ?? '', /1 are not, in register 5: EFI action: Dxit Boot/);
  // A variable that says that it is longer than its event.
  const variable = { register: 1, type: 0x80000002, digests: { sha256: digest('sha256', Buffer.from('x')) } };
  assert.equal(isOfItsData(crypto, { ...variable, data: new Uint8Array(40).fill(0xff) }, 'sha256'), false);
  assert.equal(isOfItsData(crypto, { ...variable, data: new Uint8Array() }, 'sha256'), false);
  const head = Buffer.alloc(32);
  head.writeUInt32LE(2, 16);
  head.writeUInt32LE(1, 24);
  assert.equal(isOfItsData(crypto, { ...variable, data: join(head, Buffer.from('a\0b\0x')) }, 'sha256'), true);
});

test('a real log: 100 events are told as they were measured', { skip: missing }, () => {
  const list = createChecklist();
  const log = must(readEventLog(evidence('tpm/ubuntu-2404-amd-sevsnp.bin')));
  checkEventData(list, crypto, log, 'sha256');
  assert.deepEqual(
    list.checks.map(({ status, found }) => [status, found]),
    [['passed', 'they are']],
  );
  const grub = log.events.filter((event) => event.type === 13 && isOfItsData(crypto, event, 'sha256') === true);
  assert.ok(grub.length > 40);
});
