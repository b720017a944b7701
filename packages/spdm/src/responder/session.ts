/** KEY_EXCHANGE to END_SESSION, answered. */
import { concat } from '@airlock/evidence/bytes.ts';
import { dataSecrets, handshakeSecrets } from '../key-schedule.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { REQUEST } from '../messages/codes.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import {
  decodeFinish,
  decodeKeyExchange,
  encodeFinishResponse,
  encodeKeyExchangeResponse,
  MUTUAL,
  RANDOM_SIZE,
} from '../messages/key-exchange.ts';
import {
  decodePskExchange,
  decodePskFinish,
  encodePskExchangeResponse,
  encodePskFinishResponse,
} from '../messages/psk.ts';
import {
  decodeBare,
  decodeKeyUpdate,
  encodeEndSessionAck,
  encodeHeartbeatAck,
  encodeKeyUpdateAck,
  KEY_OPERATION,
} from '../messages/session.ts';
import type { Negotiated } from '../negotiate.ts';
import { decodeSupportedVersions, encodeSelection, type OpaqueForm, SECURED_VERSIONS } from '../secured/opaque.ts';
import { createRecordSession } from '../secured/records.ts';
import { PURPOSE, signTranscript, verifyTranscript } from '../signing.ts';
import { startMutual } from './encapsulated.ts';
import { summaryHash } from './measure.ts';
import { chainOf, usableSlot } from './slot.ts';
import { type Answer, type ResponderSession, type ResponderState, refuse, reply } from './state.ts';

function protectionOf(flags: number): 'encrypted' | 'authenticated' | undefined {
  if (hasCapability(flags, 'ENCRYPT', 'MAC')) return 'encrypted';
  return hasCapability(flags, 'MAC') ? 'authenticated' : undefined;
}

/** The version of secured messages: the highest that both have. */
function selectSecured(negotiated: Negotiated, offered: Uint8Array): Uint8Array | undefined {
  const form: OpaqueForm = negotiated.opaque === 'general' ? 'general' : 'table';
  const versions = decodeSupportedVersions(form, offered);
  if (!versions.ok) return undefined;
  // 1.3 moves the limit of records per key, which nothing here announces.
  const common = versions.value.filter((version) => SECURED_VERSIONS.includes(version) && version <= 0x12);
  const version = Math.max(...common);
  return common.length === 0 ? undefined : encodeSelection(form, { version, limitExponent: 64 });
}

function newSessionId(state: ResponderState, requester: number): number {
  for (;;) {
    const own = state.nextSession;
    state.nextSession = own >= 0xfffe ? 1 : own + 1;
    const id = (requester | (own << 16)) >>> 0;
    if (!state.sessions.has(id)) return id;
  }
}

function room(state: ResponderState): boolean {
  return state.sessions.size < (state.options.sessionLimit ?? 4);
}

function openSession(
  state: ResponderState,
  negotiated: Negotiated,
  opening: Pick<ResponderSession, 'id' | 'psk' | 'clear' | 'secrets' | 'transcript' | 'mutual'>,
): ResponderSession | undefined {
  const { options, own, peer } = state;
  const protection = protectionOf(own.flags & (peer?.flags ?? 0));
  const { version, hash, aead } = negotiated;
  if (aead === null || protection === undefined) return undefined;
  const session: ResponderSession = {
    ...opening,
    records: createRecordSession({
      crypto: options.crypto,
      suite: { version, hash, aead },
      binding: options.binding,
      sessionId: opening.id,
      role: 'responder',
      protection,
    }),
    phase: 'handshake',
    measurements: [],
    measured: [],
    unverified: false,
    after: null,
  };
  session.records.install(opening.secrets.secrets);
  state.sessions.set(opening.id, session);
  return session;
}

