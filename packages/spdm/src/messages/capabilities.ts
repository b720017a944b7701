/** GET_CAPABILITIES and CAPABILITIES. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { type SpdmVersion, since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** Bits of Flags; those that only one side has keep a bit of their own in the other. */
export const CAPABILITY = {
  CACHE: 0x0000_0001,
  CERT: 0x0000_0002,
  CHAL: 0x0000_0004,
  MEAS_NO_SIG: 0x0000_0008,
  MEAS_SIG: 0x0000_0010,
  MEAS_FRESH: 0x0000_0020,
  ENCRYPT: 0x0000_0040,
  MAC: 0x0000_0080,
  MUT_AUTH: 0x0000_0100,
  KEY_EX: 0x0000_0200,
  PSK: 0x0000_0400,
  PSK_WITH_CONTEXT: 0x0000_0800,
  ENCAP: 0x0000_1000,
  HBEAT: 0x0000_2000,
  KEY_UPD: 0x0000_4000,
  HANDSHAKE_IN_THE_CLEAR: 0x0000_8000,
  PUB_KEY_ID: 0x0001_0000,
  CHUNK: 0x0002_0000,
  ALIAS_CERT: 0x0004_0000,
  SET_CERT: 0x0008_0000,
  CSR: 0x0010_0000,
  CERT_INSTALL_RESET: 0x0020_0000,
  EP_INFO_NO_SIG: 0x0040_0000,
  EP_INFO_SIG: 0x0080_0000,
  MEL: 0x0100_0000,
  EVENT: 0x0200_0000,
  MULTI_KEY_ONLY: 0x0400_0000,
  MULTI_KEY_NEG: 0x0800_0000,
  GET_KEY_PAIR_INFO: 0x1000_0000,
  SET_KEY_PAIR_INFO: 0x2000_0000,
  SET_KEY_PAIR_RESET: 0x4000_0000,
  LARGE_RESP: 0x8000_0000,
} as const;
export type CapabilityName = keyof typeof CAPABILITY;

const REQUESTER_11: readonly CapabilityName[] = [
  ...(['CERT', 'CHAL', 'ENCRYPT', 'MAC', 'MUT_AUTH', 'KEY_EX', 'PSK', 'PSK_WITH_CONTEXT', 'ENCAP'] as const),
  ...(['HBEAT', 'KEY_UPD', 'HANDSHAKE_IN_THE_CLEAR', 'PUB_KEY_ID'] as const),
];
const REQUESTER_13: readonly CapabilityName[] = [
  ...(['EP_INFO_NO_SIG', 'EP_INFO_SIG', 'EVENT', 'MULTI_KEY_ONLY', 'MULTI_KEY_NEG'] as const),
];
const RESPONDER_12: readonly CapabilityName[] = ['CHUNK', 'ALIAS_CERT', 'SET_CERT', 'CSR', 'CERT_INSTALL_RESET'];
const RESPONDER_13: readonly CapabilityName[] = [
  ...REQUESTER_13,
  ...(['MEL', 'GET_KEY_PAIR_INFO', 'SET_KEY_PAIR_INFO'] as const),
];

/** The bits that a version gives a meaning; the others are reserved in it, and ignored. */
export function definedFlags(side: 'requester' | 'responder', version: SpdmVersion): number {
  const names: CapabilityName[] = [...REQUESTER_11];
  if (side === 'responder') names.push('CACHE', 'MEAS_NO_SIG', 'MEAS_SIG', 'MEAS_FRESH');
  if (since(version, '1.2')) names.push(...(side === 'requester' ? (['CHUNK'] as const) : RESPONDER_12));
  if (since(version, '1.3')) names.push(...(side === 'requester' ? REQUESTER_13 : RESPONDER_13));
  if (since(version, '1.4')) names.push('LARGE_RESP');
  if (since(version, '1.4') && side === 'responder') names.push('SET_KEY_PAIR_RESET');
  // PSK_WITH_CONTEXT is reserved in a requester's flags.
  const mask = names.reduce((flags, name) => flags | CAPABILITY[name], 0);
  return (side === 'requester' ? mask & ~CAPABILITY.PSK_WITH_CONTEXT : mask) >>> 0;
}

export interface Capabilities {
  readonly flags: number;
  /** Responses that need cryptography take up to 2 to this many microseconds. */
  readonly cryptoTimeExponent: number;
  /** The longest single message that the sender takes, in bytes; absent before 1.2. */
  readonly dataTransferSize: number;
  /** The longest message in chunks that the sender takes, in bytes. */
  readonly maxMessageSize: number;
}

/** What a sender without these fields takes: any message of its version. */
const UNSTATED = { dataTransferSize: 0xffff_ffff, maxMessageSize: 0xffff_ffff };
/** MinDataTransferSize of 1.2. */
export const MIN_DATA_TRANSFER_SIZE = 42;

export function hasCapability(flags: number, ...names: readonly CapabilityName[]): boolean {
  return names.every((name) => (flags & CAPABILITY[name]) !== 0);
}

/** The names in a mask, for people. */
export function capabilityNames(flags: number): CapabilityName[] {
  return (Object.keys(CAPABILITY) as CapabilityName[]).filter((name) => hasCapability(flags, name));
}

function encode(code: number, version: SpdmVersion, parameter1: number, own: Capabilities): Uint8Array {
  return concat(
    header(version, code, parameter1),
    Uint8Array.of(0, own.cryptoTimeExponent),
    le16(0),
    le32(own.flags),
    since(version, '1.2') ? concat(le32(own.dataTransferSize), le32(own.maxMessageSize)) : new Uint8Array(),
  );
}

export function encodeGetCapabilities(version: SpdmVersion, own: Capabilities): Uint8Array {
  return encode(REQUEST.GET_CAPABILITIES, version, 0, own);
}

