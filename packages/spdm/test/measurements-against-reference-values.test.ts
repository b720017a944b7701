import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '@airlock/core/bytes.ts';
import { type Check, createChecklist, verdictOf } from '@airlock/evidence/check.ts';
import type { Corim, CorimMeasurement } from '@airlock/evidence/corim/corim.ts';
import fc from 'fast-check';
import { corimReferences } from '../src/identity/corim-references.ts';
import { checkDeviceMode, checkMeasurements, readDeviceMode } from '../src/identity/measurements.ts';
import { type ReferenceSet, readReferences } from '../src/identity/references.ts';
import { MEASUREMENT_TYPES, type MeasurementBlock } from '../src/messages/measurements.ts';
import { nodeSpdmCrypto } from '../src/node-crypto.ts';
import { codeOf, must } from './support/must.ts';

const crypto = nodeSpdmCrypto();
const rom = new Uint8Array(100).fill(1);
const digest = crypto.hash('sha384', rom);

const block = (index: number, type: string, value: Uint8Array, raw = false): MeasurementBlock => ({
  index,
  type,
  typeCode: (MEASUREMENT_TYPES as readonly string[]).indexOf(type),
  raw,
  value,
});

const blocks = [
  block(1, 'immutable-rom', digest),
  block(2, 'firmware-version', Uint8Array.of(0x31, 0x2e, 0x32), true),
  block(16, 'secure-version-number', Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0), true),
];

const whole = {
  version: 1,
  measurements: [
    { index: 1, name: 'ROM A', type: 'immutable-rom', digest: `sha384:${hex(digest)}` },
    { index: 2, name: 'firmware 1.2', raw: '312e32' },
    { index: 16, name: 'SVN', type: 'secure-version-number', minimum: 7 },
  ],
};

const compare = (references: readonly ReferenceSet[], given: readonly MeasurementBlock[] = blocks) => {
  const list = createChecklist();
  const result = checkMeasurements(list, { crypto, blocks: given, hash: 'sha384', references });
  return { result, checks: list.checks };
};
const read = (given: unknown) => must(readReferences(given, 'reference.yaml'));
const failures = (checks: readonly Check[]) => checks.filter(({ status }) => status === 'failed').map(({ id }) => id);

test('every value has its reference: each comparison is named', () => {
  const { result, checks } = compare([read(whole)]);
  assert.deepEqual(failures(checks), []);
  assert.equal(verdictOf(checks), 'accepted');
  assert.deepEqual(
    result.compared.map(({ index, status, matched }) => [index, status, matched]),
    [
      [1, 'matched', ['ROM A']],
      [2, 'matched', ['firmware 1.2']],
      [16, 'matched', ['SVN']],
    ],
  );
  assert.deepEqual(result.unused, []);
});

test('a raw value has the digest that its reference states', () => {
  const { checks } = compare([read(whole)], [block(1, 'immutable-rom', rom, true), ...blocks.slice(1)]);
  assert.deepEqual(failures(checks), []);
});

const wrong: readonly {
  readonly what: string;
  readonly blocks: readonly MeasurementBlock[];
  readonly fails: string;
}[] = [
  {
    what: 'another digest',
    blocks: [
      block(
        1,
        'immutable-rom',
        digest.map((b) => b ^ 1),
      ),
      ...blocks.slice(1),
    ],
    fails: 'measurement.value',
  },
  {
    what: 'the bytes of the digest as a raw value',
    blocks: [block(1, 'immutable-rom', digest, true), ...blocks.slice(1)],
    fails: 'measurement.value',
  },
  {
    what: 'an older secure version number',
    blocks: [...blocks.slice(0, 2), block(16, 'secure-version-number', Uint8Array.of(6, 0, 0, 0, 0, 0, 0, 0), true)],
    fails: 'measurement.value',
  },
  {
    what: 'a number that is too long to be one',
    blocks: [...blocks.slice(0, 2), block(16, 'secure-version-number', new Uint8Array(9).fill(9), true)],
    fails: 'measurement.value',
  },
  {
    what: 'a digest where a raw value was expected',
    blocks: [...blocks.slice(0, 1), block(2, 'firmware-version', Uint8Array.of(0x31, 0x2e, 0x32)), ...blocks.slice(2)],
    fails: 'measurement.value',
  },
  {
    what: 'a longer raw value',
    blocks: [
      ...blocks.slice(0, 1),
      block(2, 'firmware-version', Uint8Array.of(0x31, 0x2e, 0x32, 0x33), true),
      ...blocks.slice(2),
    ],
    fails: 'measurement.value',
  },
  { what: 'one measurement less', blocks: blocks.slice(0, 2), fails: 'measurement.present' },
  { what: 'no measurement at all', blocks: [], fails: 'measurement.present' },
  {
    what: 'one that nobody vouches for',
    blocks: [...blocks, block(20, 'mutable-firmware', digest)],
    fails: 'measurement.listed',
  },
  {
    what: 'the same value under another type',
    blocks: [block(1, 'mutable-firmware', digest), ...blocks.slice(1)],
    fails: 'measurement.listed',
  },
];

