/** GET_ENCAPSULATED_REQUEST, DELIVER_ENCAPSULATED_RESPONSE and their answers: the responder's requests within answers. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { since } from '../algorithms.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

export interface Encapsulated {
  readonly requestId: number;
  /** The message within; padding of the transport stays at its end. */
  readonly message: Uint8Array;
}

export interface EncapsulatedAck {
  readonly requestId: number;
  /** Which request the delivered response answered, 1.2. */
  readonly answered: number;
  /** What follows: nothing, another request, or the slot to authenticate with. */
  readonly payload: { kind: 'none' } | { kind: 'request'; message: Uint8Array } | { kind: 'slot'; slot: number };
}

export function encodeGetEncapsulatedRequest({ version }: MessageContext): Uint8Array {
  return header(version, REQUEST.GET_ENCAPSULATED_REQUEST);
}

export function encodeEncapsulatedRequest(
  { version }: MessageContext,
  { requestId, message }: Encapsulated,
): Uint8Array {
  return concat(header(version, RESPONSE.ENCAPSULATED_REQUEST, requestId), message);
}

export function encodeDeliverEncapsulated(
  { version }: MessageContext,
  { requestId, message }: Encapsulated,
): Uint8Array {
  return concat(header(version, REQUEST.DELIVER_ENCAPSULATED_RESPONSE, requestId), message);
}

/** `code` is ENCAPSULATED_REQUEST's or DELIVER_ENCAPSULATED_RESPONSE's. Codes: `message-malformed`. */
export function decodeEncapsulated(
  bytes: Uint8Array,
  { version }: MessageContext,
  code: number,
): Result<Decoded<Encapsulated>> {
  const reader = new MessageReader(bytes, version, code);
  const message = reader.rest();
  if (message.length < 4) reader.refuse('it encapsulates no message');
  return reader.end({ requestId: reader.parameter1, message }, 0);
}

export function encodeEncapsulatedAck({ version }: MessageContext, ack: EncapsulatedAck): Uint8Array {
  const { requestId, answered, payload } = ack;
  const type = payload.kind === 'none' ? 0 : payload.kind === 'request' ? 1 : 2;
  return concat(
    header(version, RESPONSE.ENCAPSULATED_RESPONSE_ACK, requestId, type),
    since(version, '1.2') ? Uint8Array.of(answered, 0, 0, 0) : new Uint8Array(),
    payload.kind === 'request' ? payload.message : new Uint8Array(),
    payload.kind === 'slot' ? Uint8Array.of(payload.slot) : new Uint8Array(),
  );
}

/** Codes: `message-malformed`. */
export function decodeEncapsulatedAck(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<EncapsulatedAck>> {
  const reader = new MessageReader(bytes, version, RESPONSE.ENCAPSULATED_RESPONSE_ACK);
  const requestId = reader.parameter1;
  let answered = 0;
  if (since(version, '1.2')) {
    answered = reader.u8('AckRequestID');
    reader.skip(3);
  }
  switch (reader.parameter2) {
    case 0:
      return reader.end({ requestId, answered, payload: { kind: 'none' } }, padding);
    case 1: {
      const message = reader.rest();
      if (message.length < 4) reader.refuse('it encapsulates no request');
      return reader.end({ requestId, answered, payload: { kind: 'request', message } }, 0);
    }
    case 2: {
      const slot = reader.u8('ReqSlotNumber') & 0xf;
      return reader.end({ requestId, answered, payload: { kind: 'slot', slot } }, padding);
    }
    default:
      return reader.invalid(`payload type ${reader.parameter2} is reserved`);
  }
}
