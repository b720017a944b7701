/**
 * Evidence out of what somebody else's requester kept: a TSM's transcripts, in which one message follows the other without
 * anything between them. Cut by the lengths that the messages themselves state, and judged like any other evidence.
 */
import { readLe } from '@airlock/core/bytes.ts';
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { sameBytes } from '@airlock/evidence/bytes.ts';
import { SIGNATURE_SIZE, since, VERSION_BYTE, versionOfByte } from '../algorithms.ts';
import { REQUEST, RESPONSE } from '../messages/codes.ts';
import type { DeviceEvidence } from './evidence.ts';
import { readAgreement } from './read-statement.ts';

export interface KeptTranscripts {
  readonly device: string;
  readonly slot: number;
  readonly chain: Uint8Array;
  /** GET_VERSION to ALGORITHMS. */
  readonly vca: Uint8Array;
  /** GET_MEASUREMENTS and its answer, with or without VCA in front of them. */
  readonly measurements: Uint8Array;
}

/** Codes: `device-evidence-invalid`, those of `readAgreement`. */
export function assembleEvidence({ device, slot, chain, vca, measurements }: KeptTranscripts): Result<DeviceEvidence> {
  const messages = splitAgreement(vca);
  if (!messages.ok) return messages;
  const version = versionOfByte(messages.value[2]?.[0] ?? 0);
  if (version === undefined) return fail('device-evidence-invalid', 'VCA is of an unknown version of SPDM');
  const agreement = readAgreement(messages.value, version);
  if (!agreement.ok) return agreement;
  const { hash, signature } = agreement.value.negotiated;
  if (signature === null) return fail('device-evidence-invalid', 'no signature algorithm was agreed on');
  const covered = since(version, '1.2');
  const front = sameBytes(measurements.slice(0, vca.length), vca) ? vca.length : 0;
  const body = measurements.slice(front);
  if (body[1] !== REQUEST.GET_MEASUREMENTS) return fail('device-evidence-invalid', 'no GET_MEASUREMENTS');
  const asked = ((body[2] ?? 0) & 1) === 1 ? MEASUREMENTS.signed : MEASUREMENTS.plain;
  const length = asked + (since(version, '1.3') ? MEASUREMENTS.context : 0);
  const [request, answer] = [body.slice(0, length), body.slice(length)];
  const size = SIGNATURE_SIZE[signature];
  if (answer[1] !== RESPONSE.MEASUREMENTS || answer.length <= size)
    return fail('device-evidence-invalid', 'GET_MEASUREMENTS is not followed by MEASUREMENTS');
  const statement = {
    kind: 'measurements' as const,
    messages: [...(covered ? messages.value : []), request, answer.slice(0, -size)],
    signature: answer.slice(-size),
  };
  return ok({ device, version, hash, slot, chain, vca: messages.value, statements: [statement] });
}

/** Bytes of GET_MEASUREMENTS: without and with nonce and slot, and the context of 1.3. */
const MEASUREMENTS = { plain: 4, signed: 37, context: 8 } as const;
const BARE = 4;
const CAPABILITIES = { first: 12, later: 20 } as const;

/** Six messages and nothing after them. */
function splitAgreement(bytes: Uint8Array): Result<readonly Uint8Array[]> {
  const messages: Uint8Array[] = [];
  let at = 0;
  const capabilities = () => (bytes[at] === VERSION_BYTE['1.1'] ? CAPABILITIES.first : CAPABILITIES.later);
  // Length comes at 4 in both messages of algorithms.
  const stated = () => readLe(bytes, at + 4, 2) ?? 0;
  const lengths = [() => BARE, () => 6 + 2 * (bytes[at + 5] ?? 0), capabilities, capabilities, stated, stated];
  for (const lengthOf of lengths) {
    const length = lengthOf();
    if (length < BARE || at + length > bytes.length)
      return fail('device-evidence-invalid', `VCA: ${length} bytes at ${at} of ${bytes.length}`);
    messages.push(bytes.slice(at, at + length));
    at += length;
  }
  return at === bytes.length
    ? ok(messages)
    : fail('device-evidence-invalid', `VCA: ${bytes.length - at} bytes after ALGORITHMS`);
}
