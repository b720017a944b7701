import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AppraiseOptions, appraise } from '../src/appraise.ts';
import { readCcaToken } from '../src/cca/token.ts';
import { readCorim } from '../src/corim/corim.ts';
import { EVIDENCE_ERRORS } from '../src/errors.ts';
import type { Found } from '../src/item.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { isAsExpected } from '../src/reference-value.ts';
import { referencesOfCorim } from '../src/references.ts';
import { must } from './support/authority.ts';
import { cbor, map, tagged, type Value } from './support/cbor.ts';
import { cpak, rak, type TokenOptions, token } from './support/cca-realm.ts';
import { evidence, missing } from './support/evidence.ts';
import { snpMachine } from './support/snp-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');
const machine = snpMachine();
const { report } = machine;
const found: readonly Found[] = [
  { item: { kind: 'snp-report', report }, source: 'report' },
  ...machine.certificates.map((certificate): Found => ({ item: { kind: 'certificate', certificate }, source: 'c' })),
];
const bytes = (hex: string) => Buffer.from(hex, 'hex');

function corimOf(triples: Value, more: { readonly profile?: Value; readonly tags?: readonly Value[] } = {}): Buffer {
  const comid = map({ 1: map({ 0: 'c' }), 4: triples });
  const fields: Record<number, Value> = { 0: 'made', 1: [tagged(506, cbor(comid)), ...(more.tags ?? [])] };
  if (more.profile !== undefined) fields[3] = more.profile;
  return cbor(tagged(501, map(fields)));
}
const measurement = (values: Record<number, Value>, key?: Value) =>
  map(key === undefined ? { 1: map(values) } : { 0: key, 1: map(values) });

function judge(files: readonly Buffer[], given = found, more: Partial<AppraiseOptions> = {}) {
  const references = files.map((file, i) => referencesOfCorim(must(readCorim(file)), `${i}.corim`));
  const whole = appraise(given, [], { crypto, asOf, roots: machine.roots, references, ...more });
  const checks = whole?.appraisals.flatMap((one) => one.checks) ?? [];
  const wrong = checks.filter(({ status }) => status === 'failed');
  return {
    verdict: whole?.verdict,
    failed: wrong.map(({ id }) => id),
    said: checks.find(({ id }) => id === 'reference.value')?.found ?? '',
    checks,
  };
}

const snp = map({ 0: map({ 1: 'AMD', 2: 'SEV-SNP' }) });
const named = (...measurements: readonly Value[]) => corimOf(map({ 0: [[snp, measurements]] }));

test('masked raw values: only the bits of the mask count', () => {
  const value = Buffer.from(report.hostData);
  const masked = (mask: Buffer, changed: number) => {
    const other = Buffer.from(value);
    other[0] = (other[0] ?? 0) ^ changed;
    return named(measurement({ 4: tagged(563, [other, mask]) }, 'host-data'));
  };
  const high = Buffer.alloc(value.length, 0xff).fill(0xf0, 0, 1);
  assert.deepEqual(judge([masked(high, 0x0f)]).failed, []);
  assert.deepEqual(judge([masked(high, 0x10)]).failed, ['reference.value']);
  assert.match(judge([masked(high, 0x10)]).said, /host-data .* not .* under mask f0ff/);
  // As two values beside each other, before there was a tag.
  const old = named(measurement({ 4: tagged(560, value), 5: Buffer.alloc(value.length, 0xff) }, 'host-data'));
  assert.deepEqual(judge([old]).failed, []);
  // A mask of another length is none, and one for fewer bytes compares no more than it covers.
  const short = named(measurement({ 4: tagged(563, [value.subarray(1), Buffer.alloc(31)]) }, 'host-data'));
  assert.deepEqual(judge([short]).failed, ['reference.value']);
});

