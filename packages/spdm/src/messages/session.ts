/** HEARTBEAT, KEY_UPDATE, END_SESSION and their answers: four bytes each. */
import type { Result } from '@airlock/core/result.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

export const KEY_OPERATION = { updateKey: 1, updateAllKeys: 2, verifyNewKey: 3 } as const;

export interface KeyUpdate {
  readonly operation: number;
  readonly tag: number;
}

export function encodeHeartbeat({ version }: MessageContext): Uint8Array {
  return header(version, REQUEST.HEARTBEAT);
}

export function encodeHeartbeatAck({ version }: MessageContext): Uint8Array {
  return header(version, RESPONSE.HEARTBEAT_ACK);
}

export function encodeKeyUpdate({ version }: MessageContext, { operation, tag }: KeyUpdate): Uint8Array {
  return header(version, REQUEST.KEY_UPDATE, operation, tag);
}

export function encodeKeyUpdateAck({ version }: MessageContext, { operation, tag }: KeyUpdate): Uint8Array {
  return header(version, RESPONSE.KEY_UPDATE_ACK, operation, tag);
}

/** `code` is that of the request or of its answer. Codes: `message-malformed`. */
export function decodeKeyUpdate(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
  code: number,
): Result<Decoded<KeyUpdate>> {
  const reader = new MessageReader(bytes, version, code);
  if (reader.parameter1 < 1 || reader.parameter1 > 3) reader.refuse(`key operation ${reader.parameter1} is reserved`);
  return reader.end({ operation: reader.parameter1, tag: reader.parameter2 }, padding);
}

/** `preserve`: is the negotiated state kept? Only with CACHE_CAP. */
export function encodeEndSession({ version }: MessageContext, preserve: boolean): Uint8Array {
  return header(version, REQUEST.END_SESSION, preserve ? 0 : 1);
}

export function encodeEndSessionAck({ version }: MessageContext): Uint8Array {
  return header(version, RESPONSE.END_SESSION_ACK);
}

/** A message that is nothing but its header. Codes: `message-malformed`. */
export function decodeBare(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
  code: number,
): Result<Decoded<{ parameter1: number; parameter2: number }>> {
  const reader = new MessageReader(bytes, version, code);
  return reader.end({ parameter1: reader.parameter1, parameter2: reader.parameter2 }, padding);
}
