/**
 * Asks a device who it is and what it runs: agreement, digests, a slot’s chain, a challenge, all measurements signed. What
 * comes back is kept as it was said; whether any of it is to be believed is decided afterwards.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { NONCE_SIZE } from '../messages/challenge.ts';
import { getCertificate, getDigests } from '../requester/certificates.ts';
import { challenge, type Statement } from '../requester/challenge.ts';
import type { Connection } from '../requester/connection.ts';
import { getMeasurements, type MeasurementReport } from '../requester/measurements.ts';
import type { Procedure } from '../requester/procedure.ts';
import { start } from '../requester/start.ts';
import type { DeviceEvidence, SignedStatement, StatementKind } from './evidence.ts';

export interface GatherOptions {
  /** For the evidence; the device does not see it. */
  readonly device: string;
  /** The lowest that has a chain when not given. */
  readonly slot?: number;
  /** 32 bytes, in every request that takes one; random ones of its own when not given. */
  readonly nonce?: Uint8Array;
  /** Values in place of their digests, 1.2. */
  readonly raw?: boolean;
}

/** A device with more blocks than this, and no way to give all at once, is not asked for each. */
const ONE_BY_ONE_LIMIT = 64;

/**
 * The connection’s `trust` must take any chain. Codes: those of the procedures that it runs, `state-wrong` (a nonce of
 * another length), `nothing-signed` (the device signs neither challenges nor measurements).
 */
export function* gatherEvidence(connection: Connection, options: GatherOptions): Procedure<DeviceEvidence> {
  const { nonce } = options;
  if (nonce !== undefined && nonce.length !== NONCE_SIZE)
    return fail('state-wrong', `a nonce of ${nonce.length} bytes, SPDM takes ${NONCE_SIZE}`);
  const negotiated = yield* start(connection);
  if (!negotiated.ok) return negotiated;
  const { version, hash } = negotiated.value;
  const digests = yield* getDigests(connection, null);
  if (!digests.ok) return digests;
  const slot = options.slot ?? digests.value.slots[0]?.slot ?? 0;
  const chain = yield* getCertificate(connection, slot, null);
  if (!chain.ok) return chain;

  const flags = connection.peer?.flags ?? 0;
  const own = nonce === undefined ? {} : { nonce };
  const statements: SignedStatement[] = [];
  if (hasCapability(flags, 'CHAL')) {
    const authentication = yield* challenge(connection, slot, own);
    if (!authentication.ok) return authentication;
    statements.push(signed('challenge', authentication.value.statement));
  }
  if (hasCapability(flags, 'MEAS_SIG') && negotiated.value.measurementHash !== null) {
    const raw = options.raw === true;
    const report = yield* measureAll(connection, slot, { ...own, raw });
    if (!report.ok) return report;
    if (report.value.statement !== null) statements.push(signed('measurements', report.value.statement));
  }
  if (statements.length === 0)
    return fail('nothing-signed', 'the device signs neither challenges nor measurements, so it proves nothing');
  const { vca } = connection.transcripts;
  return ok({ device: options.device, version, hash, slot, chain: chain.value.bytes, vca: [...vca], statements });
}

function signed(kind: StatementKind, { messages, signature }: Statement): SignedStatement {
  return { kind, messages, signature };
}

/** All at once; from a device that refuses that, one after the other, the last with a signature over all of them. */
function* measureAll(
  connection: Connection,
  slot: number,
  more: { readonly nonce?: Uint8Array; readonly raw: boolean },
): Procedure<MeasurementReport> {
  const all = yield* getMeasurements(connection, { ...more, operation: 'all', sign: slot });
  if (all.ok || all.error.code !== 'peer-error') return all;
  const count = yield* getMeasurements(connection, { operation: 'count' });
  if (!count.ok) return all;
  const total = count.value.total ?? 0;
  if (total === 0 || total > ONE_BY_ONE_LIMIT) return all;
  // An index that is not there ends what a signature covers: so first which there are, then all of them once more.
  const indices: number[] = [];
  for (let index = 1; index <= 254 && indices.length < total; index++) {
    const one = yield* getMeasurements(connection, { raw: more.raw, operation: index });
    if (one.ok) indices.push(index);
    else if (one.error.code !== 'peer-error') return one;
  }
  let last: Result<MeasurementReport> = all;
  for (const index of indices) {
    const sign = index === indices.at(-1) ? { sign: slot } : {};
    last = yield* getMeasurements(connection, { ...more, ...sign, operation: index });
    if (!last.ok) return last;
  }
  return last;
}
