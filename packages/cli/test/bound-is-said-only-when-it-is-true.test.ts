import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import type { Appraisal } from '@airlock/evidence/check.ts';
import { vectorOf } from '@airlock/evidence/ear.ts';
import { bindingDigests } from '@airlock/evidence/machine/binding.ts';
import { type BundleDevice, writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { collectEvidence } from '@airlock/linux/attest/collect.ts';
import type { FakeFiles } from '@airlock/linux/fake-files.ts';
import { type DeviceEvidence, encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { runAtOnce } from '@airlock/spdm/requester/procedure.ts';
import { type InterfaceRecord, shownInterface } from '@airlock/spdm/tdisp/record.ts';
import { encodeInterfaceReport, type InterfaceReport } from '@airlock/spdm/tdisp/report.ts';
import { cpak, token } from '../../evidence/test/support/cca-realm.ts';
import { handsWith } from '../../linux/test/support/fake-tpm.ts';
import { cmaName, dmtf, makeDevice, spdmCrypto } from '../../spdm/test/support/device-chain.ts';
import { must } from '../../spdm/test/support/must.ts';
import { responderOf } from '../../spdm/test/support/responder.ts';
import { askTsm } from '../src/ask-tsm.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';
import { FOLDER, fakeTsm, objectsOf, tsmMachine } from './fake-tsm.ts';

const crypto = nodeCrypto();
const NONCE = new Uint8Array(32).fill(0x5a);
const ADDRESS = '0000:01:00.0';
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';
const maker = { leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] };
const device = makeDevice(maker);
/** Of the same maker. */
const sibling = makeDevice({ ...maker, root: device.root });
const folder = mkdtempSync(join(tmpdir(), 'airlock-bound-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const pem = (label: string, der: Uint8Array) =>
  `-----BEGIN ${label}-----\n${Buffer.from(der).toString('base64')}\n-----END ${label}-----\n`;
writeFileSync(join(folder, 'maker.pem'), pem('CERTIFICATE', device.rootCertificate.der));
writeFileSync(join(folder, 'platform.pem'), pem('PUBLIC KEY', cpak.spki));

const REPORT: InterfaceReport = {
  ...{ info: 0b11, msixControl: 0, lnrControl: 0, tphControl: 0, deviceSpecific: new Uint8Array() },
  ranges: [{ firstPage: 0x77n, pages: 4, attributes: 0, rangeId: 0 }],
};
const config = new Uint8Array(256);
config.set([0x36, 0x1b, 0x10, 0x00]);
config.set([0x02, 0x02, 0x08, 0x01], 0x08);
config.set([0xf4, 0x1a, 0x00, 0x11], 0x2c);

/** As the kernel of an honest guest has it of a TSM that locked and started the function. */
const RECORD: InterfaceRecord = {
  ...{ by: 'tsm', tsm: 'tsm0', functionId: null, found: null, reached: 'RUN', left: 'RUN', lock: null, problem: null },
  chainDigest: crypto.hash('sha384', device.chain.bytes),
  report: encodeInterfaceReport(REPORT),
  facts: {
    ...{ function: ADDRESS, virtual: true, before: config.slice(0, 64), config },
    bars: [{ index: 0, start: 0xfe00_0000n, size: 0x4000n }],
  },
};

function ask(of: typeof device, nonce = NONCE): DeviceEvidence {
  const responder = responderOf(of);
  const connection = new Connection({ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null) });
  const asked = gatherEvidence(connection, { device: `pci:${ADDRESS}`, nonce });
  return must(runAtOnce(asked, (bytes) => must(responder.answer(bytes))));
}
const said = ask(device);

interface Case {
  readonly evidence?: DeviceEvidence;
  readonly record?: Partial<InterfaceRecord> | null;
  /** What the machine shows; what the record says when not given. */
  readonly shown?: Partial<NonNullable<BundleDevice['interface']>> | null;
  readonly name?: string;
  /** What the realm's token covers in place of what is shown. */
  readonly covered?: (shown: BundleDevice) => BundleDevice;
  readonly nonce?: Uint8Array;
}

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text));

