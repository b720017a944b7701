import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SPDM_VERSIONS, VERSION_BYTE } from '../src/algorithms.ts';
import { ERROR_CODE, nameOfError, REQUEST, RESPONSE } from '../src/messages/codes.ts';
import { getCertificate } from '../src/requester/certificates.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import { establishSession } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { codeOf, must } from './support/must.ts';
import { makePair, type Pair } from './support/pair.ts';
import { useSession } from './support/whole-exchange.ts';

function ask(pair: Pair, message: readonly number[]): { code: number; error: string } {
  const { binding } = pair.connection.options;
  const answer = must(binding.unwrap(pair.answer(must(binding.wrap('plain', Uint8Array.from(message)))))).message;
  return { code: answer[1] ?? 0, error: answer[1] === RESPONSE.ERROR ? nameOfError(answer[2] ?? 0) : '' };
}

test('nothing before a version, nothing before algorithms, nothing in a session’s place', () => {
  for (const version of SPDM_VERSIONS) {
    const byte = VERSION_BYTE[version];
    const pair = makePair({ version, binding: 'mctp' });
    for (const code of Object.values(REQUEST)) {
      if (code !== REQUEST.GET_VERSION) assert.equal(ask(pair, [byte, code, 0, 0]).error, 'UnexpectedRequest');
    }
    must(pair.run(start(pair.connection)));
    assert.equal(ask(pair, [byte, REQUEST.GET_CAPABILITIES, 0, 0]).error, 'UnexpectedRequest');
    assert.equal(ask(pair, [byte, REQUEST.NEGOTIATE_ALGORITHMS, 0, 0]).error, 'UnexpectedRequest');
    for (const code of [REQUEST.HEARTBEAT, REQUEST.KEY_UPDATE, REQUEST.END_SESSION, REQUEST.FINISH, REQUEST.PSK_FINISH])
      assert.equal(ask(pair, [byte, code, 1, 0]).error, 'SessionRequired', String(code));
    assert.equal(ask(pair, [byte ^ 1, REQUEST.GET_DIGESTS, 0, 0]).error, 'VersionMismatch');
    assert.equal(ask(pair, [byte, REQUEST.RESPOND_IF_READY, 0x81, 1]).error, 'UnexpectedRequest');
    assert.equal(ask(pair, [byte, 0xaa, 0, 0]).error, 'UnsupportedRequest');
    assert.equal(ask(pair, [byte, REQUEST.GET_DIGESTS]).error, 'InvalidRequest');
    // What is of a later version is not known to an earlier one.
    if (version === '1.1') assert.equal(ask(pair, [byte, REQUEST.GET_CSR, 0, 0]).error, 'UnsupportedRequest');
    if (version === '1.2') assert.equal(ask(pair, [byte, REQUEST.GET_ENDPOINT_INFO, 1, 0]).error, 'UnsupportedRequest');
  }
});

test('a handshake in the middle of another: records of a session are of that session only', () => {
  const pair = makePair({ version: '1.2', binding: 'mctp' });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getCertificate(connection, 0, null)));
  const one = must(pair.run(establishSession(connection, { slot: 0 }))).session;
  const two = must(pair.run(establishSession(connection, { slot: 0 }))).session;
  assert.equal(pair.responder.sessions, 2);
  const { binding } = connection.options;
  const heartbeat = Uint8Array.of(0x12, REQUEST.HEARTBEAT, 0, 0);
  const record = must(one.records.protect(binding.wrapApplication(heartbeat)));
  // The other session's id in front of it.
  record.set([two.id & 0xff, (two.id >> 8) & 0xff, (two.id >> 16) & 0xff, two.id >>> 24]);
  const answer = must(binding.unwrap(pair.answer(must(binding.wrap('secured', record)))));
  assert.equal(answer.kind, 'plain');
  assert.deepEqual([...answer.message.slice(1, 3)], [RESPONSE.ERROR, ERROR_CODE.DecryptError]);
  // A forgery ends the session that it pretends to be of.
  assert.equal(pair.responder.sessions, 1);
});

test('sessions are limited, and a new GET_VERSION ends them all', () => {
  const pair = makePair({ version: '1.2', responder: { sessionLimit: 2 } });
  const { connection } = pair;
  must(pair.run(start(connection)));
  must(pair.run(getCertificate(connection, 0, null)));
  must(pair.run(establishSession(connection, { slot: 0 })));
  must(pair.run(establishSession(connection, { slot: 0 })));
  assert.equal(codeOf(pair.run(establishSession(connection, { slot: 0 }))), 'peer-error');
  must(pair.run(start(connection)));
  assert.equal(pair.responder.sessions, 0);
});

test('whatever comes, in whatever order: an answer, never an exception', () => {
  // Genuine requests of a whole exchange, to be changed and put in any order.
  const genuine: Uint8Array[] = [];
  for (const version of SPDM_VERSIONS) {
    const recorded = makePair({ version });
    must(
      runAtOnce(useSession(recorded.connection), (bytes) => {
        genuine.push(bytes);
        return recorded.answer(bytes);
      }),
    );
  }
  const change = fc.tuple(fc.nat(10_000), fc.nat(255), fc.constantFrom('none', 'set', 'cut', 'grow'));
  const step = fc.tuple(fc.nat(genuine.length - 1), change);
  fc.assert(
    fc.property(
      fc.constantFrom(...SPDM_VERSIONS),
      fc.array(step, { minLength: 1, maxLength: 25 }),
      (version, steps) => {
        const pair = makePair({ version, mutual: 'encapsulated' });
        must(pair.run(start(pair.connection)));
        for (const [index, [at, value, how]] of steps) {
          let bytes = (genuine[index] ?? new Uint8Array()).slice();
          if (how === 'set') bytes[8 + (at % Math.max(1, bytes.length - 8))] = value;
          if (how === 'cut') bytes = bytes.slice(0, at % (bytes.length + 1));
          if (how === 'grow') bytes = Uint8Array.from([...bytes, ...new Uint8Array(value)]);
          const answered = pair.responder.answer(bytes);
          // Only what is no message of the binding has no answer.
          if (!answered.ok) assert.match(answered.error.code, /^doe-/);
        }
      },
    ),
    { numRuns: 150 },
  );
});
