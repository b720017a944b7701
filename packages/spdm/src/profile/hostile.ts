/**
 * What a hostile host, or a hostile device, does with the messages of a responder: the same responder behind it, and its
 * answers cut, changed, kept back or taken from somewhere else. For tests, and for seeing what Airlock says to it.
 */
import { ok, type Result } from '@airlock/core/result.ts';
import { concat } from '@airlock/evidence/bytes.ts';
import { HASH_BIT, VERSION_BYTE } from '../algorithms.ts';
import { ERROR_CODE, REQUEST, RESPONSE } from '../messages/codes.ts';
import { encodeError } from '../messages/error.ts';
import { encodeVersion } from '../messages/version.ts';
import type { Binding } from '../secured/binding.ts';

/** Those that change the made-up device itself, those that change what is said, and those of its TDISP interfaces. */
export const IDENTITY_LIES = ['wrong-root', 'expired', 'revoked', 'other-device', 'wrong-measurement'] as const;
export const MESSAGE_LIES = [
  'replayed-signature',
  'stale-nonce',
  'version-downgrade',
  'algorithm-downgrade',
  'truncated',
  'oversized',
  'endless-busy',
  'mute',
] as const;
export const TDISP_LIES = [
  'tdisp-other-bars',
  'tdisp-lock-flags',
  'tdisp-error',
  'tdisp-stale-nonce',
  'tdisp-oversized-report',
  'tdisp-version-downgrade',
] as const;
export const LIES = [...IDENTITY_LIES, ...MESSAGE_LIES, ...TDISP_LIES] as const;
export type IdentityLie = (typeof IDENTITY_LIES)[number];
export type MessageLie = (typeof MESSAGE_LIES)[number];
export type TdispLie = (typeof TDISP_LIES)[number];
export type Lie = (typeof LIES)[number];

export function isMessageLie(lie: Lie): lie is MessageLie {
  return (MESSAGE_LIES as readonly string[]).includes(lie);
}

export function isTdispLie(lie: Lie): lie is TdispLie {
  return (TDISP_LIES as readonly string[]).includes(lie);
}

export type Answer = (message: Uint8Array) => Result<Uint8Array> | Promise<Result<Uint8Array>>;

const SIGNED: readonly number[] = [REQUEST.CHALLENGE, REQUEST.GET_MEASUREMENTS];
const NONCE_AT = 4;
const HASH_AT = 12;
const OVERSIZE = 60_000;

/** `remembered` outlives a connection: what was signed before is shown again. */
export function createLiar(
  lie: MessageLie,
  binding: Binding,
  honest: Answer,
  remembered: Map<number, Uint8Array>,
): Answer {
  return async (bytes) => {
    const unwrapped = binding.unwrap(bytes);
    if (!unwrapped.ok || unwrapped.value.kind === 'secured') return honest(bytes);
    const request = unwrapped.value.message;
    const code = request[1] ?? 0;
    const ask = async (message: Uint8Array): Promise<Result<Uint8Array>> => {
      const wrapped = binding.wrap('plain', message);
      if (!wrapped.ok) return wrapped;
      const answer = await honest(wrapped.value);
      if (!answer.ok) return answer;
      const inner = binding.unwrap(answer.value);
      return inner.ok ? ok(inner.value.message) : inner;
    };
    const said = await say(lie, code, request, ask, remembered);
    if (said === null) return new Promise(() => undefined);
    return said.ok ? binding.wrap('plain', said.value) : said;
  };
}

/** null: nothing, for ever. */
async function say(
  lie: MessageLie,
  code: number,
  request: Uint8Array,
  ask: (message: Uint8Array) => Promise<Result<Uint8Array>>,
  remembered: Map<number, Uint8Array>,
): Promise<Result<Uint8Array> | null> {
  const changed = request.slice();
  switch (lie) {
    case 'replayed-signature': {
      const before = remembered.get(code);
      if (SIGNED.includes(code) && before !== undefined) return ok(before);
      const answer = await ask(request);
      if (SIGNED.includes(code) && answer.ok && answer.value[1] !== RESPONSE.ERROR) remembered.set(code, answer.value);
      return answer;
    }
    case 'stale-nonce':
      // The device signs what was asked yesterday.
      if (SIGNED.includes(code)) changed.fill(0x11, NONCE_AT, NONCE_AT + 32);
      return ask(changed);
    case 'version-downgrade': {
      const answer = await ask(request);
      return code === REQUEST.GET_VERSION && answer.ok
        ? ok(
            encodeVersion([{ major: VERSION_BYTE['1.1'] >> 4, minor: VERSION_BYTE['1.1'] & 0xf, update: 0, alpha: 0 }]),
          )
        : answer;
    }
    case 'algorithm-downgrade':
      // The device is told that the requester takes SHA-256 only, and the requester that the device chose it.
      if (code === REQUEST.NEGOTIATE_ALGORITHMS) changed.set([HASH_BIT.sha256, 0, 0, 0], HASH_AT);
      return ask(changed);
    case 'truncated': {
      const answer = await ask(request);
      return answer.ok && code === REQUEST.GET_CERTIFICATE ? ok(answer.value.slice(0, -40)) : answer;
    }
    case 'oversized': {
      const answer = await ask(request);
      return answer.ok && code === REQUEST.GET_CERTIFICATE
        ? ok(concat(answer.value, new Uint8Array(OVERSIZE)))
        : answer;
    }
    case 'endless-busy': {
      if (code === REQUEST.GET_VERSION) return ask(request);
      const version = request[0] === VERSION_BYTE['1.1'] ? '1.1' : request[0] === VERSION_BYTE['1.2'] ? '1.2' : '1.3';
      return ok(
        request[0] === VERSION_BYTE['1.4']
          ? encodeError('1.4', ERROR_CODE.Busy)
          : encodeError(version, ERROR_CODE.Busy),
      );
    }
    case 'mute':
      return null;
  }
}