test('a mask that changes nothing is equality, one of zeros is length alone', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 32 }),
      fc.uint8Array({ minLength: 1, maxLength: 32 }),
      (a, b) => {
        const [own, asked] = [a, b].map((one) => Buffer.from(one).toString('hex'));
        const under = (mask: string) => isAsExpected({ is: 'bytes', value: asked ?? '', mask }, own ?? '');
        assert.equal(under('ff'.repeat(b.length)), own === asked);
        assert.equal(under('00'.repeat(b.length)), a.length === b.length);
      },
    ),
  );
});

test('SVNs are exact or the least, and those of parts do not make up for each other', () => {
  const svn = (value: Value) => named(measurement({ 1: value }, 'guest-svn'));
  const own = report.guestSvn;
  assert.deepEqual(judge([svn(own)]).failed, []);
  assert.deepEqual(judge([svn(tagged(552, own + 1))]).failed, ['reference.value']);
  assert.deepEqual(judge([svn(tagged(553, own))]).failed, []);
  assert.deepEqual(judge([svn(tagged(553, own + 1))]).failed, ['reference.value']);
  assert.match(judge([svn(tagged(553, own + 1))]).said, /guest-svn \d+, not at least \d+/);
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 8, maxLength: 8 }),
      fc.uint8Array({ minLength: 8, maxLength: 8 }),
      (a, b) => {
        const [found, value] = [a, b].map((one) => Buffer.from(one).toString('hex')) as [string, string];
        const every = a.every((part, i) => part >= (b[i] ?? 0));
        assert.equal(isAsExpected({ is: 'tcb', value, least: true }, found), every);
        assert.equal(isAsExpected({ is: 'tcb', value, least: false }, found), found === value);
      },
    ),
  );
});

const AMD = map({
  0: map({ 0: tagged(37, bytes('d05e6d1b9f464ae2a610ce3e6ee7e153')) }),
  1: tagged(560, Buffer.from(report.chipId)),
});
const amd = (...measurements: readonly Value[]) => corimOf(map({ 0: [[AMD, measurements]] }));
const tcb = (raw: Uint8Array) => Buffer.from(raw).readBigUInt64LE();

test('AMD’s profile: every key of a report is held against its field', () => {
  const good: readonly (readonly [number, Record<number, Value>])[] = [
    [
      0,
      {
        1: report.guestSvn,
        2: [[7, Buffer.from(report.measurement)]],
        3: map({ 3: false, [-2]: false, [-1]: true }),
        4: tagged(560, Buffer.from(report.familyId)),
      },
    ],
    [0, { 0: map({ 0: Buffer.from(report.imageId).toString('hex') }) }],
    [2, { 4: report.vmpl }],
    [3, { 4: tagged(560, Buffer.from(report.reportId)) }],
    [5, { 4: tagged(560, Buffer.from(report.idKeyDigest)) }],
    [7, { 1: tagged(553, tcb(report.reportedTcb)) }],
    [
      8,
      {
        0: map({ 0: report.currentFirmware }),
        1: tagged(552, tcb(report.currentTcb)),
        4: tagged(560, Buffer.from(report.hostData)),
      },
    ],
    [9, { 0: map({ 0: report.committedFirmware }), 1: tagged(552, tcb(report.committedTcb)) }],
    [10, { 1: tagged(552, tcb(report.launchTcb)) }],
  ];
  const each = good.map(([key, values]) => measurement(values, key));
  const all = judge([amd(...each)]);
  assert.deepEqual([all.failed, all.verdict], [[], 'accepted'], all.said);
  for (const field of [
    'measurement',
    'guest-svn',
    'policy-bit-19',
    'vmpl',
    'tcb-reported',
    'firmware-current',
    'host-data',
    'family-id',
  ])
    assert.ok(all.said.includes(field), field);
  const bad: readonly (readonly [number, Record<number, Value>])[] = [
    [0, { 2: [[7, Buffer.alloc(48, 9)]] }],
    [0, { 3: map({ 3: true }) }],
    [0, { 3: map({ [-8]: true }) }],
    [2, { 4: report.vmpl + 1 }],
    [7, { 1: tagged(553, tcb(report.reportedTcb) + 1n) }],
    [8, { 0: map({ 0: '99.0.0' }) }],
    [10, { 1: tagged(552, tcb(report.launchTcb) + (1n << 56n)) }],
    // What no field of a report is.
    [2, { 1: 3 }],
    [11, { 4: tagged(560, Buffer.alloc(32)) }],
    [0, { 3: map({ [-200]: true }) }],
    [0, { 2: [[7, Buffer.from(report.measurement)]], [-83]: 1 }],
  ];
  for (const [key, values] of bad) assert.deepEqual(judge([amd(measurement(values, key))]).failed, ['reference.value']);
});

