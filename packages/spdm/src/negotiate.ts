/**
 * Agreement without downgrade: the requester states what it takes, in the order it likes; the responder selects out of
 * that; and the requester holds the selection against what it stated. What was not offered is never accepted, whatever
 * the other side says.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import {
  AEAD_BIT,
  AEADS,
  type AeadName,
  BASE_SIGNATURE_BIT,
  BASE_SIGNATURES,
  type BaseSignature,
  DHE_BIT,
  DHE_GROUPS,
  type DheGroup,
  EXCHANGE_SIZE,
  type ExchangeName,
  HASH_BIT,
  HASH_SIZE,
  HASHES,
  type HashName,
  isKem,
  isPqcSignature,
  KEM_BIT,
  KEMS,
  maskOf,
  nameOfBit,
  PQC_SIGNATURE_BIT,
  PQC_SIGNATURES,
  type PqcSignature,
  RAW_MEASUREMENTS_BIT,
  SIGNATURE_SIZE,
  type SignatureName,
  SPDM_VERSIONS,
  type SpdmVersion,
  since,
  VERSION_BYTE,
} from './algorithms.ts';
import { hasCapability } from './messages/capabilities.ts';
import { type AlgorithmMasks, type AlgorithmSelection, NO_TABLES, type TableName } from './messages/negotiation.ts';
import type { MessageContext } from './messages/reader.ts';
import type { VersionEntry } from './messages/version.ts';

/** What one end takes, most wanted first; whatever is not in a list is refused. */
export interface Preferences {
  readonly versions: readonly SpdmVersion[];
  readonly hashes: readonly HashName[];
  /** With which the responder may sign. */
  readonly signatures: readonly SignatureName[];
  /** With which the requester may sign. */
  readonly requesterSignatures: readonly SignatureName[];
  readonly exchanges: readonly ExchangeName[];
  readonly aeads: readonly AeadName[];
}

/** Nothing below 128 bits of security, nothing that Airlock cannot do. */
export const DEFAULT_PREFERENCES: Preferences = {
  versions: ['1.4', '1.3', '1.2', '1.1'],
  hashes: ['sha384', 'sha512', 'sha256', 'sha3-384', 'sha3-512', 'sha3-256'],
  signatures: [
    ...(['ecdsa-p384', 'ecdsa-p521', 'ecdsa-p256', 'ed448', 'ed25519'] as const),
    ...(['ml-dsa-87', 'ml-dsa-65', 'ml-dsa-44'] as const),
    ...(['rsapss-4096', 'rsapss-3072', 'rsassa-4096', 'rsassa-3072'] as const),
    ...PQC_SIGNATURES.filter((name) => name.startsWith('slh-dsa')),
  ],
  requesterSignatures: ['ecdsa-p384', 'ecdsa-p521', 'ecdsa-p256', 'rsapss-4096', 'rsapss-3072'],
  exchanges: [
    ...(['secp384r1', 'secp521r1', 'secp256r1', 'ml-kem-1024', 'ml-kem-768', 'ml-kem-512'] as const),
    ...(['ffdhe4096', 'ffdhe3072'] as const),
  ],
  aeads: ['aes-256-gcm', 'chacha20-poly1305', 'aes-128-gcm'],
};

/** Everything that Airlock can do, also what is too weak to be asked for unasked. */
export const ALL_PREFERENCES: Preferences = {
  versions: ['1.4', '1.3', '1.2', '1.1'],
  hashes: HASHES,
  signatures: [...BASE_SIGNATURES, ...PQC_SIGNATURES],
  requesterSignatures: [...BASE_SIGNATURES, ...PQC_SIGNATURES],
  exchanges: [...DHE_GROUPS, ...KEMS],
  aeads: AEADS,
};

/** What both ends agreed on. */
export interface Negotiated {
  readonly version: SpdmVersion;
  readonly hash: HashName;
  /** Null where the responder signs nothing. */
  readonly signature: SignatureName | null;
  readonly requesterSignature: SignatureName | null;
  readonly exchange: ExchangeName | null;
  readonly aead: AeadName | null;
  /** Of measurements: `raw` when the responder only has values, null when it has no measurements. */
  readonly measurementHash: HashName | 'raw' | null;
  readonly measurementLog: boolean;
  /** 1.2: general opaque data; before, and where none was selected, DSP0277's own table. */
  readonly opaque: 'general' | 'table' | 'none';
  /** The responder, and the requester, have several keys in this connection (1.3). */
  readonly multiKey: boolean;
  readonly requesterMultiKey: boolean;
}

