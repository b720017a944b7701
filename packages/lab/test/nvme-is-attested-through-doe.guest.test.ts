import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Guest } from '../src/guest.ts';
import { driveMaker } from '../src/spdm-drive.ts';
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
  const guest = await bootFor(t, images, images.plain, {
    cmdline: 'lab.agent=off',
    tweaks: { '0a.0': { spdm_port: String(drive.port) } },
  });

  const good = await attest(guest, roots);
  assert.equal(good.code, 0, `${good.err} ${JSON.stringify(failed(good.told))}`);
  assert.equal(good.told?.tier, 'attested');
  t.diagnostic(`attested in ${good.told?.milliseconds} ms, ${good.told?.messages} messages`);

  await drive.become('other-device');
  assert.deepEqual(failed((await attest(guest, roots)).told), ['cma.function']);
  await drive.become('wrong-root');
  assert.ok(failed((await attest(guest, roots)).told)?.includes('chain.root'));

  await drive.become('endless-busy');
  const busy = await attest(guest, roots);
  assert.equal(busy.code, 1, busy.err);
  assert.match(busy.err, /peer-|message-/);
});

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
