/** A responder as a function from bytes to bytes: it keeps the connection's state, and does no I/O. */
import type { Result } from '@airlock/core/result.ts';
import { since, VERSION_BYTE, versionOfByte } from '../algorithms.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { chunkOverhead, decodeChunk, decodeChunkGet, encodeChunk, encodeChunkSendAck } from '../messages/chunk.ts';
import { ERROR_CODE, REQUEST, RESPONSE } from '../messages/codes.ts';
import { decodeRespondIfReady, encodeError, encodeNotReady } from '../messages/error.ts';
import { recordSessionId } from '../secured/records.ts';
import { answerDeliverEncapsulated, answerGetEncapsulatedRequest } from './encapsulated.ts';
import { answerChallenge, answerGetCertificate, answerGetDigests } from './identity.ts';
import { answerGetEndpointInfo, answerGetMeasurementLog, answerGetMeasurements } from './measure.ts';
import { answerGetCsr, answerGetKeyPairInfo, answerSetCertificate, answerVendorDefined } from './provision.ts';
import {
  answerEndSession,
  answerFinish,
  answerHeartbeat,
  answerKeyExchange,
  answerKeyUpdate,
  answerPskExchange,
  answerPskFinish,
} from './session.ts';
import { answerGetCapabilities, answerGetVersion, answerNegotiateAlgorithms } from './start.ts';
import { type Answer, type ResponderOptions, type ResponderSession, ResponderState, refuse, reply } from './state.ts';

/** What may be said outside of a session, and what within its phases. */
const CLEAR_ONLY: readonly number[] = [
  ...[REQUEST.GET_VERSION, REQUEST.GET_CAPABILITIES, REQUEST.NEGOTIATE_ALGORITHMS, REQUEST.CHALLENGE],
  ...[REQUEST.KEY_EXCHANGE, REQUEST.PSK_EXCHANGE],
];
const SESSION_ONLY: readonly number[] = [REQUEST.HEARTBEAT, REQUEST.KEY_UPDATE, REQUEST.END_SESSION];
const HANDSHAKE: readonly number[] = [
  ...[REQUEST.FINISH, REQUEST.PSK_FINISH, REQUEST.GET_ENCAPSULATED_REQUEST],
  ...[REQUEST.DELIVER_ENCAPSULATED_RESPONSE, REQUEST.CHUNK_GET, REQUEST.CHUNK_SEND, REQUEST.RESPOND_IF_READY],
];

export class Responder {
  private readonly state: ResponderState;

  constructor(options: ResponderOptions) {
    this.state = new ResponderState(options);
  }

  /** Sessions that are open, in their handshake or after it. */
  get sessions(): number {
    return this.state.sessions.size;
  }

  /**
   * The answer to one message of the binding, itself one. Never throws; fails only when the bytes are no message of the
   * binding, or an answer does not fit into one: then there is nothing to send.
   */
  answer(bytes: Uint8Array): Result<Uint8Array> {
    const { binding } = this.state.options;
    const unwrapped = binding.unwrap(bytes);
    if (!unwrapped.ok) return unwrapped;
    const { kind, message } = unwrapped.value;
    return kind === 'plain' ? binding.wrap('plain', this.respond(message, null)) : this.answerRecord(message);
  }

  private answerRecord(record: Uint8Array): Result<Uint8Array> {
    const { state } = this;
    const { binding } = state.options;
    const id = recordSessionId(record);
    const session = id.ok ? state.sessions.get(id.value) : undefined;
    if (session === undefined) return binding.wrap('plain', encodeError(state.version, ERROR_CODE.DecryptError));
    const data = session.records.unprotect(record);
    if (!data.ok) {
      if (session.records.closed) state.end(session);
      return binding.wrap('plain', encodeError(state.version, ERROR_CODE.DecryptError));
    }
    const message = binding.unwrapApplication(data.value);
    if (!message.ok) {
      state.end(session);
      return binding.wrap('plain', encodeError(state.version, ERROR_CODE.InvalidRequest));
    }
    const answer = this.respond(message.value, session);
    const sealed = session.records.protect(binding.wrapApplication(answer));
    const { after } = session;
    session.after = null;
    after?.();
    if (!sealed.ok) state.end(session);
    return sealed.ok ? binding.wrap('secured', sealed.value) : sealed;
  }

  /** One SPDM message for another, chunks included. */
  private respond(message: Uint8Array, session: ResponderSession | null): Uint8Array {
    const code = message[1] ?? 0;
    const answer = message.length < 4 ? refuse('InvalidRequest') : this.dispatch(code, message, session);
    if (answer.kind === 'error') return encodeError(this.state.spoken, answer.code, answer.data, answer.extended);
    return code === REQUEST.CHUNK_GET || code === REQUEST.CHUNK_SEND ? answer.bytes : this.fit(answer.bytes, session);
  }

