import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { airlock, measuredCmdline } from '../src/boot-proof.ts';
import { CMDLINE } from '../src/machine.ts';
import { proofFor, provedBoot, reasonOf, verify } from './boot-proof.ts';
import { imagesOrSkip } from './guests.ts';

const MEASURED_CMDLINE = measuredCmdline(CMDLINE);
const NONCE = '6f1d0a5cb2447e93816f1d0a5cb2447e';

test('a boot is what its TPM says: the kernel’s command line and the initramfs with the policy, and no other', {
  timeout: 300_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const proof = await proofFor(t, images);
  const { guest, path } = await provedBoot(t, images, proof, {
    initramfs: proof.initramfs,
    nonce: NONCE,
    name: 'machine.json',
  });
  const tpm = Number(readFileSync(join(dirname(guest.shellSocket), 'tpm/tpm.pid'), 'utf8'));
  assert.ok(existsSync(`/proc/${tpm}`));
  await guest.end();
  assert.ok(!existsSync(`/proc/${tpm}`), 'the TPM ends with its guest');

  // What is expected is computed from what was built, not taken from what the guest says.
  const expect = async (cmdline: string, initrd: string, name: string): Promise<string[]> => {
    const made = await airlock(['evidence', 'reference', path, '--cmdline', cmdline, '--initrd', initrd]);
    assert.equal(made.status, 0, made.stdout);
    writeFileSync(join(proof.folder, name), made.stdout);
    return [path, '--key', path, '--nonce', NONCE, '--reference', join(proof.folder, name)];
  };
  const good = await expect(MEASURED_CMDLINE, proof.initramfs, 'good.yaml');
  assert.deepEqual(await verify(good), { status: 0, failed: [] });

  const line = await verify(await expect(`${MEASURED_CMDLINE} airlock.off`, proof.initramfs, 'line.yaml'));
  assert.equal(line.status, 1);
  assert.match(reasonOf(line.failed), /pcr9 .*: Linux command line is /);
  assert.doesNotMatch(reasonOf(line.failed), /initrd is|pcr[0-8]/);

  const policy = await verify(await expect(MEASURED_CMDLINE, proof.otherInitramfs, 'policy.yaml'));
  assert.equal(policy.status, 1);
  assert.match(reasonOf(policy.failed), /pcr9 .*: Linux initrd is /);
  assert.doesNotMatch(reasonOf(policy.failed), /command line is|pcr[0-8]/);

  const stale = await verify(good.map((word) => (word === NONCE ? NONCE.replace('6f', '70') : word)));
  assert.equal(stale.status, 1);
  assert.ok(stale.failed.some((line) => line.startsWith('freshness.nonce')));
  const keyless = await verify(good.filter((_, i) => i !== 1 && i !== 2));
  assert.equal(keyless.status, 1, 'a key that came with the quote proves nothing');
  assert.ok(keyless.failed.some((line) => line.startsWith('tpm.key')));

  // A log that tells another story than the quote.
  const document: { vm: { name: string; data: string }[] } = JSON.parse(readFileSync(path, 'utf8'));
  for (const part of document.vm) {
    if (part.name !== 'tpm-event-log') continue;
    const bytes = Buffer.from(part.data, 'base64');
    const at = bytes.indexOf(createHash('sha256').update(readFileSync(proof.initramfs)).digest());
    assert.notEqual(at, -1, 'the firmware measured the very file');
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    part.data = bytes.toString('base64');
  }
  const forged = join(proof.folder, 'forged.json');
  writeFileSync(forged, JSON.stringify(document));
  const told = await verify([forged, ...good.slice(1)]);
  assert.equal(told.status, 1);
  assert.ok(
    told.failed.some((line) => line.startsWith('tpm.event-log: other values of PCR 9')),
    told.failed.join('\n'),
  );
});
