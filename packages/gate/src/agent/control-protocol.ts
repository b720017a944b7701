/**
 * What is said on the control socket: one JSON object a line. A request is answered by one reply with its `id`; after
 * `watch` events follow. Pure.
 */
import type { Decision } from '@airlock/core/decision.ts';
import type { Event } from '@airlock/core/event.ts';
import type { Enforcement } from '@airlock/core/plan.ts';
import { fail, ok, type Problem, type Result } from '@airlock/core/result.ts';
import type { Fingerprint } from '@airlock/policy/grant.ts';
import { LONGEST } from './duration.ts';
import { readFingerprint } from './grants.ts';
import { isRecord } from './shape.ts';

/** Bytes of one request, its line end not counted. */
export const REQUEST_LIMIT = 16_384;
/** Bytes of one reply that a client takes. */
export const REPLY_LIMIT = 16 * 1024 * 1024;

/** How long a device is to be let in. */
export type Term =
  | { readonly kind: 'once' }
  | { readonly kind: 'permanent' }
  /** Milliseconds. */
  | { readonly kind: 'timed'; readonly lasts: number };

export type Request =
  | { readonly verb: 'status' }
  /** Events from now on; with `since`, first those that the agent still remembers and that are numbered above it. */
  | { readonly verb: 'watch'; readonly since?: number }
  /** Which device a name means, and what it is now. */
  | { readonly verb: 'identify'; readonly device: string }
  /** `expect`: nothing is done unless the device is still this one. */
  | { readonly verb: 'allow'; readonly device: string; readonly term: Term; readonly expect?: Fingerprint }
  | { readonly verb: 'block'; readonly device: string; readonly permanent: boolean; readonly expect?: Fingerprint }
  | { readonly verb: 'reject'; readonly device: string; readonly expect?: Fingerprint }
  /** Takes back a grant or a block: the policy alone decides again. */
  | { readonly verb: 'revoke'; readonly device: string };

export interface Identity {
  readonly device: string;
  readonly what: string;
  readonly fingerprint: Fingerprint;
}

/** What became of an operator's act on one device. */
export interface Answer {
  readonly device: string;
  readonly what: string;
  /** `allowed`: a grant was made; `already-allowed`: none was needed; `not-enforced`: it was made and does not hold yet. */
  readonly result: 'allowed' | 'already-allowed' | 'blocked' | 'rejected' | 'revoked' | 'not-enforced';
  readonly term: Term | null;
  /** Null when the device went away with the act. */
  readonly decision: Decision | null;
  readonly enforcement: Enforcement | null;
  /** Things that the operator should know. */
  readonly notes: readonly string[];
}

export type Reply =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly error: Problem };

export type ServerLine = Reply | { readonly event: Event };

const KEYS: Readonly<Record<Request['verb'], readonly string[]>> = {
  status: [],
  watch: ['since'],
  identify: ['device'],
  allow: ['device', 'term', 'expect'],
  block: ['device', 'permanent', 'expect'],
  reject: ['device', 'expect'],
  revoke: ['device'],
};

/** The request in a line. Code: `control-malformed`; `id` is the request's where it could be read, else 0. */
export function readRequest(line: string): { readonly id: number; readonly request: Result<Request> } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { id: 0, request: malformed('not JSON') };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { id: 0, request: malformed('not an object') };
  }
  const given: unknown = Reflect.get(value, 'id');
  const id = typeof given === 'number' && Number.isSafeInteger(given) && given > 0 ? given : 0;
  if (id === 0) return { id, request: malformed('id is not a whole number above 0') };
  const name: unknown = Reflect.get(value, 'verb');
  const verb = Object.keys(KEYS).find((known): known is Request['verb'] => known === name);
  if (verb === undefined) return { id, request: malformed('unknown verb') };
  if (!isRecord(value, ['id', 'verb', ...KEYS[verb]])) return { id, request: malformed(`unknown key for ${verb}`) };
  return { id, request: toRequest(verb, value) };
}

function toRequest(verb: Request['verb'], value: Record<string, unknown>): Result<Request> {
  if (verb === 'status') return ok({ verb });
  if (verb === 'watch') {
    const since = value['since'];
    if (since === undefined) return ok({ verb });
    return isCount(since) ? ok({ verb, since }) : malformed('since is not a number of an event');
  }
  const device = value['device'];
  if (typeof device !== 'string' || device === '' || device.length > 160 || !/^[\x21-\x7e]+$/.test(device)) {
    return malformed('device is not the name of one');
  }
  if (verb === 'identify' || verb === 'revoke') return ok({ verb, device });
  const fingerprint = value['expect'] === undefined ? undefined : readFingerprint(value['expect']);
  if (value['expect'] !== undefined && fingerprint === undefined) return malformed('expect is not a fingerprint');
  const expect = fingerprint === undefined ? {} : { expect: fingerprint };
  if (verb === 'reject') return ok({ verb, device, ...expect });
  if (verb === 'block') {
    const permanent = value['permanent'] ?? false;
    return typeof permanent === 'boolean'
      ? ok({ verb, device, permanent, ...expect })
      : malformed('permanent is neither true nor false');
  }
  const term = toTerm(value['term']);
  return term === undefined ? malformed('term is none') : ok({ verb, device, term, ...expect });
}

function toTerm(value: unknown): Term | undefined {
  if (!isRecord(value, ['kind', 'lasts'])) return undefined;
  const { kind, lasts } = value;
  if (kind === 'timed') return isCount(lasts) && lasts > 0 && lasts <= LONGEST ? { kind, lasts } : undefined;
  return (kind === 'once' || kind === 'permanent') && lasts === undefined ? { kind } : undefined;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function malformed(why: string): Result<never> {
  return fail('control-malformed', `request: ${why}`);
}

/**
 * Lines out of a stream of bytes, with a limit on each. `push` returns the whole lines; after a line beyond the limit
 * `overflow` is true and nothing more comes out.
 */
export function lineSplitter(limit: number): { push(chunk: Uint8Array): string[]; readonly overflow: boolean } {
  let parts: Uint8Array[] = [];
  let length = 0;
  let overflow = false;
  return {
    push(chunk) {
      const lines: string[] = [];
      let start = 0;
      while (!overflow && start < chunk.length) {
        const end = chunk.indexOf(0x0a, start);
        const part = chunk.subarray(start, end === -1 ? chunk.length : end);
        if (length + part.length > limit) {
          overflow = true;
          parts = [];
          break;
        }
        parts.push(part);
        length += part.length;
        if (end === -1) break;
        lines.push(Buffer.concat(parts).toString('utf8'));
        parts = [];
        length = 0;
        start = end + 1;
      }
      // What waits for its end is copied: the caller may use its buffer again.
      if (parts.length > 0) parts = [Uint8Array.from(Buffer.concat(parts))];
      return lines;
    },
    get overflow() {
      return overflow;
    },
  };
}
