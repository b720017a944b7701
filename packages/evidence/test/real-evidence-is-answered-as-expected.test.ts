/** The rows of EXPECTED.md beside the evidence, through the same door as `airlock verify`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appraise } from '../src/appraise.ts';
import { createChecklist, type ReportedAppraisal } from '../src/check.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { checkReference } from '../src/nvidia/check-rim.ts';
import { OPAQUE_FIELDS, opaqueValue, readNvidiaReport, versionsOf } from '../src/nvidia/report.ts';
import { recognise } from '../src/recognise.ts';
import { evidence, missing } from './support/evidence.ts';

interface Answer {
  readonly verdict: string;
  readonly failed: readonly string[];
  readonly first: ReportedAppraisal;
}

function answer(files: readonly string[], asOf: string, allowed: readonly string[] = []): Answer {
  const found = files.flatMap((file) => {
    const { found: items, problems } = recognise(file, evidence(file));
    assert.deepEqual(problems, [], file);
    return items;
  });
  const report = appraise(found, [], {
    crypto: nodeCrypto(),
    asOf: Date.parse(asOf),
    allowed: new Set(allowed),
    certificatesAlone: true,
  });
  const [first] = report?.appraisals ?? [];
  assert.ok(report !== null && first !== undefined, 'nothing to verify');
  const failed = report.appraisals.flatMap(({ checks }) => checks.filter(({ status }) => status === 'failed'));
  return { verdict: report.verdict, failed: [...new Set(failed.map(({ id }) => id))], first };
}
const detail = ({ first }: Answer, id: string) =>
  first.checks.flatMap((check) => (check.id === id && check.status === 'failed' ? [check.found] : [])).join('; ');
const passed = ({ first }: Answer, id: string) => {
  const all = first.checks.filter((check) => check.id === id);
  return all.length > 0 && all.every(({ status }) => status === 'passed');
};
const today = '2026-11-20';
const row = (name: string, body: () => void) => test(name, { skip: missing }, body);

row('snp/trustee-test-report.bin with its VCEK: signature and Milan chain good', () => {
  const good = answer(
    ['snp/trustee-test-report.bin', 'snp/trustee-test-vcek.der', 'snp/gosev-ask_ark_milan.pem'],
    today,
  );
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  assert.equal((good.first.claims['policy'] as Record<string, unknown>)['raw'], '0x3001f');
  const late = answer(
    ['snp/trustee-test-report.bin', 'snp/trustee-test-vcek.der', 'snp/gosev-ask_ark_milan.pem'],
    '2030-01-25',
  );
  assert.deepEqual(late.failed, ['chain.validity']);
});

row('snp/trustee-test-report.bin with the invalid legacy VCEK: signature and chain fail', () => {
  const bad = answer(
    ['snp/trustee-test-report.bin', 'snp/trustee-test-vcek-invalid-legacy.der', 'snp/gosev-ask_ark_milan.pem'],
    today,
  );
  assert.equal(bad.verdict, 'rejected');
  assert.ok(bad.failed.includes('snp.signature') && bad.failed.includes('chain.signature'));
});

row('snp/gosev-attestation.bin: DEBUG is set', () => {
  const bad = answer(['snp/gosev-attestation.bin'], today);
  assert.deepEqual(bad.failed, ['snp.signer', 'snp.policy.debug']);
  assert.match(detail(bad, 'snp.policy.debug'), /0xb0000/);
});

row('snp/ms-milan and ms-genoa: version 3, good', () => {
  for (const [product, model] of [
    ['milan', 1],
    ['genoa', 17],
  ] as const) {
    const files = [
      `snp/ms-${product}_attestation_report.bin`,
      `snp/ms-${product}_vcek.pem`,
      `snp/gosev-ask_ark_${product}.pem`,
    ];
    const good = answer(files, today);
    assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
    assert.deepEqual(good.first.claims['processor'], { family: 25, model, stepping: 1 });
    assert.deepEqual(answer(files, '2026-01-01').failed, ['chain.validity']);
  }
});

row('snp/virtee-vcek_turin.der: a certificate that leads to Turin', () => {
  const good = answer(['snp/virtee-vcek_turin.der', 'snp/gosev-ask_ark_turin_vcek.pem'], today);
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  assert.equal((good.first.claims['hardware-id'] as string).length, 16);
  assert.ok('fmc' in (good.first.claims['tcb'] as object));
});

row('certificates of another product do not do', () => {
  const bad = answer(
    ['snp/ms-genoa_attestation_report.bin', 'snp/ms-milan_vcek.pem', 'snp/gosev-ask_ark_milan.pem'],
    today,
  );
  assert.ok(['snp.signature', 'snp.product', 'snp.chip-id'].every((id) => bad.failed.includes(id)));
});

row('all three TDX quotes: signatures, key binding and chain good; the TCB needs collateral', () => {
  for (const file of ['tdx/trustee-tdx_quote_4.dat', 'tdx/trustee-tdx_quote_5.dat', 'tdx/phala-tdx_quote']) {
    const bare = answer([file], '2025-06-20');
    for (const id of [
      'tdx.header',
      'tdx.signature',
      'tdx.attestation-key',
      'tdx.qe-signature',
      'chain.signature',
      'chain.root',
    ])
      assert.ok(passed(bare, id), `${file}: ${id}`);
    assert.ok(bare.failed.includes('tdx.collateral'));
    const debug = file.includes('quote_4');
    assert.equal(bare.failed.includes('tdx.debug'), debug);
    const allowed = answer([file], '2025-06-20', ['tdx.collateral']);
    assert.deepEqual(allowed.failed, debug ? ['tdx.debug'] : []);
  }
  assert.match(detail(answer(['tdx/trustee-tdx_quote_4.dat'], today), 'tdx.debug'), /0x10000001/);
  assert.match(answer(['tdx/trustee-tdx_quote_5.dat'], today).first.title, /version 5, TD 1.5/);
});

row('tdx/phala-tdx_quote with collateral: UpToDate on its date, early and late refused', () => {
  const files = ['tdx/phala-tdx_quote', 'tdx/phala-tdx_quote_collateral.json'];
  const good = answer(files, '2025-06-20');
  assert.deepEqual([good.verdict, good.failed], ['accepted', []]);
  const tcb = good.first.claims['tcb'] as Record<string, unknown>;
  assert.deepEqual([tcb['status'], tcb['advisories']], ['UpToDate', []]);
  assert.match(detail(answer(files, '2025-06-01'), 'tdx.collateral-date'), /issued in the future/);
  assert.match(detail(answer(files, today), 'tdx.collateral-date'), /TCB info expired.*2025-07-19/);
});

row('tdx/phala-tdx-quote.hex with the same collateral: no matching TCB level', () => {
  const bad = answer(['tdx/phala-tdx-quote.hex', 'tdx/phala-tdx_quote_collateral.json'], '2025-06-20');
  assert.deepEqual(bad.failed, ['tdx.tcb.level']);
  assert.match(detail(bad, 'tdx.tcb.level'), /no matching TCB level/);
});

row('a quote with Intel’s own collateral files: how far behind it is', () => {
  const folder = [
    'tcb_info_50806f000000.json',
    'td_qe_identity.json',
    'tcb_signing_chain.pem',
    'root_ca_crl.der',
    'pck_crl_platform.der',
  ];
  const bad = answer(['tdx/trustee-tdx_quote_4.dat', ...folder.map((file) => `tdx-collateral/${file}`)], '2026-04-01');
  assert.deepEqual(bad.failed, ['tdx.tcb.status', 'tdx.debug']);
  assert.match(detail(bad, 'tdx.tcb.status'), /OutOfDate.*637 days behind.*INTEL-SA-00837/);
});

row('NVIDIA: signature, chain, nonce and firmware id good; without RIM files nothing says that the firmware is', () => {
  const bare = answer(['nvidia/hopperAttestationReport.txt', 'nvidia/hopperCertChain.txt'], today);
  assert.deepEqual(bare.failed, ['nvidia.reference']);
  assert.equal(bare.first.claims['driver-version'], '535.86.09');
  assert.equal(Object.keys(bare.first.claims['measurements'] as object).length, 64);
  assert.match(bare.first.claims['nonce'] as string, /^27a32824/);
  const json = answer(['nvidia/hopper_evidence.json'], today, ['nvidia.reference']);
  assert.deepEqual([json.verdict, json.failed], ['accepted', []]);
  assert.ok(passed(json, 'nvidia.fwid'));
});

row('nvidia/hopperAttestationReportInvalidSignature.txt: the signature fails', () => {
  const bad = answer(['nvidia/hopperAttestationReportInvalidSignature.txt', 'nvidia/hopperCertChain.txt'], today, [
    'nvidia.reference',
  ]);
  assert.ok(bad.failed.includes('nvidia.signature'));
});

row('NVIDIA: the same evidence is not two devices', () => {
  const files = ['nvidia/hopper_evidence.json', 'nvidia/hopper_evidence.json'];
  assert.deepEqual(answer(files, today, ['nvidia.reference']).failed, ['nvidia.distinct']);
});

row('NVIDIA chains: five certificates lead to the root, the root alone is no chain', () => {
  assert.deepEqual(answer(['nvidia/trustee-hopper_cert_chain_case1.txt'], today).failed, []);
  const root = answer(['nvidia/trustee-hopper_cert_chain_case2.txt'], today);
  assert.equal(root.verdict, 'rejected');
  assert.match(detail(root, 'chain.root'), /the root itself/);
});

row('NVIDIA: no byte of a report can change', () => {
  const certificates = recognise('chain', evidence('nvidia/hopperCertChain.txt')).found;
  const good = Buffer.from(Buffer.from(evidence('nvidia/hopperAttestationReport.txt')).toString().trim(), 'hex');
  const options = { crypto: nodeCrypto(), asOf: Date.parse(today), allowed: new Set(['nvidia.reference']) };
  for (let at = 0; at < good.length; at += at < 60 || at > 3560 ? 3 : 41) {
    const bad = new Uint8Array(good);
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const { found, problems } = recognise('report', bad);
    const report = appraise([...found, ...certificates], [], options);
    assert.ok(problems.length > 0 || found.length === 0 || report?.verdict === 'rejected', `byte ${at}`);
  }
});

row('nvidia RIM files: good, expired, altered signature', () => {
  const files = ['nvidia/hopper_evidence.json', 'nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml'];
  const of = (file: string) => {
    const { found, problems } = recognise(file, evidence(file));
    const [item] = found.map((one) => one.item);
    assert.deepEqual(problems, []);
    assert.ok(item?.kind === 'rim');
    return item.rim;
  };
  const check = (file: string, asOf: string) => {
    const list = createChecklist();
    const rim = of(file);
    const opaque = new Map([
      [3, Buffer.from(`${rim.version}\0`)],
      [6, new Uint8Array(8)],
    ]);
    const [report] = recognise('evidence', evidence('nvidia/hopper_evidence.json')).found.flatMap(({ item }) =>
      item.kind === 'nvidia-report' ? [item.report] : [],
    );
    assert.ok(report !== undefined);
    checkReference({
      ...{ list, crypto: nodeCrypto(), report: { ...report, opaque }, device: 'GH100 A01', rims: [rim] },
      ...{ certificates: [], revocationLists: [], responses: [], asOf: Date.parse(asOf) },
    });
    return list.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
  };
  const [good, altered, expired] = [
    'nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml',
    'nvidia/incorrect_signature_driver_rim.xml',
    'nvidia/NV_GPU_DRIVER_GH100_570.124.03_expired.xml',
  ] as const;
  // The measurements are another driver's: this GPU runs another version.
  const others = ['nvidia.reference', 'nvidia.measurement'];
  assert.deepEqual(check(good, today), others);
  assert.deepEqual(check(altered, today), ['nvidia.reference', 'nvidia.rim.signature', 'nvidia.measurement']);
  // Its text was altered after it was signed, too: the digest is another.
  const late = ['nvidia.reference', 'nvidia.rim.signature', 'chain.validity', 'nvidia.measurement'];
  assert.deepEqual(check(expired, today), late);
  assert.ok(!check(expired, '2025-01-01').includes('chain.validity'));
  assert.deepEqual(answer(files, today).failed, ['nvidia.reference']);
});

row('nvidia/spdm_parsed_output.json: field by field as NVIDIA parses it', () => {
  const golden = JSON.parse(Buffer.from(evidence('nvidia/spdm_parsed_output.json')).toString()) as {
    readonly Nonce: string;
    readonly NumberOfBlocks: number;
    readonly MeasurementRecordLength: number;
    readonly OpaqueLength: number;
    readonly Signature: string;
    readonly MeasurementRecord: {
      readonly MeasurementBlocks: Record<string, { readonly DMTFSpecMeasurementValue: string }>;
    };
    readonly OpaqueData: { readonly OpaqueDataField: Record<string, string | readonly number[]> };
  };
  const bytes = (text: string) => Buffer.from(text.replace(/^0x/, ''), 'hex');
  const u16 = (value: number) => Buffer.from([value & 0xff, value >> 8]);
  const blocks = Object.entries(golden.MeasurementRecord.MeasurementBlocks).map(([index, one]) => {
    const value = bytes(one.DMTFSpecMeasurementValue);
    return Buffer.concat([
      Buffer.from([Number(index), 1]),
      u16(value.length + 3),
      Buffer.from([1]),
      u16(value.length),
      value,
    ]);
  });
  // NVIDIA's names of the fields are ours; written with our numbers the opaque data must come to the golden length.
  const called: Readonly<Record<string, string>> = { msrscnt: 'measurement-counts', cprinfo: 'cpr-info' };
  const numbers = new Map(Object.entries(OPAQUE_FIELDS).map(([number, { name }]) => [name, Number(number)]));
  const fields = Object.entries(golden.OpaqueData.OpaqueDataField).map(([name, value]) => {
    const plain = name.replace('OPAQUE_FIELD_ID_', '').toLowerCase().replaceAll('_', '-');
    const number = numbers.get(called[plain] ?? plain);
    assert.ok(number !== undefined, name);
    const raw =
      typeof value === 'string'
        ? bytes(value)
        : Buffer.concat(value.map((one) => Buffer.concat([u16(one & 0xffff), u16(one >>> 16)])));
    return { number, name: called[plain] ?? plain, value, field: Buffer.concat([u16(number), u16(raw.length), raw]) };
  });
  // Of the golden 435 bytes twelve are two fields that this parser left out: 34 and 36, two bytes each.
  const unnamed = [34, 36].map((number) => Buffer.concat([u16(number), u16(2), u16(1)]));
  const opaque = Buffer.concat([...fields.map(({ field }) => field), ...unnamed]);
  const record = Buffer.concat(blocks);
  assert.deepEqual([opaque.length, record.length], [golden.OpaqueLength, golden.MeasurementRecordLength]);
  const head = Buffer.concat([Buffer.from([0x11, 0xe0, 1, 0xff]), Buffer.alloc(33)]);
  const response = Buffer.concat([
    ...[Buffer.from([0x11, 0x60, 0, 0, golden.NumberOfBlocks]), u16(record.length), Buffer.from([0]), record],
    ...[bytes(golden.Nonce), u16(opaque.length), opaque, bytes(golden.Signature)],
  ]);
  const read = readNvidiaReport(Buffer.concat([head, response]));
  assert.ok(read.ok);
  const hex = (value: Uint8Array | undefined) => `0x${Buffer.from(value ?? []).toString('hex')}`;
  assert.equal(hex(read.value.responderNonce), golden.Nonce);
  assert.equal(hex(read.value.signature), golden.Signature);
  assert.equal(read.value.measurements.size, golden.NumberOfBlocks);
  for (const [index, one] of Object.entries(golden.MeasurementRecord.MeasurementBlocks))
    assert.equal(hex(read.value.measurements.get(Number(index))?.value), one.DMTFSpecMeasurementValue);
  assert.deepEqual(versionsOf(read.value), { driver: '580.159.03', vbios: '96.00.74.00.20' });
  for (const { number, name, value } of fields) {
    const form = OPAQUE_FIELDS[number]?.form ?? 'hex';
    const ours = opaqueValue(form, read.value.opaque.get(number) ?? new Uint8Array());
    if (form === 'counts') assert.deepEqual(ours, value, name);
    if (form === 'hex') assert.equal(`0x${String(ours)}`, value, name);
  }
});

row('Arm CCA tokens: both signatures, binding and lifecycle good, with the key that the verifier knows', () => {
  for (const [file, keyFile] of [
    ['cca/cca-token-01.cbor', 'cca/cpak.json'],
    ['cca/trustee-cca-example-token.cbor', 'cca/trustee-cpak-pub.json'],
  ] as const) {
    const own = answer([file, keyFile], today, ['cca.key']);
    assert.deepEqual(own.failed, ['cca.key']);
    for (const id of ['cca.platform-signature', 'cca.realm-signature', 'cca.binding', 'cca.lifecycle'])
      assert.ok(passed(own, id));
    const known = recognise(keyFile, evidence(keyFile)).found.flatMap(({ item }) =>
      item.kind === 'public-key' ? [item.spki] : [],
    );
    const options = { crypto: nodeCrypto(), asOf: Date.parse(today), platformKeys: known };
    assert.equal(appraise(recognise(file, evidence(file)).found, [], options)?.verdict, 'accepted');
  }
  assert.equal(answer(['cca/cca-token-01.cbor', 'cca/cpak.json'], today).first.claims['lifecycle'], '0x3003');
  assert.deepEqual(answer(['cca/cca-token-01.cbor', 'cca/pkey.json'], today).failed, ['cca.platform-signature']);
});

row('corim: files of reference values are no evidence, and concise evidence (COEV) is none that is read', () => {
  for (const name of ['corim-1', 'signed-good-corim', 'unsigned-good-corim', 'veraison-e2e-cca-endorsements']) {
    const { found, problems } = recognise(name, evidence(`corim/${name}.cbor`));
    assert.deepEqual(
      [found, problems.map(({ code, hint }) => [code, hint])],
      [[], [['file-not-recognised', 'give it with --reference']]],
    );
  }
  const { found, problems } = recognise('coev', evidence('corim/coev-ce-evidence.cbor'));
  assert.deepEqual([found, problems.map(({ code }) => code)], [[], ['file-not-recognised']]);
});

row('spdm chains: three certificates lead to the root that the verifier gives, and to none without', () => {
  for (const [file, root] of [
    ['dmtf-ecp256-bundle_responder.certchain.der', 'dmtf-ecp256-ca.cert.der'],
    ['dmtf-ecp384-bundle_responder.certchain.der', 'dmtf-ecp384-ca.cert.der'],
  ] as const) {
    const { found } = recognise(file, evidence(`spdm/${file}`));
    const makerRoots = recognise(root, evidence(`spdm/${root}`)).found.flatMap(({ item }) =>
      item.kind === 'certificate' ? [item.certificate] : [],
    );
    const options = { crypto: nodeCrypto(), asOf: Date.parse(today), certificatesAlone: true };
    const good = appraise(found, [], { ...options, makerRoots });
    assert.equal(good?.verdict, 'accepted');
    assert.equal(good?.appraisals[0]?.checks.filter(({ id }) => id === 'chain.signature').length, 3);
    assert.equal(appraise(found, [], options)?.verdict, 'rejected');
    for (const day of ['2026-06-22', '2036-06-21'])
      assert.equal(appraise(found, [], { ...options, makerRoots, asOf: Date.parse(day) })?.verdict, 'rejected');
  }
});