function deviceOf({ evidence = said, record = {}, shown = {}, name = ADDRESS }: Case): BundleDevice {
  const whole = record === null ? undefined : { ...RECORD, ...record };
  const own = { ...evidence, ...(whole === undefined ? {} : { interface: whole }) };
  const its = shownInterface({ ...RECORD, ...record });
  const locked =
    shown === null ? null : { state: 'RUN' as const, lockNonce: null, report: new Uint8Array(), ...its, ...shown };
  return {
    name,
    kind: 'spdm',
    evidence: bytesOf(encodeEvidence(own)),
    certificates: new Uint8Array(),
    interface: locked,
  };
}

interface Told {
  readonly verdict: string;
  readonly appraisals: readonly {
    readonly kind: string;
    readonly checks: readonly { readonly id: string; readonly status: string; readonly found: string }[];
    readonly claims: { readonly devices?: Readonly<Record<string, string>> };
  }[];
}

const KEYS = ['--platform-key', 'platform.pem', '--device-root', 'maker.pem'];
const FRESH = ['--nonce', Buffer.from(NONCE).toString('hex')];

/** `airlock verify` of a realm whose token covers its one device. */
async function verify(given: Case, ...more: readonly string[]) {
  const shown = deviceOf(given);
  const covered = given.covered?.(shown) ?? shown;
  const { reportData } = bindingDigests(crypto, given.nonce ?? NONCE, [covered]);
  const vm = [{ name: 'token', bytes: token({ challenge: reportData }) }];
  writeFileSync(join(folder, 'machine.json'), writeBundle({ nonce: NONCE, vm, devices: [shown] }));
  const context = fakeContext({ cwd: folder });
  const code = await run(context, ['verify', 'machine.json', ...KEYS, ...FRESH, '--json', ...more]);
  const told = JSON.parse(context.out() || '{}') as Told;
  const machine = told.appraisals.find(({ kind }) => kind === 'machine');
  const failed = (machine?.checks ?? []).filter(({ status }) => status === 'failed').map(({ id }) => id);
  return { code, failed, tier: machine?.claims.devices?.[given.name ?? ADDRESS] ?? '', told, err: context.err() };
}
const LAUNCH = ['--measurement', '08'.repeat(48)];
const BOUND = [...LAUNCH, '--tier', 'bound'];

test('a device that the TSM of a known VM locked and started, and whose report fits, is bound', async () => {
  const good = await verify({}, ...BOUND);
  assert.deepEqual([good.code, good.tier, good.failed], [0, 'bound', []], good.err);
});

test('for others an interface that fits is configured well, and says nothing of who the device is', async () => {
  const its = (await verify({}, ...BOUND)).told.appraisals.find(({ kind }) => kind === 'tdisp-interface');
  assert.ok(its !== undefined);
  assert.deepEqual(vectorOf(its as unknown as Appraisal), { configuration: 2 });
});

test('what the VM’s evidence does not cover binds nothing', async () => {
  const changes: readonly ((shown: BundleDevice) => BundleDevice)[] = [
    (shown) => ({ ...shown, interface: null }),
    (shown) => ({ ...shown, name: '0000:02:00.0' }),
    (shown) => ({ ...shown, interface: shown.interface && { ...shown.interface, state: 'CONFIG_LOCKED' } }),
    (shown) => ({ ...shown, interface: shown.interface && { ...shown.interface, report: Uint8Array.of(1) } }),
    (shown) => ({ ...shown, interface: shown.interface && { ...shown.interface, lockNonce: new Uint8Array(32) } }),
    () => deviceOf({ record: { left: 'CONFIG_LOCKED' } }),
    () => deviceOf({ record: null, shown: {} }),
    () => deviceOf({ record: { facts: null } }),
  ];
  for (const [i, covered] of changes.entries()) {
    const judged = await verify({ covered }, ...BOUND);
    assert.equal(judged.code, 1);
    assert.match(judged.tier, /^claimed/, `change ${i}`);
    assert.ok(judged.failed.includes('machine.binding'), `change ${i}`);
  }
});

test('a stale nonce, of the VM or of the device, binds nothing', async () => {
  const old = new Uint8Array(32).fill(1);
  const vm = await verify({ nonce: old }, ...BOUND);
  assert.match(vm.tier, /^claimed/);
  assert.ok(vm.failed.includes('machine.binding'));
  const its = await verify({ evidence: ask(device, old) }, ...BOUND);
  assert.match(its.tier, /^claimed/);
  assert.ok(its.failed.includes('machine.nonce'));
});