export function answerKeyExchange(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, negotiated, options, transcripts, own, peer } = state;
  if (negotiated === null || negotiated.exchange === null) return refuse('UnsupportedRequest', bytes[1]);
  const { crypto } = options;
  const decoded = decodeKeyExchange(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { message } = decoded.value;
  const request = bytes.slice(0, decoded.value.length);
  const { version, hash, signature: algorithm, exchange } = negotiated;
  const slot = usableSlot(state, message.slot, KEY_USAGE.keyExchange);
  const measured = summaryHash(state, negotiated, message.summary);
  const secured = selectSecured(negotiated, message.opaque);
  if (slot === undefined || algorithm === null || measured === undefined || secured === undefined)
    return refuse('InvalidRequest');
  // A handshake in the clear that never ended makes place for the next.
  if (state.clearSession !== null) state.end(state.clearSession);
  if (!room(state)) return refuse('SessionLimitExceeded');
  const answered = crypto.answerExchange(exchange, message.exchangeData);
  if (answered === undefined) return refuse('InvalidRequest');
  const clear = hasCapability(own.flags & (peer?.flags ?? 0), 'HANDSHAKE_IN_THE_CLEAR');
  const mutual = startMutual(state, negotiated);
  if (mutual === null && options.mutual !== undefined && options.mutual.optional !== true)
    return refuse('InvalidRequest');
  const id = newSessionId(state, message.sessionId);
  const head = encodeKeyExchangeResponse(context, {
    heartbeat: hasCapability(own.flags & (peer?.flags ?? 0), 'HBEAT') ? (options.heartbeat ?? 0) : 0,
    sessionId: id >>> 16,
    mutual: mutual?.asked ?? MUTUAL.none,
    requesterSlot: mutual?.handshake.slot ?? 0,
    random: crypto.random(RANDOM_SIZE),
    exchangeData: answered.data,
    summaryHash: measured,
    opaque: secured,
  });
  const digests = negotiated.multiKey && transcripts.digests !== null ? [transcripts.digests] : [];
  const chain = crypto.hash(hash, chainOf(state, negotiated, slot));
  const before = [...transcripts.vca, ...digests, chain, request];
  const suite = { version, hash, algorithm };
  const signature = signTranscript(crypto, suite, slot.key, PURPOSE.keyExchange, [...before, head]);
  if (signature === undefined) return refuse('Unspecified');
  const signed = concat(head, signature);
  const th1 = crypto.hash(hash, ...before, signed);
  const secrets = handshakeSecrets(crypto, negotiated, { shared: answered.secret, psk: false, th1 });
  answered.secret.fill(0);
  const response = clear ? signed : concat(signed, crypto.hmac(hash, secrets.finished.response, th1));
  const transcript = [...before, response];
  const opening = { id, psk: false, clear, secrets, transcript, mutual: mutual?.handshake ?? null };
  const session = openSession(state, negotiated, opening);
  if (session === undefined) return refuse('UnsupportedRequest', bytes[1]);
  if (clear) state.clearSession = session;
  return reply(response);
}

