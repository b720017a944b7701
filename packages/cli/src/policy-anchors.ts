/** The files that a policy's rules name, and what evidence comes to against each of them. */
import { resolve } from 'node:path';
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { formatProblem } from '@airlock/core/result.ts';
import { printable } from '@airlock/linux/attribute.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import { type AppraiseDevice, appraiseDevice, type DeviceAppraisal } from '@airlock/spdm/attest/appraise.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { type AppraisalInput, appraisalInput } from './device-appraisal.ts';
import { type Context, UsageError, type Values } from './verb.ts';

/** Files by the name that the policy has for them; names of files that cannot be used are left out, and said. */
export interface Anchors {
  readonly roots: ReadonlyMap<string, AppraisalInput>;
  readonly references: ReadonlyMap<string, AppraisalInput>;
}

/**
 * `folder` is where all of them lie, whichever of the policy's files names them: one name is one file. A file in `roots`
 * may hold the revocation lists of its issuers as well.
 */
export async function readAnchors(context: Context, policy: Policy, folder: string): Promise<Anchors> {
  const read = async (values: Values): Promise<AppraisalInput | UsageError> => {
    try {
      return await appraisalInput(context, values);
    } catch (error) {
      if (error instanceof UsageError) return error;
      throw error;
    }
  };
  const take = async (into: Map<string, AppraisalInput>, name: string, values: Values, more?: Values) => {
    if (into.has(name)) return;
    const input = await read(values);
    // Without it nobody proves what the rule asks for, and its otherwise counts.
    if (input instanceof UsageError) {
      const what = printable(input.message.replace(/^--[a-z]+ /, ''));
      context.stderr(`airlock agent run: ${what}; nothing proves what the policy names it for\n`);
    } else {
      const both = more === undefined ? input : await read({ ...values, ...more });
      into.set(name, both instanceof UsageError ? input : both);
    }
  };
  const roots = new Map<string, AppraisalInput>();
  const references = new Map<string, AppraisalInput>();
  for (const { require } of policy.rules) {
    for (const name of require?.roots ?? []) {
      const path = [resolve(folder, name)];
      await take(roots, name, { roots: path }, { crl: path });
    }
    for (const name of require?.measurements ?? [])
      await take(references, name, { reference: [resolve(folder, name)] });
  }
  return { roots, references };
}

/** Each root and each set of reference values alone, so that the claim names those that hold. `asOf`: milliseconds. */
export function claimFrom(
  device: Pick<Device, 'id'>,
  evidence: DeviceEvidence,
  { roots, references }: Anchors,
  known: Pick<AppraiseDevice, 'nonce' | 'function' | 'asOf'>,
): Claim {
  const claimed = (because: string): Claim => ({ device: device.id, tier: 'claimed', because: printable(because) });
  const mine: string[] = [];
  const sets: string[] = [];
  const wrong = new Map<string, string>();
  let because = roots.size === 0 ? 'no root certificate that the policy names can be read' : '';
  let spdm: string | undefined;
  for (const [name, input] of roots) {
    const given = { ...input, ...known };
    const plain = appraiseDevice(evidence, given);
    if (!plain.ok) return claimed(formatProblem(plain.error));
    if (plain.value.tier !== 'attested') {
      because ||= `with ${name}: ${failures(plain.value) || 'not fresh'}`;
      continue;
    }
    mine.push(name);
    const version = plain.value.claims['spdm'];
    if (typeof version === 'string') spdm = version;
    for (const [set, { references: values, referenceChecksAt }] of references) {
      if (sets.includes(set)) continue;
      // Reference values end while the agent runs, as certificates do.
      const referenceChecks = referenceChecksAt(known.asOf);
      const both = appraiseDevice(evidence, { ...given, references: values, referenceChecks });
      const held = both.ok && both.value.tier === 'attested' && both.value.compared.some(isMatched);
      if (held) sets.push(set);
      else wrong.set(set, both.ok ? failures(both.value) || 'nothing was compared' : formatProblem(both.error));
    }
  }
  if (mine.length === 0) return claimed(because);
  const values = references.size === 0 ? '' : `; measurements as in ${sets.join(', ') || 'none of the files named'}`;
  const why = [...wrong].filter(([set]) => !sets.includes(set)).map(([set, what]) => `; not as in ${set}: ${what}`);
  return {
    device: device.id,
    tier: 'attested',
    because: printable(`${mine.join(', ')} vouches for it, freshly${values}${why.join('')}`),
    roots: mine,
    measurements: sets,
    ...(spdm === undefined ? {} : { spdm }),
  };
}

function isMatched({ status }: DeviceAppraisal['compared'][number]): boolean {
  return status === 'matched';
}

/** `measurement.value (measurement 2)`: the checks that failed, each once, with what they are about. */
function failures({ checks }: DeviceAppraisal): string {
  const failed = checks.filter(({ status }) => status === 'failed');
  return [...new Set(failed.map(({ id, subject }) => `${id}${subject === undefined ? '' : ` (${subject})`}`))].join(
    ', ',
  );
}
