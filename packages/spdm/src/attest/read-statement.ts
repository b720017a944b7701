/** What a signed transcript says, read anew from its messages alone: what was agreed, asked and answered. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { HASH_SIZE, SPDM_VERSIONS, type SpdmVersion, since, VERSION_BYTE } from '../algorithms.ts';
import { decodeCapabilities, decodeGetCapabilities } from '../messages/capabilities.ts';
import { decodeCertificate, decodeGetCertificate } from '../messages/certificate.ts';
import { decodeChallenge, decodeChallengeAuth } from '../messages/challenge.ts';
import { REQUEST } from '../messages/codes.ts';
import { decodeDigests, decodeGetDigests } from '../messages/digests.ts';
import {
  decodeGetMeasurements,
  decodeMeasurements,
  MEASUREMENT_OPERATION,
  type MeasurementBlock,
  readMeasurementRecord,
} from '../messages/measurements.ts';
import { decodeAlgorithms, decodeNegotiateAlgorithms } from '../messages/negotiation.ts';
import { initialContext, type MessageContext } from '../messages/reader.ts';
import { decodeGetVersion, decodeVersion } from '../messages/version.ts';
import { acceptSelection, contextOf, type Negotiated } from '../negotiate.ts';
import type { SignedStatement } from './evidence.ts';

export interface Agreement {
  readonly negotiated: Negotiated;
  /** Capabilities of the device. */
  readonly flags: number;
  /** Versions that the device offered, and Airlock knows. */
  readonly versions: readonly SpdmVersion[];
}

const VCA_LENGTH = 6;
const NO_BYTES = new Uint8Array();
/** L1 of a device that gives one block at a time. */
const REQUEST_LIMIT = 300;

/**
 * GET_VERSION to ALGORITHMS, by the rules of the requester: nothing selected that was not offered. Codes:
 * `message-malformed`, `algorithms-unacceptable`, `device-evidence-invalid`.
 */
export function readAgreement(messages: readonly Uint8Array[], version: SpdmVersion): Result<Agreement> {
  if (messages.length !== VCA_LENGTH)
    return fail('device-evidence-invalid', `${messages.length} messages of VCA, not 6`);
  const [getVersion = NO_BYTES, versions = NO_BYTES, getCapabilities = NO_BYTES, capabilities = NO_BYTES] = messages;
  const [offer = NO_BYTES, selection = NO_BYTES] = messages.slice(4);
  const context = initialContext(version, 0);
  const asked = decodeGetVersion(getVersion, 0);
  if (!asked.ok) return asked;
  const entries = decodeVersion(versions, 0);
  if (!entries.ok) return entries;
  const offered = SPDM_VERSIONS.filter((one) =>
    entries.value.message.some(
      ({ major, minor, alpha }) => ((major << 4) | minor) === VERSION_BYTE[one] && alpha === 0,
    ),
  );
  if (!offered.includes(version)) return fail('device-evidence-invalid', `the device did not offer SPDM ${version}`);
  const own = decodeGetCapabilities(getCapabilities, context);
  if (!own.ok) return own;
  const peer = decodeCapabilities(capabilities, context);
  if (!peer.ok) return peer;
  const wanted = decodeNegotiateAlgorithms(offer, context);
  if (!wanted.ok) return wanted;
  const chosen = decodeAlgorithms(selection, context);
  if (!chosen.ok) return chosen;
  const [ownFlags, flags] = [own.value.message.flags, peer.value.message.flags];
  const negotiated = acceptSelection(version, wanted.value.message, chosen.value.message, ownFlags, flags);
  return negotiated.ok ? ok({ negotiated: negotiated.value, flags, versions: offered }) : negotiated;
}

export interface ReadStatement {
  readonly nonce: Uint8Array;
  readonly slot: number;
  /** Of the chain, where the statement carries it: a challenge. */
  readonly chainDigest: Uint8Array | null;
  /** Of measurements. */
  readonly blocks: readonly MeasurementBlock[];
  /** Were all blocks asked for at once? */
  readonly all: boolean;
}

/**
 * What a statement covers. Codes: `message-malformed`, `measurements-invalid`, `device-evidence-invalid` (messages that do
 * not follow each other, or another agreement than the one given).
 */