  /** An answer, or the announcement that it comes in chunks, or the regret that it cannot. */
  private fit(bytes: Uint8Array, session: ResponderSession | null): Uint8Array {
    const { state } = this;
    const limit = Math.min(state.peer?.dataTransferSize ?? bytes.length, state.options.binding.messageLimit);
    if (bytes.length <= limit) return bytes;
    if (!this.chunks || bytes.length > (state.peer?.maxMessageSize ?? 0)) {
      const size = Uint8Array.of(0, 8, 16, 24).map((shift) => bytes.length >>> shift);
      return encodeError(state.version, ERROR_CODE.ResponseTooLarge, 0, since(state.version, '1.2') ? size : undefined);
    }
    const handle = state.nextHandle;
    state.nextHandle = (handle + 1) & 0xff;
    state.outgoing = { handle, bytes, at: 0, sequence: 0, sessionId: session?.id ?? null };
    return encodeError(state.version, ERROR_CODE.LargeResponse, 0, Uint8Array.of(handle));
  }

  private get chunks(): boolean {
    const { own, peer } = this.state;
    return hasCapability(own.flags & (peer?.flags ?? 0), 'CHUNK');
  }

  private dispatch(code: number, message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    if (code === REQUEST.GET_VERSION && session === null) return answerGetVersion(state, message);
    if (code === REQUEST.GET_CAPABILITIES && session === null) return answerGetCapabilities(state, message);
    if (state.phase === 'none') return refuse('UnexpectedRequest');
    if (versionOfByte(message[0] ?? 0) === undefined || message[0] !== VERSION_BYTE[state.version])
      return refuse('VersionMismatch');
    if (code === REQUEST.NEGOTIATE_ALGORITHMS && session === null) return answerNegotiateAlgorithms(state, message);
    if (state.phase !== 'negotiated') return refuse('UnexpectedRequest');
    if (session !== null && CLEAR_ONLY.includes(code)) return refuse('UnexpectedRequest');
    if (session === null && SESSION_ONLY.includes(code)) return refuse('SessionRequired');
    if (session !== null && session.phase === 'handshake' && !HANDSHAKE.includes(code))
      return refuse('UnexpectedRequest');
    if (code === REQUEST.CHUNK_SEND) return this.takeChunk(message, session);
    if (code === REQUEST.CHUNK_GET) return this.giveChunk(message, session);
    // Anything else ends what was going on in chunks.
    state.incoming = null;
    state.outgoing = null;
    if (code === REQUEST.RESPOND_IF_READY) return this.answerLate(message, session);
    if (state.options.late?.codes.includes(code)) return this.postpone(code, message, session);
    state.pending = null;
    state.transcripts.begin(code, session);
    return this.answerTo(code, message, session);
  }

  /** ResponseNotReady: the request is kept, and answered when it is asked for again. */
  private postpone(code: number, message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    const token = state.nextHandle;
    state.nextHandle = (token + 1) & 0xff;
    state.pending = { token, message, sessionId: session?.id ?? null };
    const { exponent = 0 } = state.options.late ?? {};
    const extended = encodeNotReady({ exponent, request: code, token, multiplier: 4 });
    return { kind: 'error', code: ERROR_CODE.ResponseNotReady, data: 0, extended };
  }

  private answerLate(message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    const { pending } = state;
    const decoded = decodeRespondIfReady(message, state.context);
    if (!decoded.ok) return refuse('InvalidRequest');
    if (pending === null || pending.sessionId !== (session?.id ?? null)) return refuse('UnexpectedRequest');
    const { request, token } = decoded.value.message;
    if (request !== pending.message[1] || token !== pending.token) return refuse('InvalidRequest');
    state.pending = null;
    state.transcripts.begin(request, session);
    return this.answerTo(request, pending.message, session);
  }

  private answerTo(code: number, message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    const since12 = since(state.version, '1.2');
    const since13 = since(state.version, '1.3');
    switch (code) {
      case REQUEST.GET_DIGESTS:
        return answerGetDigests(state, message, session);
      case REQUEST.GET_CERTIFICATE:
        return answerGetCertificate(state, message, session);
      case REQUEST.CHALLENGE:
        return answerChallenge(state, message);
      case REQUEST.GET_MEASUREMENTS:
        return answerGetMeasurements(state, message, session);
      case REQUEST.KEY_EXCHANGE:
        return answerKeyExchange(state, message);
      case REQUEST.FINISH:
        return answerFinish(state, message, session);
      case REQUEST.PSK_EXCHANGE:
        return answerPskExchange(state, message);
      case REQUEST.PSK_FINISH:
        return answerPskFinish(state, message, session);
      case REQUEST.GET_ENCAPSULATED_REQUEST:
        return answerGetEncapsulatedRequest(state, message, session);
      case REQUEST.DELIVER_ENCAPSULATED_RESPONSE:
        return answerDeliverEncapsulated(state, message, session);
      case REQUEST.VENDOR_DEFINED_REQUEST:
        return answerVendorDefined(state, message, session);
    }
    if (session !== null) {
      if (code === REQUEST.HEARTBEAT) return answerHeartbeat(state, message);
      if (code === REQUEST.KEY_UPDATE) return answerKeyUpdate(state, message, session);
      if (code === REQUEST.END_SESSION) return answerEndSession(state, message, session);
    }
    if (since12 && code === REQUEST.GET_CSR) return answerGetCsr(state, message);
    if (since12 && code === REQUEST.SET_CERTIFICATE) return answerSetCertificate(state, message, session);
    if (since13 && code === REQUEST.GET_MEASUREMENT_EXTENSION_LOG) return answerGetMeasurementLog(state, message);
    if (since13 && code === REQUEST.GET_KEY_PAIR_INFO) return answerGetKeyPairInfo(state, message);
    if (since13 && code === REQUEST.GET_ENDPOINT_INFO) return answerGetEndpointInfo(state, message);
    return refuse('UnsupportedRequest', code);
  }