test('a chip’s reference values are for that chip', () => {
  const other = map({
    0: map({ 0: tagged(37, bytes('d05e6d1b9f464ae2a610ce3e6ee7e153')) }),
    1: tagged(560, Buffer.alloc(64, 1)),
  });
  const values = [measurement({ 2: [[7, Buffer.from(report.measurement)]] }, 0)];
  const answer = judge([corimOf(map({ 0: [[other, values]] }))]);
  assert.deepEqual(answer.failed, ['reference.present']);
  assert.match(answer.checks.find(({ id }) => id === 'reference.present')?.found ?? '', /none for chip-id/);
});

test('measurements of several values are alternatives as wholes', () => {
  const of = (digest: Buffer, svn: Value) => measurement({ 1: svn, 2: [[7, digest]] }, 0);
  const own = Buffer.from(report.measurement);
  const other = Buffer.alloc(48, 3);
  const high = tagged(553, report.guestSvn + 5);
  assert.deepEqual(judge([amd(of(own, tagged(553, report.guestSvn)), of(other, high))]).failed, []);
  // The digest of one and the SVN of the other are none.
  assert.deepEqual(judge([amd(of(own, high), of(other, tagged(553, 0)))]).failed, ['reference.value']);
});

test('what a triple asks for and nothing here compares is told, and makes the set wrong', () => {
  const digest = [[7, Buffer.from(report.measurement)]] as const;
  for (const [values, key, told] of [
    [
      { 2: digest, 3: map({ 3: false }) },
      'measurement',
      /flags of measurement is asked for, and nothing here compares it/,
    ],
    [{ 2: digest, [-83]: 1 }, 'measurement', /value -83 of measurement/],
    [{ 2: digest }, 'something', /something is asked for/],
    [{ 2: digest, 14: map({ 3: [[7, Buffer.alloc(48)]] }) }, 'measurement', /register 3/],
  ] as const) {
    const answer = judge([named(measurement(values as Record<number, Value>, key))]);
    assert.deepEqual(answer.failed, ['reference.value']);
    assert.match(answer.said, told);
  }
});

test('endorsements are told of what they are about: the first of a series whose condition holds, and decide nothing', () => {
  const own = measurement({ 2: [[7, Buffer.from(report.measurement)]] }, 'measurement');
  const other = measurement({ 2: [[7, Buffer.alloc(48, 1)]] }, 'measurement');
  const name = (text: string) => measurement({ 11: text });
  const told = (triples: Value) => {
    const answer = judge([corimOf(triples)]);
    assert.ok(!answer.failed.includes('reference.value'));
    return answer.checks.filter(({ id }) => id === 'reference.endorsed').map((one) => `${one.status}: ${one.found}`);
  };
  const values = { 0: [[snp, [own]]] };
  assert.deepEqual(told(map({ ...values, 1: [[snp, [name('certified')]]] })), ['noted: certified']);
  assert.deepEqual(told(map({ ...values, 1: [[map({ 0: map({ 1: 'Intel', 2: 'TDX' }) }), [name('x')]]] })), []);
  const series = [[other], [name('old')]];
  const records = [series, [[own], [name('current'), measurement({ 1: 4 }, 'svn')]], [[own], [name('never')]]];
  assert.deepEqual(told(map({ ...values, 8: [[[snp, []], records]] })), ['noted: current; svn: SVN 4']);
  assert.deepEqual(told(map({ ...values, 8: [[[snp, [other]], records]] })), []);
  assert.deepEqual(told(map({ ...values, 8: [[[snp, []], [series]]] })), []);
  for (const broken of [
    [[snp, []]],
    [[snp], 'x'],
    [[snp, []], [[[own]]]],
    [[snp, 'x'], []],
    'x',
    [['x', []], []],
  ] as readonly Value[])
    assert.equal(readCorim(corimOf(map({ ...values, 8: [broken] }))).ok, false);
});

