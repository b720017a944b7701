import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import type { CheckId } from '../src/catalogue.ts';
import type { Appraisal } from '../src/check.ts';
import { appraiseMachine, type DeviceFindings, type MachineOptions, reportOfMachine } from '../src/machine/appraise.ts';
import { type BoundDevice, bindingDigests, bindingStatement, deviceNonce } from '../src/machine/binding.ts';
import { type BundleDevice, isBundle, type MachineBundle, readBundle, writeBundle } from '../src/machine/bundle.ts';
import { joinMachine } from '../src/machine/join.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { checkPlatform } from '../src/platform-policy.ts';
import { recognise } from '../src/recognise.ts';
import { must } from './support/authority.ts';
import { join } from './support/der.ts';
import { type NvidiaDevice, nvidiaDevice, nvidiaRoots } from './support/nvidia-device.ts';
import { signReport, snpMachine } from './support/snp-machine.ts';
import { attestBytes, makeTpm, signAttest } from './support/tpm-machine.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-01-01');
const NONCE = new Uint8Array(32).fill(0xa5);
const machine = snpMachine();
const LAUNCHED = new Uint8Array(48).fill(0x77);
const [gpu, second] = [nvidiaDevice(), nvidiaDevice('GB100 A01 GSP FMC LF')];
const INTERFACE = { state: 'RUN', lockNonce: new Uint8Array(32).fill(3), report: Uint8Array.of(1, 2, 3) } as const;

const shown = (name: string, device: NvidiaDevice, more: Partial<BundleDevice> = {}): BundleDevice => ({
  name,
  kind: 'nvidia',
  evidence: device.answer(deviceNonce(crypto, NONCE)),
  certificates: device.certificates,
  interface: null,
  ...more,
});

/** As an honest guest makes it: the report covers what `covered` shows. */
function bundleOf(
  devices: readonly BundleDevice[],
  covered: readonly BoundDevice[] = devices,
  nonce = NONCE,
): MachineBundle {
  const report = machine.report.bytes.slice();
  report.set(bindingDigests(crypto, nonce, covered).reportData, 0x50);
  const vm = [
    { name: 'report', bytes: signReport(report, machine.keys.vcek) },
    { name: 'certificates', bytes: join(...machine.certificates.map(({ der }) => der)) },
  ];
  return must(readBundle(writeBundle({ nonce, vm, devices })));
}

function judge(bundle: MachineBundle, more: Partial<MachineOptions> = {}) {
  const report = appraiseMachine(bundle, [], {
    ...{ crypto, asOf, nonce: NONCE, allowed: new Set(['nvidia.reference']) },
    roots: [...machine.roots, ...nvidiaRoots],
    measurements: [LAUNCHED],
    ...more,
  });
  const failed = report.checks.filter(({ status }) => status === 'failed');
  return { ...report, failed: [...new Set(failed.map(({ id }) => id))], tiers: report.devices.map(({ tier }) => tier) };
}

test('a VM whose report covers its devices vouches for them: attested, and not bound without TDISP', () => {
  const good = judge(bundleOf([shown('0000:01:00.0', gpu), shown('0000:02:00.0', second)]));
  assert.deepEqual([good.verdict, good.failed, good.tiers], ['accepted', [], ['attested', 'attested']]);
  assert.match(good.devices[0]?.because.join() ?? '', /not locked to this VM.*relayed/);
  assert.equal(judge(bundleOf([])).verdict, 'accepted');
});

test('a piece of evidence that is one too many to be looked at is not passed over', () => {
  const good = bundleOf([]);
  const [report, certificates] = good.vm;
  assert.ok(report !== undefined && certificates !== undefined);
  const altered = report.bytes.slice();
  altered[0x90] = (altered[0x90] ?? 0) ^ 1;
  const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  const many = [...Array<string>(64).fill(hexOf(report.bytes)), hexOf(altered)];
  const vm = [{ name: 'reports', bytes: Buffer.from(JSON.stringify(many)) }, certificates];
  assert.equal(judge({ ...good, vm }).verdict, 'rejected');
});

