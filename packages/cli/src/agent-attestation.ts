/** How `airlock agent run` asks devices who they are: over their DOE mailbox, judged by the files that the policy names. */
import { randomBytes } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { type Attestation, wantsProof } from '@airlock/gate/agent/attester.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import { type AppraiseDevice, appraiseDevice } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { askFunction } from './ask-function.ts';
import { type AppraisalInput, appraisalInput } from './device-appraisal.ts';
import { type Context, UsageError } from './verb.ts';

/** Files by the name that the policy has for them; names of files that cannot be used are left out, and said. */
interface Anchors {
  readonly roots: ReadonlyMap<string, AppraisalInput>;
  readonly references: ReadonlyMap<string, AppraisalInput>;
}

/** `every` in milliseconds. */
export async function attestationFor(
  context: Context,
  root: string,
  policy: Policy,
  every: number | undefined,
): Promise<Attestation> {
  const anchors = await readAnchors(context, policy);
  const compiled = compilePolicy(policy);
  return {
    attest: (device, signal) => attest(root, device, anchors, signal),
    wants: (device) => wantsProof(compiled, device),
    ...(every === undefined ? {} : { every }),
  };
}

async function readAnchors(context: Context, policy: Policy): Promise<Anchors> {
  const roots = new Map<string, AppraisalInput>();
  const references = new Map<string, AppraisalInput>();
  for (const { require, at } of policy.rules) {
    const folder = resolve(context.cwd, dirname(at.file));
    const wanted = [
      { option: 'roots', names: require?.roots ?? [], into: roots },
      { option: 'reference', names: require?.measurements ?? [], into: references },
    ] as const;
    for (const { option, names, into } of wanted) {
      for (const name of names) {
        try {
          into.set(name, await appraisalInput(context, { [option]: [resolve(folder, name)] }));
        } catch (error) {
          if (!(error instanceof UsageError)) throw error;
          // Without it nobody proves what the rule asks for, and its otherwise counts.
          context.stderr(`airlock agent run: ${printable(error.message)}\n`);
        }
      }
    }
  }
  return { roots, references };
}

async function attest(root: string, device: Device, anchors: Anchors, signal: AbortSignal): Promise<Claim> {
  const unproven = (because: string): Claim => ({ device: device.id, tier: 'claimed', because: printable(because) });
  const nonce = new Uint8Array(randomBytes(32));
  const asked = await askFunction(root, device, nonce, signal);
  if (!asked.ok) return unproven(formatProblem(asked.error));
  const { evidence } = asked.value;
  return claimFrom(device, evidence, anchors, { nonce, function: asked.value.function });
}

/** Each root and each set of reference values alone, so that the claim names those that hold. */
export function claimFrom(
  device: Device,
  evidence: DeviceEvidence,
  { roots, references }: Anchors,
  known: Pick<AppraiseDevice, 'nonce' | 'function'>,
): Claim {
  const mine: string[] = [];
  const sets: string[] = [];
  let because = roots.size === 0 ? 'no root certificate that the policy names can be read' : '';
  for (const [name, input] of roots) {
    // Certificates end while the agent runs.
    const given = { ...input, ...known, asOf: Date.now() };
    const plain = appraiseDevice(evidence, given);
    if (!plain.ok) return { device: device.id, tier: 'claimed', because: printable(formatProblem(plain.error)) };
    if (plain.value.tier !== 'attested') {
      const failed = plain.value.checks.filter(({ status }) => status === 'failed').map(({ id }) => id);
      because ||= `with ${name}: ${failed.join(', ') || 'not fresh'}`;
      continue;
    }
    mine.push(name);
    for (const [set, reference] of references) {
      const { references: values, referenceChecks } = reference;
      const both = appraiseDevice(evidence, { ...given, references: values, referenceChecks: referenceChecks ?? [] });
      const matched = both.ok && both.value.tier === 'attested' && both.value.compared.length > 0;
      if (matched && both.value.compared.every(({ status }) => status === 'matched') && !sets.includes(set))
        sets.push(set);
    }
  }
  if (mine.length === 0) return { device: device.id, tier: 'claimed', because: printable(because) };
  const values = references.size === 0 ? '' : `; measurements as in ${sets.join(', ') || 'none of the files named'}`;
  return {
    device: device.id,
    tier: 'attested',
    because: printable(`${mine.join(', ')} vouches for it, freshly${values}`),
    roots: mine,
    measurements: sets,
  };
}
