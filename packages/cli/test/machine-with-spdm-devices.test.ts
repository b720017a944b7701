import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { appraiseMachine } from '@airlock/evidence/machine/appraise.ts';
import { bindingDigests } from '@airlock/evidence/machine/binding.ts';
import { type BundleDevice, readBundle, writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import { encodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { type PciIdentity, parsePciName } from '@airlock/spdm/identity/pci-name.ts';
import { DEFAULT_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { runAtOnce } from '@airlock/spdm/requester/procedure.ts';
import { signReport, snpMachine } from '../../evidence/test/support/snp-machine.ts';
import {
  cmaName,
  type DeviceOptions,
  deviceInfo,
  dmtf,
  makeDevice,
  names,
  spdmCrypto,
} from '../../spdm/test/support/device-chain.ts';
import { must } from '../../spdm/test/support/must.ts';
import { responderOf } from '../../spdm/test/support/responder.ts';
import { judgeSpdm } from '../src/bundle-devices.ts';

const crypto = nodeCrypto();
const asOf = Date.parse('2026-06-01');
const NONCE = new Uint8Array(32).fill(0x5a);
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';
const device = makeDevice({ leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] });
const other = makeDevice({ leaf: [cmaName(NAME), dmtf('1.3.6.1.4.1.412.274.2')] });
const machine = snpMachine();

function ask(of: typeof device, nonce: Uint8Array, its?: PciIdentity): Uint8Array {
  const responder = responderOf(of);
  const connection = new Connection({
    ...{ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null), preferences: DEFAULT_PREFERENCES },
  });
  const evidence = runAtOnce(gatherEvidence(connection, { device: 'made up', nonce }), (bytes) =>
    must(responder.answer(bytes)),
  );
  const whole = { ...must(evidence), ...(its === undefined ? {} : { function: its }) };
  return new Uint8Array(Buffer.from(encodeEvidence(whole)));
}
const shown = (name: string, evidence: Uint8Array): BundleDevice => ({
  ...{ name, kind: 'spdm', evidence, certificates: new Uint8Array(), interface: null },
});

/** Another slot of a device, or another device: of the same maker, with a key of its own. */
const slot = (...leaf: NonNullable<DeviceOptions['leaf']>) => makeDevice({ leaf, root: device.root });

function judge(devices: readonly BundleDevice[], roots: readonly Certificate[] = [device.rootCertificate]) {
  const report = machine.report.bytes.slice();
  report.set(bindingDigests(crypto, NONCE, devices).reportData, 0x50);
  const vm = [
    { name: 'report', bytes: signReport(report, machine.keys.vcek) },
    ...machine.certificates.map(({ der }, i) => ({ name: `certificate-${i}`, bytes: der })),
  ];
  const bundle = readBundle(writeBundle({ nonce: NONCE, vm, devices }));
  assert.ok(bundle.ok);
  const verdict = appraiseMachine(bundle.value, [], {
    ...{ crypto, asOf, nonce: NONCE, roots: machine.roots },
    judgeDevice: (one, nonce) => judgeSpdm(one, nonce, { roots, lists: [], asOf }),
  });
  const failed = verdict.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
  return { ...verdict, failed, tiers: verdict.devices.map(({ tier }) => tier) };
}

test('a device that speaks SPDM is attested within its machine', () => {
  const good = judge([shown('0000:01:00.0', ask(device, NONCE))]);
  assert.deepEqual([good.verdict, good.failed, good.tiers], ['accepted', [], ['attested']]);
});

test('another maker’s device, an old answer, and one device twice are only claimed', () => {
  const strange = judge([shown('a', ask(other, NONCE))]);
  assert.deepEqual(strange.tiers, ['claimed']);
  assert.ok(strange.failed.includes('machine.device'));
  const old = judge([shown('a', ask(device, new Uint8Array(32)))]);
  assert.deepEqual(old.tiers, ['claimed']);
  assert.ok(old.failed.includes('machine.nonce'));
  const twice = judge([shown('a', ask(device, NONCE)), shown('b', ask(device, NONCE))]);
  assert.deepEqual(twice.tiers, ['claimed', 'claimed']);
  assert.ok(twice.failed.includes('machine.distinct'));
});

test('two slots with keys of their own are one device where their certificates share what only one has', () => {
  const serial = cmaName(`${NAME}:00aabbccddeeff01`);
  const named = names(deviceInfo('ACME:WIDGET:7'));
  for (const [one, said] of [
    [serial, /the serial number 00aabbccddeeff01 of vendor 1b36/],
    [named, /the name ACME:WIDGET:7/],
  ] as const) {
    const both = judge([shown('a', ask(slot(one), NONCE)), shown('b', ask(slot(one), NONCE))]);
    assert.deepEqual(both.tiers, ['claimed', 'claimed']);
    const distinct = both.checks.filter(({ id, status }) => id === 'machine.distinct' && status === 'failed');
    assert.deepEqual([distinct.length, distinct.every(({ found }) => said.test(found))], [2, true]);
  }
  const two = judge([
    shown('a', ask(slot(serial), NONCE)),
    shown('b', ask(slot(cmaName(`${NAME}:00aabbccddeeff02`)), NONCE)),
    shown('c', ask(slot(cmaName(NAME)), NONCE)),
    shown('d', ask(slot(cmaName(NAME)), NONCE)),
  ]);
  assert.deepEqual([two.verdict, two.tiers], ['accepted', Array(4).fill('attested')]);
});

test('a certificate for another function than the VM was shown is refused, and one without a name where it may not be', () => {
  const function_ = parsePciName(NAME);
  assert.ok(function_ !== undefined);
  const status = (of: typeof device, its: PciIdentity, id: string) => {
    const said = judge([shown('a', ask(of, NONCE, its))]);
    const check = said.devices[0]?.appraisal?.checks.find((one) => one.id === id);
    return [said.verdict, check?.status, check?.expected.includes('as the host showed it to the VM')];
  };
  assert.deepEqual(status(device, function_, 'cma.function'), ['accepted', 'passed', true]);
  assert.deepEqual(status(device, { ...function_, device: 0x11 }, 'cma.function'), ['rejected', 'failed', true]);
  assert.deepEqual(status(slot(), function_, 'cma.name'), ['rejected', 'failed', false]);
});

test('evidence that cannot be read is judged by nobody', () => {
  const broken = judge([shown('a', Uint8Array.of(1, 2, 3))]);
  assert.deepEqual([broken.verdict, broken.tiers], ['rejected', ['claimed']]);
});