test('one device says who it is, and another one is locked: a relay, and not bound', async () => {
  const relayed = await verify({ evidence: ask(sibling) }, ...BOUND);
  assert.equal(relayed.code, 1);
  assert.match(relayed.tier, /^attested: /);
  assert.deepEqual(relayed.failed, ['machine.interface', 'machine.tier']);
  assert.match(JSON.stringify(relayed.told), /tdisp\.session/);
});

/** What keeps a device that is attested from being bound, and what is then failed beside its tier. */
const CASES: Readonly<Record<string, readonly [Case, readonly string[]]>> = {
  'locked by nobody': [{ record: null, shown: null }, []],
  'shown as locked, and recorded by nobody': [{ record: null }, ['machine.lock', 'machine.interface']],
  'locked by a session that somebody in the VM made': [
    { record: { by: 'requester', tsm: null }, shown: { report: RECORD.report ?? new Uint8Array() } },
    ['machine.lock'],
  ],
  'locked and not started': [{ record: { reached: 'CONFIG_LOCKED', left: 'CONFIG_LOCKED' } }, ['machine.tdisp']],
  'in ERROR': [{ record: { reached: 'ERROR', left: 'ERROR' } }, ['machine.tdisp', 'machine.interface']],
  'unlocked, with a report of before': [
    { record: { reached: 'CONFIG_UNLOCKED', left: 'CONFIG_UNLOCKED' } },
    ['machine.tdisp', 'machine.interface'],
  ],
  'shown in RUN, and recorded as locked': [
    { record: { reached: 'CONFIG_LOCKED', left: 'CONFIG_LOCKED' }, shown: { state: 'RUN' } },
    ['machine.interface'],
  ],
  'with another report than the recorded one': [{ shown: { report: Uint8Array.of(1, 2, 3) } }, ['machine.interface']],
  'with a lock nonce that nobody recorded': [{ shown: { lockNonce: new Uint8Array(32) } }, ['machine.interface']],
  'without a report': [{ record: { report: null }, shown: { report: new Uint8Array() } }, ['machine.interface']],
  'with another function’s record': [
    { record: { facts: RECORD.facts && { ...RECORD.facts, function: '0000:02:00.0' } } },
    ['machine.interface'],
  ],
  'under another name': [{ name: 'gpu0' }, ['machine.interface']],
  'with another function’s report': [
    {
      record: {
        report: encodeInterfaceReport({ ...REPORT, ranges: [{ firstPage: 0n, pages: 8, attributes: 0, rangeId: 0 }] }),
      },
    },
    ['machine.interface'],
  ],
  'without anything to compare the report with': [{ record: { facts: null } }, ['machine.interface']],
  'whose configuration changed under the lock': [
    { record: { facts: RECORD.facts && { ...RECORD.facts, before: new Uint8Array(64) } } },
    ['machine.interface'],
  ],
  'of whose session nobody knows the key': [{ record: { chainDigest: null } }, ['machine.interface']],
  'whose record ended early': [
    { record: { problem: { code: 'tsm-raced', message: 'it changed in between' } } },
    ['machine.interface'],
  ],
};

for (const [name, [given, failed]] of Object.entries(CASES))
  test(`a device ${name} is not bound`, async () => {
    const judged = await verify(given, ...BOUND);
    assert.equal(judged.code, 1);
    assert.match(judged.tier, /^attested: /);
    assert.deepEqual(judged.failed, [...failed, 'machine.tier']);
    // Nobody who allows checks to fail gets a bound device either.
    const allowed = ['machine.tier', 'tdisp.coverage', 'tdisp.no-update', 'tdisp.non-tee'];
    const waived = await verify(given, ...LAUNCH, ...allowed.flatMap((id) => ['--allow', id]));
    assert.match(waived.tier, /^attested: /);
  });

