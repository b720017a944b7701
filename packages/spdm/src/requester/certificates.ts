/** DIGESTS and CERTIFICATE: which chains the responder has, and one of them in portions. */
import { fail, ok } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { type CertificateChain, CHAIN_LIMIT, readCertificateChain } from '../certificate-chain.ts';
import { hasCapability } from '../messages/capabilities.ts';
import { decodeCertificate, encodeGetCertificate } from '../messages/certificate.ts';
import { RESPONSE } from '../messages/codes.ts';
import { type Digests, decodeDigests, encodeGetDigests } from '../messages/digests.ts';
import type { Connection, PeerKey, Session } from './connection.ts';
import type { Procedure } from './procedure.ts';

/** Bytes of CERTIFICATE before its portion, with large fields. */
const CERTIFICATE_HEADER = 16;
/** As many as evidence holds (read-statement.ts), with what is asked besides. */
const PORTION_LIMIT = 290;

/** The digests of all slots that have a chain. Codes: `capability-missing`, `message-*`, `peer-*`. */
export function* getDigests(connection: Connection, session: Session | null): Procedure<Digests> {
  const needed = connection.need('CERT');
  if (!needed.ok) return needed;
  const request = encodeGetDigests(connection.context);
  const bytes = yield* connection.exchange(request, RESPONSE.DIGESTS, session);
  if (!bytes.ok) return bytes;
  const decoded = decodeDigests(bytes.value, connection.context);
  if (!decoded.ok) return decoded;
  const response = bytes.value.slice(0, decoded.value.length);
  const { transcripts } = connection;
  if (session === null) transcripts.identity.push(request, response);
  transcripts.digests ??= response;
  connection.digests.clear();
  connection.usages.clear();
  for (const { slot, digest, key } of decoded.value.message.slots) {
    // A chain that changed is not the one that was trusted.
    const known = connection.keys.get(slot);
    if (known !== undefined && !sameBytes(known.digest, digest)) connection.keys.delete(slot);
    connection.digests.set(slot, digest);
    if (key !== undefined) connection.usages.set(slot, key.usage);
  }
  return ok(decoded.value.message);
}

/**
 * The chain of a slot, whole: its digest is the one of DIGESTS where that was asked for, and `trust` took it. Codes:
 * `slot-empty`, `certificate-chain-invalid`, `chain-digest-mismatch`, `leaf-key-unsuitable`, what `trust` answers,
 * `message-*`, `peer-*`.
 */
export function* getCertificate(
  connection: Connection,
  slot: number,
  session: Session | null,
): Procedure<CertificateChain> {
  const needed = connection.need('CERT');
  if (!needed.ok) return needed;
  const negotiated = needed.value;
  const { context, transcripts, crypto } = connection;
  if (connection.digests.size > 0 && !connection.digests.has(slot))
    return fail('slot-empty', `slot ${slot} has no chain, by DIGESTS`);
  const large = hasCapability(connection.peer?.flags ?? 0, 'LARGE_RESP') && negotiated.version === '1.4';
  const most = Math.min(connection.transferSize - CERTIFICATE_HEADER, large ? CHAIN_LIMIT : 0xffff);
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (let left = most; left > 0; ) {
    const length = Math.min(left, most);
    const request = encodeGetCertificate(context, { slot, offset, length, large, slotSize: false });
    const bytes = yield* connection.exchange(request, RESPONSE.CERTIFICATE, session);
    if (!bytes.ok) return bytes;
    const decoded = decodeCertificate(bytes.value, context);
    if (!decoded.ok) return decoded;
    const { message } = decoded.value;
    const refuse = (what: string) => fail('certificate-chain-invalid', `slot ${slot}: ${what}`);
    if (message.slot !== slot) return fail('slot-mismatch', `CERTIFICATE is of slot ${message.slot}, not ${slot}`);
    if (message.large !== large) return fail('message-malformed', 'CERTIFICATE: LargeCertChain is not as was asked');
    if (message.portion.length === 0) return refuse('a portion without bytes');
    if (message.portion.length > length) return refuse(`a portion of ${message.portion.length}, asked for ${length}`);
    if (offset > 0 && message.portion.length + message.remainder !== left) return refuse('its size changes');
    if (parts.length >= PORTION_LIMIT) return refuse(`more than ${PORTION_LIMIT} portions`);
    parts.push(message.portion);
    offset += message.portion.length;
    left = message.remainder;
    if (offset + left > CHAIN_LIMIT) return refuse(`${offset + left} bytes, at most ${CHAIN_LIMIT} are read`);
    if (session === null) transcripts.identity.push(request, bytes.value.slice(0, decoded.value.length));
  }
  const whole = new Uint8Array(offset);
  for (let at = 0; parts.length > 0; ) {
    const part = parts.shift() ?? whole;
    whole.set(part, at);
    at += part.length;
  }
  const chain = readCertificateChain(whole, negotiated.version, negotiated.hash);
  if (!chain.ok) return chain;
  const digest = crypto.hash(negotiated.hash, whole);
  const told = connection.digests.get(slot);
  if (told !== undefined && !sameBytes(told, digest))
    return fail('chain-digest-mismatch', `the chain of slot ${slot} is not the one of DIGESTS`);
  const trusted = connection.options.trust(chain.value, slot);
  if (!trusted.ok) return trusted;
  const key = crypto.publicKey(chain.value.leafSpki);
  if (key === undefined || negotiated.signature === null || !key.fits(negotiated.signature))
    return fail(
      'leaf-key-unsuitable',
      `the leaf's key of slot ${slot} is none of ${negotiated.signature ?? 'no algorithm'}`,
    );
  connection.keys.set(slot, { slot, digest, chain: chain.value, key });
  return chain;
}

/**
 * The trusted key of a slot: 15 is the one that was given beforehand. `undefined` when there is none, or when the
 * responder says that it is not for this `usage` (bits of KEY_USAGE).
 */
export function peerKey(connection: Connection, slot: number, usage: number): PeerKey | undefined {
  const { negotiated, crypto, options } = connection;
  if (slot !== 15) {
    const stated = connection.usages.get(slot);
    return stated !== undefined && (stated & usage) === 0 ? undefined : connection.keys.get(slot);
  }
  if (negotiated === null || negotiated.signature === null || options.peerKey === undefined) return undefined;
  const key = crypto.publicKey(options.peerKey);
  if (key === undefined || !key.fits(negotiated.signature)) return undefined;
  return { slot, digest: crypto.hash(negotiated.hash, options.peerKey), chain: null, key };
}
