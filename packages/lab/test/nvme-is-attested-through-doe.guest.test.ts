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

interface Told {
  readonly verdict: string;
  readonly tier: string;
  readonly milliseconds: number;
  readonly messages: number;
  readonly appraisals: readonly {
    readonly checks: readonly { readonly id: string; readonly status: string; readonly found: string }[];
  }[];
}

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

async function attest(
  guest: Guest,
  root: Uint8Array,
): Promise<{ readonly code: number; readonly told: Told | null; readonly err: string }> {
  const answer = await guest.run(
    `echo ${base64(root)} | base64 -d > /tmp/root.der; airlock device attest 00:0a.0 --roots /tmp/root.der --json > /tmp/told; status=$?; base64 /tmp/told; exit $status`,
    120,
  );
  assert.ok(answer.ok, JSON.stringify(answer));
  const { status, stdout, stderr } = answer.value;
  // The channel carries ASCII.
  const text = Buffer.from(stdout.replaceAll('\n', ''), 'base64').toString('utf8');
  return { code: status, told: text === '' ? null : (JSON.parse(text) as Told), err: stderr };
}

const failed = (told: Told | null) =>
  told?.appraisals[0]?.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);

test('an NVMe drive with a DOE mailbox: who it is, through sysfs, on a stock kernel', {
  timeout: 600_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const honest = makeDevice({ leaf: [cmaName(NAME), dmtf(HARDWARE_IDENTITY)] });
  let device = honest;
  let responder = responderOf(device);
  const become = (next: Device) => {
    device = next;
    responder = responderOf(next);
  };
  const port = await serve(t, () => responder);
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(port) } },
  });

  const good = await attest(guest, honest.rootCertificate.der);
  assert.equal(good.code, 0, `${good.err} ${JSON.stringify(failed(good.told))}`);
  assert.equal(good.told?.tier, 'attested');
  t.diagnostic(`attested in ${good.told?.milliseconds} ms, ${good.told?.messages} messages`);

  const other = makeDevice({ leaf: [cmaName(NAME.replace('Device=0010', 'Device=0011'))] });
  become(other);
  assert.deepEqual(failed((await attest(guest, other.rootCertificate.der)).told), ['cma.function']);
  assert.ok(failed((await attest(guest, honest.rootCertificate.der)).told)?.includes('chain.root'));

  become(honest);
  responder = {
    answer: () => ({ ok: true, value: Uint8Array.of(1, 0, 1, 0, 3, 0, 0, 0, 0x12, 0x7f, 3, 0) }),
  } as unknown as Responder;
  const busy = await attest(guest, honest.rootCertificate.der);
  assert.equal(busy.code, 1, busy.err);
  assert.match(busy.err, /peer-|message-/);
});

test('a kernel that is locked down forbids it, and that is what is said', { timeout: 600_000 }, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const device = makeDevice({ leaf: [cmaName(NAME)] });
  const responder = responderOf(device);
  const port = await serve(t, () => responder);
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off lockdown=integrity',
    tweaks: { '0a.0': { spdm_port: String(port) } },
  });
  const refused = await attest(guest, device.rootCertificate.der);
  assert.equal(refused.code, 3, refused.err);
  assert.match(refused.err, /config-locked-down/);
});
