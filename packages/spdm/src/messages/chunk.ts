/** CHUNK_SEND, CHUNK_SEND_ACK, CHUNK_GET and CHUNK_RESPONSE: messages larger than one transfer, 1.2. */
import type { Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { type SpdmVersion, since } from '../algorithms.ts';
import { le16, le32 } from '../little-endian.ts';
import { REQUEST, RESPONSE } from './codes.ts';
import { type Decoded, header, type MessageContext, MessageReader } from './reader.ts';

const LAST = 1;
const EARLY_ERROR = 1;

export interface Chunk {
  readonly handle: number;
  readonly sequence: number;
  readonly last: boolean;
  /** Of the whole message, in its first chunk only. */
  readonly size: number | null;
  readonly data: Uint8Array;
}

export interface ChunkAck {
  readonly handle: number;
  readonly sequence: number;
  readonly earlyError: boolean;
  /** The answer to the whole message, after its last chunk; padding of the transport stays at its end. */
  readonly response: Uint8Array;
}

/** Bytes of a chunk message before its data: more in the first, which tells the size of the whole. */
export function chunkOverhead(first: boolean): number {
  return first ? 16 : 12;
}

/** 1.4 has sequence numbers of four bytes in place of two and two reserved ones. */
function sequenceField(version: SpdmVersion, sequence: number): Uint8Array {
  return since(version, '1.4') ? le32(sequence) : concat(le16(sequence), le16(0));
}

/** `code` is CHUNK_SEND's or CHUNK_RESPONSE's. */
export function encodeChunk({ version }: MessageContext, code: number, chunk: Chunk): Uint8Array {
  return concat(
    header(version, code, chunk.last ? LAST : 0, chunk.handle),
    sequenceField(version, chunk.sequence),
    le32(chunk.data.length),
    chunk.size === null ? new Uint8Array() : le32(chunk.size),
    chunk.data,
  );
}

/** Codes: `message-malformed`. */
export function decodeChunk(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
  code: number,
): Result<Decoded<Chunk>> {
  const reader = new MessageReader(bytes, version, code);
  let sequence = 0;
  if (since(version, '1.4')) sequence = reader.u32('ChunkSeqNo');
  else {
    sequence = reader.u16('ChunkSeqNo');
    reader.skip(2);
  }
  const length = reader.u32('ChunkSize');
  const size = sequence === 0 ? reader.u32('LargeMessageSize') : null;
  if (length === 0) reader.refuse('a chunk without bytes');
  const data = reader.take(length, 'SPDMchunk');
  return reader.end(
    { handle: reader.parameter2, sequence, last: (reader.parameter1 & LAST) !== 0, size, data },
    padding,
  );
}

export function encodeChunkSendAck({ version }: MessageContext, ack: ChunkAck): Uint8Array {
  return concat(
    header(version, RESPONSE.CHUNK_SEND_ACK, ack.earlyError ? EARLY_ERROR : 0, ack.handle),
    since(version, '1.4') ? le32(ack.sequence) : le16(ack.sequence),
    ack.response,
  );
}

/** Codes: `message-malformed`. */
export function decodeChunkSendAck(bytes: Uint8Array, { version }: MessageContext): Result<Decoded<ChunkAck>> {
  const reader = new MessageReader(bytes, version, RESPONSE.CHUNK_SEND_ACK);
  const sequence = since(version, '1.4') ? reader.u32('ChunkSeqNo') : reader.u16('ChunkSeqNo');
  const response = reader.rest();
  const earlyError = (reader.parameter1 & EARLY_ERROR) !== 0;
  return reader.end({ handle: reader.parameter2, sequence, earlyError, response }, 0);
}

export function encodeChunkGet({ version }: MessageContext, handle: number, sequence: number): Uint8Array {
  return concat(header(version, REQUEST.CHUNK_GET, 0, handle), since(version, '1.4') ? le32(sequence) : le16(sequence));
}

/** Codes: `message-malformed`. */
export function decodeChunkGet(
  bytes: Uint8Array,
  { version, padding }: MessageContext,
): Result<Decoded<{ handle: number; sequence: number }>> {
  const reader = new MessageReader(bytes, version, REQUEST.CHUNK_GET);
  const sequence = since(version, '1.4') ? reader.u32('ChunkSeqNo') : reader.u16('ChunkSeqNo');
  return reader.end({ handle: reader.parameter2, sequence }, padding);
}
