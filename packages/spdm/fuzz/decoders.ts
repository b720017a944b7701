/** Every reader of a message by its code: what a mutated message is put through. */
import type { Result } from '@airlock/core/result.ts';
import { readCertificateChain } from '../src/certificate-chain.ts';
import { decodeCapabilities, decodeGetCapabilities } from '../src/messages/capabilities.ts';
import { decodeCertificate, decodeGetCertificate } from '../src/messages/certificate.ts';
import { decodeChallenge, decodeChallengeAuth } from '../src/messages/challenge.ts';
import { decodeChunk, decodeChunkGet, decodeChunkSendAck } from '../src/messages/chunk.ts';
import { REQUEST, RESPONSE } from '../src/messages/codes.ts';
import { decodeDigests, decodeGetDigests } from '../src/messages/digests.ts';
import { decodeEncapsulated, decodeEncapsulatedAck } from '../src/messages/encapsulated.ts';
import { decodeEndpointInfo, decodeGetEndpointInfo } from '../src/messages/endpoint-info.ts';
import { decodeError, decodeRespondIfReady } from '../src/messages/error.ts';
import {
  decodeFinish,
  decodeFinishResponse,
  decodeKeyExchange,
  decodeKeyExchangeResponse,
} from '../src/messages/key-exchange.ts';
import { decodeGetKeyPairInfo, decodeKeyPairInfo } from '../src/messages/key-pair.ts';
import { decodeGetMeasurementLog, decodeMeasurementLog, readLogEntries } from '../src/messages/measurement-log.ts';
import { decodeGetMeasurements, decodeMeasurements, readMeasurementRecord } from '../src/messages/measurements.ts';
import { decodeAlgorithms, decodeNegotiateAlgorithms } from '../src/messages/negotiation.ts';
import { decodeOpaqueElements } from '../src/messages/opaque.ts';
import { decodeCsr, decodeGetCsr, decodeSetCertificate } from '../src/messages/provisioning.ts';
import {
  decodePskExchange,
  decodePskExchangeResponse,
  decodePskFinish,
  decodePskFinishResponse,
} from '../src/messages/psk.ts';
import type { MessageContext } from '../src/messages/reader.ts';
import { decodeBare, decodeKeyUpdate } from '../src/messages/session.ts';
import { decodeVendorDefined } from '../src/messages/vendor-defined.ts';
import { decodeGetVersion, decodeVersion } from '../src/messages/version.ts';

type Decoder = (bytes: Uint8Array, context: MessageContext) => Result<unknown>;

const bare =
  (code: number): Decoder =>
  (bytes, context) =>
    decodeBare(bytes, context, code);