test('what stands in the file and is not read is told: CoSWID, triples of other kinds', () => {
  const file = corimOf(map({ 0: [[snp, [measurement({ 2: [[7, Buffer.from(report.measurement)]] })]]], 4: [] }), {
    tags: [tagged(505, Buffer.from([0xa0]))],
  });
  const answer = judge([file]);
  assert.equal(answer.verdict, 'accepted');
  const told = answer.checks.find(({ id }) => id === 'reference.unread');
  assert.match(told?.found ?? '', /dependency triples, CoSWID tags/);
});

const digest = (text: string) => createHash('sha256').update(text).digest();
const component = (type: string, measured: Buffer, version = '1', signer = digest('signer')): Value =>
  map({ 1: type, 2: measured, 4: version, 5: signer });
const PLATFORM: TokenOptions = {
  platformClaims: [
    [2399, [component('BL', digest('bl')), component('RMM', digest('rmm'))]],
    [2401, Buffer.from('cfcf00ff', 'hex')],
  ],
};
const cca = (options: TokenOptions) => recognise('token', token(options)).found;
const ccaKeys = { platformKeys: [cpak.spki] };
const implementation = map({ 0: map({ 0: tagged(560, Buffer.alloc(32)) }) });
const platform = (...measurements: readonly Value[]) =>
  corimOf(map({ 0: [[implementation, measurements]] }), { profile: tagged(32, 'tag:arm.com,2025:cca_platform#1.0.0') });
const vouched = (type: string, measured: Buffer, version = '1', signer = digest('signer')) =>
  measurement(
    { 0: map({ 0: version }), 2: [['sha-256', measured]], 11: type, 13: [tagged(560, signer)] },
    'cca.software-component',
  );
const configuration = (value: string, mask: string) =>
  measurement({ 4: tagged(563, [Buffer.from(value, 'hex'), Buffer.from(mask, 'hex')]) }, 'cca.platform-config');

test('Arm CCA: each software component of the platform is one that its maker vouches for, and the configuration fits', () => {
  const all = [vouched('BL', digest('bl')), vouched('RMM', digest('rmm')), vouched('RMM', digest('older'))];
  const good = judge([platform(...all, configuration('cfcf0000', 'ffffff00'))], [...cca(PLATFORM)], ccaKeys);
  assert.deepEqual([good.failed, good.verdict], [[], 'accepted']);
  assert.ok(good.checks.some(({ status, subject }) => status === 'unchecked' && subject === 'realm'));
  for (const [measurements, told] of [
    [[vouched('BL', digest('bl'))], /component RMM of signer .* is none that is vouched for/],
    [[...all.slice(0, 1), vouched('RMM', digest('x'))], /component RMM .*, not /],
    [[...all.slice(0, 1), vouched('RMM', digest('rmm'), '2')], /component RMM is version 1, not 2/],
    [[...all.slice(0, 1), vouched('RMM', digest('rmm'), '1', digest('other'))], /none that is vouched for/],
    [[...all, configuration('cfcf0000', 'ffffffff')], /platform-config cfcf00ff, not cfcf0000 under mask/],
    [[...all, measurement({ 1: 3 }, 'cca.platform-config')], /SVN of cca.platform-config/],
  ] as const) {
    const bad = judge([platform(...measurements)], [...cca(PLATFORM)], ccaKeys);
    assert.deepEqual(bad.failed, ['reference.value']);
    assert.match(bad.said, told);
  }
  assert.deepEqual(judge([platform(...all)], [...cca({})], ccaKeys).failed, ['reference.value'], 'a token without any');
});