/** The highest version that both sides have; a draft (alpha) counts for nothing. Code: `version-unacceptable`. */
export function selectVersion(accepted: readonly SpdmVersion[], entries: readonly VersionEntry[]): Result<SpdmVersion> {
  const common = SPDM_VERSIONS.filter(
    (version) =>
      accepted.includes(version) &&
      entries.some(({ major, minor, alpha }) => ((major << 4) | minor) === VERSION_BYTE[version] && alpha === 0),
  );
  const best = common.at(-1);
  if (best !== undefined) return ok(best);
  const offered = entries.map(({ major, minor, alpha }) => `${major}.${minor}${alpha === 0 ? '' : ' (draft)'}`);
  return fail(
    'version-unacceptable',
    `the responder speaks SPDM ${offered.join(', ')}; accepted: ${accepted.join(', ')}`,
  );
}

/** The offer of NEGOTIATE_ALGORITHMS: what is wanted, as far as the responder's capabilities and the version go. */
export function offerOf(version: SpdmVersion, preferences: Preferences, own: number, peer: number): AlgorithmMasks {
  const { base, pqc } = split(version, preferences.signatures);
  const requester = split(version, preferences.requesterSignatures);
  const keyed = hasCapability(own, 'KEY_EX') && hasCapability(peer, 'KEY_EX');
  const sessions = keyed || (hasCapability(own, 'PSK') && (peer & 0xc00) !== 0);
  const mutual = hasCapability(own, 'MUT_AUTH') && hasCapability(peer, 'MUT_AUTH');
  const groups = preferences.exchanges.filter((name): name is DheGroup => !isKem(name));
  const kems = preferences.exchanges.filter(isKem);
  const tables = { ...NO_TABLES };
  if (keyed) tables.dhe = maskOf(DHE_BIT, groups);
  if (keyed && since(version, '1.4')) tables.kem = maskOf(KEM_BIT, kems);
  if (sessions) {
    tables.aead = maskOf(AEAD_BIT, preferences.aeads);
    tables.keySchedule = 1;
  }
  if (mutual) {
    tables.requesterSignature = maskOf(BASE_SIGNATURE_BIT, requester.base);
    if (since(version, '1.4')) tables.requesterPqc = maskOf(PQC_SIGNATURE_BIT, requester.pqc);
  }
  const multiKey = multiKeyBits(own, peer);
  return {
    measurementSpecification: hasMeasurements(peer) ? 1 : 0,
    otherParameters: since(version, '1.2') ? 0x02 | (since(version, '1.3') && multiKey.responder ? 0x10 : 0) : 0,
    measurementLog: since(version, '1.3') && hasCapability(peer, 'MEL') ? 1 : 0,
    signature: maskOf(BASE_SIGNATURE_BIT, base),
    pqcSignature: since(version, '1.4') ? maskOf(PQC_SIGNATURE_BIT, pqc) : 0,
    hash: maskOf(HASH_BIT, preferences.hashes),
    tables,
  };
}

/** Several keys: demanded where the responder has no other mode, taken where it can be chosen. */
function multiKeyBits(own: number, peer: number): { responder: boolean; requester: boolean } {
  return {
    responder: hasCapability(peer, 'MULTI_KEY_ONLY') || hasCapability(peer, 'MULTI_KEY_NEG'),
    requester: hasCapability(own, 'MULTI_KEY_ONLY') || hasCapability(own, 'MULTI_KEY_NEG'),
  };
}

function hasMeasurements(flags: number): boolean {
  return hasCapability(flags, 'MEAS_SIG') || hasCapability(flags, 'MEAS_NO_SIG');
}

function split(version: SpdmVersion, names: readonly SignatureName[]): { base: BaseSignature[]; pqc: PqcSignature[] } {
  const base: BaseSignature[] = [];
  const pqc: PqcSignature[] = [];
  for (const name of names) {
    if (isPqcSignature(name)) pqc.push(name);
    // EdDSA came with 1.2.
    else if (since(version, '1.2') || !name.startsWith('ed')) base.push(name);
  }
  return { base, pqc };
}

/**
 * What ALGORITHMS selects, held against the offer: exactly one algorithm where one is needed, none that was not offered.
 * Code: `algorithms-unacceptable`.
 */
