/** Requests beside authentication: the measurement log, endpoint info, other bodies' protocols, certificates to install. */
import { fail, ok } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { NONCE_SIZE } from '../messages/challenge.ts';
import { REQUEST, RESPONSE } from '../messages/codes.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import { DEVICE_CLASS_IDENTIFIER, decodeEndpointInfo, encodeGetEndpointInfo } from '../messages/endpoint-info.ts';
import { decodeKeyPairInfo, encodeGetKeyPairInfo, type KeyPairInfo } from '../messages/key-pair.ts';
import { decodeMeasurementLog, encodeGetMeasurementLog } from '../messages/measurement-log.ts';
import {
  type CertificateUpload,
  type CsrRequest,
  decodeCsr,
  encodeGetCsr,
  encodeSetCertificate,
} from '../messages/provisioning.ts';
import { decodeBare } from '../messages/session.ts';
import { decodeVendorDefined, encodeVendorDefined, type VendorMessage } from '../messages/vendor-defined.ts';
import { PURPOSE, verifyTranscript } from '../signing.ts';
import { peerKey } from './certificates.ts';
import type { Statement } from './challenge.ts';
import type { Connection, Session } from './connection.ts';
import type { Procedure } from './procedure.ts';

/** Bytes of a measurement log that are read. */
const LOG_LIMIT = 4 * 1024 * 1024;
const LOG_HEADER = 12;
const LOG_PORTIONS = 4096;

/**
 * The whole measurement extension log; nothing of it is signed: `readLogEntries` reads it, and the extended digests are
 * among the measurements. Codes: `capability-missing`, `measurements-invalid`, `message-*`, `peer-*`.
 */
export function* getMeasurementLog(connection: Connection, session: Session | null): Procedure<Uint8Array> {
  const needed = connection.need('MEL');
  if (!needed.ok) return needed;
  if (!needed.value.measurementLog) return fail('capability-missing', 'no format of measurement logs is agreed on');
  const { context } = connection;
  const most = connection.transferSize - LOG_HEADER;
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (let left = most, first = true; left > 0; first = false) {
    const length = Math.min(left, most);
    const request = encodeGetMeasurementLog(context, { offset, length });
    const bytes = yield* connection.exchange(request, RESPONSE.MEASUREMENT_EXTENSION_LOG, session);
    if (!bytes.ok) return bytes;
    const decoded = decodeMeasurementLog(bytes.value, context);
    if (!decoded.ok) return decoded;
    const { portion, remainder } = decoded.value.message;
    if (portion.length === 0 || portion.length > length)
      return fail('measurements-invalid', `the log: a portion of ${portion.length} bytes, asked for ${length}`);
    if (!first && portion.length + remainder !== left) return fail('measurements-invalid', 'the log: its size changes');
    if (parts.length >= LOG_PORTIONS)
      return fail('measurements-invalid', `the log: more than ${LOG_PORTIONS} portions`);
    parts.push(portion);
    offset += portion.length;
    left = remainder;
    if (offset + left > LOG_LIMIT) return fail('measurements-invalid', `the log has ${offset + left} bytes`);
  }
  return ok(concat(...parts));
}

export interface EndpointReport {
  readonly info: Uint8Array;
  /** Null when nothing was signed. */
  readonly statement: Statement | null;
}

/**
 * The device class identifier (1.3), signed with a slot's key where `sign` names one. Codes: `signature-wrong`,
 * `slot-mismatch`, `capability-missing`, `state-wrong`, `message-*`, `peer-*`.
 */
