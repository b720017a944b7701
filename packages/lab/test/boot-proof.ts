/** A guest behind the gate with a software TPM, and what it proves of its boot, judged from outside by the CLI. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { CHECKOUT } from '../src/cache.ts';
import type { Guest } from '../src/guest.ts';
import { CMDLINE } from '../src/machine.ts';
import type { Images } from '../src/scenario.ts';
import { bootFor, gated } from './guests.ts';

/** What the kernel measures: QEMU's firmware hands the initramfs over as a file of that name. */
export const MEASURED_CMDLINE = `${CMDLINE} initrd=initrd`;

/** The lab's policy lets nothing speak that it does not name; here the TPM must. */
const TPM_RULE = `
  - id: tpm
    match: { bus: platform, type: tpm, hotplugged: false }
    level: limited
`;

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
  const collected = await guest.run(
    `airlock evidence collect --nonce ${nonce} --out /tmp/${name} 2>/tmp/said || { cat /tmp/said; exit 1; }; cat /tmp/${name}`,
    120,
  );
  assert.ok(collected.ok, JSON.stringify(collected));
  assert.equal(collected.value.status, 0, collected.value.stdout);
  const path = join(proof.folder, name);
  writeFileSync(path, collected.value.stdout);
  return { guest, path };
}

export function airlock(args: readonly string[]): Promise<{ readonly status: number; readonly stdout: string }> {
  return new Promise((resolve) => {
    execFile(join(CHECKOUT, 'airlock'), args, (error, stdout, stderr) => {
      resolve({
        status: typeof error?.code === 'number' ? error.code : 0,
        stdout: error === null ? stdout : stdout || stderr,
      });
    });
  });
}

/** Ids of the checks that failed, with what they found. */
export async function verify(args: readonly string[]): Promise<{ readonly status: number; readonly failed: string[] }> {
  const { status, stdout } = await airlock(['verify', ...args, '--json']);
  const report: unknown = JSON.parse(stdout);
  const failed: string[] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    if ('status' in value && value.status === 'failed' && 'id' in value && 'found' in value)
      failed.push(`${value.id}: ${value.found}`);
    for (const one of Object.values(value)) walk(one);
  };
  walk(report);
  return { status, failed };
}

/** The machine is refused because of its TPM, and the TPM because of its reference values alone: this says why. */
export function reasonOf(failed: readonly string[]): string {
  const own = failed.filter((line) => !line.startsWith('machine.vm:'));
  assert.equal(own.length, 1, failed.join('\n'));
  assert.match(own[0] ?? '', /^reference\.value: /);
  return own[0] ?? '';
}