/** A reader, then what reads its contents. */
export const DECODERS: ReadonlyMap<number, Decoder> = new Map<number, Decoder>([
  [REQUEST.GET_VERSION, (bytes, { padding }) => decodeGetVersion(bytes, padding)],
  [RESPONSE.VERSION, (bytes, { padding }) => decodeVersion(bytes, padding)],
  [REQUEST.GET_CAPABILITIES, decodeGetCapabilities],
  [RESPONSE.CAPABILITIES, decodeCapabilities],
  [REQUEST.NEGOTIATE_ALGORITHMS, decodeNegotiateAlgorithms],
  [RESPONSE.ALGORITHMS, decodeAlgorithms],
  [REQUEST.GET_DIGESTS, decodeGetDigests],
  [RESPONSE.DIGESTS, decodeDigests],
  [REQUEST.GET_CERTIFICATE, decodeGetCertificate],
  [
    RESPONSE.CERTIFICATE,
    (bytes, context) => {
      const read = decodeCertificate(bytes, context);
      return read.ok ? readCertificateChain(read.value.message.portion, context.version, 'sha256') : read;
    },
  ],
  [REQUEST.CHALLENGE, decodeChallenge],
  [RESPONSE.CHALLENGE_AUTH, (bytes, context) => decodeChallengeAuth(bytes, context, true)],
  [REQUEST.GET_MEASUREMENTS, decodeGetMeasurements],
  [
    RESPONSE.MEASUREMENTS,
    (bytes, context) => {
      const read = decodeMeasurements(bytes, context, true);
      return read.ok ? readMeasurementRecord(read.value.message.record, read.value.message.blocks, 32) : read;
    },
  ],
  [REQUEST.KEY_EXCHANGE, decodeKeyExchange],
  [
    RESPONSE.KEY_EXCHANGE_RSP,
    (bytes, context) => {
      const read = decodeKeyExchangeResponse(bytes, context, true, true);
      return read.ok ? decodeOpaqueElements(read.value.message.opaque) : read;
    },
  ],
  [REQUEST.FINISH, decodeFinish],
  [RESPONSE.FINISH_RSP, (bytes, context) => decodeFinishResponse(bytes, context, false)],
  [REQUEST.PSK_EXCHANGE, decodePskExchange],
  [RESPONSE.PSK_EXCHANGE_RSP, (bytes, context) => decodePskExchangeResponse(bytes, context, true)],
  [REQUEST.PSK_FINISH, decodePskFinish],
  [RESPONSE.PSK_FINISH_RSP, decodePskFinishResponse],
  [REQUEST.HEARTBEAT, bare(REQUEST.HEARTBEAT)],
  [RESPONSE.HEARTBEAT_ACK, bare(RESPONSE.HEARTBEAT_ACK)],
  [REQUEST.KEY_UPDATE, (bytes, context) => decodeKeyUpdate(bytes, context, REQUEST.KEY_UPDATE)],
  [RESPONSE.KEY_UPDATE_ACK, (bytes, context) => decodeKeyUpdate(bytes, context, RESPONSE.KEY_UPDATE_ACK)],
  [REQUEST.END_SESSION, bare(REQUEST.END_SESSION)],
  [RESPONSE.END_SESSION_ACK, bare(RESPONSE.END_SESSION_ACK)],
  [REQUEST.GET_ENCAPSULATED_REQUEST, bare(REQUEST.GET_ENCAPSULATED_REQUEST)],
  [
    RESPONSE.ENCAPSULATED_REQUEST,
    (bytes, context) => decodeEncapsulated(bytes, context, RESPONSE.ENCAPSULATED_REQUEST),
  ],
  [
    REQUEST.DELIVER_ENCAPSULATED_RESPONSE,
    (bytes, context) => decodeEncapsulated(bytes, context, REQUEST.DELIVER_ENCAPSULATED_RESPONSE),
  ],
  [RESPONSE.ENCAPSULATED_RESPONSE_ACK, decodeEncapsulatedAck],
  [REQUEST.GET_ENDPOINT_INFO, decodeGetEndpointInfo],
  [RESPONSE.ENDPOINT_INFO, (bytes, context) => decodeEndpointInfo(bytes, context, true)],
  [REQUEST.GET_MEASUREMENT_EXTENSION_LOG, decodeGetMeasurementLog],
  [
    RESPONSE.MEASUREMENT_EXTENSION_LOG,
    (bytes, context) => {
      const read = decodeMeasurementLog(bytes, context);
      return read.ok ? readLogEntries(read.value.message.portion) : read;
    },
  ],
  [REQUEST.GET_CSR, decodeGetCsr],
  [RESPONSE.CSR, decodeCsr],
  [REQUEST.SET_CERTIFICATE, decodeSetCertificate],
  [RESPONSE.SET_CERTIFICATE_RSP, bare(RESPONSE.SET_CERTIFICATE_RSP)],
  [REQUEST.GET_KEY_PAIR_INFO, decodeGetKeyPairInfo],
  [RESPONSE.KEY_PAIR_INFO, decodeKeyPairInfo],
  [
    REQUEST.VENDOR_DEFINED_REQUEST,
    (bytes, context) => decodeVendorDefined(bytes, context, REQUEST.VENDOR_DEFINED_REQUEST),
  ],
  [
    RESPONSE.VENDOR_DEFINED_RESPONSE,
    (bytes, context) => decodeVendorDefined(bytes, context, RESPONSE.VENDOR_DEFINED_RESPONSE),
  ],
  [REQUEST.CHUNK_SEND, (bytes, context) => decodeChunk(bytes, context, REQUEST.CHUNK_SEND)],
  [RESPONSE.CHUNK_SEND_ACK, decodeChunkSendAck],
  [REQUEST.CHUNK_GET, decodeChunkGet],
  [RESPONSE.CHUNK_RESPONSE, (bytes, context) => decodeChunk(bytes, context, RESPONSE.CHUNK_RESPONSE)],
  [REQUEST.RESPOND_IF_READY, decodeRespondIfReady],
  [RESPONSE.ERROR, (bytes, { version }) => decodeError(bytes, version)],
]);
