import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Appraisal } from '../src/check.ts';
import { readCollateral, readTcbInfo } from '../src/tdx/collateral.ts';
import { readQuote } from '../src/tdx/quote.ts';
import { joinStatus } from '../src/tdx/tcb.ts';
import { type TdxInput, verifyTdx } from '../src/tdx/verify.ts';
import { readCertificate } from '../src/x509/certificate.ts';
import { must, revoke, signer } from './support/authority.ts';
import {
  identity,
  keys,
  lists,
  otherPck,
  platformCertificate,
  type QuoteOptions,
  quoteBytes,
  rootCertificate,
  tcbCertificate,
  tcbInfo,
  tcbInfoJson,
  tcbLevel,
  tdInput,
} from './support/td-machine.ts';

const failed = ({ checks }: Appraisal) => checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
const found = ({ checks }: Appraisal, id: string) =>
  checks.find((one) => one.id === id && one.status !== 'passed')?.found ?? '';
const verify = (options: QuoteOptions = {}, changes: Partial<TdxInput> = {}) =>
  verifyTdx(tdInput(quoteBytes(options), changes));
const statusOf = (appraisal: Appraisal) => (appraisal.claims['tcb'] as Record<string, unknown>)['status'];

test('quotes of versions 4 and 5, TD 1.0 and 1.5, are accepted', () => {
  for (const options of [{ version: 4 }, { version: 5 }, { version: 5, generation: '1.0' }] as const) {
    const appraisal = verify(options);
    assert.deepEqual(failed(appraisal), []);
    assert.equal(appraisal.verdict, 'accepted');
    assert.equal(statusOf(appraisal), 'UpToDate');
  }
  assert.equal(verify({ version: 4 }).claims['mr-service-td'], 'absent');
  assert.equal(verify({ version: 5 }).claims['mr-service-td'], '00'.repeat(48));
});

test('the size fields rule: what stands behind is told, what they promise must be there', () => {
  const padded = verify({ trailing: new Uint8Array(70) });
  assert.equal(padded.verdict, 'accepted');
  assert.match(found(padded, 'tdx.size'), /70 bytes more/);
  const good = quoteBytes({ version: 5 });
  for (let length = 0; length < good.length; length += 7) assert.equal(readQuote(good.subarray(0, length)).ok, false);
});

test('a quote that only names its platform needs the platform’s chain among the files', () => {
  const named = (type: number) => {
    let der: Uint8Array = new Uint8Array();
    const bytes = quoteBytes({
      certification: (pck) => {
        der = pck;
        return { type, data: type === 4 ? pck : new Uint8Array(type === 1 ? 36 : 404).fill(7) };
      },
    });
    return { bytes, pck: must(readCertificate(der)) };
  };
  const around = [tcbCertificate, rootCertificate, platformCertificate()];
  const stranger = named(1);
  for (const type of [1, 2, 3]) {
    const { bytes, pck } = named(type);
    const without = verifyTdx(tdInput(bytes));
    assert.ok(failed(without).includes('tdx.qe-signature'));
    assert.match(found(without, 'tdx.qe-signature'), new RegExp(`type ${type}, which only names the platform`));
    assert.deepEqual(failed(verifyTdx(tdInput(bytes, { certificates: [...around, pck] }))), []);
    // Another machine's certificate beside it is passed over, in whatever order.
    const other = otherPck();
    for (const certificates of [
      [other, pck, ...around],
      [pck, other, ...around],
    ])
      assert.deepEqual(failed(verifyTdx(tdInput(bytes, { certificates }))), []);
    assert.ok(failed(verifyTdx(tdInput(bytes, { certificates: [other, ...around] }))).includes('tdx.qe-signature'));
  }
  assert.ok(failed(verifyTdx(tdInput(stranger.bytes, { certificates: around }))).includes('tdx.qe-signature'));
  assert.deepEqual(failed(verifyTdx(tdInput(named(4).bytes, { certificates: around }))), []);
  for (const type of [0, 7, 0xffff])
    assert.match(found(verifyTdx(tdInput(named(type).bytes)), 'tdx.qe-signature'), /which is not known/);
});

