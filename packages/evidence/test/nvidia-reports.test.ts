import assert from 'node:assert/strict';
import { createHash, sign } from 'node:crypto';
import { test } from 'node:test';
import { nodeCrypto } from '../src/node-crypto.ts';
import { readNvidiaReport } from '../src/nvidia/report.ts';
import { firmwareId, type NvidiaInput, verifyNvidia } from '../src/nvidia/verify.ts';
import { issue, must, rootOf, signer } from './support/authority.ts';
import { element, integer, join, octets, oid, sequence } from './support/der.ts';

const SHA384 = '2.16.840.1.101.3.4.2.2';
const root = signer('NVIDIA Device Identity CA');
const device = signer('GH100 A01 GSP FMC LF');
const firmware = createHash('sha384').update('firmware').digest();
const fwid = sequence(oid(SHA384), octets(firmware));
const dice = (value: Uint8Array) => [{ oid: '2.23.133.5.4.1', value }];
const leaf = issue({
  subject: device,
  issuer: root,
  keyUsage: 0x80,
  extensions: dice(sequence(integer(0), device.spki, fwid)),
});
const rootCertificate = issue({ subject: root, issuer: root, authority: {}, keyUsage: 6 });
const u16 = (value: number) => Uint8Array.of(value & 0xff, value >> 8);

interface Options {
  readonly opaque?: Uint8Array;
  readonly blocks?: readonly Uint8Array[];
  readonly count?: number;
  readonly trailing?: number;
}
const block = (index: number, value: Uint8Array) =>
  join(Uint8Array.of(index, 1), u16(value.length + 3), Uint8Array.of(1), u16(value.length), value);
const field = (number: number, value: Uint8Array) => join(u16(number), u16(value.length), value);
const OPAQUE = join(field(3, Buffer.from('550.1\0')), field(20, firmware));

function reportBytes({
  opaque = OPAQUE,
  blocks = [block(1, new Uint8Array(48).fill(1)), block(2, new Uint8Array(48).fill(2))],
  count = blocks.length,
  trailing = 0,
}: Options = {}): Uint8Array {
  const record = join(...blocks);
  const signed = join(
    ...[Uint8Array.of(0x11, 0xe0, 1, 0xff), new Uint8Array(32).fill(9), Uint8Array.of(0)],
    ...[Uint8Array.of(0x11, 0x60, 0, 0, count), u16(record.length), Uint8Array.of(0), record],
    ...[new Uint8Array(32), u16(opaque.length), opaque],
  );
  const signature = new Uint8Array(sign('sha384', signed, { key: device.key, dsaEncoding: 'ieee-p1363' }));
  return join(signed, signature, new Uint8Array(trailing));
}
const verify = (bytes: Uint8Array, more: Partial<NvidiaInput> = {}) => {
  const appraisal = verifyNvidia({
    crypto: nodeCrypto(),
    report: must(readNvidiaReport(bytes)),
    certificates: [rootCertificate, leaf],
    asOf: Date.parse('2026-01-01'),
    roots: [rootOf(root)],
    allowed: new Set(['nvidia.reference']),
    ...more,
  });
  return { ...appraisal, failed: appraisal.checks.filter(({ status }) => status === 'failed').map(({ id }) => id) };
};

test('a genuine report is accepted only by who allows that nothing is compared with reference values', () => {
  assert.deepEqual(verify(reportBytes(), { nonce: new Uint8Array(32).fill(9) }).failed, []);
  assert.deepEqual(verify(reportBytes(), { allowed: new Set() }).failed, ['nvidia.reference']);
  assert.equal(verify(reportBytes()).claims['driver-version'], '550.1');
  assert.equal(verify(reportBytes()).claims['vbios-version'], 'absent');
});

test('another nonce, other firmware, another key and the same device twice are refused', () => {
  assert.deepEqual(verify(reportBytes(), { nonce: new Uint8Array(32) }).failed, ['freshness.nonce']);
  assert.deepEqual(verify(reportBytes({ opaque: field(20, new Uint8Array(48)) })).failed, ['nvidia.fwid']);
  const other = issue({
    subject: signer('x'),
    issuer: root,
    extensions: dice(sequence(integer(0), device.spki, fwid)),
  });
  assert.deepEqual(verify(reportBytes(), { certificates: [rootCertificate, other] }).failed, ['nvidia.signature']);
  const { device: known } = verify(reportBytes());
  assert.ok(known !== null);
  assert.deepEqual(verify(reportBytes(), { taken: new Set([known]) }).failed, ['nvidia.distinct']);
  assert.deepEqual(verify(reportBytes(), { certificates: [] }).failed, ['nvidia.signature']);
});

test('what stands behind the signature is told and not believed', () => {
  const appraisal = verify(reportBytes({ trailing: 1 }));
  assert.deepEqual(appraisal.failed, []);
  assert.ok(appraisal.checks.some(({ id, status }) => id === 'nvidia.size' && status === 'noted'));
});

test('records and opaque data that contradict themselves are refused', () => {
  const twice = block(1, new Uint8Array(48));
  for (const wrong of [
    { blocks: [twice, twice] },
    { count: 1 },
    { count: 3 },
    { blocks: [join(twice, Uint8Array.of(1))], count: 1 },
    { opaque: Uint8Array.of(1, 0, 9, 0, 1) },
    { opaque: join(field(3, u16(1)), field(3, u16(1))) },
    { opaque: Uint8Array.of(1) },
  ])
    assert.equal(readNvidiaReport(reportBytes(wrong)).ok, false);
  const good = reportBytes();
  for (let at = 0; at < good.length; at++) assert.equal(readNvidiaReport(good.subarray(0, at)).ok, false);
});

test('no bit of a report can change', () => {
  const good = reportBytes();
  for (let at = 0; at < good.length; at++) {
    const bad = good.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const read = readNvidiaReport(bad);
    if (read.ok) assert.ok(verify(bad).failed.includes('nvidia.signature'), `byte ${at}`);
  }
});

test('the firmware id is read from both forms of the DICE extension, and from nothing else', () => {
  const of = (value: Uint8Array) => firmwareId(issue({ subject: device, issuer: root, extensions: dice(value) }));
  const wanted = new Uint8Array(firmware);
  assert.deepEqual(of(sequence(integer(0), device.spki, fwid)), wanted);
  assert.deepEqual(
    of(sequence(element(0x80, Buffer.from('NVIDIA')), element(0xa6, fwid), element(0x87, Uint8Array.of(0, 0)))),
    wanted,
  );
  assert.equal(of(sequence(element(0x80, Buffer.from('NVIDIA')))), null);
  assert.equal(of(sequence(integer(0), device.spki, fwid, fwid)), null);
  assert.equal(of(join(sequence(integer(0), device.spki, fwid), Uint8Array.of(0))), null);
});