for (const { what, blocks: given, fails } of wrong) {
  test(`${what} is rejected`, () => {
    const { checks } = compare([read(whole)], given);
    assert.deepEqual(failures(checks), [fails]);
    assert.equal(verdictOf(checks), 'rejected');
  });
}

test('several reference values for one measurement are alternatives, of one file or of several', () => {
  const other = `sha384:${'ab'.repeat(48)}`;
  const both = read({ ...whole, measurements: [...whole.measurements, { index: 1, name: 'ROM B', digest: other }] });
  assert.deepEqual(compare([both]).result.compared[0]?.matched, ['ROM A']);
  const more = read({
    version: 1,
    unlisted: 'note',
    measurements: [{ index: 1, name: 'ROM B', digest: [other, `sha384:${hex(digest)}`] }],
  });
  assert.deepEqual(compare([read(whole), more]).result.compared[0]?.matched, ['ROM A', 'ROM B']);
});

test('rules of one reference value must all hold', () => {
  const strict = read({
    version: 1,
    unlisted: 'note',
    measurements: [{ index: 16, minimum: 3, raw: '0800000000000000' }],
  });
  assert.deepEqual(failures(compare([strict]).checks), ['measurement.value']);
});

test('a mask says which bits matter', () => {
  const masked = (raw: string, mask: string) =>
    read({ version: 1, unlisted: 'note', measurements: [{ index: 2, raw, mask }] });
  assert.deepEqual(failures(compare([masked('312eff', 'ffff00')]).checks), []);
  assert.deepEqual(failures(compare([masked('302eff', 'ffff00')]).checks), ['measurement.value']);
});

test('a digest in another algorithm of the same length is another thing', () => {
  const sha3 = read({ version: 1, unlisted: 'note', measurements: [{ index: 1, digest: `sha3-384:${hex(digest)}` }] });
  assert.deepEqual(failures(compare([sha3]).checks), ['measurement.value']);
  const own = read({
    version: 1,
    unlisted: 'note',
    measurements: [{ index: 1, digest: `sha3-384:${hex(crypto.hash('sha3-384', rom))}` }],
  });
  assert.deepEqual(failures(compare([own], [block(1, 'immutable-rom', rom, true)]).checks), []);
});

test('what nobody vouches for is noted where that was asked for, and then accepted', () => {
  const some = read({ version: 1, unlisted: 'note', measurements: whole.measurements.slice(0, 1) });
  const { checks, result } = compare([some]);
  assert.equal(verdictOf(checks), 'accepted');
  assert.equal(checks.find(({ id }) => id === 'measurement.listed')?.status, 'noted');
  assert.deepEqual(
    result.compared.map(({ status }) => status),
    ['matched', 'unlisted', 'unlisted'],
  );
});

test('reference values for another type are named as not used', () => {
  const extra = read({
    ...whole,
    measurements: [
      ...whole.measurements,
      { index: 1, name: 'manifest', type: 'measurement-manifest', digest: 'ab'.repeat(48) },
    ],
  });
  const { checks, result } = compare([extra]);
  assert.deepEqual(result.unused, ['manifest']);
  assert.equal(checks.find(({ id }) => id === 'measurement.references-used')?.status, 'noted');
});

test('no reference values: nothing was compared, and nothing is called good for it', () => {
  const { checks, result } = compare([]);
  assert.ok(checks.every(({ status }) => status === 'unchecked'));
  assert.equal(verdictOf(checks), 'rejected');
  assert.ok(result.compared.every(({ status }) => status === 'unlisted'));
});

const environment = { classId: null, vendor: 'ACME', model: 'Drive', layer: null, index: null, instance: null };
const triple = (more: Partial<CorimMeasurement>): CorimMeasurement => ({
  environment,
  key: 1,
  name: null,
  version: null,
  svn: null,
  digests: [],
  raw: null,
  rawNumber: null,
  flags: new Map(),
  registers: new Map(),
  signers: [],
  component: null,
  unread: [],
  ...more,
});
const corim = (references: readonly CorimMeasurement[]): Corim => ({
  id: 'corim-1',
  profile: null,
  validity: { from: null, until: null },
  references,
  endorsements: [],
  conditions: [],
  attestKeys: [],
  otherTriples: [],
  otherTags: [],
  signature: null,
});