export function readStatement(
  { kind, messages }: SignedStatement,
  vca: readonly Uint8Array[],
  { negotiated }: Agreement,
): Result<ReadStatement> {
  // The signature was taken off, so that no message has one.
  const context: MessageContext = { ...contextOf(negotiated, 0), signatureSize: 0 };
  const bare = kind === 'measurements' && !since(negotiated.version, '1.2');
  const body = bare ? messages : messages.slice(VCA_LENGTH);
  if (!bare && !vca.every((one, i) => sameBytes(one, messages[i] ?? NO_BYTES)))
    return fail('device-evidence-invalid', 'what was signed begins with another agreement');
  return kind === 'challenge' ? readChallenge(body, context) : readMeasurements(body, context, negotiated);
}

function readChallenge(body: readonly Uint8Array[], context: MessageContext): Result<ReadStatement> {
  const pairs = pairsOf(body);
  const last = pairs?.at(-1);
  if (pairs === undefined || last === undefined) return fail('device-evidence-invalid', 'no challenge');
  for (const [request, response] of pairs.slice(0, -1)) {
    const digests = request[1] === REQUEST.GET_DIGESTS;
    const asked = digests ? decodeGetDigests(request, context) : decodeGetCertificate(request, context);
    if (!asked.ok) return asked;
    const answered = digests ? decodeDigests(response, context) : decodeCertificate(response, context);
    if (!answered.ok) return answered;
  }
  const asked = decodeChallenge(last[0], context);
  if (!asked.ok) return asked;
  const { slot, nonce, summary } = asked.value.message;
  const answered = decodeChallengeAuth(last[1], context, summary !== 'none');
  if (!answered.ok) return answered;
  if (answered.value.message.slot !== slot)
    return fail('device-evidence-invalid', `slot ${answered.value.message.slot} answers for slot ${slot}`);
  return ok({ nonce, slot, chainDigest: answered.value.message.chainDigest, blocks: [], all: false });
}

function readMeasurements(
  body: readonly Uint8Array[],
  context: MessageContext,
  { measurementHash }: Negotiated,
): Result<ReadStatement> {
  const pairs = pairsOf(body);
  if (pairs === undefined || measurementHash === null) return fail('device-evidence-invalid', 'no measurements');
  const digestSize = measurementHash === 'raw' ? 0 : HASH_SIZE[measurementHash];
  const blocks = new Map<number, MeasurementBlock>();
  let sign: { readonly nonce: Uint8Array; readonly slot: number } | null = null;
  let all = false;
  for (const [request, response] of pairs) {
    const asked = decodeGetMeasurements(request, context);
    if (!asked.ok) return asked;
    const answered = decodeMeasurements(response, context, false);
    if (!answered.ok) return answered;
    const read = readMeasurementRecord(answered.value.message.record, answered.value.message.blocks, digestSize);
    if (!read.ok) return read;
    for (const block of read.value) {
      const before = blocks.get(block.index);
      if (before !== undefined && !sameBytes(before.value, block.value))
        return fail('measurements-invalid', `block ${block.index} has two values`);
      blocks.set(block.index, block);
    }
    const { operation } = asked.value.message;
    all ||= operation === MEASUREMENT_OPERATION.all;
    sign = asked.value.message.sign;
    if (sign !== null && sign.slot !== answered.value.message.slot)
      return fail('device-evidence-invalid', `slot ${answered.value.message.slot} answers for slot ${sign.slot}`);
  }
  if (sign === null) return fail('device-evidence-invalid', 'the last request asked for no signature');
  const inOrder = [...blocks.values()].sort((a, b) => a.index - b.index);
  return ok({ nonce: sign.nonce, slot: sign.slot, chainDigest: null, blocks: inOrder, all });
}

function pairsOf(body: readonly Uint8Array[]): readonly (readonly [Uint8Array, Uint8Array])[] | undefined {
  if (body.length === 0 || body.length % 2 !== 0 || body.length > 2 * REQUEST_LIMIT) return undefined;
  return Array.from({ length: body.length / 2 }, (_, i) => [body[2 * i] ?? NO_BYTES, body[2 * i + 1] ?? NO_BYTES]);
}
