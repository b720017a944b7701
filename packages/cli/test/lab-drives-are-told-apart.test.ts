import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type DriveConduct, driveMaker, NVME_FUNCTION } from '@airlock/lab/spdm-drive.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

/** What the lab's maker vouches for, and what is wrong with each of the others, by its check. */
const EXPECTED: Partial<Readonly<Record<DriveConduct, readonly string[]>>> = {
  honest: [],
  relay: [],
  // Its issuer has the name of ours, whose lists it did not sign.
  'wrong-root': ['chain.root', 'chain.revocation-list'],
  expired: ['chain.validity'],
  revoked: ['chain.revocation'],
  'other-device': ['cma.function'],
  'wrong-measurement': ['measurement.value'],
};

interface Told {
  readonly appraisals: readonly { readonly checks: readonly { readonly id: string; readonly status: string }[] }[];
}

test('drives of one made-up maker are told apart by what the lab hands to its guest', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-drives-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const conducts = Object.keys(EXPECTED) as DriveConduct[];
  const maker = driveMaker(conducts);
  assert.ok(maker.ok);
  writeFileSync(join(folder, 'maker.pem'), maker.value.roots);
  writeFileSync(join(folder, 'drive.yaml'), maker.value.reference);
  for (const conduct of conducts) {
    await t.test(conduct, async () => {
      const drive = await maker.value.open(conduct);
      assert.ok(drive.ok, JSON.stringify(drive));
      const context = fakeContext({ cwd: folder });
      const place = ['device', 'attest', `tcp://127.0.0.1:${drive.value.port}`, '--transport', 'emulator-doe'];
      const known = ['--roots', 'maker.pem', '--reference', 'drive.yaml', '--function', NVME_FUNCTION];
      const code = await run(context, [...place, ...known, '--json']);
      await drive.value.close();
      const told = JSON.parse(context.out()) as Told;
      const failed = told.appraisals.flatMap(({ checks }) => checks.filter(({ status }) => status === 'failed'));
      assert.deepEqual([...new Set(failed.map(({ id }) => id))], EXPECTED[conduct], context.err());
      assert.equal(code, failed.length === 0 ? 0 : 1);
      assert.ok(drive.value.answered() >= 7);
    });
  }
  await t.test('a drive that was not made cannot be had', async () => {
    const drive = await maker.value.open('mute');
    assert.equal(!drive.ok && drive.error.code, 'profile-invalid');
  });
});

test('what stands behind a drive changes while it is connected to', async (t) => {
  const maker = driveMaker(['honest', 'mute']);
  assert.ok(maker.ok);
  const drive = await maker.value.open('honest');
  assert.ok(drive.ok);
  t.after(() => drive.value.close());
  const refused = await drive.value.become('expired');
  assert.equal(!refused.ok && refused.error.code, 'profile-invalid');
  assert.deepEqual(await drive.value.become('mute'), { ok: true, value: undefined });
});
