/** Devices in a machine's evidence that speak SPDM: judged by the room of SPDM, joined by that of evidence. */
import { hex } from '@airlock/core/bytes.ts';
import { latin1 } from '@airlock/evidence/bytes.ts';
import type { Appraisal } from '@airlock/evidence/check.ts';
import type { DeviceFindings } from '@airlock/evidence/machine/appraise.ts';
import type { BundleDevice } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import type { RevocationList } from '@airlock/evidence/x509/crl.ts';
import { functionLayout, pciIdentity } from '@airlock/linux/function-layout.ts';
import type { SpdmVersion } from '@airlock/spdm/algorithms.ts';
import { appraiseDevice } from '@airlock/spdm/attest/appraise.ts';
import { type AppraiseInterface, appraiseInterface } from '@airlock/spdm/attest/appraise-interface.ts';
import { type DeviceEvidence, decodeEvidence } from '@airlock/spdm/attest/evidence.ts';
import { readCertificateChain } from '@airlock/spdm/certificate-chain.ts';
import type { PciIdentity } from '@airlock/spdm/identity/pci-name.ts';
import { nodeSpdmCrypto } from '@airlock/spdm/node-crypto.ts';
import type { InterfaceRecord } from '@airlock/spdm/tdisp/record.ts';

export interface SpdmTrust {
  /** Of the devices’ makers. */
  readonly roots: readonly Certificate[];
  readonly lists: readonly RevocationList[];
  readonly asOf: number;
  readonly leastVersion?: SpdmVersion;
  readonly allowed?: ReadonlySet<string>;
}

/** The record against the facts that it holds. */
export function judgeInterface(
  record: InterfaceRecord,
  chain: Uint8Array,
  given: Omit<AppraiseInterface, 'chainDigest' | 'layout'>,
): Appraisal {
  const { facts } = record;
  return appraiseInterface(record, {
    ...given,
    chainDigest: nodeSpdmCrypto().hash('sha384', chain),
    layout: facts === null ? null : functionLayout(facts.config, facts.bars),
  });
}

/**
 * What the function showed the VM: by the facts of its record, or as its evidence states it. It is the host that shows
 * configuration space; what is compared is whether the maker vouches for the ids that drivers are chosen by.
 */
function shownFunction(name: string, { interface: record, function: stated }: DeviceEvidence): PciIdentity | null {
  const facts = record?.facts ?? null;
  return (facts?.function === name ? pciIdentity(facts.config) : undefined) ?? stated ?? null;
}

/** Null for a device of another kind, and for evidence that cannot be read. */
export function judgeSpdm(device: BundleDevice, nonce: Uint8Array | null, trust: SpdmTrust): DeviceFindings | null {
  if (device.kind !== 'spdm') return null;
  const evidence = decodeEvidence(latin1(device.evidence));
  if (!evidence.ok) return null;
  const crypto = nodeCrypto();
  const appraisal = appraiseDevice(evidence.value, {
    ...{ x509: crypto, spdm: nodeSpdmCrypto(), roots: trust.roots, asOf: trust.asOf },
    ...{ revocation: { lists: trust.lists, required: false }, references: [], nonce },
    ...{ function: shownFunction(device.name, evidence.value), functionBy: 'as the host showed it to the VM' },
    ...(trust.leastVersion === undefined ? {} : { leastVersion: trust.leastVersion }),
    ...(trust.allowed === undefined ? {} : { allowed: trust.allowed }),
  });
  const { version, hash, chain } = evidence.value;
  const read = readCertificateChain(chain, version, hash);
  if (!appraisal.ok || !read.ok) return null;
  const { tier, verdict, marks } = appraisal.value;
  return {
    appraisal: appraisal.value,
    // A key that signed nothing names nobody.
    identity: verdict === 'accepted' ? hex(crypto.hash('sha384', read.value.leafSpki)) : null,
    // What a certificate states that nobody vouches for says nothing of other devices.
    marks: verdict === 'accepted' ? marks : [],
    nonce: tier === 'attested' ? nonce : null,
    ...interfaceFindings(device, evidence.value, trust.allowed),
  };
}

/** What the machine shows of an interface counts only with what the device's evidence recorded of it. */
function interfaceFindings(
  { name, interface: shown }: BundleDevice,
  { interface: record, chain }: DeviceEvidence,
  allowed: ReadonlySet<string> | undefined,
): Pick<DeviceFindings, 'interfaceAppraisal' | 'lockedBy'> {
  if (shown === null || record === undefined) return { interfaceAppraisal: null, lockedBy: null };
  const given = { function: name, compare: true, shown, ...(allowed === undefined ? {} : { allowed }) };
  return { interfaceAppraisal: judgeInterface(record, chain, given), lockedBy: record.by };
}
