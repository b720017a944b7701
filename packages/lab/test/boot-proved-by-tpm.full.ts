import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { airlock, measuredCmdline } from '../src/boot-proof.ts';
import { CMDLINE } from '../src/machine.ts';
import { proofFor, provedBoot, reasonOf, verify } from './boot-proof.ts';
import { imagesOrSkip } from './guests.ts';

const MEASURED_CMDLINE = measuredCmdline(CMDLINE);
const NONCES = ['00'.repeat(16), '11'.repeat(16), '22'.repeat(16), '33'.repeat(16)] as const;

test('later boots of one machine are held against the first: the same is accepted; another command line or policy refused by name', {
  timeout: 900_000,
}, async (t) => {
  const images = await imagesOrSkip(t, '7.2');
  if (images === undefined) return;
  const proof = await proofFor(t, images);
  const boot = async (nonce: string, name: string, initramfs: string, cmdline?: string): Promise<string> => {
    const more = cmdline === undefined ? {} : { cmdline };
    const { guest, path } = await provedBoot(t, images, proof, { initramfs, nonce, name, ...more });
    await guest.end();
    return path;
  };
  const first = await boot(NONCES[0], 'first.json', proof.initramfs);
  const reference = await airlock(['evidence', 'reference', first]);
  assert.equal(reference.status, 0, reference.stdout);
  const known = join(proof.folder, 'boot.yaml');
  writeFileSync(known, reference.stdout);
  const held = (path: string, nonce: string) => verify([path, '--key', first, '--nonce', nonce, '--reference', known]);

  const same = await boot(NONCES[1], 'same.json', proof.initramfs);
  assert.deepEqual(await held(same, NONCES[1]), { status: 0, failed: [] });
  assert.equal((await held(first, NONCES[1])).status, 1, 'the first boot’s proof is not one of the second');

  const line = await held(await boot(NONCES[2], 'line.json', proof.initramfs, 'lab.other=1'), NONCES[2]);
  assert.equal(line.status, 1);
  assert.match(reasonOf(line.failed), /pcr9 .*: Linux command line is /);
  assert.doesNotMatch(reasonOf(line.failed), /initrd is|pcr[0-8]/);

  const policy = await held(await boot(NONCES[3], 'policy.json', proof.otherInitramfs), NONCES[3]);
  assert.equal(policy.status, 1);
  assert.match(reasonOf(policy.failed), /pcr9 .*: Linux initrd is /);
  assert.doesNotMatch(reasonOf(policy.failed), /command line is|pcr[0-8]/);
});

for (const series of ['6.1', '6.12'] as const) {
  test(`Linux ${series} measures what was computed before it booted`, { timeout: 300_000 }, async (t) => {
    const images = await imagesOrSkip(t, series);
    if (images === undefined) return;
    const proof = await proofFor(t, images);
    const [nonce, name] = [NONCES[0], 'machine.json'];
    const { guest, path } = await provedBoot(t, images, proof, { initramfs: proof.initramfs, nonce, name });
    await guest.end();
    for (const [initrd, status] of [
      [proof.initramfs, 0],
      [proof.otherInitramfs, 1],
    ] as const) {
      const made = await airlock(['evidence', 'reference', path, '--cmdline', MEASURED_CMDLINE, '--initrd', initrd]);
      assert.equal(made.status, 0, made.stdout);
      const reference = join(proof.folder, 'boot.yaml');
      writeFileSync(reference, made.stdout);
      const held = await verify([path, '--key', path, '--nonce', nonce, '--reference', reference]);
      assert.equal(held.status, status, held.failed.join('\n'));
      if (status === 1) assert.match(reasonOf(held.failed), /Linux initrd is /);
    }
  });
}
