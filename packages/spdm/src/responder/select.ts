/** The responder's half of the agreement: out of what is offered, what it likes best. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  AEAD_BIT,
  BASE_SIGNATURE_BIT,
  DHE_BIT,
  HASH_BIT,
  type HashName,
  isKem,
  isPqcSignature,
  KEM_BIT,
  PQC_SIGNATURE_BIT,
  type SignatureName,
  type SpdmVersion,
  since,
} from '../algorithms.ts';
import { hasCapability } from '../messages/capabilities.ts';
import type { AlgorithmOffer, AlgorithmSelection, TableName } from '../messages/negotiation.ts';
import type { Negotiated, Preferences } from '../negotiate.ts';

/** What a responder has to select from. */
export interface ResponderAlgorithms extends Preferences {
  /** Null for a responder without measurements. */
  readonly measurementHash: HashName | 'raw' | null;
}

/**
 * The responder's selection: of each kind the first of its own list that was offered. Code: `algorithms-unacceptable`
 * when there is none where one is needed.
 */
export function selectAlgorithms(
  version: SpdmVersion,
  own: ResponderAlgorithms,
  offer: AlgorithmOffer,
  ownFlags: number,
  peerFlags: number,
): Result<{ selection: AlgorithmSelection; negotiated: Negotiated }> {
  const refuse = (what: string) => fail('algorithms-unacceptable', `no common ${what}`);
  const hash = own.hashes.find((name) => (offer.hash & HASH_BIT[name]) !== 0);
  if (hash === undefined) return refuse('hash');
  const signature = pickSignature(own.signatures, offer.signature, offer.pqcSignature);
  if (signature === null) return refuse('signature algorithm');
  const requesterSignature = pickSignature(
    own.requesterSignatures,
    offer.tables.requesterSignature,
    offer.tables.requesterPqc,
  );
  const exchange = own.exchanges.find((name) =>
    isKem(name) ? (offer.tables.kem & KEM_BIT[name]) !== 0 : (offer.tables.dhe & DHE_BIT[name]) !== 0,
  );
  const aead = own.aeads.find((name) => (offer.tables.aead & AEAD_BIT[name]) !== 0);
  const keyed = hasCapability(ownFlags, 'KEY_EX') && hasCapability(peerFlags, 'KEY_EX');
  if (keyed && exchange === undefined) return refuse('key exchange');
  const sessions = keyed || ((ownFlags & 0xc00) !== 0 && hasCapability(peerFlags, 'PSK'));
  if (sessions && aead === undefined) return refuse('AEAD');
  const mutual = hasCapability(ownFlags, 'MUT_AUTH') && hasCapability(peerFlags, 'MUT_AUTH');
  if (mutual && requesterSignature === null) return refuse('signature algorithm of the requester');
  const measured = own.measurementHash !== null && (offer.measurementSpecification & 1) !== 0;
  const multiKey = since(version, '1.3') && (offer.otherParameters & 0x10) !== 0;
  if (multiKey !== hasCapability(ownFlags, 'MULTI_KEY_ONLY') && !hasCapability(ownFlags, 'MULTI_KEY_NEG'))
    return refuse('number of keys');
  const general = since(version, '1.2') && (offer.otherParameters & 2) !== 0;
  if (since(version, '1.2') && sessions && !general) return refuse('opaque data format');
  const requesterMultiKey = since(version, '1.3') && hasCapability(peerFlags, 'MULTI_KEY_ONLY');
  const measurementHash = measured ? own.measurementHash : null;
  const log = since(version, '1.3') && hasCapability(ownFlags, 'MEL') && (offer.measurementLog & 1) !== 0;
  const negotiated: Negotiated = {
    version,
    hash,
    signature,
    requesterSignature: mutual ? requesterSignature : null,
    exchange: keyed ? (exchange ?? null) : null,
    aead: sessions ? (aead ?? null) : null,
    measurementHash,
    measurementLog: log,
    opaque: !since(version, '1.2') ? 'table' : general ? 'general' : 'none',
    multiKey,
    requesterMultiKey,
  };
  const tables: Record<TableName, number> = {
    dhe: negotiated.exchange !== null && !isKem(negotiated.exchange) ? DHE_BIT[negotiated.exchange] : 0,
    kem: negotiated.exchange !== null && isKem(negotiated.exchange) ? KEM_BIT[negotiated.exchange] : 0,
    aead: negotiated.aead === null ? 0 : AEAD_BIT[negotiated.aead],
    requesterSignature: baseBit(negotiated.requesterSignature),
    requesterPqc: pqcBit(negotiated.requesterSignature),
    keySchedule: sessions ? offer.tables.keySchedule & 1 : 0,
  };
  const selection: AlgorithmSelection = {
    measurementSpecification: measured ? 1 : 0,
    otherParameters: (general ? 2 : 0) | (requesterMultiKey ? 0x10 : 0),
    measurementHash: measurementHash === null ? 0 : measurementHash === 'raw' ? 1 : HASH_BIT[measurementHash] * 2,
    measurementLog: log ? 1 : 0,
    signature: baseBit(signature),
    pqcSignature: pqcBit(signature),
    hash: HASH_BIT[hash],
    tables,
    present: offer.present,
  };
  return ok({ selection, negotiated });
}

function pickSignature(own: readonly SignatureName[], base: number, pqc: number): SignatureName | null {
  return (
    own.find((name) =>
      isPqcSignature(name) ? (pqc & PQC_SIGNATURE_BIT[name]) !== 0 : (base & BASE_SIGNATURE_BIT[name]) !== 0,
    ) ?? null
  );
}

function baseBit(name: SignatureName | null): number {
  return name === null || isPqcSignature(name) ? 0 : BASE_SIGNATURE_BIT[name];
}

function pqcBit(name: SignatureName | null): number {
  return name !== null && isPqcSignature(name) ? PQC_SIGNATURE_BIT[name] : 0;
}
