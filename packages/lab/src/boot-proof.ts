/**
 * A guest with a software TPM proves what it booted: its quote and event log are collected within, and judged outside by
 * `airlock verify` against what was built. Firmware measures the kernel, its command line, and the initramfs with the policy.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { CHECKOUT } from './cache.ts';
import type { BootProof, Exhibit, ProofVerdict, Stage } from './exhibit.ts';
import { gatedInitramfs } from './gated-initramfs.ts';
import type { Guest } from './guest.ts';
import { policyWith } from './lab-policy.ts';

/** Without it the TPM has no driver under a policy that names what may speak. */
export const TPM_RULE = `  - id: lab-tpm
    match: { bus: platform, type: tpm, hotplugged: false }
    level: limited
`;

const OTHER_RULE = `  - id: lab-another-policy
    match: { bus: pci, class: nvme }
    level: limited
`;

/** The kernel's command line as it is measured: QEMU's firmware hands the initramfs over as a file of that name. */
export function measuredCmdline(cmdline: string): string {
  return `${cmdline} initrd=initrd`;
}

/** Has the guest prove its boot, and nothing of its devices; the document is then at `path`. Codes: the guest's, `guest-command`. */
export async function collectProof(guest: Guest, nonce: string, path: string): Promise<Result<void>> {
  const answer = await guest.run(
    `airlock evidence collect --no-devices --nonce ${nonce} --out /tmp/proof 2>/tmp/said || { cat /tmp/said; exit 1; }; cat /tmp/proof`,
    120,
  );
  if (!answer.ok) return answer;
  const { status, stdout } = answer.value;
  if (status !== 0) return fail('guest-command', `airlock evidence collect: ${stdout.trim().slice(0, 500)}`);
  writeFileSync(path, stdout);
  return ok(undefined);
}

export interface Verdict {
  readonly status: number;
  /** `ID: what was found` of each check that failed. */
  readonly failed: readonly string[];
}

/** `airlock verify` with these words. Code: `guest-answer` where it gives no report. */
export async function verify(words: readonly string[]): Promise<Result<Verdict>> {
  const { status, stdout } = await airlock(['verify', ...words, '--json']);
  let report: unknown;
  try {
    report = JSON.parse(stdout);
  } catch {
    return fail('guest-answer', `airlock verify: ${stdout.trim().slice(0, 500)}`);
  }
  const failed: string[] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    if ('status' in value && value.status === 'failed' && 'id' in value && 'found' in value)
      failed.push(`${value.id}: ${value.found}`);
    for (const one of Object.values(value)) walk(one);
  };
  walk(report);
  return ok({ status, failed });
}

/** The command line of this checkout; standard error where there is no output. */
export function airlock(words: readonly string[]): Promise<{ readonly status: number; readonly stdout: string }> {
  return new Promise((resolve) => {
    execFile(join(CHECKOUT, 'airlock'), words, { maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      const status = typeof error?.code === 'number' ? error.code : error === null ? 0 : 3;
      resolve({ status, stdout: error === null ? stdout : stdout || stderr });
    });
  });
}

/**
 * Reference values for a boot with this command line and initramfs, computed from them and not taken from what the guest
 * says, written to `into`. Code: `lab-build`.
 */
export async function expectBoot(
  proof: string,
  boot: { readonly cmdline: string; readonly initramfs: string },
  into: string,
): Promise<Result<void>> {
  const words = [
    'evidence',
    'reference',
    proof,
    '--cmdline',
    measuredCmdline(boot.cmdline),
    '--initrd',
    boot.initramfs,
  ];
  const made = await airlock(words);
  if (made.status !== 0) return fail('lab-build', `airlock evidence reference: ${made.stdout.trim().slice(0, 500)}`);
  writeFileSync(into, made.stdout);
  return ok(undefined);
}

/** The machine is refused because of its TPM; these are the TPM's own reasons. */
export function ownReasons(failed: readonly string[]): readonly string[] {
  return failed.filter((line) => !line.startsWith('machine.vm:'));
}

/** A guest with a TPM, and what its proof is worth against what was started and against what was not. */
export function bootProof(): Exhibit {
  let folder = '';
  return {
    step: 'proof',
    title: 'the guest proves its boot with its TPM',
    ports: 0,
    async prepare(_, privately) {
      folder = join(privately, 'proof');
      mkdirSync(folder);
      return ok({ machine: { tpmState: join(folder, 'state') }, rules: TPM_RULE });
    },
    async show(stage) {
      const proof = await prove(stage, folder);
      return proof.ok ? ok({ proof: proof.value }) : proof;
    },
    close: async () => undefined,
  };
}

async function prove(stage: Stage, folder: string): Promise<Result<BootProof>> {
  const { guest, initramfs, cmdline, note } = stage;
  const nonce = randomBytes(16).toString('hex');
  const path = join(folder, 'machine.json');
  const collected = await collectProof(guest, nonce, path);
  if (!collected.ok) return collected;
  note('judged outside');
  const other = await otherPolicy(stage, folder);
  if (!other.ok) return other;
  const cases: readonly (readonly [ProofVerdict['against'], { cmdline: string; initramfs: string }, string])[] = [
    ['what was started', { cmdline, initramfs }, nonce],
    ['another command line', { cmdline: `${cmdline} airlock.off`, initramfs }, nonce],
    ['another policy', { cmdline, initramfs: other.value }, nonce],
    ['another nonce', { cmdline, initramfs }, randomBytes(16).toString('hex')],
  ];
  const verdicts: ProofVerdict[] = [];
  for (const [index, [against, boot, asked]] of cases.entries()) {
    const reference = join(folder, `boot${index}.yaml`);
    const expected = await expectBoot(path, boot, reference);
    if (!expected.ok) return expected;
    // The lab started this very TPM, so its key is taken as it comes; anybody else has to know it beforehand.
    const judged = await verify([path, '--key', path, '--nonce', asked, '--reference', reference]);
    if (!judged.ok) return judged;
    const accepted = judged.value.status === 0;
    verdicts.push({
      ...{ against, accepted, failed: ownReasons(judged.value.failed) },
      asExpected: accepted === (index === 0),
    });
  }
  const digest = createHash('sha256').update(readFileSync(initramfs)).digest('hex');
  return ok({ cmdline: measuredCmdline(cmdline), initramfs: digest, verdicts });
}

/** The same initramfs with another policy in its gate. */
async function otherPolicy({ images, initramfs, policy }: Stage, folder: string): Promise<Result<string>> {
  const made = await policyWith(policy, [OTHER_RULE], {}, join(folder, 'other'));
  if ('problems' in made) return { ok: false, error: made.problems[0] };
  const into = join(folder, 'other-initramfs');
  const gated = await gatedInitramfs(images.cache, images.kernel, initramfs, made.policy.path, into);
  return 'path' in gated ? ok(gated.path) : { ok: false, error: gated.problems[0] };
}
