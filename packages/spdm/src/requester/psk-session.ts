/** PSK_EXCHANGE and PSK_FINISH: a session between two ends that hold a secret beforehand. */
import { fail, ok } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { dataSecrets, handshakeSecrets } from '../key-schedule.ts';
import { hasCapability } from '../messages/capabilities.ts';
import type { SummaryName } from '../messages/challenge.ts';
import { RESPONSE } from '../messages/codes.ts';
import {
  decodePskExchangeResponse,
  decodePskFinishResponse,
  encodePskExchange,
  encodePskFinish,
} from '../messages/psk.ts';
import { decodeSelection, encodeSupportedVersions } from '../secured/opaque.ts';
import type { Connection } from './connection.ts';
import type { Procedure } from './procedure.ts';
import {
  closeSession,
  type EstablishedSession,
  opaqueForm,
  openSession,
  ownSessionId,
  SECURED_VERSIONS_OFFERED,
  sessionIdOf,
} from './session.ts';

/**
 * Whoever answers holds the secret; which device it is, the secret alone tells. Codes: `verify-data-wrong`,
 * `capability-missing`, `state-wrong`, `secured-opaque-invalid`, `message-*`, `peer-*` and those of records.
 */
export function* establishPskSession(
  connection: Connection,
  { summary = 'none' }: { readonly summary?: SummaryName } = {},
): Procedure<EstablishedSession> {
  const needed = connection.need();
  if (!needed.ok) return needed;
  const negotiated = needed.value;
  const { context, crypto, transcripts, options } = connection;
  const { psk } = options;
  const flags = connection.peer?.flags ?? 0;
  const withContext = hasCapability(flags, 'PSK_WITH_CONTEXT');
  if (psk === undefined) return fail('state-wrong', 'there is no pre-shared key');
  if (!withContext && !hasCapability(flags, 'PSK')) return fail('capability-missing', 'the responder has no PSK_CAP');
  if (summary !== 'none' && negotiated.measurementHash === null)
    return fail('capability-missing', 'a summary of measurements, which the responder has not');
  const requesterId = ownSessionId(connection);
  const form = opaqueForm(negotiated);
  const request = encodePskExchange(context, {
    summary,
    policy: 0,
    sessionId: requesterId,
    hint: psk.hint,
    context: crypto.random(connection.hashSize),
    opaque: encodeSupportedVersions(form, SECURED_VERSIONS_OFFERED),
  });
  const bytes = yield* connection.exchange(request, RESPONSE.PSK_EXCHANGE_RSP, null);
  if (!bytes.ok) return bytes;
  const decoded = decodePskExchangeResponse(bytes.value, context, summary !== 'none');
  if (!decoded.ok) return decoded;
  const { message } = decoded.value;
  if (withContext !== message.context.length > 0)
    return fail('message-malformed', 'PSK_EXCHANGE_RSP: a ResponderContext that does not fit PSK_CAP');
  const response = bytes.value.slice(0, decoded.value.length);
  const { hash } = negotiated;
  const unverified = response.subarray(0, response.length - message.verifyData.length);
  const th1 = crypto.hash(hash, ...transcripts.vca, request, unverified);
  const secrets = handshakeSecrets(crypto, negotiated, { shared: psk.secret, psk: true, th1 });
  if (!crypto.same(message.verifyData, crypto.hmac(hash, secrets.finished.response, th1)))
    return fail('verify-data-wrong', 'PSK_EXCHANGE_RSP: ResponderVerifyData');
  const secured = decodeSelection(form, SECURED_VERSIONS_OFFERED, message.opaque);
  if (!secured.ok) return secured;
  const opened = openSession(connection, negotiated, {
    id: sessionIdOf(requesterId, message.sessionId),
    heartbeat: message.heartbeat,
    psk: true,
    limitExponent: secured.value.limitExponent,
  });
  if (!opened.ok) return opened;
  const session = opened.value;
  session.records.install(secrets.secrets);
  const transcript = [...transcripts.vca, request, response];
  // Without a context of its own the responder has nothing to be finished: its data keys follow at once.
  if (withContext) {
    const head = encodePskFinish(context, new Uint8Array());
    const verifyData = crypto.hmac(hash, secrets.finished.request, crypto.hash(hash, ...transcript, head));
    const finish = concat(head, verifyData);
    const answer = yield* connection.exchange(finish, RESPONSE.PSK_FINISH_RSP, session);
    const finished = answer.ok ? decodePskFinishResponse(answer.value, context) : answer;
    if (!answer.ok || !finished.ok) {
      closeSession(connection, session);
      return finished.ok ? fail('state-wrong', 'PSK_FINISH') : finished;
    }
    transcript.push(finish, answer.value.slice(0, finished.value.length));
  }
  const data = dataSecrets(crypto, negotiated, secrets.handshake, crypto.hash(hash, ...transcript));
  secrets.handshake.fill(0);
  session.records.install(data.secrets);
  session.phase = 'data';
  return ok({ session, summaryHash: message.summaryHash, mutual: true, exportMaster: data.exportMaster });
}
