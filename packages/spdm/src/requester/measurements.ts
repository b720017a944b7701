/** GET_MEASUREMENTS: what the responder runs, signed or not. */
import { fail, ok } from '@airlock/core/result.ts';
import { concat, sameBytes } from '@airlock/evidence/bytes.ts';
import { HASH_SIZE, since } from '../algorithms.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { NONCE_SIZE, REQUESTER_CONTEXT_SIZE } from '../messages/challenge.ts';
import { RESPONSE } from '../messages/codes.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import {
  decodeMeasurements,
  encodeGetMeasurements,
  MEASUREMENT_OPERATION,
  type MeasurementBlock,
  readMeasurementRecord,
} from '../messages/measurements.ts';
import { PURPOSE, verifyTranscript } from '../signing.ts';
import { forgetMeasurements } from '../transcripts.ts';
import { peerKey } from './certificates.ts';
import type { Statement } from './challenge.ts';
import type { Connection, Session } from './connection.ts';
import type { Procedure } from './procedure.ts';

export interface MeasurementsOptions {
  /** An index from 1 to 254, `all`, or `count` for their number alone. */
  readonly operation: number | 'all' | 'count';
  /** The slot whose key signs; not given, nothing is signed. */
  readonly sign?: number;
  /** The values in place of their digests (1.2). */
  readonly raw?: boolean;
  /** Measured anew (1.3). */
  readonly fresh?: boolean;
  /** 32 bytes; random when not given. */
  readonly nonce?: Uint8Array;
  readonly session?: Session;
}

export interface MeasurementReport {
  /** How many there are, of `count`; otherwise null. */
  readonly total: number | null;
  /** Of this answer. */
  readonly blocks: readonly MeasurementBlock[];
  /** Null when nothing was signed. */
  readonly statement: Statement | null;
  /**
   * What the signature covers: the blocks of this answer and of those before it, since the last signature or since
   * another request. Empty when nothing was signed.
   */
  readonly signedBlocks: readonly MeasurementBlock[];
  readonly nonce: Uint8Array | null;
  readonly opaque: Uint8Array;
  /** 1.2 and signed: did measurements change between the answers that the signature covers? */
  readonly changed: 'not-told' | 'yes' | 'no';
}

/**
 * At 1.1 a signature covers the measurements alone, not what was agreed before them: only a `challenge` or a session
 * vouches for that. Codes: `measurements-invalid`, `signature-wrong`, `slot-mismatch`, `context-mismatch`, `capability-missing`,
 * `state-wrong`, `message-*`, `peer-*` and those of records.
 */
export function* getMeasurements(connection: Connection, options: MeasurementsOptions): Procedure<MeasurementReport> {
  const { operation, sign, raw = false, fresh = false, session = null } = options;
  const outcome = yield* ask(connection, options, sign, raw, fresh, session, codeOf(operation));
  // A signature must never cover an answer that was refused.
  if (!outcome.ok) forgetMeasurements(session ?? connection.transcripts);
  return outcome;
}

function codeOf(operation: MeasurementsOptions['operation']): number {
  return typeof operation === 'number' ? operation : MEASUREMENT_OPERATION[operation];
}

function* ask(
  connection: Connection,
  options: MeasurementsOptions,
  slot: number | undefined,
  raw: boolean,
  fresh: boolean,
  session: Session | null,
  operation: number,
): Procedure<MeasurementReport> {
  const needed = connection.need();
  if (!needed.ok) return needed;
  const negotiated = needed.value;
  const flags = connection.peer?.flags ?? 0;
  if (negotiated.measurementHash === null) return fail('capability-missing', 'the responder has no measurements');
  if (slot !== undefined && !hasCapability(flags, 'MEAS_SIG'))
    return fail('capability-missing', 'the responder does not sign measurements');
  if (typeof options.operation === 'number' && (operation < 1 || operation > 254 || !Number.isInteger(operation)))
    return fail('state-wrong', `measurement index ${operation}`);
  const { context, crypto } = connection;
  const suite = connection.signingSuite(negotiated);
  const peer = slot === undefined ? undefined : peerKey(connection, slot, KEY_USAGE.measurement);
  if (slot !== undefined && (suite === undefined || peer === undefined))
    return fail('state-wrong', `no trusted key of slot ${slot} for this`);
  const nonce = slot === undefined ? null : (options.nonce ?? crypto.random(NONCE_SIZE));
  if (nonce !== null && nonce.length !== NONCE_SIZE)
    return fail('state-wrong', `a nonce of ${nonce.length} bytes, ${NONCE_SIZE} are needed`);
  const requesterContext = crypto.random(REQUESTER_CONTEXT_SIZE);
  const request = encodeGetMeasurements(context, {
    operation,
    // Without a measurement hash there is nothing but values.
    raw: raw || negotiated.measurementHash === 'raw',
    fresh,
    sign: slot === undefined || nonce === null ? null : { nonce, slot },
    context: requesterContext,
  });
  const bytes = yield* connection.exchange(request, RESPONSE.MEASUREMENTS, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeMeasurements(bytes.value, context, slot !== undefined);
  if (!decoded.ok) return decoded;
  const { message, length } = decoded.value;
  if (since(context.version, '1.3') && !sameBytes(message.context, requesterContext))
    return fail('context-mismatch', 'MEASUREMENTS carries another RequesterContext');
  if (slot !== undefined && message.slot !== slot)
    return fail('slot-mismatch', `MEASUREMENTS is of slot ${message.slot}, not ${slot}`);
  const digestSize = negotiated.measurementHash === 'raw' ? 0 : HASH_SIZE[negotiated.measurementHash];
  const blocks = readMeasurementRecord(message.record, message.blocks, digestSize);
  if (!blocks.ok) return blocks;
  if (operation === MEASUREMENT_OPERATION.count) {
    if (blocks.value.length > 0) return fail('measurements-invalid', 'only their number was asked for');
  } else if (operation !== MEASUREMENT_OPERATION.all) {
    if (blocks.value.length !== 1 || blocks.value[0]?.index !== operation)
      return fail('measurements-invalid', `block ${operation} was asked for, and is not what came`);
  }
  const transcript = session ?? connection.transcripts;
  transcript.measurements.push(request, bytes.value.slice(0, length - message.signature.length));
  transcript.measured.push(...blocks.value);
  let statement: Statement | null = null;
  let signedBlocks: readonly MeasurementBlock[] = [];
  if (slot !== undefined && suite !== undefined && peer !== undefined) {
    const { measurements, measured } = transcript;
    const parts = since(context.version, '1.2') ? [...connection.transcripts.vca, ...measurements] : measurements;
    forgetMeasurements(transcript);
    if (!verifyTranscript(crypto, suite, peer.key, PURPOSE.measurements, parts, message.signature))
      return fail('signature-wrong', 'MEASUREMENTS: its signature does not verify over what was said');
    const { signature } = message;
    statement = {
      purpose: PURPOSE.measurements,
      suite,
      slot,
      transcript: concat(...parts),
      messages: parts,
      signature,
    };
    signedBlocks = measured;
  }
  return ok({
    total: operation === MEASUREMENT_OPERATION.count ? message.total : null,
    blocks: blocks.value,
    statement,
    signedBlocks,
    nonce,
    opaque: message.opaque,
    changed: statement === null || message.changed === 0 ? 'not-told' : message.changed === 1 ? 'yes' : 'no',
  });
}
