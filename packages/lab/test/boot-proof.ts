/** A guest behind the gate with a software TPM, for tests of what it proves of its boot. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { collectProof, ownReasons, TPM_RULE, verify as verdictOf } from '../src/boot-proof.ts';
import { CHECKOUT } from '../src/cache.ts';
import type { Guest } from '../src/guest.ts';
import type { Images } from '../src/images.ts';
import { bootFor, gated } from './guests.ts';

export interface Proof {
  readonly folder: string;
  /** Initramfs with the policy, and with one rule more. */
  readonly initramfs: string;
  readonly otherInitramfs: string;
  readonly tpmState: string;
}

export async function proofFor(t: TestContext, images: Images): Promise<Proof> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-proof-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const text = readFileSync(join(CHECKOUT, 'policies/lab.yaml'), 'utf8') + TPM_RULE;
  writeFileSync(join(folder, 'policy.yaml'), text);
  const more = `${text}
  - id: nvme
    match: { bus: pci, class: nvme }
    level: limited
`;
  writeFileSync(join(folder, 'other.yaml'), more);
  return {
    folder,
    initramfs: await gated(images, join(folder, 'policy.yaml')),
    otherInitramfs: await gated(images, join(folder, 'other.yaml')),
    tpmState: join(folder, 'state'),
  };
}

/** Boots, has the guest prove it, and gives the path of the document outside. */
export async function provedBoot(
  t: TestContext,
  images: Images,
  proof: Proof,
  boot: { readonly initramfs: string; readonly nonce: string; readonly name: string; readonly cmdline?: string },
): Promise<{ readonly guest: Guest; readonly path: string }> {
  const { initramfs, nonce, name, cmdline } = boot;
  const guest = await bootFor(t, images, initramfs, {
    tpmState: proof.tpmState,
    ...(cmdline === undefined ? {} : { cmdline }),
  });
  const path = join(proof.folder, name);
  const collected = await collectProof(guest, nonce, path);
  assert.ok(collected.ok, JSON.stringify(collected));
  return { guest, path };
}

/** Ids of the checks that failed, with what they found. */
export async function verify(
  args: readonly string[],
): Promise<{ readonly status: number; readonly failed: readonly string[] }> {
  const verdict = await verdictOf(args);
  assert.ok(verdict.ok, JSON.stringify(verdict));
  return verdict.value;
}

/** The machine is refused because of its TPM, and the TPM because of its reference values alone: this says why. */
export function reasonOf(failed: readonly string[]): string {
  const own = ownReasons(failed);
  assert.equal(own.length, 1, failed.join('\n'));
  assert.match(own[0] ?? '', /^reference\.value: /);
  return own[0] ?? '';
}