export function acceptSelection(
  version: SpdmVersion,
  offer: AlgorithmMasks,
  selection: AlgorithmSelection,
  own: number,
  peer: number,
): Result<Negotiated> {
  const refuse = (what: string) => fail('algorithms-unacceptable', `the responder selected ${what}`);
  const outside = (given: number, chosen: number) => (chosen & ~given) !== 0;
  if (outside(offer.hash, selection.hash)) return refuse('a hash that was not offered');
  if (outside(offer.signature, selection.signature)) return refuse('a signature algorithm that was not offered');
  if (outside(offer.pqcSignature, selection.pqcSignature)) return refuse('a PQC signature that was not offered');
  for (const name of Object.keys(offer.tables) as TableName[]) {
    if (outside(offer.tables[name], selection.tables[name])) return refuse(`a ${name} that was not offered`);
  }
  const hash = nameOfBit(HASH_BIT, selection.hash);
  if (hash === undefined) return refuse('no hash, or several');
  const signature = signatureOf(selection.signature, selection.pqcSignature);
  const signs = ['CHAL', 'MEAS_SIG', 'KEY_EX', 'EP_INFO_SIG'].some((name) =>
    hasCapability(peer, name as 'CHAL' | 'MEAS_SIG' | 'KEY_EX' | 'EP_INFO_SIG'),
  );
  if (signature === undefined || (signs && signature === null)) return refuse('no signature algorithm, or several');
  const requesterSignature = signatureOf(selection.tables.requesterSignature, selection.tables.requesterPqc);
  if (requesterSignature === undefined) return refuse('several signature algorithms for the requester');
  const keyed = hasCapability(own, 'KEY_EX') && hasCapability(peer, 'KEY_EX');
  const exchange = exchangeOf(selection.tables.dhe, selection.tables.kem);
  if (exchange === undefined || (keyed && exchange === null)) return refuse('no key exchange, or several');
  const aead = selection.tables.aead === 0 ? null : nameOfBit(AEAD_BIT, selection.tables.aead);
  if (aead === undefined || (offer.tables.aead !== 0 && aead === null)) return refuse('no AEAD, or several');
  if (offer.tables.keySchedule !== 0 && selection.tables.keySchedule !== 1) return refuse('no key schedule');
  if (outside(offer.measurementSpecification, selection.measurementSpecification))
    return refuse('a measurement specification that was not offered');
  const measurementHash = measurementHashOf(selection);
  if (measurementHash === undefined) return refuse('no measurement hash, or several');
  if (hasMeasurements(peer) !== (measurementHash !== null))
    return refuse('a measurement hash that does not fit its capabilities');
  const opaque = selection.otherParameters & 0xf;
  if (since(version, '1.2') && opaque !== 0 && opaque !== 2)
    return refuse('an opaque data format that was not offered');
  const sessions = offer.tables.aead !== 0;
  if (since(version, '1.2') && sessions && opaque === 0) return refuse('no opaque data format, which sessions need');
  if (outside(offer.measurementLog, selection.measurementLog)) return refuse('a measurement log that was not offered');
  const multiKey = since(version, '1.3') && (offer.otherParameters & 0x10) !== 0;
  const requesterMultiKey = since(version, '1.3') && (selection.otherParameters & 0x10) !== 0;
  if (requesterMultiKey && !multiKeyBits(own, peer).requester)
    return refuse('several keys, which the requester has not');
  return ok({
    version,
    hash,
    signature,
    requesterSignature,
    exchange,
    aead,
    measurementHash,
    measurementLog: selection.measurementLog === 1,
    opaque: !since(version, '1.2') ? 'table' : opaque === 2 ? 'general' : 'none',
    multiKey,
    requesterMultiKey,
  });
}

/** Null for none, undefined for several or for a bit without a name. */
function signatureOf(base: number, pqc: number): SignatureName | null | undefined {
  if (base !== 0 && pqc !== 0) return undefined;
  if (base !== 0) return nameOfBit(BASE_SIGNATURE_BIT, base);
  return pqc === 0 ? null : nameOfBit(PQC_SIGNATURE_BIT, pqc);
}

function exchangeOf(dhe: number, kem: number): ExchangeName | null | undefined {
  if (dhe !== 0 && kem !== 0) return undefined;
  if (dhe !== 0) return nameOfBit(DHE_BIT, dhe);
  return kem === 0 ? null : nameOfBit(KEM_BIT, kem);
}

function measurementHashOf(selection: AlgorithmSelection): HashName | 'raw' | null | undefined {
  if (selection.measurementSpecification === 0) return selection.measurementHash === 0 ? null : undefined;
  if (selection.measurementHash === RAW_MEASUREMENTS_BIT) return 'raw';
  return nameOfBit(HASH_BIT, selection.measurementHash / 2);
}

/** The sizes that the negotiated algorithms give the messages from then on. */
export function contextOf(negotiated: Negotiated, padding: number): MessageContext {
  const { version, hash, signature, requesterSignature, exchange, multiKey } = negotiated;
  return {
    version,
    hashSize: HASH_SIZE[hash],
    signatureSize: signature === null ? 0 : SIGNATURE_SIZE[signature],
    requesterSignatureSize: requesterSignature === null ? 0 : SIGNATURE_SIZE[requesterSignature],
    exchangeSize: exchange === null ? { request: 0, response: 0 } : EXCHANGE_SIZE[exchange],
    multiKey,
    padding,
  };
}