test('the evidence of a machine is never taken apart into pieces that stand for themselves', () => {
  const text = writeBundle(bundleOf([shown('a', gpu)]));
  const escaped = text.replace('airlock-machine', '\\u0061irlock-machine');
  for (const one of [`${' '.repeat(300)}${text}`, text.replace('{', `{${'\n'.repeat(300)}`), escaped]) {
    assert.ok(isBundle(one));
    assert.ok(readBundle(one).ok);
  }
  const hidden = [
    ...[text, escaped, JSON.stringify([{ all: JSON.parse(text) }]), JSON.stringify({ all: text })],
    ...[Buffer.from(text).toString('base64'), Buffer.from(text).toString('hex')],
  ];
  const nameless = JSON.parse(text) as Record<string, unknown>;
  delete nameless['format'];
  const { vm, devices } = nameless;
  hidden.push(
    ...[nameless, { vm }, { devices, nonce: null }, { format: 'other', vm }].map((one) => JSON.stringify(one)),
  );
  for (const one of hidden) {
    const { found, problems } = recognise('file', Buffer.from(one));
    assert.deepEqual([found.length, problems.map(({ code }) => code)], [0, ['bundle-invalid']]);
  }
});

test('whoever asks for bound devices gets no attested ones', () => {
  const judged = judge(bundleOf([shown('a', gpu)]), { tier: 'bound' });
  assert.deepEqual([judged.verdict, judged.failed], ['rejected', ['machine.tier']]);
});

const fits: Appraisal = {
  kind: 'tdisp',
  title: 'interface report',
  verdict: 'accepted',
  checks: [{ id: 'tdisp.ranges', status: 'passed', expected: '', found: '' }],
  claims: {},
};
const nothing: DeviceFindings = {
  ...{ appraisal: null, identity: null, nonce: null },
  ...{ interfaceAppraisal: null, lockedBy: 'tsm' },
};

test('a device is bound when it is attested, locked, started, and its interface report fits', () => {
  const bundle = bundleOf([shown('a', gpu, { interface: INTERFACE })]);
  const judgeDevice = () => ({ ...nothing, interfaceAppraisal: fits });
  assert.deepEqual(judge(bundle, { judgeDevice, tier: 'bound' }).tiers, ['bound']);
  assert.equal(judge(bundle, { judgeDevice, tier: 'bound' }).verdict, 'accepted');
  assert.deepEqual(judge(bundle).failed, ['machine.lock', 'machine.interface']);
  const broken = { ...fits, verdict: 'rejected' as const };
  assert.deepEqual(judge(bundle, { judgeDevice: () => ({ ...nothing, interfaceAppraisal: broken }) }).failed, [
    'machine.interface',
  ]);
  for (const state of ['CONFIG_UNLOCKED', 'CONFIG_LOCKED', 'ERROR'] as const) {
    const unlocked = bundleOf([shown('a', gpu, { interface: { ...INTERFACE, state } })]);
    assert.deepEqual(judge(unlocked, { judgeDevice }).failed, ['machine.tdisp'], state);
  }
});

test('who locked it must be the TSM, in a VM that is known to run what says so', () => {
  const bundle = bundleOf([shown('a', gpu, { interface: INTERFACE })]);
  const said = { ...nothing, interfaceAppraisal: fits };
  for (const lockedBy of ['requester', null] as const) {
    const judged = judge(bundle, { judgeDevice: () => ({ ...said, lockedBy }) });
    assert.deepEqual([judged.tiers, judged.failed], [['attested'], ['machine.lock']]);
  }
  // Any guest can write that down, and a host can start any guest.
  const unknown = judge(bundle, { judgeDevice: () => said, measurements: [] });
  assert.deepEqual([unknown.verdict, unknown.tiers, unknown.failed], ['accepted', ['attested'], []]);
  assert.match(unknown.devices[0]?.because.join() ?? '', /nobody compared what the VM runs/);
  assert.deepEqual(judge(bundle, { judgeDevice: () => said, measurements: [], tier: 'bound' }).failed, [
    'machine.tier',
  ]);
  const other = judge(bundle, { judgeDevice: () => said, measurements: [new Uint8Array(48)] });
  assert.deepEqual(other.tiers, ['claimed']);
  // A report that fits nothing that anybody looked at.
  const bare = { ...fits, checks: [{ ...fits.checks[0], id: 'tdisp.report' }] } as Appraisal;
  assert.deepEqual(judge(bundle, { judgeDevice: () => ({ ...said, interfaceAppraisal: bare }) }).failed, [
    'machine.interface',
  ]);
});