test('no size field can say anything else', () => {
  for (const version of [4, 5] as const) {
    const good = quoteBytes({ version });
    const body = version === 4 ? 48 + 584 : 54 + 648;
    // total, QE certification data, authentication data, certificate chain
    for (const at of [body, body + 4 + 130, body + 4 + 134 + 448, body + 4 + 134 + 450 + 34]) {
      for (const change of [1, 0xff, 0x40]) {
        const bad = good.slice();
        bad[at] = (bad[at] ?? 0) ^ change;
        assert.equal(readQuote(bad).ok, false, `${version} ${at} ${change}`);
      }
    }
  }
});

test('no byte of a quote can change', () => {
  const good = quoteBytes({ version: 5 });
  const input = tdInput(good);
  for (let at = 0; at < good.length; at += at < 1500 ? 1 : 13) {
    const bad = good.slice();
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8));
    const read = readQuote(bad);
    if (!read.ok) assert.equal(read.error.code, 'tdx-quote-invalid');
    else {
      const appraisal = verifyTdx({ ...input, quote: read.value });
      // The text around PEM blocks is nobody's; within them the chain decides.
      const chainText = Buffer.from(bad).lastIndexOf('-----END', at);
      if (appraisal.verdict === 'accepted') assert.ok(chainText > 0 || at > 1300, `byte ${at}`);
      if (appraisal.verdict === 'accepted') assert.deepEqual(appraisal.claims, verifyTdx(input).claims);
    }
  }
});

test('a TD under debug, under profiling or migratable is refused, unless who asks allows it', () => {
  const attribute = (byte: number, value: number) => ({ edit: (td: Uint8Array) => td.set([value], 120 + byte) });
  assert.deepEqual(failed(verify(attribute(0, 1))), ['tdx.debug']);
  assert.deepEqual(failed(verify(attribute(0, 0x20))), ['tdx.attributes']);
  assert.deepEqual(failed(verify(attribute(0, 0x02))), ['tdx.attributes']);
  assert.deepEqual(failed(verify(attribute(3, 0x20))), ['tdx.attributes']);
  assert.equal(verify(attribute(0, 1), { allowed: new Set(['tdx.debug']) }).verdict, 'accepted');
  const unknown = verify(attribute(5, 4));
  assert.equal(unknown.verdict, 'accepted');
  assert.match(found(unknown, 'tdx.attributes'), /42/);
});

test('another TEE, key type or quoting enclave is refused', () => {
  const header = (at: number, value: number) => verify({ edit: (_, bytes) => bytes.set([value], at) });
  for (const appraisal of [header(2, 3), header(4, 0), header(12, 0)])
    assert.deepEqual(failed(appraisal), ['tdx.header']);
});

test('an attestation key that the enclave does not vouch for is refused', () => {
  const appraisal = verify({ editEnclave: (report) => report.set([0], 320) });
  assert.ok(failed(appraisal).includes('tdx.attestation-key'));
});

test('another enclave than Intel’s identity describes is refused', () => {
  for (const at of [16, 48, 128, 256]) {
    const appraisal = verify({ editEnclave: (report) => report.set([0x77], at) });
    assert.deepEqual(failed(appraisal), ['tdx.qe-identity'], String(at));
  }
  // Masked bits may differ.
  assert.deepEqual(failed(verify({ editEnclave: (report) => report.set([0x15], 48) })), []);
});

test('without collateral nothing is known of the TCB: refused, unless who asks allows it', () => {
  const none = { collateral: [], revocationLists: [], certificates: [] };
  assert.deepEqual(failed(verify({}, none)), ['chain.revocation', 'chain.revocation', 'tdx.collateral']);
  const allowed = verify({}, { ...none, allowed: new Set(['tdx.collateral']) });
  assert.equal(allowed.verdict, 'accepted');
  assert.equal(statusOf(allowed), null);
  // A PCK signs anybody's enclave: without an identity at least the signer is held.
  for (const [at, value] of [
    [128, 0],
    [256, 1],
    [48, 0x13],
  ] as const) {
    const own = verify(
      { editEnclave: (report) => report.set([value], at) },
      { ...none, allowed: new Set(['tdx.collateral']) },
    );
    assert.deepEqual(failed(own), ['tdx.qe-identity']);
  }
});

