import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { readPlainReferences } from '../src/references.ts';
import { eventName, linuxBoot } from '../src/tpm/boot-events.ts';
import { attestBytes, digest, eventLog, type Logged, makeTpm, signAttest } from './support/tpm-machine.ts';

const crypto = nodeCrypto();
const tpm = makeTpm();
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const GOOD: readonly Logged[] = [
  { register: 4, data: 'kernel' },
  { register: 9, data: 'line' },
  { register: 9, data: 'initrd' },
];

/** What the appraisal says of a boot that measured `events`, told by `told`, held against one set. */
function judge(set: object, events = GOOD, told: readonly Logged[] = events) {
  const { registers } = eventLog(events);
  const pcrs = Array.from(
    { length: 24 },
    (_, i) => registers.get(i) ?? new Uint8Array(32).fill(i >= 17 && i <= 22 ? 0xff : 0),
  );
  const attest = attestBytes({ pcrs });
  const files = [attest, signAttest(attest, tpm), eventLog(told).bytes];
  const wrapper = Buffer.from(
    JSON.stringify({ message: hexOf(attest), signature: hexOf(signAttest(attest, tpm)), pcrs: pcrs.map(hexOf) }),
  );
  const references = readPlainReferences({ version: 1, sets: [{ kind: 'tpm-2.0', ...set }] }, 'test');
  assert.ok(references.ok, JSON.stringify(references));
  const options: AppraiseOptions = { crypto, asOf: 0, trustedKeys: [tpm.spki], references: [references.value] };
  const found = [wrapper, ...files.slice(2)].flatMap((file, i) => [...recognise(`${i}`, file).found]);
  const report = appraise(found, [], options);
  const checks = report?.appraisals.flatMap((one) => one.checks) ?? [];
  return {
    verdict: report?.verdict,
    reason: checks.find(({ id, status }) => id === 'reference.value' && status === 'failed')?.found,
    claims: report?.appraisals.find(({ kind }) => kind === 'tpm-2.0')?.claims['events'],
  };
}

const pcr9 = hexOf(eventLog(GOOD).registers.get(9) ?? new Uint8Array());
const named = (name: string, data: string) => ({ name, digest: hexOf(digest('sha256', Buffer.from(data))) });
const EVENTS = [named('the line', 'line'), named('the initrd', 'initrd')];

test('the PCR’s value decides; its events say what differs', () => {
  const set = { pcr9, 'pcr9-events': EVENTS };
  assert.equal(judge(set).verdict, 'accepted');
  const other = judge(set, [...GOOD.slice(0, 2), { register: 9, data: 'another' }]);
  assert.equal(other.verdict, 'rejected');
  assert.match(other.reason ?? '', /pcr9 .*: the initrd .*is [0-9a-f]{16}…, not /);
  assert.doesNotMatch(other.reason ?? '', /the line/);
  assert.match(judge(set, GOOD.slice(0, 2)).reason ?? '', /the initrd was not measured/);
  assert.match(judge(set, [...GOOD, { register: 9, data: 'late' }]).reason ?? '', /was measured besides/);
});

test('events that fit make no wrong value right', () => {
  const { verdict, reason } = judge({ pcr9: '00'.repeat(32), 'pcr9-events': EVENTS });
  assert.equal(verdict, 'rejected');
  assert.match(reason ?? '', /^nearest is set 0: pcr9 [0-9a-f]{64}, not 0{64}$/);
});

test('a log that does not replay to the quoted value explains nothing', () => {
  const set = { pcr9, 'pcr9-events': EVENTS };
  const { verdict, reason, claims } = judge(set, [...GOOD.slice(0, 2), { register: 9, data: 'another' }], GOOD);
  assert.equal(verdict, 'rejected');
  assert.doesNotMatch(reason ?? '', /: the/);
  assert.deepEqual(Object.keys(claims ?? {}), ['4']);
});

test('reference files: events of no value, or of a wrong shape, are errors', () => {
  for (const set of [
    { 'pcr9-events': EVENTS },
    { pcr4: pcr9, 'pcr9-events': EVENTS },
    { pcr9, 'pcr9-events': 'text' },
    { pcr9, 'pcr9-events': [{ name: 'a' }] },
    { pcr9, 'pcr9-events': [{ name: 'a', digest: 'xy' }] },
    { pcr9, 'pcr9-events': [{ name: 'a', digest: '00', more: 1 }] },
    { pcr9, 'pcr24-events': EVENTS },
    { pcr9, 'pcr9-events': Array.from({ length: 65 }, () => EVENTS[0]) },
  ]) {
    const read = readPlainReferences({ version: 1, sets: [{ kind: 'tpm-2.0', ...set }] }, 'test');
    assert.ok(!read.ok && read.error.code === 'references-invalid', JSON.stringify(set));
  }
  const other = { version: 1, sets: [{ kind: 'amd-sev-snp', measurement: pcr9, 'pcr9-events': EVENTS }] };
  assert.ok(!readPlainReferences(other, 'test').ok);
});

test('PCR 9 of a kernel that was handed over by QEMU', () => {
  const cmdline = 'console=ttyS0 initrd=initrd';
  const initrd = digest('sha256', Buffer.from('an initramfs'));
  const { value, events } = linuxBoot(crypto, { cmdline, initrd });
  const line = digest('sha256', Buffer.from(`${cmdline}\0`, 'utf16le'));
  const first = digest('sha256', new Uint8Array(32), line);
  assert.equal(hexOf(value), hexOf(digest('sha256', first, initrd)));
  assert.deepEqual(
    events.map((event) => event.digest),
    [hexOf(line), hexOf(initrd)],
  );
});

test('the name of an event is short plain text whatever the log holds', () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.uint8Array({ maxLength: 300 }), (type, data) => {
      assert.match(eventName({ register: 9, type, digests: {}, data }), /^[\x20-\x7e]{1,250}$/);
    }),
  );
  const tag = Buffer.concat([Buffer.from([1, 2, 3, 4, 13, 0, 0, 0]), Buffer.from('Linux initrd\0')]);
  assert.equal(eventName({ register: 9, type: 6, digests: {}, data: tag }), 'Linux initrd');
  assert.equal(eventName({ register: 9, type: 6, digests: {}, data: tag.subarray(0, 12) }), 'tag');
});