test('firmware that was compared does not say which kernel it is that says so', () => {
  const [device] = bundleOf([shown('a', gpu, { interface: INTERFACE })]).devices;
  assert.ok(device !== undefined);
  const appraised = (kind: string, ids: readonly (readonly [CheckId, string])[]): Appraisal => ({
    ...{ kind, title: kind, verdict: 'accepted', claims: {} },
    checks: ids.map(([id, found]) => ({ id, status: 'passed', expected: '', found })),
  });
  const good = appraised('nvidia-gpu', [['nvidia.signature', 'good']]);
  const tierOf = (vm: Appraisal, vouching: readonly Appraisal[] = []) => {
    const digests = bindingDigests(crypto, NONCE, [device]);
    const form = vm.kind === 'tpm-2.0' ? ('qualifying-data' as const) : ('report-data' as const);
    const stated = form === 'report-data' ? digests.reportData : digests.qualifyingData;
    const { devices } = joinMachine({
      ...{ crypto, nonce: NONCE, vms: [{ appraisal: vm, stated, form }], vouching },
      devices: [
        {
          ...device,
          appraisal: good,
          identity: 'ab',
          nonce: deviceNonce(crypto, NONCE),
          interfaceAppraisal: fits,
          lockedBy: 'tsm',
        },
      ],
    });
    return devices[0]?.tier;
  };
  const compared = (fields: string) => ['reference.value', fields] as const;
  assert.equal(tierOf(appraised('amd-sev-snp', [['launch.measurement', 'the same']])), 'bound');
  // A policy's launch digests are compared as well as those of the command line.
  const wanted = { kinds: ['amd-sev-snp'], measurements: ['ab'], at: { file: 'p', line: 1, column: 1 } } as const;
  const snp = {
    ...appraised('amd-sev-snp', []),
    claims: { measurement: 'ab', policy: { 'debug-allowed': false, 'migration-agent-allowed': false } },
  };
  assert.equal(tierOf(checkPlatform(snp, wanted, asOf)), 'bound');
  const { measurements: _, ...open } = wanted;
  assert.equal(tierOf(checkPlatform(snp, open, asOf)), 'attested');
  // MRTD is a TD's firmware, which loads any kernel: that one is in RTMR 1 and 2.
  assert.equal(tierOf(appraised('intel-tdx', [['launch.measurement', 'the same']])), 'attested');
  assert.equal(tierOf(appraised('intel-tdx', [compared('mrtd')])), 'attested');
  assert.equal(tierOf(appraised('intel-tdx', [compared('mrtd, rtmr1')])), 'attested');
  assert.equal(tierOf(appraised('intel-tdx', [compared('mrtd, rtmr0, rtmr1, rtmr2')])), 'bound');
  assert.equal(tierOf(appraised('intel-tdx', [['launch.measurement', 'the same'], compared('rtmr1, rtmr2')])), 'bound');
  const voucher = [appraised('amd-sev-snp', [['launch.measurement', 'the same']])];
  assert.equal(tierOf(appraised('tpm-2.0', [compared('pcr0')]), voucher), 'attested');
  assert.equal(tierOf(appraised('tpm-2.0', [compared('pcr4, pcr7')]), voucher), 'attested');
  assert.equal(tierOf(appraised('tpm-2.0', [compared('pcr0, pcr4, pcr9')]), voucher), 'bound');
  // A TD that only vouches for its TPM: there the TPM says which kernel it is.
  const td = [appraised('intel-tdx', [['launch.measurement', 'the same']])];
  assert.equal(tierOf(appraised('tpm-2.0', [compared('pcr4, pcr11')]), td), 'bound');
});

