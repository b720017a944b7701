/** KEY_EXCHANGE to END_SESSION: a session whose keys only the authenticated other end has. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { dataSecrets, type HandshakeSecrets, handshakeSecrets } from '../key-schedule.ts';
import { hasCapability } from '../messages/capabilities.ts';
import type { SummaryName } from '../messages/challenge.ts';
import { RESPONSE } from '../messages/codes.ts';
import { KEY_USAGE } from '../messages/digests.ts';
import {
  decodeFinishResponse,
  decodeKeyExchangeResponse,
  encodeFinish,
  encodeKeyExchange,
  MUTUAL,
  RANDOM_SIZE,
} from '../messages/key-exchange.ts';
import {
  decodeBare,
  decodeKeyUpdate,
  encodeEndSession,
  encodeHeartbeat,
  encodeKeyUpdate,
  KEY_OPERATION,
} from '../messages/session.ts';
import type { Negotiated } from '../negotiate.ts';
import { decodeSelection, encodeSupportedVersions, type OpaqueForm } from '../secured/opaque.ts';
import { createRecordSession } from '../secured/records.ts';
import { PURPOSE, signTranscript, verifyTranscript } from '../signing.ts';
import { peerKey } from './certificates.ts';
import type { Connection, RequesterIdentity, Session } from './connection.ts';
import { serveEncapsulated } from './encapsulated.ts';
import type { Procedure } from './procedure.ts';

/** Versions of DSP0277 that are offered, the most wanted last. */
export const SECURED_VERSIONS_OFFERED: readonly number[] = [0x10, 0x11, 0x12];

export interface SessionOptions {
  /** The slot whose key authenticates the responder. */
  readonly slot: number;
  /** `none` when not given. */
  readonly summary?: SummaryName;
  /** May the responder update its firmware without ending the session (1.2)? No, when not given. */
  readonly runtimeUpdate?: boolean;
}

export interface EstablishedSession {
  readonly session: Session;
  /** Of the measurements that were asked for; empty for none. */
  readonly summaryHash: Uint8Array;
  /** Did the responder authenticate this requester? */
  readonly mutual: boolean;
  /** For protocols beyond SPDM. */
  readonly exportMaster: Uint8Array;
}

/** How both ends' capabilities protect records. */
export function protectionOf(own: number, peer: number): 'encrypted' | 'authenticated' | undefined {
  if (hasCapability(own & peer, 'ENCRYPT', 'MAC')) return 'encrypted';
  return hasCapability(own & peer, 'MAC') ? 'authenticated' : undefined;
}

export function opaqueForm(negotiated: Negotiated): OpaqueForm {
  return negotiated.opaque === 'general' ? 'general' : 'table';
}

/** ReqSessionID and RspSessionID as one. */
export function sessionIdOf(requester: number, responder: number): number {
  return (requester | (responder << 16)) >>> 0;
}

export function ownSessionId(connection: Connection): number {
  for (;;) {
    const [low = 0, high = 0] = connection.crypto.random(2);
    const id = low | (high << 8);
    // 0 and ffff are never an id on their own; one that an open session has would make two sessions one.
    const taken = [...connection.sessions.keys()].some((known) => (known & 0xffff) === id);
    if (id !== 0 && id !== 0xffff && !taken) return id;
  }
}

/** What becomes a session when the handshake is good. */
export interface Opening {
  readonly id: number;
  readonly heartbeat: number;
  readonly psk: boolean;
  readonly limitExponent: number;
}

export function openSession(connection: Connection, negotiated: Negotiated, opening: Opening): Result<Session> {
  const { crypto, options, own, peer } = connection;
  const protection = protectionOf(own.flags, peer?.flags ?? 0);
  if (negotiated.aead === null || protection === undefined)
    return fail('capability-missing', 'both ends need MAC_CAP for a session');
  const { version, hash, aead } = negotiated;
  const session: Session = {
    id: opening.id,
    records: createRecordSession({
      crypto,
      suite: { version, hash, aead },
      binding: options.binding,
      sessionId: opening.id,
      role: 'requester',
      protection,
      limitExponent: opening.limitExponent,
    }),
    phase: 'handshake',
    heartbeat: opening.heartbeat,
    psk: opening.psk,
    measurements: [],
    measured: [],
  };
  connection.sessions.set(opening.id, session);
  return ok(session);
}

export function closeSession(connection: Connection, session: Session): void {
  session.records.close();
  session.phase = 'closed';
  connection.sessions.delete(session.id);
}

/**
 * A session with the responder's key of a slot, whose chain `getCertificate` brought. When the responder asks for it and
 * there is an identity, the requester is authenticated too; it never stays half-open: a failure closes it. Codes:
 * `signature-wrong`, `verify-data-wrong`, `exchange-data-invalid`, `session-refused`, `capability-missing`,
 * `state-wrong`, `secured-opaque-invalid`, `message-*`, `peer-*` and those of records.
 */