test('Arm CCA: the form before the profile, and reference values of a realm beside those of the platform', () => {
  const legacy = (type: string, measured: Buffer) =>
    measurement({ 2: [[1, measured]] }, tagged(601, map({ 1: type, 4: '1', 5: digest('signer') })));
  const environment = map({ 0: map({ 0: tagged(600, Buffer.alloc(32)), 1: 'ACME', 2: 'RoadRunner' }) });
  const config = measurement({ 4: tagged(560, Buffer.from('cfcf00ff', 'hex')) }, tagged(602, 'cfg v1'));
  const old = corimOf(map({ 0: [[environment, [legacy('BL', digest('bl')), legacy('RMM', digest('rmm')), config]]] }));
  assert.deepEqual(judge([old], [...cca(PLATFORM)], ccaKeys).failed, []);
  const rim = Buffer.alloc(48, 8);
  const realm = (initial: Buffer, rem: Buffer) =>
    corimOf(
      map({
        0: [
          [
            map({ 0: map({ 0: tagged(560, initial) }) }),
            [
              measurement({ 2: [['sha-384', initial]] }, 'cca.rim'),
              measurement({ 2: [['sha-384', rem]] }, 'cca.rem0'),
              measurement({ 4: tagged(560, Buffer.alloc(64)) }, 'cca.rpv'),
            ],
          ],
        ],
      }),
      { profile: tagged(32, 'tag:arm.com,2025:cca_realm#1.0.0') },
    );
  const both = judge([old, realm(rim, Buffer.alloc(48))], [...cca(PLATFORM)], ccaKeys);
  assert.deepEqual([both.failed, both.verdict], [[], 'accepted']);
  // The platform being right says nothing for the realm, and the other way round.
  assert.deepEqual(judge([old, realm(rim, Buffer.alloc(48, 1))], [...cca(PLATFORM)], ccaKeys).failed, [
    'reference.value',
  ]);
  assert.deepEqual(judge([old, realm(Buffer.alloc(48, 7), Buffer.alloc(48))], [...cca(PLATFORM)], ccaKeys).failed, [
    'reference.present',
  ]);
  const wrong = corimOf(map({ 0: [[environment, [legacy('BL', digest('x'))]]] }));
  assert.deepEqual(judge([wrong, realm(rim, Buffer.alloc(48))], [...cca(PLATFORM)], ccaKeys).failed, [
    'reference.value',
  ]);
});

test('Arm CCA: the realm’s key as COSE_Key, tokens in records, and the binding of RMM 2.0', () => {
  const point = rak.spki.subarray(-96);
  const cose = cbor(map({ 1: 2, [-1]: 2, [-2]: point.subarray(0, 48), [-3]: point.subarray(48) }));
  const bound = createHash('sha256').update(cose).digest();
  const realmClaims = [[265, 'tag:arm.com,2023:realm#1.0.0']] as const;
  const made = (options: TokenOptions) => recognise('token', token(options)).found;
  const judged = (options: TokenOptions) => judge([], [...made(options)], ccaKeys);
  assert.deepEqual(judged({ realmKey: cose, bound, realmClaims }).failed, []);
  assert.deepEqual(judged({ realmKey: cose, realmClaims }).failed, ['cca.binding']);
  assert.deepEqual(judged({ tag: 907 }).failed, []);
  assert.deepEqual(judged({ tag: 907, realmKey: cose, bound }).failed, []);
  const profile = 'tag:arm.com,2026:cca_platform#2.0.0;delegated';
  const binding = createHash('sha256').update(rak.spki.subarray(-97)).digest();
  assert.deepEqual(judged({ profile, platformClaims: [[2408, binding]] }).failed, []);
  assert.deepEqual(judged({ profile, platformClaims: [[2408, bound]] }).failed, ['cca.binding']);
  for (const options of [
    { profile },
    { profile: 'tag:arm.com,2026:cca_platform#2.0.0;direct', platformClaims: [[2408, binding]] },
    { realmClaims: [[265, 'tag:example.com,2023:something']] },
    { realmKey: cbor(map({ 1: 2, [-1]: 1, [-2]: point.subarray(0, 48), [-3]: point.subarray(48) })) },
    { realmKey: cbor(map({ 1: 1, [-1]: 2, [-2]: point.subarray(0, 48), [-3]: point.subarray(48) })) },
    { realmKey: cbor(map({ 1: 2, [-1]: 2, [-2]: point.subarray(0, 48), [-3]: true })) },
    { platformClaims: [[2399, [map({ 1: 'BL', 2: Buffer.alloc(3), 5: Buffer.alloc(32) })]]] },
    { platformClaims: [[2399, 'x']] },
    { platformClaims: [[2401, 5]] },
  ] as readonly TokenOptions[]) {
    const read = readCcaToken(token(options));
    assert.equal(read.ok ? 'ok' : read.error.code, 'cca-token-invalid', JSON.stringify(options).slice(0, 80));
  }
});