test('whoever lets a check of the VM fail gives up that its devices are bound', () => {
  const bundle = bundleOf([shown('a', gpu, { interface: INTERFACE })]);
  const judgeDevice = () => ({ ...nothing, interfaceAppraisal: fits });
  const minimumTcb = { microcode: 255 };
  const waived = new Set(['nvidia.reference', 'snp.tcb.minimum']);
  const judged = judge(bundle, { judgeDevice, minimumTcb, allowed: waived });
  assert.deepEqual([judged.verdict, judged.tiers], ['accepted', ['attested']]);
  assert.match(judged.devices[0]?.because.join() ?? '', /allowed that snp\.tcb\.minimum fails/);
});

test('a TPM’s word about an interface is that of no confidential VM', () => {
  const tpm = makeTpm();
  const pcrs = Array.from({ length: 24 }, () => new Uint8Array(32));
  const devices = [shown('a', gpu, { interface: INTERFACE })];
  const message = attestBytes({ pcrs, nonce: bindingDigests(crypto, NONCE, devices).qualifyingData });
  const quote = {
    message: Buffer.from(message).toString('hex'),
    signature: Buffer.from(signAttest(message, tpm)).toString('hex'),
    pcrs: pcrs.map((one) => Buffer.from(one).toString('hex')),
  };
  const vm = [{ name: 'quote', bytes: new Uint8Array(Buffer.from(JSON.stringify(quote))) }];
  const judgeDevice = () => ({ ...nothing, interfaceAppraisal: fits });
  const judged = judge({ nonce: NONCE, vm, devices }, { judgeDevice, trustedKeys: [tpm.spki] });
  assert.deepEqual([judged.verdict, judged.tiers], ['accepted', ['attested']]);
});

test('device evidence that the report does not cover is refused, whatever is changed', () => {
  const honest = shown('a', gpu, { interface: INTERFACE });
  const judgeDevice = () => ({ ...nothing, interfaceAppraisal: fits });
  const changes: readonly (readonly BundleDevice[])[] = [
    [],
    [honest, shown('b', second)],
    [{ ...honest, name: 'b' }],
    [{ ...honest, evidence: gpu.answer(deviceNonce(crypto, NONCE)) }],
    [{ ...honest, interface: null }],
    [{ ...honest, interface: { ...INTERFACE, state: 'CONFIG_LOCKED' } }],
    [{ ...honest, interface: { ...INTERFACE, lockNonce: new Uint8Array(32).fill(4) } }],
    [{ ...honest, interface: { ...INTERFACE, report: Uint8Array.of(1, 2, 4) } }],
  ];
  for (const [i, devices] of changes.entries()) {
    const judged = judge(bundleOf(devices, [honest]), { judgeDevice });
    assert.equal(judged.verdict, 'rejected', `change ${i}`);
    assert.ok(judged.failed.includes('machine.binding'), `change ${i}`);
    assert.ok(
      judged.tiers.every((tier) => tier === 'claimed'),
      `change ${i}`,
    );
  }
});

test('an old nonce, the bundle’s own, or none at all binds nothing', () => {
  const old = new Uint8Array(32).fill(1);
  const stale = bundleOf([shown('a', gpu, { evidence: gpu.answer(old) })], undefined, old);
  const { failed } = judge(stale);
  assert.ok(failed.includes('machine.binding') && failed.includes('machine.nonce'));
  const { nonce: _, ...without } = { crypto, asOf, nonce: NONCE };
  const judged = appraiseMachine(bundleOf([shown('a', gpu)]), [], {
    ...without,
    roots: [...machine.roots, ...nvidiaRoots],
  });
  assert.equal(judged.verdict, 'rejected');
  assert.ok(judged.checks.some(({ id, status }) => id === 'machine.binding' && status === 'failed'));
});

