/** GET_MEASUREMENTS, GET_MEASUREMENT_EXTENSION_LOG and GET_ENDPOINT_INFO, answered. */
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { NONCE_SIZE, type SummaryName } from '../messages/challenge.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import { DEVICE_CLASS_IDENTIFIER, decodeGetEndpointInfo, encodeEndpointInfo } from '../messages/endpoint-info.ts';
import { decodeGetMeasurementLog, encodeMeasurementLog } from '../messages/measurement-log.ts';
import {
  decodeGetMeasurements,
  encodeMeasurementBlock,
  encodeMeasurements,
  MEASUREMENT_OPERATION,
} from '../messages/measurements.ts';
import type { Negotiated } from '../negotiate.ts';
import { PURPOSE, signTranscript } from '../signing.ts';
import { forgetMeasurements } from '../transcripts.ts';
import { usableSlot } from './slot.ts';
import {
  type Answer,
  type ResponderMeasurement,
  type ResponderSession,
  type ResponderState,
  refuse,
  reply,
} from './state.ts';

const LOG_HEADER = 12;

/** A block as it is given: the value, or its digest. */
function encodeBlock(
  state: ResponderState,
  negotiated: Negotiated,
  measurement: ResponderMeasurement,
  raw: boolean,
): Uint8Array {
  const { measurementHash } = negotiated;
  if (measurement.raw || raw || measurementHash === 'raw' || measurementHash === null)
    return encodeMeasurementBlock({ ...measurement, raw: true });
  const value = state.options.crypto.hash(measurementHash, measurement.value);
  return encodeMeasurementBlock({ ...measurement, value, raw: false });
}

/** Empty for `none`, `undefined` when there is nothing to summarise. */
export function summaryHash(
  state: ResponderState,
  negotiated: Negotiated,
  summary: SummaryName,
): Uint8Array | undefined {
  if (summary === 'none') return new Uint8Array();
  const { measurements, crypto } = state.options;
  if (measurements === undefined || negotiated.measurementHash === null) return undefined;
  const blocks = measurements
    .filter(({ tcb }) => summary === 'all' || tcb)
    .map((one) => encodeBlock(state, negotiated, one, false));
  return crypto.hash(negotiated.hash, ...blocks);
}

export function answerGetMeasurements(
  state: ResponderState,
  bytes: Uint8Array,
  session: ResponderSession | null,
): Answer {
  const answered = measure(state, bytes, session);
  if (answered.kind === 'error') forgetMeasurements(session ?? state.transcripts);
  return answered;
}

function measure(state: ResponderState, bytes: Uint8Array, session: ResponderSession | null): Answer {
  const { context, negotiated, options, transcripts } = state;
  if (negotiated === null) return refuse('UnexpectedRequest');
  const { measurements, crypto } = options;
  if (measurements === undefined || negotiated.measurementHash === null) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetMeasurements(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { operation, raw, sign, context: requesterContext } = decoded.value.message;
  const { version, hash, signature: algorithm } = negotiated;
  const slot = sign === null ? undefined : usableSlot(state, sign.slot, KEY_USAGE.measurement);
  if (sign !== null && (slot === undefined || algorithm === null)) return refuse('InvalidRequest');
  const chosen = measurements.filter(({ index }) => operation === MEASUREMENT_OPERATION.all || index === operation);
  if (operation !== MEASUREMENT_OPERATION.count && operation !== MEASUREMENT_OPERATION.all && chosen.length !== 1)
    return refuse('InvalidRequest');
  const unsigned = encodeMeasurements(context, {
    total: operation === MEASUREMENT_OPERATION.count ? measurements.length : 0,
    slot: sign?.slot ?? 0,
    changed: since(version, '1.2') && sign !== null ? 2 : 0,
    blocks: chosen.length,
    record: concat(...chosen.map((one) => encodeBlock(state, negotiated, one, raw))),
    nonce: crypto.random(NONCE_SIZE),
    opaque: new Uint8Array(),
    context: since(version, '1.3') ? requesterContext : new Uint8Array(),
  });
  const transcript = session ?? transcripts;
  transcript.measurements.push(bytes.slice(0, decoded.value.length), unsigned);
  if (slot === undefined || algorithm === null) return reply(unsigned);
  const parts = [...(since(version, '1.2') ? transcripts.vca : []), ...transcript.measurements];
  const signature = signTranscript(crypto, { version, hash, algorithm }, slot.key, PURPOSE.measurements, parts);
  forgetMeasurements(transcript);
  return signature === undefined ? refuse('Unspecified') : reply(concat(unsigned, signature));
}

export function answerGetMeasurementLog(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, negotiated, options } = state;
  const { measurementLog } = options;
  if (negotiated === null || measurementLog === undefined || !negotiated.measurementLog)
    return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetMeasurementLog(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { offset, length } = decoded.value.message;
  if (offset >= measurementLog.length || length === 0) return refuse('InvalidRequest');
  const room = Math.min(length, state.transferSize - LOG_HEADER, (state.peer?.dataTransferSize ?? length) - LOG_HEADER);
  const portion = measurementLog.slice(offset, offset + room);
  return reply(encodeMeasurementLog(context, { portion, remainder: measurementLog.length - offset - portion.length }));
}

export function answerGetEndpointInfo(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, negotiated, options, transcripts } = state;
  const { endpointInfo, crypto } = options;
  if (negotiated === null || endpointInfo === undefined) return refuse('UnsupportedRequest', bytes[1]);
  const decoded = decodeGetEndpointInfo(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { subCode, sign } = decoded.value.message;
  if (subCode !== DEVICE_CLASS_IDENTIFIER) return refuse('InvalidRequest');
  const { version, hash, signature: algorithm } = negotiated;
  if (sign === null) {
    return reply(encodeEndpointInfo(context, { slot: 0, nonce: new Uint8Array(), info: endpointInfo }));
  }
  const slot = usableSlot(state, sign.slot, KEY_USAGE.endpointInfo);
  if (slot === undefined || algorithm === null) return refuse('InvalidRequest');
  const unsigned = encodeEndpointInfo(context, {
    slot: sign.slot,
    nonce: crypto.random(NONCE_SIZE),
    info: endpointInfo,
  });
  const parts = [...transcripts.vca, bytes.slice(0, decoded.value.length), unsigned];
  const signature = signTranscript(crypto, { version, hash, algorithm }, slot.key, PURPOSE.endpointInfo, parts);
  return signature === undefined ? refuse('Unspecified') : reply(concat(unsigned, signature));
}
