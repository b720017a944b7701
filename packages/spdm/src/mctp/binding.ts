/** SPDM over MCTP (DSP0275) and secured messages over MCTP (DSP0276): one byte of message type before each message. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import type { Binding } from '../secured/binding.ts';

export const MCTP_TYPE = { spdm: 5, secured: 6 } as const;

/** DSP0236 leaves the length of a message open; SPDM messages are never longer than this. */
export const MCTP_MESSAGE_LIMIT = 256 * 1024;

function strip(bytes: Uint8Array): Result<{ type: number; message: Uint8Array }> {
  const [type] = bytes;
  if (type === undefined) return fail('mctp-message-invalid', 'an MCTP message without a type');
  // Bit 7 announces an integrity check, which both bindings forbid.
  if (type >= 0x80) return fail('mctp-message-invalid', 'an MCTP message with an integrity check');
  if (bytes.length - 1 > MCTP_MESSAGE_LIMIT)
    return fail('mctp-message-invalid', `an MCTP message of ${bytes.length} bytes`);
  return ok({ type, message: bytes.slice(1) });
}

/** Codes: `mctp-message-invalid`. */
export const mctpBinding: Binding = {
  name: 'mctp',
  sequenceBytes: 2,
  randomLimit: 32,
  padding: 0,
  messageLimit: MCTP_MESSAGE_LIMIT,
  wrap(kind, message) {
    if (message.length > MCTP_MESSAGE_LIMIT)
      return fail('mctp-message-invalid', `an SPDM message of ${message.length} bytes`);
    return ok(concat(Uint8Array.of(kind === 'plain' ? MCTP_TYPE.spdm : MCTP_TYPE.secured), message));
  },
  unwrap(bytes) {
    const read = strip(bytes);
    if (!read.ok) return read;
    const { type, message } = read.value;
    if (type === MCTP_TYPE.spdm) return ok({ kind: 'plain', message });
    if (type === MCTP_TYPE.secured) return ok({ kind: 'secured', message });
    return fail('mctp-message-invalid', `MCTP message type ${type}`);
  },
  wrapApplication: (message) => concat(Uint8Array.of(MCTP_TYPE.spdm), message),
  unwrapApplication(data) {
    const read = strip(data);
    if (!read.ok) return read;
    return read.value.type === MCTP_TYPE.spdm
      ? ok(read.value.message)
      : fail('mctp-message-invalid', `MCTP message type ${read.value.type} within a session`);
  },
};