/** `algorithms` is the Supported Algorithms block that the requester asked for, from 1.3 on. */
export function encodeCapabilities(version: SpdmVersion, own: Capabilities, algorithms?: Uint8Array): Uint8Array {
  const message = encode(RESPONSE.CAPABILITIES, version, algorithms === undefined ? 0 : 1, own);
  return algorithms === undefined ? message : concat(message, algorithms);
}

export interface CapabilitiesMessage extends Capabilities {
  /** Request: the Supported Algorithms block is asked for. Response: it follows. */
  readonly algorithms: boolean;
}

/** Codes: `message-malformed`. */
export function decodeGetCapabilities(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<CapabilitiesMessage>> {
  return decode(new MessageReader(bytes, version, REQUEST.GET_CAPABILITIES), 'requester', version, padding);
}

/**
 * The Supported Algorithms block is skipped over: it is a hint, what counts is ALGORITHMS. Codes: `message-malformed`.
 */
export function decodeCapabilities(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<CapabilitiesMessage>> {
  return decode(new MessageReader(bytes, version, RESPONSE.CAPABILITIES), 'responder', version, padding);
}

function decode(
  reader: MessageReader,
  side: 'requester' | 'responder',
  version: SpdmVersion,
  padding: number,
): Result<Decoded<CapabilitiesMessage>> {
  const algorithms = since(version, '1.3') && (reader.parameter1 & 1) !== 0;
  reader.skip(1);
  const cryptoTimeExponent = reader.u8('CTExponent');
  reader.skip(2);
  const stated = reader.u32('Flags');
  if (cryptoTimeExponent > 31) reader.refuse(`CTExponent ${cryptoTimeExponent}, at most 31 is accepted`);
  let sizes = UNSTATED;
  if (since(version, '1.2')) {
    sizes = { dataTransferSize: reader.u32('DataTransferSize'), maxMessageSize: reader.u32('MaxSPDMmsgSize') };
    if (sizes.dataTransferSize < MIN_DATA_TRANSFER_SIZE)
      reader.refuse(`DataTransferSize ${sizes.dataTransferSize}, at least ${MIN_DATA_TRANSFER_SIZE} is demanded`);
    if (sizes.maxMessageSize < sizes.dataTransferSize) reader.refuse('MaxSPDMmsgSize is smaller than DataTransferSize');
  }
  const flags = (stated & definedFlags(side, version)) >>> 0;
  const contradiction = contradictionIn(side, version, flags, sizes);
  if (contradiction !== undefined) reader.refuse(contradiction);
  if (side === 'responder' && algorithms) skipAlgorithms(reader);
  return reader.end({ flags, cryptoTimeExponent, ...sizes, algorithms }, padding);
}

function skipAlgorithms(reader: MessageReader): void {
  reader.skip(2);
  const length = reader.u16('Length of the Supported Algorithms block');
  if (length < 4) reader.refuse('the Supported Algorithms block is shorter than its header');
  reader.skip(Math.max(0, length - 4));
}

/** Flags that the standard does not permit together. */
function contradictionIn(
  side: 'requester' | 'responder',
  version: SpdmVersion,
  flags: number,
  sizes: { dataTransferSize: number; maxMessageSize: number },
): string | undefined {
  const has = (...names: CapabilityName[]) => hasCapability(flags, ...names);
  const psk = has('PSK') || has('PSK_WITH_CONTEXT');
  if (has('PSK', 'PSK_WITH_CONTEXT')) return 'PSK_CAP has a reserved value';
  if (has('MEAS_NO_SIG', 'MEAS_SIG')) return 'MEAS_CAP has a reserved value';
  if (has('EP_INFO_NO_SIG', 'EP_INFO_SIG')) return 'EP_INFO_CAP has a reserved value';
  if (has('MULTI_KEY_ONLY', 'MULTI_KEY_NEG')) return 'MULTI_KEY_CAP has a reserved value';
  if ((has('KEY_EX') || psk) && !has('MAC') && !has('ENCRYPT')) return 'sessions without MAC_CAP and ENCRYPT_CAP';
  if (
    (has('MAC') || has('ENCRYPT') || has('HANDSHAKE_IN_THE_CLEAR') || has('HBEAT') || has('KEY_UPD')) &&
    !has('KEY_EX') &&
    !psk
  )
    return 'capabilities of sessions without KEY_EX_CAP and PSK_CAP';
  if (version === '1.1' && has('MUT_AUTH') && !has('ENCAP')) return 'MUT_AUTH_CAP without ENCAP_CAP';
  if (has('HANDSHAKE_IN_THE_CLEAR') && !has('KEY_EX')) return 'HANDSHAKE_IN_THE_CLEAR_CAP without KEY_EX_CAP';
  if (has('CERT', 'PUB_KEY_ID')) return 'CERT_CAP and PUB_KEY_ID_CAP exclude each other';
  if (side === 'responder') {
    if (has('CERT') && !has('CHAL') && !has('KEY_EX') && !has('MEAS_SIG') && !has('EP_INFO_SIG'))
      return 'CERT_CAP without anything that is signed';
    if ((has('MULTI_KEY_ONLY') || has('MULTI_KEY_NEG')) && !has('GET_KEY_PAIR_INFO'))
      return 'MULTI_KEY_CAP without GET_KEY_PAIR_INFO_CAP';
    if (has('ALIAS_CERT') && !has('CERT')) return 'ALIAS_CERT_CAP without CERT_CAP';
  }
  if (since(version, '1.2') && !has('CHUNK') && sizes.maxMessageSize !== sizes.dataTransferSize)
    return 'without CHUNK_CAP both sizes are the same';
  return undefined;
}
