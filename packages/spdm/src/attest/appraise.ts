/** Is what a device said of itself true, fresh and good enough? From its evidence alone, without the device. */
import { hex } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { type Appraisal, type Check, type Checklist, createChecklist, verdictOf } from '@airlock/evidence/check.ts';
import type { Crypto } from '@airlock/evidence/crypto.ts';
import type { Certificate } from '@airlock/evidence/x509/certificate.ts';
import type { RevocationList } from '@airlock/evidence/x509/crl.ts';
import { type SpdmVersion, since } from '../algorithms.ts';
import { type CertificateChain, readCertificateChain } from '../certificate-chain.ts';
import type { SpdmCrypto } from '../crypto.ts';
import { type ChainModel, checkIdentity, type Identity } from '../identity/identity.ts';
import { blockName, type Compared, checkDeviceMode, checkMeasurements } from '../identity/measurements.ts';
import type { PciIdentity } from '../identity/pci-name.ts';
import type { ReferenceSet } from '../identity/references.ts';
import { capabilityNames, hasCapability } from '../messages/capabilities.ts';
import type { MeasurementBlock } from '../messages/measurements.ts';
import type { Negotiated } from '../negotiate.ts';
import { PURPOSE, verifyTranscript } from '../signing.ts';
import type { DeviceEvidence, SignedStatement } from './evidence.ts';
import { type Agreement, type ReadStatement, readAgreement, readStatement } from './read-statement.ts';

export interface AppraiseDevice {
  readonly x509: Crypto;
  readonly spdm: SpdmCrypto;
  readonly roots: readonly Certificate[];
  readonly asOf: number;
  readonly revocation: { readonly lists: readonly RevocationList[]; readonly required: boolean };
  /** The function that was asked; null where that is not known. */
  readonly function: PciIdentity | null;
  /** Whose word that is, where whoever judges did not look at the function. */
  readonly functionBy?: string;
  readonly references: readonly ReferenceSet[];
  /** What was found out about the files that the references come from: signatures and dates. */
  readonly referenceChecks?: readonly Check[];
  /** What every request should have carried; null: nobody knows. */
  readonly nonce: Uint8Array | null;
  /** The lowest version of SPDM that is good enough; any when not given. */
  readonly leastVersion?: SpdmVersion;
  readonly allowed?: ReadonlySet<string>;
}

export interface DeviceAppraisal extends Appraisal {
  readonly kind: 'spdm-device';
  /**
   * How sure it is who the device is: `attested` when a trusted root vouches for it and the answer is fresh, `claimed`
   * otherwise. Evidence alone is never `bound`: what signs may be elsewhere.
   */
  readonly tier: 'attested' | 'claimed';
  /** What only one device has, in words: `Identity` says what. */
  readonly marks: readonly string[];
  readonly compared: readonly Compared[];
  /** Reference values that nothing was compared with. */
  readonly unused: readonly string[];
}

/**
 * Codes, where the evidence cannot be read at all: `certificate-chain-invalid`, `certificate-invalid`, `der-*`,
 * `message-malformed`, `measurements-invalid`, `algorithms-unacceptable`, `device-evidence-invalid`.
 */
export function appraiseDevice(evidence: DeviceEvidence, given: AppraiseDevice): Result<DeviceAppraisal> {
  const list = createChecklist(given.allowed);
  const agreement = readAgreement(evidence.vca, evidence.version);
  if (!agreement.ok) return agreement;
  const { negotiated } = agreement.value;
  const { signature } = negotiated;
  if (signature === null) return fail('device-evidence-invalid', 'no signature algorithm was agreed on');
  if (negotiated.hash !== evidence.hash)
    return fail('device-evidence-invalid', `${evidence.hash} is stated, ${negotiated.hash} was agreed on`);
  const chain = readCertificateChain(evidence.chain, negotiated.version, negotiated.hash);
  if (!chain.ok) return chain;
  const { leastVersion } = given;
  if (leastVersion !== undefined)
    list.check('spdm.version', since(negotiated.version, leastVersion), {
      expected: `SPDM ${leastVersion} or later`,
      found: `SPDM ${negotiated.version}; the device offers ${agreement.value.versions.join(', ')}`,
    });
  const identity = checkIdentity(list, {
    x509: given.x509,
    spdm: given.spdm,
    chain: chain.value,
    hash: negotiated.hash,
    signature,
    roots: given.roots,
    asOf: given.asOf,
    revocation: given.revocation,
    model: modelOf(agreement.value),
    function: given.function,
    ...(given.functionBy === undefined ? {} : { functionBy: given.functionBy }),
  });
  if (!identity.ok) return identity;

  const read: { readonly statement: SignedStatement; readonly said: ReadStatement }[] = [];
  for (const statement of evidence.statements) {
    const said = readStatement(statement, evidence.vca, agreement.value);
    if (!said.ok) return said;
    if (said.value.slot !== evidence.slot)
      return fail(
        'device-evidence-invalid',
        `a statement of slot ${said.value.slot}, the chain is of ${evidence.slot}`,
      );
    read.push({ statement, said: said.value });
  }
  for (const { statement, said } of read)
    checkStatement(list, given, { statement, said, negotiated, chain: chain.value });
  const kinds = new Set(read.map(({ statement }) => statement.kind));
  // A chain of certificates is public: whoever shows it and nothing that its key signed shows nothing.
  if (read.length === 0)
    list.check('spdm.challenge', false, { expected: 'something that the device signed', found: 'nothing' });
  else if (!kinds.has('challenge'))
    list.unchecked('spdm.challenge', {
      expected: 'an answer to a challenge',
      // Signatures of 1.1 over measurements leave out what was said before: versions, capabilities, algorithms.
      found: since(negotiated.version, '1.2')
        ? 'the device was not challenged'
        : 'the device was not challenged: its signature covers the measurements, not what was agreed on',
    });
  if (!kinds.has('measurements'))
    list.unchecked('spdm.measurements', { expected: 'signed measurements', found: 'none' });

  const blocks = read.flatMap(({ said }) => said.blocks);
  const hash = negotiated.measurementHash === 'raw' ? null : negotiated.measurementHash;
  const { compared, unused } = checkMeasurements(list, {
    crypto: given.spdm,
    blocks,
    hash,
    references: given.references,
  });
  list.adopt(given.referenceChecks ?? []);
  checkDeviceMode(list, blocks);
  const verdict = verdictOf(list.checks);
  const fresh = list.checks.some(({ id, status }) => id === 'freshness.nonce' && status === 'passed');
  return ok({
    kind: 'spdm-device',
    title: titleOf(identity.value, negotiated),
    verdict,
    tier: verdict === 'accepted' && fresh ? 'attested' : 'claimed',
    checks: list.checks,
    claims: claimsOf(identity.value, agreement.value, blocks, evidence.slot),
    marks: identity.value.marks,
    compared,
    unused,
  });
}