export function* getEndpointInfo(
  connection: Connection,
  options: { readonly sign?: number; readonly session?: Session } = {},
): Procedure<EndpointReport> {
  const { sign, session = null } = options;
  const needed = sign === undefined ? connection.need() : connection.need('EP_INFO_SIG');
  if (!needed.ok) return needed;
  const flags = connection.peer?.flags ?? 0;
  if (!hasCapability(flags, 'EP_INFO_SIG') && !hasCapability(flags, 'EP_INFO_NO_SIG'))
    return fail('capability-missing', 'the responder has no EP_INFO_CAP');
  const { context, crypto, transcripts } = connection;
  const suite = connection.signingSuite(needed.value);
  const peer = sign === undefined ? undefined : peerKey(connection, sign, KEY_USAGE.endpointInfo);
  if (sign !== undefined && (peer === undefined || suite === undefined))
    return fail('state-wrong', `no trusted key of slot ${sign} for this`);
  const request = encodeGetEndpointInfo(context, {
    subCode: DEVICE_CLASS_IDENTIFIER,
    sign: sign === undefined ? null : { nonce: crypto.random(NONCE_SIZE), slot: sign },
  });
  const bytes = yield* connection.exchange(request, RESPONSE.ENDPOINT_INFO, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeEndpointInfo(bytes.value, context, sign !== undefined);
  if (!decoded.ok) return decoded;
  const { message, length } = decoded.value;
  if (sign === undefined || peer === undefined || suite === undefined)
    return ok({ info: message.info, statement: null });
  if (message.slot !== sign) return fail('slot-mismatch', `ENDPOINT_INFO is of slot ${message.slot}, not ${sign}`);
  const { signature } = message;
  const messages = [...transcripts.vca, request, bytes.value.slice(0, length - signature.length)];
  if (!verifyTranscript(crypto, suite, peer.key, PURPOSE.endpointInfo, messages, signature))
    return fail('signature-wrong', 'ENDPOINT_INFO: its signature does not verify over what was said');
  const statement = {
    purpose: PURPOSE.endpointInfo,
    suite,
    slot: sign,
    transcript: concat(...messages),
    messages,
    signature,
  };
  return ok({ info: message.info, statement });
}

/** One message of another body's protocol, and its answer. Codes: `message-*`, `peer-*` and those of records. */
export function* askVendor(
  connection: Connection,
  message: VendorMessage,
  session: Session | null,
): Procedure<VendorMessage> {
  const needed = connection.need();
  if (!needed.ok) return needed;
  const { context } = connection;
  const request = encodeVendorDefined(context, REQUEST.VENDOR_DEFINED_REQUEST, message);
  const bytes = yield* connection.exchange(request, RESPONSE.VENDOR_DEFINED_RESPONSE, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeVendorDefined(bytes.value, context, RESPONSE.VENDOR_DEFINED_RESPONSE);
  return decoded.ok ? ok(decoded.value.message) : decoded;
}

/** What is known of one of the responder's key pairs (1.3). Codes: `capability-missing`, `message-*`, `peer-*`. */
export function* getKeyPairInfo(connection: Connection, pair: number, session: Session | null): Procedure<KeyPairInfo> {
  const needed = connection.need('GET_KEY_PAIR_INFO');
  if (!needed.ok) return needed;
  const { context } = connection;
  const bytes = yield* connection.exchange(encodeGetKeyPairInfo(context, pair), RESPONSE.KEY_PAIR_INFO, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeKeyPairInfo(bytes.value, context);
  if (!decoded.ok) return decoded;
  return decoded.value.message.pair === pair
    ? ok(decoded.value.message)
    : fail('message-unexpected', `KEY_PAIR_INFO is of pair ${decoded.value.message.pair}, not ${pair}`);
}

/** A DER CertificationRequest of the device. Codes: `capability-missing`, `message-*`, `peer-*`. */
export function* getCsr(
  connection: Connection,
  request: Partial<CsrRequest>,
  session: Session | null,
): Procedure<Uint8Array> {
  const needed = connection.need('CSR');
  if (!needed.ok) return needed;
  const { context } = connection;
  const none = new Uint8Array();
  const bytes = yield* connection.exchange(
    encodeGetCsr(context, {
      keyPair: 0,
      certificateModel: 0,
      trackingTag: 0,
      overwrite: false,
      requesterInfo: none,
      opaque: none,
      ...request,
    }),
    RESPONSE.CSR,
    session,
  );
  if (!bytes.ok) return bytes;
  const decoded = decodeCsr(bytes.value, context);
  return decoded.ok ? ok(decoded.value.message) : decoded;
}

/** Installs a chain (`encodeCertificateChain`) in a slot. Codes: `capability-missing`, `message-*`, `peer-*`. */
export function* setCertificate(
  connection: Connection,
  upload: CertificateUpload,
  session: Session | null,
): Procedure<null> {
  const needed = connection.need('SET_CERT');
  if (!needed.ok) return needed;
  const { context } = connection;
  const request = encodeSetCertificate(context, upload);
  const bytes = yield* connection.exchange(request, RESPONSE.SET_CERTIFICATE_RSP, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeBare(bytes.value, context, RESPONSE.SET_CERTIFICATE_RSP);
  if (!decoded.ok) return decoded;
  const slot = decoded.value.message.parameter1 & 0xf;
  return slot === upload.slot ? ok(null) : fail('slot-mismatch', `SET_CERTIFICATE_RSP is of slot ${slot}`);
}
