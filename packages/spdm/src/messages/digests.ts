/** GET_DIGESTS and DIGESTS. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { le16 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

/** KeyUsageMask of a slot, 1.3 with several keys. */
export const KEY_USAGE = { keyExchange: 1, challenge: 2, measurement: 4, endpointInfo: 8 } as const;

export interface SlotDigest {
  /** 0 to 7. */
  readonly slot: number;
  /** Of the whole chain, its header included. */
  readonly digest: Uint8Array;
  /** With several keys in the connection only. */
  readonly key?: { readonly pair: number; readonly certificateModel: number; readonly usage: number };
}

export interface Digests {
  /** A bit for each slot that exists, 1.3; 0 before. */
  readonly supported: number;
  readonly slots: readonly SlotDigest[];
}

export function encodeGetDigests({ version }: MessageContext): Uint8Array {
  return header(version, REQUEST.GET_DIGESTS);
}

/** Codes: `message-malformed`. */
export function decodeGetDigests(bytes: Uint8Array, { version, padding }: MessageContext): Result<Decoded<null>> {
  return new MessageReader(bytes, version, REQUEST.GET_DIGESTS).end(null, padding);
}

/** `slots` in ascending order. */
export function encodeDigests({ version, multiKey }: MessageContext, { supported, slots }: Digests): Uint8Array {
  const provisioned = slots.reduce((mask, { slot }) => mask | (1 << slot), 0);
  const keys = multiKey ? slots.map(({ key }) => key ?? { pair: 0, certificateModel: 0, usage: 0 }) : [];
  return concat(
    header(version, RESPONSE.DIGESTS, since(version, '1.3') ? supported : 0, provisioned),
    ...slots.map(({ digest }) => digest),
    Uint8Array.from(keys, ({ pair }) => pair),
    Uint8Array.from(keys, ({ certificateModel }) => certificateModel),
    ...keys.map(({ usage }) => le16(usage)),
  );
}

/** Codes: `message-malformed`. */
export function decodeDigests(
  bytes: Uint8Array,
  { version, hashSize, multiKey, padding }: MessageContext,
): Result<Decoded<Digests>> {
  const reader = new MessageReader(bytes, version, RESPONSE.DIGESTS);
  const provisioned = reader.parameter2;
  const supported = since(version, '1.3') ? reader.parameter1 : 0;
  if (provisioned === 0) reader.refuse('no slot has a chain');
  if (since(version, '1.3') && (provisioned & ~supported) !== 0)
    reader.refuse('a slot that does not exist has a chain');
  const numbers = [0, 1, 2, 3, 4, 5, 6, 7].filter((slot) => (provisioned & (1 << slot)) !== 0);
  const digests = numbers.map(() => reader.take(hashSize, 'Digest'));
  if (!multiKey) {
    const slots = numbers.map((slot, index) => ({ slot, digest: digests[index] ?? new Uint8Array() }));
    return reader.end({ supported, slots }, padding);
  }
  const pairs = numbers.map(() => reader.u8('KeyPairID'));
  const models = numbers.map(() => reader.u8('CertificateInfo') & 7);
  const usages = numbers.map(() => reader.u16('KeyUsageMask'));
  const slots = numbers.map((slot, index) => ({
    slot,
    digest: digests[index] ?? new Uint8Array(),
    key: { pair: pairs[index] ?? 0, certificateModel: models[index] ?? 0, usage: usages[index] ?? 0 },
  }));
  return reader.end({ supported, slots }, padding);
}