test('collateral that is early, late, another platform’s or somebody else’s is refused', () => {
  const early = verify({}, { asOf: Date.parse('2025-12-31') });
  assert.match(found(early, 'tdx.collateral-date'), /issued in the future/);
  const late = verify({}, { asOf: Date.parse('2026-02-02') });
  assert.match(found(late, 'tdx.collateral-date'), /expired/);
  const other = verify({ fmspc: '000000000000' });
  assert.deepEqual(failed(other), ['tdx.collateral-platform']);
  const forged = verify({}, { collateral: [tcbInfo({}, signer('x', 'P-256')), identity()] });
  assert.deepEqual(failed(forged), ['tdx.collateral-signature']);
  const sgx = verify({}, { collateral: [tcbInfo({ id: 'SGX' }), identity()] });
  assert.deepEqual(failed(sgx), ['tdx.collateral-platform']);
  const qe = verify({}, { collateral: [tcbInfo(), identity({ id: 'QE' })] });
  assert.deepEqual(failed(qe), ['tdx.qe-identity']);
});

test('the right collateral is picked among others', () => {
  const collateral = [
    tcbInfo({ fmspc: '000000000000' }),
    tcbInfo({ nextUpdate: '2026-01-02T00:00:00Z' }),
    tcbInfo(),
    identity({ id: 'QE' }),
    identity(),
  ];
  assert.deepEqual(failed(verify({}, { collateral })), []);
});

test('a platform behind is told how far, with its advisories', () => {
  const appraisal = verify({ components: [5, ...new Array<number>(15).fill(9)] });
  assert.deepEqual(failed(appraisal), ['tdx.tcb.status']);
  assert.equal(
    found(appraisal, 'tdx.tcb.status'),
    'OutOfDate, level of 2024-05-01, 365 days behind that of 2025-05-01: SGX[0] 5 < 9; INTEL-SA-1',
  );
  assert.equal(statusOf(appraisal), 'OutOfDate');
  assert.equal(
    verify({ components: new Array<number>(16).fill(5) }, { allowed: new Set(['tdx.tcb.status']) }).verdict,
    'accepted',
  );
});

test('a platform below every level matches none', () => {
  assert.deepEqual(failed(verify({ components: [4, ...new Array<number>(15).fill(9)] })), ['tdx.tcb.level']);
  assert.deepEqual(failed(verify({ pceSvn: 12 })), ['tdx.tcb.level']);
  assert.deepEqual(failed(verify({ edit: (td) => td.set([4], 2) })), ['tdx.tcb.level']);
});

test('of collateral that is current that of the highest evaluation counts, whoever brings another, issued later', () => {
  const strict = { tcbEvaluationDataNumber: 19, tcbLevels: [tcbLevel(9, 'OutOfDate', '2025-05-01T00:00:00Z')] };
  const lax = { issueDate: '2026-01-10T00:00:00Z' };
  for (const collateral of [
    [tcbInfo(strict), tcbInfo(lax), identity()],
    [tcbInfo(lax), tcbInfo(strict), identity()],
  ])
    assert.deepEqual(failed(verify({}, { collateral })), ['tdx.tcb.status']);
  // What has run out says nothing while something current is there.
  const past = { ...strict, issueDate: '2025-11-01T00:00:00Z', nextUpdate: '2025-12-01T00:00:00Z' };
  assert.deepEqual(failed(verify({}, { collateral: [tcbInfo(past), tcbInfo(lax), identity()] })), []);
});

test('module version 1 and later: its own identity, not the first two components', () => {
  const strict = tcbLevel(9, 'UpToDate', '2025-05-01T00:00:00Z');
  const components = (strict['tcb'] as { tdxtcbcomponents: { svn: number }[] }).tdxtcbcomponents;
  components[0] = { svn: 200 };
  assert.deepEqual(failed(verify({}, { collateral: [tcbInfo({ tcbLevels: [strict] }), identity()] })), []);
  const zero = verify(
    { edit: (td) => td.set([5, 0, 7]) },
    { collateral: [tcbInfo({ tcbLevels: [strict] }), identity()] },
  );
  assert.deepEqual(failed(zero), ['tdx.tcb.level']);
  const old = verify({ edit: (td) => td.set([3, 1, 7]) });
  assert.deepEqual(failed(old), ['tdx.tcb.status']);
  assert.match(found(old, 'tdx.tcb.status'), /SVN 3 < 5/);
  assert.deepEqual(failed(verify({ edit: (td) => td.set([5, 2, 7]) })), ['tdx.module']);
  assert.deepEqual(failed(verify({ edit: (td) => td.set([1, 1, 7]) })), ['tdx.module']);
  assert.deepEqual(failed(verify({ edit: (td) => td.fill(1, 64, 65) })), ['tdx.module']);
  assert.deepEqual(failed(verify({ edit: (td) => td.fill(1, 112, 113) })), ['tdx.module']);
});