/** Comes within the session, or in the clear where both ends have that capability. */
export function answerFinish(state: ResponderState, bytes: Uint8Array, within: ResponderSession | null): Answer {
  const { context, negotiated, options } = state;
  const session = within ?? state.clearSession;
  if (session === null && !hasCapability(state.own.flags & (state.peer?.flags ?? 0), 'HANDSHAKE_IN_THE_CLEAR'))
    return refuse('SessionRequired');
  if (negotiated === null || session === null || session.psk || session.phase !== 'handshake')
    return refuse('UnexpectedRequest');
  if (session.clear !== (within === null)) return refuse(session.clear ? 'InvalidRequest' : 'SessionRequired');
  const { crypto } = options;
  const decoded = decodeFinish(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { message } = decoded.value;
  const request = bytes.slice(0, decoded.value.length);
  const { hash } = negotiated;
  const signed = request.subarray(0, request.length - message.verifyData.length);
  const transcript = [...session.transcript];
  const { mutual } = session;
  if ((mutual !== null) !== message.signature.length > 0) return failed(state, session, 'InvalidRequest');
  if (mutual !== null) {
    if (mutual.waiting !== 'done' || mutual.key === null || message.slot !== mutual.slot)
      return failed(state, session, 'InvalidRequest');
    if (negotiated.requesterMultiKey && mutual.digests !== null) transcript.push(mutual.digests);
    transcript.push(mutual.digest);
    const algorithm = negotiated.requesterSignature;
    const unsigned = signed.subarray(0, signed.length - message.signature.length);
    const good =
      algorithm !== null &&
      verifyTranscript(
        crypto,
        { version: negotiated.version, hash, algorithm },
        mutual.key,
        PURPOSE.finish,
        [...transcript, unsigned],
        message.signature,
      );
    if (!good) return failed(state, session, 'DecryptError');
  }
  const expected = crypto.hmac(hash, session.secrets.finished.request, crypto.hash(hash, ...transcript, signed));
  if (!crypto.same(message.verifyData, expected)) return failed(state, session, 'DecryptError');
  const head = encodeFinishResponse(context, new Uint8Array());
  const th = crypto.hash(hash, ...transcript, request, head);
  const response = session.clear ? concat(head, crypto.hmac(hash, session.secrets.finished.response, th)) : head;
  establish(state, negotiated, session, [...transcript, request, response]);
  return reply(response);
}

/** A handshake that failed is over: nothing of it is tried again. */
function failed(state: ResponderState, session: ResponderSession, code: 'InvalidRequest' | 'DecryptError'): Answer {
  session.after = () => state.end(session);
  if (session.clear) state.end(session);
  return refuse(code);
}

function establish(
  state: ResponderState,
  negotiated: Negotiated,
  session: ResponderSession,
  transcript: readonly Uint8Array[],
): void {
  const { crypto } = state.options;
  const th2 = crypto.hash(negotiated.hash, ...transcript);
  const { secrets } = dataSecrets(crypto, negotiated, session.secrets.handshake, th2);
  const finish = () => {
    session.records.install(secrets);
    session.phase = 'data';
    session.secrets.handshake.fill(0);
    session.transcript = [];
    if (state.clearSession === session) state.clearSession = null;
  };
  // The answer to FINISH is still of the handshake.
  if (session.clear) finish();
  else session.after = finish;
}

export function answerPskExchange(state: ResponderState, bytes: Uint8Array): Answer {
  const { context, negotiated, options, transcripts, own, peer } = state;
  if (negotiated === null || options.psk === undefined || !hasCapability(peer?.flags ?? 0, 'PSK'))
    return refuse('UnsupportedRequest', bytes[1]);
  const { crypto } = options;
  const decoded = decodePskExchange(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { message } = decoded.value;
  const { hash } = negotiated;
  const secret = options.psk(message.hint);
  const measured = summaryHash(state, negotiated, message.summary);
  const secured = selectSecured(negotiated, message.opaque);
  if (secret === undefined || measured === undefined || secured === undefined) return refuse('InvalidRequest');
  if (!room(state)) return refuse('SessionLimitExceeded');
  const withContext = hasCapability(own.flags, 'PSK_WITH_CONTEXT');
  const id = newSessionId(state, message.sessionId);
  const head = encodePskExchangeResponse(context, {
    heartbeat: hasCapability(own.flags & (peer?.flags ?? 0), 'HBEAT') ? (options.heartbeat ?? 0) : 0,
    sessionId: id >>> 16,
    summaryHash: measured,
    context: withContext ? crypto.random(context.hashSize) : new Uint8Array(),
    opaque: secured,
  });
  const before = [...transcripts.vca, bytes.slice(0, decoded.value.length)];
  const th1 = crypto.hash(hash, ...before, head);
  const secrets = handshakeSecrets(crypto, negotiated, { shared: secret, psk: true, th1 });
  const response = concat(head, crypto.hmac(hash, secrets.finished.response, th1));
  const transcript = [...before, response];
  const opening = { id, psk: true, clear: false, secrets, transcript, mutual: null };
  const session = openSession(state, negotiated, opening);
  if (session === undefined) return refuse('UnsupportedRequest', bytes[1]);
  if (!withContext) {
    establish(state, negotiated, session, transcript);
    session.after?.();
    session.after = null;
  }
  return reply(response);
}

export function answerPskFinish(state: ResponderState, bytes: Uint8Array, session: ResponderSession | null): Answer {
  const { context, negotiated, options } = state;
  if (session === null) return refuse('SessionRequired');
  if (negotiated === null || !session.psk || session.phase !== 'handshake') return refuse('UnexpectedRequest');
  const { crypto } = options;
  const decoded = decodePskFinish(bytes, context);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { verifyData } = decoded.value.message;
  const request = bytes.slice(0, decoded.value.length);
  const { hash } = negotiated;
  const head = request.subarray(0, request.length - verifyData.length);
  const th = crypto.hash(hash, ...session.transcript, head);
  if (!crypto.same(verifyData, crypto.hmac(hash, session.secrets.finished.request, th)))
    return failed(state, session, 'DecryptError');
  const response = encodePskFinishResponse(context, new Uint8Array());
  establish(state, negotiated, session, [...session.transcript, request, response]);
  return reply(response);
}

export function answerHeartbeat(state: ResponderState, bytes: Uint8Array): Answer {
  const decoded = decodeBare(bytes, state.context, REQUEST.HEARTBEAT);
  return decoded.ok ? reply(encodeHeartbeatAck(state.context)) : refuse('InvalidRequest');
}

export function answerKeyUpdate(state: ResponderState, bytes: Uint8Array, session: ResponderSession): Answer {
  const { context } = state;
  const decoded = decodeKeyUpdate(bytes, context, REQUEST.KEY_UPDATE);
  if (!decoded.ok) return refuse('InvalidRequest');
  const { message } = decoded.value;
  const verify = message.operation === KEY_OPERATION.verifyNewKey;
  // One update at a time: the new key is verified before the next.
  if (verify !== session.unverified) return refuse('InvalidRequest');
  session.unverified = !verify;
  if (message.operation === KEY_OPERATION.updateAllKeys) session.records.renew('response');
  if (!verify) session.records.renew('request');
  return reply(encodeKeyUpdateAck(context, message));
}

export function answerEndSession(state: ResponderState, bytes: Uint8Array, session: ResponderSession): Answer {
  const decoded = decodeBare(bytes, state.context, REQUEST.END_SESSION);
  if (!decoded.ok) return refuse('InvalidRequest');
  session.after = () => state.end(session);
  return reply(encodeEndSessionAck(state.context));
}
