/** vhost-user messages as bytes: header and payload together. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { encodePayload, PAYLOAD_LIMIT, type Payload, parsePayload } from './payload.ts';
import { HEADER_SIZE, type MessageKind, NEED_REPLY, REPLY, VERSION, VERSION_MASK } from './protocol.ts';

export interface Header {
  readonly request: number;
  readonly flags: number;
  /** Bytes of payload that follow. */
  readonly size: number;
}

/** The most descriptors of one message: a memory table's. */
export const DESCRIPTORS_LIMIT = 8;

/**
 * The 12 bytes of a header. A header that fails leaves no way to know where the next message begins, so the connection
 * is over. Codes: `vhost-user-version`, `vhost-user-flags`, `vhost-user-too-large`.
 */
export function parseHeader(bytes: Uint8Array): Result<Header> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_SIZE);
  const header = {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    size: view.getUint32(8, true),
  };
  if ((header.flags & VERSION_MASK) !== VERSION) {
    return fail('vhost-user-version', `version ${header.flags & VERSION_MASK} of request ${header.request}`);
  }
  if ((header.flags & ~(VERSION_MASK | REPLY | NEED_REPLY)) !== 0) {
    return fail('vhost-user-flags', `flags 0x${header.flags.toString(16)} of request ${header.request}`);
  }
  if (header.size > PAYLOAD_LIMIT) {
    return fail('vhost-user-too-large', `${header.size} bytes of request ${header.request}`);
  }
  return ok(header);
}

/** A whole message. `flags` besides the version: REPLY, NEED_REPLY. */
export function encodeMessage(request: number, flags: number, payload: Payload): Uint8Array {
  const content = encodePayload(payload);
  const bytes = new Uint8Array(HEADER_SIZE + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, VERSION | flags, true);
  view.setUint32(8, content.length, true);
  bytes.set(content, HEADER_SIZE);
  return bytes;
}

/**
 * The payload of a request, whose descriptors are as many as its kind asks for. Codes: `vhost-user-payload-size`,
 * `vhost-user-payload-invalid`, `vhost-user-descriptors`.
 */
export function parseRequest(kind: MessageKind, bytes: Uint8Array, descriptors: number): Result<Payload> {
  const payload = parsePayload(kind.payload, bytes);
  if (!payload.ok) return fail(payload.error.code, `${kind.name}: ${payload.error.message}`);
  const [least, most] = expectedDescriptors(kind, payload.value);
  if (descriptors >= least && descriptors <= most) return payload;
  const expected = least === most ? `${least}` : `${least} to ${most}`;
  return fail('vhost-user-descriptors', `${kind.name} came with ${descriptors} descriptors, ${expected} belong to it`);
}

function expectedDescriptors(kind: MessageKind, payload: Payload): readonly [least: number, most: number] {
  switch (kind.fds) {
    case 'none':
      return [0, 0];
    case 'one':
      return [1, 1];
    case 'at-most-one':
      return [0, 1];
    case 'any':
      return [0, DESCRIPTORS_LIMIT];
    case 'as-regions': {
      const count = payload.form === 'regions' ? payload.regions.length : 0;
      return [count, count];
    }
    case 'as-flag': {
      const count = payload.form === 'vring-fd' && payload.hasFd ? 1 : 0;
      return [count, count];
    }
  }
}
