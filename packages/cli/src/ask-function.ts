/** A PCI function is asked who it is, over SPDM through its DOE mailbox. */
import type { Device } from '@airlock/core/device.ts';
import { ok, type Result } from '@airlock/core/result.ts';
import type { DeviceEvidence } from '@airlock/spdm/attest/evidence.ts';
import { gatherEvidence } from '@airlock/spdm/attest/gather.ts';
import { doeBinding } from '@airlock/spdm/doe/binding.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import { Connection } from '@airlock/spdm/requester/connection.ts';
import { drive } from '@airlock/spdm/requester/procedure.ts';
import { openFunctionLink } from './function-link.ts';

export interface AskedFunction {
  readonly evidence: DeviceEvidence;
  /** What the function says it is. */
  readonly function: PciIdentity;
}

/**
 * Any chain is taken: who vouches for it is judged afterwards. `nonce` is 32 bytes. Codes: those of `openFunctionLink` and
 * `gatherEvidence`, `doe-cancelled` once `signal` says that the time is over.
 */
export async function askFunction(
  root: string,
  device: Device,
  nonce: Uint8Array,
  signal: AbortSignal,
): Promise<Result<AskedFunction>> {
  const opened = await openFunctionLink(root, device, signal);
  if (!opened.ok) return opened;
  try {
    const connection = new Connection({ crypto: nodeSpdmCrypto(), binding: doeBinding, trust: () => ok(null) });
    const asked = gatherEvidence(connection, { device: device.id, nonce });
    const evidence = await drive(asked, opened.value.link);
    const shown = opened.value.function;
    return evidence.ok ? ok({ evidence: { ...evidence.value, function: shown }, function: shown }) : evidence;
  } finally {
    opened.value.close();
  }
}