/** Before 1.3 a capability tells it; with several keys in the connection each slot has its own. */
function modelOf({ negotiated, flags }: Agreement): ChainModel | null {
  if (!since(negotiated.version, '1.2') || negotiated.multiKey) return null;
  return hasCapability(flags, 'ALIAS_CERT') ? 'alias' : 'device';
}

interface Judged {
  readonly statement: SignedStatement;
  readonly said: ReadStatement;
  readonly negotiated: Negotiated;
  readonly chain: CertificateChain;
}

function checkStatement(list: Checklist, given: AppraiseDevice, { statement, said, negotiated, chain }: Judged): void {
  const { spdm, nonce } = given;
  const challenge = statement.kind === 'challenge';
  const { version, hash, signature } = negotiated;
  const key = spdm.publicKey(chain.leafSpki);
  const good =
    key !== undefined &&
    signature !== null &&
    key.fits(signature) &&
    verifyTranscript(
      spdm,
      { version, hash, algorithm: signature },
      key,
      challenge ? PURPOSE.challengeAuth : PURPOSE.measurements,
      statement.messages,
      statement.signature,
    );
  const sameChain = said.chainDigest === null || sameBytes(said.chainDigest, spdm.hash(hash, chain.bytes));
  list.check(challenge ? 'spdm.challenge' : 'spdm.measurements', good && sameChain, {
    subject: challenge ? 'CHALLENGE_AUTH' : 'MEASUREMENTS',
    expected: `${signature ?? 'no algorithm'} with the leaf’s key over ${statement.messages.length} messages`,
    found: !good ? 'the signature is wrong' : sameChain ? 'good' : 'signed for another chain than this one',
  });
  const detail = {
    subject: challenge ? 'CHALLENGE' : 'GET_MEASUREMENTS',
    expected: nonce === null ? 'the nonce of whoever asked' : hex(nonce),
    found: hex(said.nonce),
  };
  if (nonce === null) list.unchecked('freshness.nonce', detail);
  else list.check('freshness.nonce', sameBytes(nonce, said.nonce), detail);
}

function titleOf({ functionName, deviceInfo, leaf }: Identity, { version, signature }: Negotiated): string {
  const name = deviceInfo ?? functionName ?? leaf.subject.commonName ?? leaf.subject.text;
  return `SPDM ${version} device ${name.slice(0, 120)}, ${signature ?? 'unsigned'}`;
}

const VALUE_SHOWN = 64;

function claimsOf(
  { leaf, root, functionName, deviceInfo }: Identity,
  { negotiated, flags, versions }: Agreement,
  blocks: readonly MeasurementBlock[],
  slot: number,
): Appraisal['claims'] {
  const { version, hash, signature, measurementHash } = negotiated;
  return {
    'device-info': deviceInfo,
    function: functionName,
    subject: leaf.subject.text,
    serial: leaf.serial,
    root: root?.name ?? null,
    slot,
    spdm: version,
    offered: versions,
    algorithms: { hash, signature, measurements: measurementHash },
    capabilities: capabilityNames(flags),
    measurements: Object.fromEntries(
      blocks.map((block) => [
        blockName(block).replace('measurement ', ''),
        block.value.length <= VALUE_SHOWN ? hex(block.value) : `${hex(block.value.subarray(0, VALUE_SHOWN))}…`,
      ]),
    ),
  };
}