test('one device is not two, and a device that another machine shows is a relay', () => {
  const twice = judge(bundleOf([shown('a', gpu), shown('b', gpu)]));
  assert.deepEqual(twice.tiers, ['claimed', 'claimed']);
  assert.ok(twice.failed.includes('machine.distinct'));
  const evidence = gpu.answer(deviceNonce(crypto, NONCE));
  assert.ok(
    judge(bundleOf([shown('a', gpu, { evidence }), shown('b', gpu, { evidence })])).failed.includes('machine.distinct'),
  );
  const identity = createHash('sha384').update(gpu.key.spki).digest('hex');
  const relayed = judge(bundleOf([shown('a', gpu)]), { seen: new Map([[identity, 'machine 7']]) });
  assert.ok(relayed.failed.includes('machine.relay'));
  assert.match(relayed.devices[0]?.because.join() ?? '', /machine 7 shows it/);
  assert.deepEqual(judge(bundleOf([shown('a', gpu)]), { seen: new Map() }).failed, []);
});

test('a rejected VM vouches for nothing, a rejected device makes the machine’s verdict', () => {
  const stranger = judge(bundleOf([shown('a', gpu)]), { roots: nvidiaRoots });
  assert.ok(stranger.failed.includes('machine.vm'));
  assert.deepEqual(stranger.tiers, ['claimed']);
  const bad = shown('a', gpu);
  const evidence = bad.evidence.slice();
  evidence[60] = (evidence[60] ?? 0) ^ 1;
  assert.ok(judge(bundleOf([{ ...bad, evidence }])).failed.includes('machine.device'));
  assert.ok(judge(bundleOf([{ ...bad, evidence: Uint8Array.of(1) }])).failed.includes('machine.device'));
  assert.ok(judge(bundleOf([{ ...bad, kind: 'spdm' }])).failed.includes('machine.device'));
  const empty = judge({ ...bundleOf([shown('a', gpu)]), vm: [] });
  assert.ok(empty.failed.includes('machine.vm'));
});

test('a device’s certificates are no help to the VM’s chain, and its report is no VM', () => {
  const devices = [shown('a', gpu)];
  const bundle = bundleOf(devices);
  const part = { name: 'device', bytes: devices[0]?.evidence ?? new Uint8Array() };
  const judged = judge({ ...bundle, vm: [part] });
  assert.ok(judged.failed.includes('machine.vm'));
});

test('with a TPM its quote is what is bound; one that covers another statement is refused', () => {
  const tpm = makeTpm();
  const pcrs = Array.from({ length: 24 }, () => new Uint8Array(32));
  const devices = [shown('a', gpu)];
  const quoteFor = (nonce: Uint8Array) => {
    const message = attestBytes({ pcrs, nonce });
    const wrapper = {
      message: Buffer.from(message).toString('hex'),
      signature: Buffer.from(signAttest(message, tpm)).toString('hex'),
      pcrs: pcrs.map((one) => Buffer.from(one).toString('hex')),
    };
    return [{ name: 'quote', bytes: new Uint8Array(Buffer.from(JSON.stringify(wrapper))) }];
  };
  const { qualifyingData, reportData } = bindingDigests(crypto, NONCE, devices);
  const trusted = { trustedKeys: [tpm.spki] };
  assert.equal(judge({ nonce: NONCE, vm: quoteFor(qualifyingData), devices }, trusted).verdict, 'accepted');
  assert.ok(judge({ nonce: NONCE, vm: quoteFor(reportData), devices }, trusted).failed.includes('machine.binding'));
  assert.ok(judge({ nonce: NONCE, vm: quoteFor(qualifyingData), devices }).failed.includes('machine.vm'));
  // A report beside it is bound in its own form.
  const both = [...bundleOf(devices).vm, ...quoteFor(qualifyingData)];
  assert.equal(judge({ nonce: NONCE, vm: both, devices }, trusted).verdict, 'accepted');
});

