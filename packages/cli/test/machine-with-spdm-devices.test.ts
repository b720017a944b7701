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
import { DEFAULT_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { runAtOnce } from '@airlock/spdm/requester/procedure.ts';
import { signReport, snpMachine } from '../../evidence/test/support/snp-machine.ts';
import { cmaName, dmtf, makeDevice, spdmCrypto } from '../../spdm/test/support/device-chain.ts';
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

function ask(of: typeof device, nonce: Uint8Array): Uint8Array {
  const responder = responderOf(of);
  const connection = new Connection({
    ...{ crypto: spdmCrypto, binding: doeBinding, trust: () => ok(null), preferences: DEFAULT_PREFERENCES },
  });
  const evidence = runAtOnce(gatherEvidence(connection, { device: 'made up', nonce }), (bytes) =>
    must(responder.answer(bytes)),
  );
  return new Uint8Array(Buffer.from(encodeEvidence(must(evidence))));
}
const shown = (name: string, evidence: Uint8Array): BundleDevice => ({
  ...{ name, kind: 'spdm', evidence, certificates: new Uint8Array(), interface: null },
});

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

test('evidence that cannot be read is judged by nobody', () => {
  const broken = judge([shown('a', Uint8Array.of(1, 2, 3))]);
  assert.deepEqual([broken.verdict, broken.tiers], ['rejected', ['claimed']]);
});
