/** How `airlock agent run` asks devices who they are: over their DOE mailbox, judged by the files that the policy names. */
import { randomBytes } from 'node:crypto';
import type { Claim } from '@airlock/core/claim.ts';
import type { Device } from '@airlock/core/device.ts';
import { formatProblem } from '@airlock/core/result.ts';
import type { Attestation } from '@airlock/gate/agent/attester.ts';
import type { Asked, Way } from '@airlock/gate/agent/proofs.ts';
import { givesLess, wantsProof } from '@airlock/gate/agent/wants-proof.ts';
import { printable } from '@airlock/linux/attribute.ts';
import { compilePolicy } from '@airlock/policy/compile.ts';
import type { Policy } from '@airlock/policy/policy.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import { askFunction } from './ask-function.ts';
import { type Anchors, claimFrom, readAnchors } from './policy-anchors.ts';
import type { Context } from './verb.ts';

/** `folder`: where the files that the policy names lie; `every` in milliseconds. */
export async function attestationFor(
  context: Context,
  root: string,
  policy: Policy,
  { folder, every }: { readonly folder: string; readonly every: number | undefined },
): Promise<Attestation> {
  const anchors = await readAnchors(context, policy, folder);
  const compiled = compilePolicy(policy);
  return {
    attest: (device, signal) => attest(root, device, anchors, signal),
    wants: (device) => wantsProof(compiled, device),
    givesLess: (device, before, after) => givesLess(compiled, device, before, after),
    ...(every === undefined ? {} : { every }),
  };
}

async function attest(root: string, device: Device, anchors: Anchors, signal: AbortSignal): Promise<Asked> {
  const unproven = (because: string): Claim => ({ device: device.id, tier: 'claimed', because: printable(because) });
  const nonce = new Uint8Array(randomBytes(32));
  const asked = await askFunction(root, device, nonce, signal);
  if (!asked.ok) return { way: wayOf(asked.error.code), claim: unproven(formatProblem(asked.error)) };
  const { evidence, function: shown } = asked.value;
  const others = otherIds(device, shown);
  // The policy matched what the kernel remembers, the certificate names what configuration space shows now.
  if (others.length > 0) {
    return { way: 'answered', claim: unproven(`configuration space shows ${others.join(', ')}`) };
  }
  return { way: 'answered', claim: claimFrom(device, evidence, anchors, { nonce, function: shown, asOf: Date.now() }) };
}

/** No whole answer: none came, or the device was reset or asked by somebody else in the middle of it. */
const SILENT = /^(?:doe-(?!absent|unsupported)|link-|peer-|message-malformed$|file-timeout$)/;
const UNASKED: ReadonlySet<string> = new Set([
  'config-locked-down',
  'config-too-short',
  'file-denied',
  'file-missing',
  'file-io',
  'write-forbidden',
]);

/** A device that answers wrongly is another thing than one that does not answer, or cannot be asked. */
export function wayOf(code: string): Way {
  if (SILENT.test(code)) return 'silent';
  return UNASKED.has(code) ? 'unasked' : 'answered';
}

/** What configuration space says otherwise than the kernel does. What the kernel could not read is not compared. */
export function otherIds(device: Device, shown: PciIdentity): readonly string[] {
  const { vendor, device: id, class: code, revision, subsystem } = device;
  const differs = (a: number | null | undefined, b: number | undefined) => a !== undefined && a !== null && a !== b;
  return [
    ...(differs(vendor, shown.vendor) ? ['another vendor'] : []),
    ...(differs(id, shown.device) ? ['another device'] : []),
    ...(differs(code, shown.class) ? ['another class'] : []),
    ...(differs(revision, shown.revision) ? ['another revision'] : []),
    ...(differs(subsystem?.vendor, shown.subsystem?.vendor) || differs(subsystem?.device, shown.subsystem?.device)
      ? ['another subsystem']
      : []),
  ];
}