test('what is revoked is refused, and nobody can allow it', () => {
  const collateral = [tcbInfo({ tcbLevels: [tcbLevel(9, 'Revoked', '2025-05-01T00:00:00Z')] }), identity()];
  const appraisal = verify({}, { collateral, allowed: new Set(['tdx.tcb.revoked', 'tdx.tcb.status']) });
  assert.deepEqual(failed(appraisal), ['tdx.tcb.revoked']);
  for (const [by, serial, subject] of [
    [keys.platform, 22, 'Intel SGX PCK Certificate'],
    [keys.root, 20, 'Intel SGX PCK Platform CA'],
    [keys.root, 21, 'Intel SGX TCB Signing'],
  ] as const) {
    const revocationLists = [...lists, revoke({ issuer: by, serials: [serial] })];
    const revoked = verify({}, { revocationLists });
    assert.deepEqual(failed(revoked), ['chain.revocation']);
    assert.equal(revoked.checks.find(({ status }) => status === 'failed')?.subject, subject);
  }
});

test('the worse of platform, module and enclave decides', () => {
  assert.equal(joinStatus('UpToDate', 'UpToDate'), 'UpToDate');
  assert.equal(joinStatus('SWHardeningNeeded', 'UpToDate'), 'SWHardeningNeeded');
  assert.equal(joinStatus('SWHardeningNeeded', 'OutOfDate'), 'OutOfDate');
  assert.equal(joinStatus('ConfigurationNeeded', 'OutOfDate'), 'OutOfDateConfigurationNeeded');
  assert.equal(joinStatus('UpToDate', 'Revoked'), 'Revoked');
  assert.equal(joinStatus('Revoked', 'OutOfDate'), 'Revoked');
  assert.deepEqual(failed(verify({ editEnclave: (report) => report.set([3, 0], 258) })), ['tdx.tcb.status']);
});

test('the verifier’s nonce and launch digest are held', () => {
  const nonce = new Uint8Array(64).fill(6);
  assert.deepEqual(failed(verify({ edit: (td) => td.fill(6, 520, 584) }, { nonce })), []);
  assert.deepEqual(failed(verify({}, { nonce })), ['freshness.nonce']);
  assert.deepEqual(failed(verify({}, { measurements: [new Uint8Array(48).fill(0x33)] })), []);
  assert.deepEqual(failed(verify({}, { measurements: [new Uint8Array(48)] })), ['launch.measurement']);
});

test('collateral of another form is refused with a code', () => {
  const signature = '00'.repeat(64);
  const codeOf = (text: string) => {
    const read = readTcbInfo(text, signature);
    return read.ok ? 'ok' : read.error.code;
  };
  assert.equal(codeOf(JSON.stringify(tcbInfoJson())), 'ok');
  for (const changes of [
    { version: 2 },
    { fmspc: 'zz' },
    { issueDate: 'tomorrow' },
    { tcbLevels: {} },
    { tcbLevels: [{}] },
    { tcbLevels: [tcbLevel(9, 'Fine', '2025-05-01T00:00:00Z')] },
    { tcbLevels: new Array(300).fill({}) },
  ])
    assert.equal(
      codeOf(JSON.stringify(tcbInfoJson(changes))),
      'collateral-invalid',
      JSON.stringify(changes).slice(0, 60),
    );
  assert.equal(codeOf('{"id":"TDX","id":"SGX"}'), 'json-invalid');
  assert.equal(codeOf(`${'['.repeat(10_000)}`), 'json-invalid');
  assert.equal(codeOf('{"id":1e999,'), 'json-invalid');
  assert.equal(readCollateral('{"tcbInfo":{},"enclaveIdentity":{},"signature":""}').ok, false);
  assert.equal(readTcbInfo(JSON.stringify(tcbInfoJson()), '00').ok, false);
});
