/** The 7 bytes that begin every 9P message. They are the same in 9P2000, .u and .L. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const P9_HEADER_SIZE = 7;

export interface P9Header {
  /** Bytes of the whole message, these 7 counted. */
  readonly size: number;
  readonly type: number;
  readonly tag: number;
}

/** Of a message that has `room` bytes in its buffers. Codes: `request-truncated`, `request-malformed`. */
export function parseP9Header(bytes: Uint8Array, room: number): Result<P9Header> {
  if (bytes.length < P9_HEADER_SIZE) return fail('request-truncated', `9P header of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = { size: view.getUint32(0, true), type: view.getUint8(4), tag: view.getUint16(5, true) };
  if (header.size < P9_HEADER_SIZE || header.size > room) {
    return fail('request-malformed', `9P message of ${header.size} bytes in ${room}`);
  }
  return ok(header);
}
