import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Result } from '@airlock/core/result.ts';
import { SPDM_ERRORS } from '../src/errors.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import { makePair } from './support/pair.ts';
import { authenticate, type Believed, useSession } from './support/whole-exchange.ts';

type Version = '1.1' | '1.2' | '1.3' | '1.4';

/** Changes one message of an exchange on its way; `request` says which way. */
type Change = (bytes: Uint8Array, index: number, request: boolean) => Uint8Array;

function attempt(version: Version, session: boolean, change: Change): Result<Believed> {
  // MCTP: there is no padding that nobody looks at.
  const pair = makePair({ version, binding: 'mctp' });
  let index = 0;
  return runAtOnce(session ? useSession(pair.connection) : authenticate(pair.connection), (bytes) => {
    const here = index++;
    const answered = pair.responder.answer(change(bytes, here, true));
    return change(answered.ok ? answered.value : new Uint8Array(), here, false);
  });
}

/** Sizes of all messages, requests and answers. */
function sizes(version: Version, session: boolean): { request: number[]; answer: number[] } {
  const seen = { request: [] as number[], answer: [] as number[] };
  const honest = attempt(version, session, (bytes, _, request) => {
    (request ? seen.request : seen.answer).push(bytes.length);
    return bytes;
  });
  assert.ok(honest.ok, JSON.stringify(honest));
  return seen;
}

function refused(result: Result<Believed>, what: string): void {
  assert.equal(result.ok, false, `accepted: ${what}`);
  if (!result.ok) assert.ok(result.error.code in SPDM_ERRORS, `${what}: code ${result.error.code} is in no catalogue`);
}

for (const version of ['1.1', '1.2', '1.3', '1.4'] as const) {
  for (const session of [false, true]) {
    const name = `SPDM ${version}${session ? ', with a session' : ''}`;
    test(`${name}: a byte that is changed on the way, either way, is never believed`, () => {
      const { request, answer } = sizes(version, session);
      const honest = attempt(version, session, (bytes) => bytes);
      let tried = 0;
      for (const [way, lengths] of [request, answer].entries()) {
        for (const [index, length] of lengths.entries()) {
          // Every byte of the headers, and of what follows one in fifteen or so.
          for (let at = 0; at < length; at += at < 12 ? 1 : 13 + (at % 7)) {
            const bit = 1 << ((at + index) % 8);
            const result = attempt(version, session, (bytes, here, isRequest) => {
              if (here !== index || isRequest !== (way === 0)) return bytes;
              const changed = bytes.slice();
              // Records have a random tail: their length differs from one exchange to the next.
              changed[at % changed.length] = (changed[at % changed.length] ?? 0) ^ bit;
              return changed;
            });
            const what = `${way === 0 ? 'request' : 'answer'} ${index}, byte ${at} of ${length}, bit ${bit}`;
            tried++;
            // A session's keys cover the chain itself, not what was said to get it: there, what changes nothing may pass.
            if (session && (index === 3 || index === 4) && result.ok) assert.deepEqual(result, honest, what);
            else refused(result, what);
          }
        }
      }
      assert.ok(tried > 150, `${tried} changes`);
    });
  }

  test(`SPDM ${version}: answers that are cut, lengthened, repeated, swapped or of an earlier connection`, () => {
    const { answer } = sizes(version, false);
    const earlier: Uint8Array[] = [];
    attempt(version, false, (bytes, _, request) => {
      if (!request) earlier.push(bytes);
      return bytes;
    });
    for (const [index, length] of answer.entries()) {
      for (const cut of [1, 2, 3, 4, 5, Math.floor(length / 2), length - 1, length]) {
        refused(
          attempt(version, false, (bytes, here, request) =>
            here === index && !request ? bytes.slice(0, Math.max(0, bytes.length - cut)) : bytes,
          ),
          `answer ${index} shorter by ${cut}`,
        );
      }
      for (const more of [1, 3, 4, 100]) {
        refused(
          attempt(version, false, (bytes, here, request) =>
            here === index && !request ? Uint8Array.from([...bytes, ...new Uint8Array(more).fill(more & 1)]) : bytes,
          ),
          `answer ${index} longer by ${more}`,
        );
      }
      let before = new Uint8Array();
      if (index > 0) {
        refused(
          attempt(version, false, (bytes, here, request) => {
            if (request) return bytes;
            if (here === index - 1) before = new Uint8Array(bytes);
            return here === index ? before : bytes;
          }),
          `answer ${index - 1} again in place of ${index}`,
        );
      }
      // Only what a signature makes fresh differs between two connections.
      const old = earlier[index] ?? new Uint8Array();
      const replayed = attempt(version, false, (bytes, here, request) => (here === index && !request ? old : bytes));
      const fresh = replayed.ok ? 'as before' : replayed.error.code;
      const deterministic = index <= 4;
      assert.equal(replayed.ok, deterministic, `an earlier answer ${index}: ${fresh}`);
    }
  });
}
