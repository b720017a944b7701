import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import { ALL_PREFERENCES } from '@airlock/spdm/negotiate.ts';
import { nodeSpdmCrypto, signingKey } from '@airlock/spdm/node-crypto.ts';
import { Responder } from '@airlock/spdm/responder/responder.ts';
import { serveSocket } from '@airlock/spdm/tcp/node-server.ts';
import { cmaName, type Device, dmtf, makeDevice } from '../../spdm/test/support/device-chain.ts';
import type { Guest } from '../src/guest.ts';
import { bootFor, imagesOrSkip } from './guests.ts';

/** What QEMU’s NVMe controller is, as its configuration space shows it. */
const NAME = 'Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100';
const HARDWARE_IDENTITY = '1.3.6.1.4.1.412.274.2';

/** A responder behind QEMU’s `spdm_port`: each connection gets the one that `current` makes. */
async function serve(t: TestContext, current: () => Responder): Promise<number> {
  const server = await serveSocket({
    listen: { host: '127.0.0.1', port: 0 },
    form: 'emulator-doe',
    open: () => (message) => current().answer(message),
  });
  assert.ok(server.ok);
  t.after(() => server.value.close());
  return server.value.port;
}

function responderOf(device: Device): Responder {
  return new Responder({
    crypto: nodeSpdmCrypto(),
    binding: doeBinding,
    algorithms: { ...ALL_PREFERENCES, signatures: ['ecdsa-p384'], measurementHash: 'sha384' },
    slots: new Map([[0, { certificates: device.chain.certificates, key: signingKey(device.leaf.key) }]]),
    measurements: [
      { index: 1, typeCode: 0, raw: false, value: new Uint8Array(100).fill(7), tcb: true },
      { index: 2, typeCode: 1, raw: false, value: new Uint8Array(100).fill(8), tcb: true },
    ],
  });
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

const POLICY = `version: 1
mode: enforce
default: limited
rules:
  - id: drive
    match: { bus: pci, class: nvme }
    require: { identity: attested, roots: [maker.der] }
    level: limited
    otherwise: { level: disconnected }
`;

/** One look of the agent in the guest: what was decided on the drive, why, and the driver that it is left with. */
async function look(guest: Guest, root: Uint8Array): Promise<{ readonly told: string; readonly driver: string }> {
  const answer = await guest.run(
    `mkdir -p /tmp/p; echo ${base64(root)} | base64 -d > /tmp/p/maker.der; echo ${base64(Buffer.from(POLICY))} | base64 -d > /tmp/p/policy.yaml
rm -f /run/airlock/events.ndjson; airlock agent run --policy /tmp/p/policy.yaml --once --enforce > /tmp/out 2>&1
grep '"kind":"attested"' /run/airlock/events.ndjson | tail -n 1; echo "driver=$(basename $(readlink /sys/bus/pci/devices/0000:00:0a.0/driver) 2>/dev/null)"; grep -v 0a.0 /tmp/out | head -c 1500 >&2`,
    120,
  );
  assert.ok(answer.ok, JSON.stringify(answer));
  const { stdout, stderr } = answer.value;
  const driver = /driver=(\S*)/.exec(stdout)?.[1];
  assert.ok(driver !== undefined, `${stdout} ${stderr}`);
  return { told: `${stdout.split('\n')[0]} ${stderr}`, driver };
}

test('the agent binds an NVMe drive that proves who it is, and not one that another root vouches for', {
  timeout: 600_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const honest = makeDevice({ leaf: [cmaName(NAME), dmtf(HARDWARE_IDENTITY)] });
  const stranger = makeDevice({ leaf: [cmaName(NAME), dmtf(HARDWARE_IDENTITY)] });
  let responder = responderOf(honest);
  const port = await serve(t, () => responder);
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(port) } },
  });
  const root = honest.rootCertificate.der;

  const good = await look(guest, root);
  assert.equal(good.driver, 'nvme', good.told);
  assert.match(good.told, /"tier":"attested".*maker\.der vouches/);

  responder = responderOf(stranger);
  const bad = await look(guest, root);
  assert.equal(bad.driver, '', bad.told);
  assert.match(bad.told, /"tier":"claimed".*chain\.root/);
  t.diagnostic(good.told.slice(0, 300));
});