test('the statement is written as documented', () => {
  const device = { name: 'b', evidence: Uint8Array.of(1), interface: null };
  const locked = {
    name: 'a',
    evidence: Uint8Array.of(2),
    interface: { state: 'RUN' as const, lockNonce: new Uint8Array(32).fill(9), report: Uint8Array.of(3) },
  };
  const sha384 = (byte: number) => createHash('sha384').update(Uint8Array.of(byte)).digest();
  const expected = Buffer.concat([
    ...[Buffer.from('airlock machine binding 1\0'), Buffer.from([32]), Buffer.from(NONCE), Buffer.from([0, 2])],
    ...[Buffer.from([1]), Buffer.from('a'), sha384(2), Buffer.from([1, 2]), Buffer.alloc(32, 9), sha384(3)],
    ...[Buffer.from([1]), Buffer.from('b'), sha384(1), Buffer.from([0])],
  ]);
  assert.deepEqual(Buffer.from(bindingStatement(crypto, NONCE, [device, locked])), expected);
  const kept = { ...locked, interface: { ...locked.interface, lockNonce: null } };
  const silent = Buffer.concat([
    ...[Buffer.from('airlock machine binding 1\0'), Buffer.from([32]), Buffer.from(NONCE), Buffer.from([0, 1])],
    ...[Buffer.from([1]), Buffer.from('a'), sha384(2), Buffer.from([2, 2]), sha384(3)],
  ]);
  assert.deepEqual(Buffer.from(bindingStatement(crypto, NONCE, [kept])), silent);
  assert.deepEqual(deviceNonce(crypto, NONCE), NONCE);
  const short = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  assert.deepEqual(Buffer.from(deviceNonce(crypto, short)), createHash('sha256').update(short).digest());
});

test('bundles are read strictly', () => {
  const text = writeBundle(bundleOf([shown('a', gpu, { interface: INTERFACE })]));
  assert.ok(isBundle(text) && readBundle(text).ok);
  for (const edit of [
    (t: string) => t.replace('"version": 1', '"version": 2'),
    (t: string) => t.replace('"version": 1', '"version": 1, "more": 1'),
    (t: string) => t.replace('"kind": "nvidia"', '"kind": "usb"'),
    (t: string) => t.replace('"name": "a"', '"name": "a b"'),
    (t: string) => t.replace('"name": "a"', '"name": "a", "name": "b"'),
    (t: string) => t.replace('"state": "RUN"', '"state": "run"'),
    (t: string) => t.replace(/"nonce": "a5/, '"nonce": "zz'),
    (t: string) => t.replace(/"nonce": "[0-9a-f]+"/, '"nonce": "a5a5"'),
    (t: string) => t.replace(/"lock-nonce": "[^"]+"/, '"lock-nonce": "AAAA"'),
    (t: string) => t.replace(/"evidence": "/, '"evidence": "!'),
    (t: string) => t.replace('"devices": [', '"devices": [1, '),
  ]) {
    assert.notEqual(edit(text), text);
    assert.equal(readBundle(edit(text)).ok, false);
  }
  const same = { ...bundleOf([]), devices: [shown('a', gpu), shown('a', second)] };
  assert.equal(readBundle(writeBundle(same)).ok, false);
});

test('the report of a machine tells every device and its tier', () => {
  const report = reportOfMachine(judge(bundleOf([shown('a', gpu)])), 'machine.json');
  assert.deepEqual(
    report.appraisals.map(({ kind }) => kind),
    ['amd-sev-snp', 'nvidia-gpu', 'machine'],
  );
  assert.equal(report.appraisals[1]?.source, 'machine.json: a');
  assert.match(JSON.stringify(report.appraisals[2]?.claims), /attested: it is not locked/);
});