test('registers outside of the report are the host’s: not bound, unless the verifier says that he knows them', async () => {
  const ranges = [{ firstPage: 0n, pages: 3, attributes: 0, rangeId: 0 }];
  const given: Case = { record: { report: encodeInterfaceReport({ ...REPORT, ranges }) } };
  const judged = await verify(given, ...BOUND);
  assert.deepEqual([judged.code, judged.failed], [1, ['machine.interface', 'machine.tier']]);
  const its = judged.told.appraisals.find(({ kind }) => kind === 'tdisp-interface');
  const failed = its?.checks.filter(({ status }) => status === 'failed');
  assert.deepEqual(
    failed?.map(({ id, found }) => [id, found]),
    [['tdisp.coverage', 'not 1 of 4 pages of BAR 0']],
  );
  assert.equal((await verify(given, ...BOUND, '--allow', 'tdisp.coverage')).tier, 'bound');
});

test('a VM that nobody knows what it runs can say anything: attested, not bound', async () => {
  const unknown = await verify({}, '--tier', 'bound');
  assert.deepEqual([unknown.code, unknown.failed], [1, ['machine.tier']]);
  assert.match(unknown.tier, /^attested: nobody compared what the VM runs/);
  assert.equal((await verify({})).code, 0);
});

/** A realm of Arm CCA whose kernel has a TSM: configfs, sysfs and netlink. */
async function collectInRealm(files: FakeFiles, objects: ReadonlyMap<number, Uint8Array>) {
  const reports = '/sys/kernel/config/tsm/report';
  const entry = `${reports}/airlock-1`;
  files.tree.set(`${reports}/.keep`, '');
  files.tree.set(`/sys/bus/pci/devices/${ADDRESS}`, { link: `../../../devices/pci0000:00/${ADDRESS}` });
  files.onWrite(`${entry}/inblob`, (data) => {
    files.tree.set(`${entry}/generation`, '1\n');
    files.tree.set(`${entry}/outblob`, token({ challenge: new Uint8Array(Buffer.from(data, 'latin1')) }));
    return ok(undefined);
  });
  const folders = {
    make: async (path: string) => {
      for (const [name, text] of [
        ['generation', '0\n'],
        ['provider', 'arm_cca_guest\n'],
        ['inblob', ''],
      ] as const)
        files.tree.set(`${path}/${name}`, text);
      return ok(undefined);
    },
    remove: async () => ok(undefined),
  };
  const own = { id: `pci:${ADDRESS}`, location: ADDRESS, path: FOLDER };
  return collectEvidence({
    ...{ files, hands: handsWith(null, folders), crypto, nonce: NONCE, devices: [], entry: 'airlock-1' },
    askSpdm: async (_, nonce) => {
      const asked = { files, netlink: fakeTsm({ objects: () => objects }), device: own, slot: 0, tsm: 'tsm0', nonce };
      const evidence = await askTsm({ ...asked, step: 'look', judge: () => false });
      return evidence.ok ? ok(bytesOf(encodeEvidence(evidence.value))) : evidence;
    },
  });
}

test('from the kernel’s TSM over the collected document to bound; and not before the TSM let it run', async () => {
  const objects = objectsOf(said, RECORD.report ?? new Uint8Array());
  const collectedIn = async (accept: string, given = objects) => {
    const files = tsmMachine();
    files.tree.set(`${FOLDER}/tsm/lock`, 'tsm0\n');
    files.tree.set(`${FOLDER}/tsm/accept`, accept);
    const { bundle, looked } = await collectInRealm(files, given);
    writeFileSync(join(folder, 'realm.json'), writeBundle(bundle));
    const context = fakeContext({ cwd: folder });
    const code = await run(context, ['verify', 'realm.json', ...KEYS, ...FRESH, ...BOUND]);
    return { code, out: context.out() + context.err(), looked };
  };
  const good = await collectedIn('1\n');
  assert.equal(good.code, 0, good.out);
  assert.match(good.looked.map(({ detail }) => detail).join(), /asked through the kernel’s TSM, RUN/);
  const early = await collectedIn('0\n');
  assert.equal(early.code, 1);
  assert.match(early.out, /CONFIG_LOCKED, not in RUN/);
  const relayed = await collectedIn('1\n', objectsOf(ask(sibling), RECORD.report ?? new Uint8Array()));
  // The sibling is genuine, and it is the one that is locked: it is bound, as the device that it is.
  assert.equal(relayed.code, 0);
  const foreign = makeDevice(maker);
  const strange = await collectedIn('1\n', objectsOf(ask(foreign), RECORD.report ?? new Uint8Array()));
  assert.equal(strange.code, 1);
});