  /** CHUNK_SEND: the last chunk is answered with the answer to the whole. */
  private takeChunk(message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    const { context } = state;
    if (!this.chunks) return refuse('UnsupportedRequest', message[1]);
    const decoded = decodeChunk(message, context, REQUEST.CHUNK_SEND);
    if (!decoded.ok) return refuse('InvalidRequest');
    const chunk = decoded.value.message;
    const early = (code: keyof typeof ERROR_CODE): Answer => {
      state.incoming = null;
      const response = encodeError(state.version, ERROR_CODE[code]);
      const ack = { handle: chunk.handle, sequence: chunk.sequence, earlyError: true, response };
      return reply(encodeChunkSendAck(context, ack));
    };
    if (chunk.size !== null) {
      if (state.incoming !== null) return early('UnexpectedRequest');
      if (chunk.size > state.messageSize) return early('RequestTooLarge');
      if (chunk.last) return early('InvalidRequest');
      const bytes = new Uint8Array(chunk.size);
      state.incoming = { handle: chunk.handle, bytes, at: 0, sequence: 0, sessionId: session?.id ?? null };
    }
    const { incoming } = state;
    if (incoming === null || incoming.handle !== chunk.handle || incoming.sessionId !== (session?.id ?? null))
      return early('InvalidRequest');
    const end = incoming.at + chunk.data.length;
    if (chunk.sequence !== incoming.sequence || end > incoming.bytes.length) return early('InvalidRequest');
    if (chunk.last !== (end === incoming.bytes.length)) return early('InvalidRequest');
    incoming.bytes.set(chunk.data, incoming.at);
    incoming.at = end;
    incoming.sequence++;
    let response = new Uint8Array();
    if (chunk.last) {
      state.incoming = null;
      const inner = incoming.bytes[1];
      // Chunks within chunks lead nowhere.
      if (inner === REQUEST.CHUNK_SEND || inner === REQUEST.CHUNK_GET) return early('InvalidRequest');
      response = new Uint8Array(this.respond(incoming.bytes, session));
    }
    const ack = { handle: chunk.handle, sequence: chunk.sequence, earlyError: false, response };
    const answer = encodeChunkSendAck(context, ack);
    const limit = state.peer?.dataTransferSize ?? answer.length;
    if (answer.length <= limit) return reply(answer);
    // The answer alone fits, its envelope does not: it goes in chunks too.
    state.outgoing = { handle: state.nextHandle, bytes: response, at: 0, sequence: 0, sessionId: session?.id ?? null };
    const announced = encodeError(state.version, ERROR_CODE.LargeResponse, 0, Uint8Array.of(state.nextHandle));
    state.nextHandle = (state.nextHandle + 1) & 0xff;
    return reply(encodeChunkSendAck(context, { ...ack, response: announced }));
  }

  private giveChunk(message: Uint8Array, session: ResponderSession | null): Answer {
    const { state } = this;
    const { context, outgoing } = state;
    if (!this.chunks) return refuse('UnsupportedRequest', message[1]);
    const decoded = decodeChunkGet(message, context);
    if (!decoded.ok) return refuse('InvalidRequest');
    if (outgoing === null) return refuse('UnexpectedRequest');
    const { handle, sequence } = decoded.value.message;
    if (handle !== outgoing.handle || sequence !== outgoing.sequence || outgoing.sessionId !== (session?.id ?? null)) {
      state.outgoing = null;
      return refuse('InvalidRequest');
    }
    const limit = Math.min(state.peer?.dataTransferSize ?? 0, state.transferSize, state.options.binding.messageLimit);
    const data = outgoing.bytes.slice(outgoing.at, outgoing.at + limit - chunkOverhead(sequence === 0));
    outgoing.at += data.length;
    outgoing.sequence++;
    const last = outgoing.at >= outgoing.bytes.length;
    if (last) state.outgoing = null;
    const size = sequence === 0 ? outgoing.bytes.length : null;
    return reply(encodeChunk(context, RESPONSE.CHUNK_RESPONSE, { handle, sequence, last, size, data }));
  }
}
