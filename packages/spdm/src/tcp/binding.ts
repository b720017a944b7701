/** SPDM over TCP, DSP0287 1.0: a length, the binding's version and a message type before each message. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { le16 } from '../little-endian.ts';
import type { Binding } from '../secured/binding.ts';

export const TCP_TYPE = { plain: 0x05, secured: 0x06, roleInquiry: 0xbf } as const;

/** Messages without a body that refuse one. */
export const TCP_REFUSALS: Readonly<Record<number, string>> = {
  192: 'the message is too large',
  193: 'the message type is not supported',
  194: 'it cannot be a requester',
  195: 'it cannot be a responder',
};

const VERSION = 1;
/** Length, version, type. */
export const TCP_HEADER = 4;
/** The length counts what follows it: version, type and message. */
const MESSAGE_LIMIT = 0xffff - 2;

export interface TcpMessage {
  readonly type: number;
  readonly message: Uint8Array;
}

/** Codes: `tcp-message-too-large`. */
export function encodeTcpMessage({ type, message }: TcpMessage): Result<Uint8Array> {
  if (message.length > MESSAGE_LIMIT)
    return fail('tcp-message-too-large', `${message.length} bytes, at most ${MESSAGE_LIMIT} fit`);
  return ok(concat(le16(message.length + 2), Uint8Array.of(VERSION, type), message));
}

/**
 * How many bytes the message has that begins with these four. A message without a body may state a length of 0 instead
 * of 2: DMTF's library does. Codes: `tcp-message-invalid`.
 */
export function tcpMessageLength(header: Uint8Array): Result<number> {
  const [low = 0, high = 0, version = 0, type = 0] = header;
  const length = low | (high << 8);
  if (header.length < TCP_HEADER) return fail('tcp-message-invalid', `a header of ${header.length} bytes`);
  if (version !== VERSION) return fail('tcp-message-invalid', `version ${version} of the binding, 1 is needed`);
  if (length === 0 && type >= TCP_TYPE.roleInquiry) return ok(TCP_HEADER);
  if (length < 2) return fail('tcp-message-invalid', `a length of ${length}, which does not reach over its own header`);
  return ok(length + 2);
}

/** One message and nothing after it. Codes: `tcp-message-invalid`. */
export function decodeTcpMessage(bytes: Uint8Array): Result<TcpMessage> {
  const length = tcpMessageLength(bytes);
  if (!length.ok) return length;
  if (length.value !== bytes.length)
    return fail('tcp-message-invalid', `its length is ${length.value} bytes, ${bytes.length} are there`);
  return ok({ type: bytes[3] ?? 0, message: bytes.slice(TCP_HEADER) });
}

function unwrapTcp(bytes: Uint8Array): ReturnType<Binding['unwrap']> {
  const read = decodeTcpMessage(bytes);
  if (!read.ok) return read;
  const { type, message } = read.value;
  if (type === TCP_TYPE.plain) return ok({ kind: 'plain', message });
  if (type === TCP_TYPE.secured) return ok({ kind: 'secured', message });
  const refusal = TCP_REFUSALS[type];
  return refusal === undefined
    ? fail('tcp-message-invalid', `message type 0x${type.toString(16)}`)
    : fail('tcp-refused', `the other side says: ${refusal}`);
}

/**
 * The binding; within a session an SPDM message carries its header once more, as the binding of DMTF's library does.
 * Codes: `tcp-message-invalid`, `tcp-message-too-large`, `tcp-refused`.
 */
export const tcpBinding: Binding = {
  name: 'tcp',
  sequenceBytes: 0,
  randomLimit: 0,
  padding: 0,
  messageLimit: MESSAGE_LIMIT,
  wrap: (kind, message) => encodeTcpMessage({ type: kind === 'plain' ? TCP_TYPE.plain : TCP_TYPE.secured, message }),
  unwrap: unwrapTcp,
  wrapApplication: (message) =>
    concat(le16((message.length + 2) & 0xffff), Uint8Array.of(VERSION, TCP_TYPE.plain), message),
  unwrapApplication(data) {
    const read = unwrapTcp(data);
    if (!read.ok) return read;
    return read.value.kind === 'plain'
      ? ok(read.value.message)
      : fail('tcp-message-invalid', 'a secured message within a session');
  },
};
