/** Everything that a requester may want to know, one thing after the other. */
import { hex } from '@airlock/core/bytes.ts';
import { ok } from '@airlock/core/result.ts';
import { getCertificate, getDigests } from '../../src/requester/certificates.ts';
import { challenge } from '../../src/requester/challenge.ts';
import type { Connection } from '../../src/requester/connection.ts';
import { getMeasurements } from '../../src/requester/measurements.ts';
import type { Procedure } from '../../src/requester/procedure.ts';
import { establishPskSession } from '../../src/requester/psk-session.ts';
import { endSession, establishSession, heartbeat, updateKeys } from '../../src/requester/session.ts';
import { start } from '../../src/requester/start.ts';

/** What was believed in the end. */
export interface Believed {
  readonly agreed: string;
  readonly chain: string;
  readonly measurements: string;
}

/** Version to signed measurements, with a challenge between. */
export function* authenticate(connection: Connection): Procedure<Believed> {
  const agreed = yield* start(connection);
  if (!agreed.ok) return agreed;
  const digests = yield* getDigests(connection, null);
  if (!digests.ok) return digests;
  const chain = yield* getCertificate(connection, 0, null);
  if (!chain.ok) return chain;
  const challenged = yield* challenge(connection, 0, { summary: 'all' });
  if (!challenged.ok) return challenged;
  const counted = yield* getMeasurements(connection, { operation: 'count' });
  if (!counted.ok) return counted;
  const measured = yield* getMeasurements(connection, { operation: 'all', sign: 0 });
  if (!measured.ok) return measured;
  return ok({
    agreed: JSON.stringify(agreed.value),
    chain: hex(chain.value.bytes),
    measurements: JSON.stringify(measured.value.signedBlocks.map(({ index, value }) => [index, hex(value)])),
  });
}

/** Digests and chain, then a session with heartbeat, new keys and measurements in it. */
export function* useSession(connection: Connection, psk = false): Procedure<Believed> {
  const agreed = yield* start(connection);
  if (!agreed.ok) return agreed;
  const digests = yield* getDigests(connection, null);
  if (!digests.ok) return digests;
  const chain = yield* getCertificate(connection, 0, null);
  if (!chain.ok) return chain;
  const established = psk
    ? yield* establishPskSession(connection, { summary: 'tcb' })
    : yield* establishSession(connection, { slot: 0, summary: 'all' });
  if (!established.ok) return established;
  const { session } = established.value;
  const first = yield* heartbeat(connection, session);
  if (!first.ok) return first;
  const one = yield* updateKeys(connection, session, false);
  if (!one.ok) return one;
  const all = yield* updateKeys(connection, session, true);
  if (!all.ok) return all;
  const measured = yield* getMeasurements(connection, { operation: 'all', sign: 0, raw: true, session });
  if (!measured.ok) return measured;
  const ended = yield* endSession(connection, session);
  if (!ended.ok) return ended;
  return ok({
    agreed: JSON.stringify(agreed.value),
    chain: hex(chain.value.bytes),
    measurements: JSON.stringify(measured.value.signedBlocks.map(({ index, value }) => [index, hex(value)])),
  });
}