test('no change of a CoRIM throws, and whatever is refused has a code', () => {
  const file = platform(vouched('BL', digest('bl')), configuration('cf', 'ff'));
  const whole = [...cca(PLATFORM)];
  for (let at = 0; at < file.length; at++) {
    for (const flip of [1, 0x40, 0xff]) {
      const bad = Buffer.from(file);
      bad[at] = (bad[at] ?? 0) ^ flip;
      const read = readCorim(bad);
      if (!read.ok) assert.ok(Object.hasOwn(EVIDENCE_ERRORS, read.error.code));
      else assert.equal(judge([bad], whole, ccaKeys).verdict, 'rejected', `byte ${at}`);
    }
  }
});

test('the reference values of Arm’s example are for another platform, and its maker’s dates are over', {
  skip: missing,
}, () => {
  const file = Buffer.from(evidence('corim/veraison-e2e-cca-endorsements.cbor'));
  const given = recognise('token', evidence('cca/cca-token-01.cbor')).found;
  const keys = recognise('key', evidence('cca/cpak.json')).found.flatMap(({ item }) =>
    item.kind === 'public-key' ? [item.spki] : [],
  );
  assert.deepEqual(judge([file], [...given], { platformKeys: keys, asOf: Date.parse('2024-01-01') }).failed, [
    'reference.present',
  ]);
  assert.ok(judge([file], [...given], { platformKeys: keys }).failed.includes('reference.validity'));
  const set = referencesOfCorim(must(readCorim(file)), 'x').sets;
  assert.deepEqual(
    set.map(({ part, components }) => [part, components?.map(({ type }) => type)]),
    [['platform', ['BL', 'M1', 'M2', 'M3']]],
  );
});

test('a triple that asks for nothing is right for nothing', () => {
  for (const file of [amd(measurement({ 11: 'a name' }, 0)), named(measurement({ 11: 'a name' })), amd()])
    assert.ok(judge([file]).failed.some((id) => id === 'reference.value' || id === 'reference.present'));
});

test('of alternatives only what each of them asks for was compared', () => {
  const svn = measurement({ 1: report.guestSvn }, 0);
  const other = measurement({ 2: [[7, Buffer.alloc(48, 9)]] }, 0);
  const status = (file: Buffer) => {
    const { failed, checks } = judge([file]);
    return [failed, checks.find(({ id }) => id === 'launch.measurement')?.status ?? 'compared'];
  };
  assert.deepEqual(status(amd(other, svn)), [[], 'unchecked']);
  const own = measurement({ 2: [[7, Buffer.from(report.measurement)]] }, 0);
  assert.deepEqual(status(amd(own)), [[], 'compared']);
  const both = measurement({ 1: report.guestSvn, 2: [[7, Buffer.from(report.measurement)]] }, 0);
  assert.deepEqual(status(amd(other, both)), [[], 'compared']);
});