export function* establishSession(connection: Connection, options: SessionOptions): Procedure<EstablishedSession> {
  const { slot, summary = 'none', runtimeUpdate = false } = options;
  const needed = connection.need('KEY_EX');
  if (!needed.ok) return needed;
  const negotiated = needed.value;
  const { context, crypto, transcripts, own, peer } = connection;
  const suite = connection.signingSuite(negotiated);
  const key = peerKey(connection, slot, KEY_USAGE.keyExchange);
  if (suite === undefined || key === undefined) return fail('state-wrong', `no trusted key of slot ${slot} for this`);
  if (negotiated.exchange === null) return fail('capability-missing', 'no key exchange is agreed on');
  if (summary !== 'none' && negotiated.measurementHash === null)
    return fail('capability-missing', 'a summary of measurements, which the responder has not');
  if (negotiated.multiKey && transcripts.digests === null)
    return fail('state-wrong', 'a responder with several keys has to be asked for its digests first');
  const clear = hasCapability(own.flags & (peer?.flags ?? 0), 'HANDSHAKE_IN_THE_CLEAR');
  const exchange = crypto.startExchange(negotiated.exchange);
  const requesterId = ownSessionId(connection);
  const form = opaqueForm(negotiated);
  const request = encodeKeyExchange(context, {
    slot,
    summary,
    sessionId: requesterId,
    policy: runtimeUpdate ? 1 : 0,
    random: crypto.random(RANDOM_SIZE),
    exchangeData: exchange.data,
    opaque: encodeSupportedVersions(form, SECURED_VERSIONS_OFFERED),
  });
  const bytes = yield* connection.exchange(request, RESPONSE.KEY_EXCHANGE_RSP, null);
  if (!bytes.ok) return bytes;
  const decoded = decodeKeyExchangeResponse(bytes.value, context, summary !== 'none', !clear);
  if (!decoded.ok) return decoded;
  const { message } = decoded.value;
  const response = bytes.value.slice(0, decoded.value.length);
  const unsigned = response.length - message.verifyData.length - message.signature.length;
  const digests = negotiated.multiKey && transcripts.digests !== null ? [transcripts.digests] : [];
  const before = [...transcripts.vca, ...digests, key.digest, request];
  const covered = [...before, response.subarray(0, unsigned)];
  if (!verifyTranscript(crypto, suite, key.key, PURPOSE.keyExchange, covered, message.signature))
    return fail('signature-wrong', 'KEY_EXCHANGE_RSP: its signature does not verify over what was said');
  const secured = decodeSelection(form, SECURED_VERSIONS_OFFERED, message.opaque);
  if (!secured.ok) return secured;
  const shared = exchange.finish(message.exchangeData);
  if (shared === undefined) return fail('exchange-data-invalid', `KEY_EXCHANGE_RSP: no data of ${negotiated.exchange}`);
  const { hash } = negotiated;
  const th1 = crypto.hash(hash, ...before, response.subarray(0, unsigned + message.signature.length));
  const secrets = handshakeSecrets(crypto, negotiated, { shared, psk: false, th1 });
  shared.fill(0);
  if (!clear && !crypto.same(message.verifyData, crypto.hmac(hash, secrets.finished.response, th1)))
    return fail('verify-data-wrong', 'KEY_EXCHANGE_RSP: ResponderVerifyData');
  const opened = openSession(connection, negotiated, {
    id: sessionIdOf(requesterId, message.sessionId),
    heartbeat: message.heartbeat,
    psk: false,
    limitExponent: secured.value.limitExponent,
  });
  if (!opened.ok) return opened;
  const session = opened.value;
  session.records.install(secrets.secrets);
  const asked = { mutual: message.mutual, slot: message.requesterSlot };
  const finished = yield* finish(connection, session, negotiated, secrets, [...before, response], clear, asked);
  secrets.handshake.fill(0);
  if (!finished.ok) {
    closeSession(connection, session);
    return finished;
  }
  return ok({ session, summaryHash: message.summaryHash, ...finished.value });
}