test('a CoRIM’s triples whose key is an index are reference values', () => {
  const given = corimReferences(
    corim([
      triple({
        digests: [
          { algorithm: 'sha256', value: crypto.hash('sha256', rom) },
          { algorithm: 'sha384', value: digest },
        ],
      }),
      triple({
        key: 2,
        version: '1.2',
        raw: { value: Uint8Array.of(0x31, 0x2e, 0xff), mask: Uint8Array.of(255, 255, 0) },
      }),
      triple({ key: 16, svn: { value: 7, least: true } }),
    ]),
    'corim.cbor',
  );
  assert.deepEqual(given.left, []);
  const { checks, result } = compare([given.references]);
  assert.deepEqual(failures(checks), []);
  assert.deepEqual(
    result.compared.map(({ matched }) => matched),
    [['ACME Drive (1)'], ['ACME Drive 1.2 (2)'], ['ACME Drive (16)']],
  );
  const exact = corimReferences(corim([triple({ key: 16, svn: { value: 6, least: false } })]), 'x');
  assert.ok(failures(compare([exact.references]).checks).includes('measurement.value'));
});

test('triples that say nothing about an index are named as left out', () => {
  const { references, left } = corimReferences(
    corim([
      triple({ key: 'firmware' }),
      triple({ key: 300, digests: [{ algorithm: 'sha384', value: digest }] }),
      triple({ key: 3 }),
    ]),
    'x',
  );
  assert.deepEqual(references.values, []);
  assert.equal(left.length, 3);
});

const malformed: readonly unknown[] = [
  null,
  [],
  'text',
  {},
  { version: 2, measurements: [{ index: 1, minimum: 1 }] },
  { version: 1 },
  { version: 1, measurements: [] },
  { version: 1, measurements: {} },
  { version: 1, measurement: [{ index: 1, minimum: 1 }] },
  { version: 1, unlisted: 'ignore', measurements: [{ index: 1, minimum: 1 }] },
  ...[
    { index: 0, minimum: 1 },
    { index: 255, minimum: 1 },
    { index: 1.5, minimum: 1 },
    { index: '1', minimum: 1 },
    { index: 1 },
    { index: 1, type: 'rom', minimum: 1 },
    { index: 1, digest: 'abc' },
    { index: 1, digest: 'ab' },
    { index: 1, digest: [] },
    { index: 1, digest: 5 },
    { index: 1, digest: `md5:${'ab'.repeat(32)}` },
    { index: 1, raw: '' },
    { index: 1, raw: 'xyz' },
    { index: 1, raw: 'abcd', mask: 'ff' },
    { index: 1, mask: 'ff' },
    { index: 1, minimum: -1 },
    { index: 1, minimum: '7' },
    { index: 1, minimum: 7, maximum: 9 },
    { index: 1, name: 7, minimum: 1 },
    null,
  ].map((entry) => ({ version: 1, measurements: [entry] })),
];

test('reference values in a form that is not the documented one are refused whole', () => {
  for (const given of malformed)
    assert.equal(codeOf(readReferences(given, 'x')), 'reference-values-invalid', JSON.stringify(given));
  fc.assert(
    fc.property(fc.jsonValue(), (given) => {
      const result = readReferences(given, 'x');
      if (!result.ok) assert.equal(result.error.code, 'reference-values-invalid');
    }),
  );
});

const mode = (state: number, debug: number) => {
  const value = new Uint8Array(16);
  value.set([0x3f, 0, 0, 0, state, 0, 0, 0, 0x1f, 0, 0, 0, debug]);
  return block(0xfe, 'device-mode', value, true);
};

test('a device that is debugged, or not in normal operation, is told apart', () => {
  const failed = (given: MeasurementBlock) => {
    const list = createChecklist();
    checkDeviceMode(list, [given]);
    return failures(list.checks).length > 0;
  };
  assert.equal(failed(mode(4, 0)), false);
  for (const [state, debug] of [
    [1, 0],
    [8, 0],
    [4, 1],
    [4, 2],
    [4, 16],
    [0, 0],
    [5, 0],
    [0x44, 0],
    [4, 0x40],
  ] as const)
    assert.equal(failed(mode(state, debug)), true, `${state} ${debug}`);
  assert.equal(failed(block(0xfe, 'device-mode', new Uint8Array(15), true)), true);
  assert.deepEqual(readDeviceMode(mode(4, 3).value)?.debug.length, 2);
  const list = createChecklist();
  checkDeviceMode(list, blocks);
  assert.deepEqual(list.checks, []);
});

test('a mode that is told as a digest is not known, and of several every one counts', () => {
  const statuses = (...blocks: MeasurementBlock[]) => {
    const list = createChecklist();
    checkDeviceMode(list, blocks);
    return list.checks.map(({ status }) => status);
  };
  const [normal, debugged] = [mode(4, 0), mode(4, 2)];
  assert.deepEqual(statuses(block(0xfe, 'device-mode', new Uint8Array(48), false)), ['unchecked']);
  assert.deepEqual(statuses(normal, debugged), ['passed', 'failed']);
  assert.deepEqual(statuses(debugged, block(0xfe, 'device-mode', new Uint8Array(48), false)), ['failed', 'unchecked']);
});
