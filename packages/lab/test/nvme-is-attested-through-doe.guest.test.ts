import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Guest } from '../src/guest.ts';
import { driveMaker } from '../src/spdm-drive.ts';
import { verify } from './boot-proof.ts';
import { bootFor, driveFor, imagesOrSkip } from './guests.ts';

interface Told {
  readonly verdict: string;
  readonly tier: string;
  readonly milliseconds: number;
  readonly messages: number;
  readonly appraisals: readonly {
    readonly checks: readonly { readonly id: string; readonly status: string; readonly found: string }[];
  }[];
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

async function attest(
  guest: Guest,
  roots: string,
): Promise<{ readonly code: number; readonly told: Told | null; readonly err: string }> {
  const answer = await guest.run(
    `echo ${base64(Buffer.from(roots))} | base64 -d > /tmp/root.pem; airlock device attest 00:0a.0 --roots /tmp/root.pem --json > /tmp/told; status=$?; base64 /tmp/told; exit $status`,
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
  const maker = driveMaker(['honest', 'other-device', 'wrong-root', 'endless-busy']);
  assert.ok(maker.ok);
  const { roots } = maker.value;
  const drive = await driveFor(t, maker.value, 'honest');
  const folder = mkdtempSync(join(tmpdir(), 'airlock-drive-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tpmState: join(folder, 'state'),
    tweaks: { '0a.0': { spdm_port: String(drive.port) } },
  });

  const good = await attest(guest, roots);
  assert.equal(good.code, 0, `${good.err} ${JSON.stringify(failed(good.told))}`);
  assert.equal(good.told?.tier, 'attested');
  t.diagnostic(`attested in ${good.told?.milliseconds} ms, ${good.told?.messages} messages`);

  await collectsAsOneMachine(guest, folder, roots);

  await drive.become('other-device');
  assert.deepEqual(failed((await attest(guest, roots)).told), ['cma.function']);
  await drive.become('wrong-root');
  assert.ok(failed((await attest(guest, roots)).told)?.includes('chain.root'));

  await drive.become('endless-busy');
  const busy = await attest(guest, roots);
  assert.equal(busy.code, 1, busy.err);
  assert.match(busy.err, /peer-|message-/);
});

const NONCE = '93b70a5cb2447e93816f1d0a5cb2447e';

/** The drive is asked first, and the TPM's quote covers what it said: one document, judged outside. */
async function collectsAsOneMachine(guest: Guest, folder: string, roots: string): Promise<void> {
  const collected = await guest.run(
    `airlock evidence collect --nonce ${NONCE} --json --out /tmp/machine.json 2>/tmp/said || { cat /tmp/said; exit 1; }; cat /tmp/said; echo; cat /tmp/machine.json`,
    120,
  );
  assert.ok(collected.ok, JSON.stringify(collected));
  const { status, stdout } = collected.value;
  assert.equal(status, 0, stdout);
  const [said = '', document = ''] = stdout.split('\n\n');
  const looked = said.split('\n').map((line): Readonly<Record<string, string>> => JSON.parse(line));
  assert.deepEqual(
    looked.filter((one) => one['status'] === 'taken').map((one) => `${one['what']} ${one['path']}`),
    [
      'device /sys/bus/pci/devices/0000:00:0a.0',
      'TPM quote /dev/tpmrm0',
      'event log of the TPM /sys/kernel/security/tpm0/binary_bios_measurements',
    ],
    said,
  );
  const [path, root] = [join(folder, 'machine.json'), join(folder, 'root.pem')];
  writeFileSync(path, document);
  writeFileSync(root, roots);
  const args = [path, '--key', path, '--nonce', NONCE, '--device-root', root];
  assert.deepEqual(await verify(args), { status: 0, failed: [] });

  // Without the drive, or with what it said to another nonce, the quote covers something else.
  const machine: { devices: { evidence: string }[] } = JSON.parse(document);
  const [device] = machine.devices;
  assert.ok(device !== undefined && machine.devices.length === 1);
  writeFileSync(path, JSON.stringify({ ...machine, devices: [] }));
  const without = await verify(args);
  assert.equal(without.status, 1);
  assert.ok(without.failed.some((line) => line.startsWith('freshness.nonce')));
  const stale = await verify(args.map((word) => (word === NONCE ? NONCE.replace('93', '94') : word)));
  assert.equal(stale.status, 1);
}

test('a kernel that is locked down forbids it, and that is what is said', { timeout: 600_000 }, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const maker = driveMaker(['honest']);
  assert.ok(maker.ok);
  const drive = await driveFor(t, maker.value, 'honest');
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off lockdown=integrity',
    tweaks: { '0a.0': { spdm_port: String(drive.port) } },
  });
  const refused = await attest(guest, maker.value.roots);
  assert.equal(refused.code, 3, refused.err);
  assert.match(refused.err, /config-locked-down/);
});