/** FINISH: with the requester's signature when the responder asked for one. `messages` is TH up to KEY_EXCHANGE_RSP. */
function* finish(
  connection: Connection,
  session: Session,
  negotiated: Negotiated,
  secrets: HandshakeSecrets,
  messages: readonly Uint8Array[],
  clear: boolean,
  asked: { mutual: number; slot: number },
): Procedure<{ mutual: boolean; exportMaster: Uint8Array }> {
  const { context, crypto } = connection;
  const { hash } = negotiated;
  const channel = clear ? null : session;
  const transcript = [...messages];
  let identity: RequesterIdentity | undefined;
  if (asked.mutual !== MUTUAL.none) {
    identity = connection.options.identity;
    if (identity === undefined || negotiated.requesterSignature === null)
      return fail('session-refused', 'the responder asks who the requester is, which has no identity');
    let slot = asked.slot;
    if ((asked.mutual & (MUTUAL.encapsulated | MUTUAL.withDigests)) !== 0) {
      const served = yield* serveEncapsulated(connection, channel, (asked.mutual & MUTUAL.withDigests) !== 0);
      if (!served.ok) return served;
      slot = served.value.slot ?? slot;
      if (negotiated.requesterMultiKey && served.value.digests !== null) transcript.push(served.value.digests);
    }
    if (slot !== identity.slot)
      return fail('session-refused', `the responder asks for the requester's slot ${slot}, which is empty`);
    transcript.push(crypto.hash(hash, identity.chain(negotiated)));
  }
  const signed = identity !== undefined;
  const head = encodeFinish(context, { slot: identity?.slot ?? 0, opaque: new Uint8Array(), signed });
  let signature = new Uint8Array();
  if (identity !== undefined && negotiated.requesterSignature !== null) {
    const suite = { version: negotiated.version, hash, algorithm: negotiated.requesterSignature };
    const made = signTranscript(crypto, suite, identity.key, PURPOSE.finish, [...transcript, head]);
    if (made === undefined) return fail('leaf-key-unsuitable', `the requester's key is none of ${suite.algorithm}`);
    signature = new Uint8Array(made);
  }
  const verified = concat(head, signature);
  const verifyData = crypto.hmac(hash, secrets.finished.request, crypto.hash(hash, ...transcript, verified));
  const request = concat(verified, verifyData);
  const bytes = yield* connection.exchange(request, RESPONSE.FINISH_RSP, channel);
  if (!bytes.ok) return bytes;
  const decoded = decodeFinishResponse(bytes.value, context, clear);
  if (!decoded.ok) return decoded;
  const response = bytes.value.slice(0, decoded.value.length);
  const { verifyData: told } = decoded.value.message;
  if (clear) {
    const th = crypto.hash(hash, ...transcript, request, response.subarray(0, response.length - told.length));
    if (!crypto.same(told, crypto.hmac(hash, secrets.finished.response, th)))
      return fail('verify-data-wrong', 'FINISH_RSP: ResponderVerifyData');
  }
  const th2 = crypto.hash(hash, ...transcript, request, response);
  const data = dataSecrets(crypto, negotiated, secrets.handshake, th2);
  session.records.install(data.secrets);
  session.phase = 'data';
  return ok({ mutual: signed, exportMaster: data.exportMaster });
}

function open(session: Session): Result<null> {
  return session.phase === 'data' ? ok(null) : fail('state-wrong', 'the session is not established');
}

/** Codes: `capability-missing`, `state-wrong`, `message-*`, `peer-*` and those of records. */
export function* heartbeat(connection: Connection, session: Session): Procedure<null> {
  const needed = connection.need('HBEAT');
  if (!needed.ok) return needed;
  const established = open(session);
  if (!established.ok) return established;
  const bytes = yield* connection.exchange(encodeHeartbeat(connection.context), RESPONSE.HEARTBEAT_ACK, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeBare(bytes.value, connection.context, RESPONSE.HEARTBEAT_ACK);
  return decoded.ok ? ok(null) : decoded;
}

/** New keys for what is sent, and with `all` for what is received too. Codes as `heartbeat`. */
export function* updateKeys(connection: Connection, session: Session, all: boolean): Procedure<null> {
  const needed = connection.need('KEY_UPD');
  if (!needed.ok) return needed;
  const established = open(session);
  if (!established.ok) return established;
  const operation = all ? KEY_OPERATION.updateAllKeys : KEY_OPERATION.updateKey;
  const asked = yield* keyUpdate(connection, session, operation, all);
  if (!asked.ok) return asked;
  session.records.renew('request');
  return yield* keyUpdate(connection, session, KEY_OPERATION.verifyNewKey, false);
}

function* keyUpdate(connection: Connection, session: Session, operation: number, renewed: boolean): Procedure<null> {
  const { context, crypto } = connection;
  const tag = crypto.random(1)[0] ?? 0;
  const request = encodeKeyUpdate(context, { operation, tag });
  const exchange = connection.exchange(request, RESPONSE.KEY_UPDATE_ACK, session);
  // The answer to UpdateAllKeys comes under the new key already: renew between the request and its answer.
  let next = exchange.next();
  let first = renewed;
  while (!next.done) {
    const received = yield next.value;
    if (first && next.value.kind === 'send') {
      session.records.renew('response');
      first = false;
    }
    next = exchange.next(received);
  }
  const bytes = next.value;
  if (!bytes.ok) return bytes;
  const decoded = decodeKeyUpdate(bytes.value, context, RESPONSE.KEY_UPDATE_ACK);
  if (!decoded.ok) return decoded;
  const { message } = decoded.value;
  if (message.operation === operation && message.tag === tag) return ok(null);
  closeSession(connection, session);
  return fail('message-unexpected', 'KEY_UPDATE_ACK is of another operation or tag; the session is closed');
}

/** Ends the session in any case: what it fails with is only told. Codes as `heartbeat`. */
export function* endSession(connection: Connection, session: Session): Procedure<null> {
  if (session.phase === 'closed') return ok(null);
  const request = encodeEndSession(connection.context, true);
  const bytes = yield* connection.exchange(request, RESPONSE.END_SESSION_ACK, session);
  closeSession(connection, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeBare(bytes.value, connection.context, RESPONSE.END_SESSION_ACK);
  return decoded.ok ? ok(null) : decoded;
}
