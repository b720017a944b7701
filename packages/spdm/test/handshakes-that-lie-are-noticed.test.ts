import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok } from '@airlock/core/result.ts';
import { DHE_GROUPS, EXCHANGE_SIZE, type ExchangeName, KEMS } from '../src/algorithms.ts';
import type { SpdmCrypto } from '../src/crypto.ts';
import { REQUEST } from '../src/messages/codes.ts';
import { getCertificate } from '../src/requester/certificates.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import { establishPskSession } from '../src/requester/psk-session.ts';
import { endSession, establishSession, heartbeat, updateKeys } from '../src/requester/session.ts';
import { start } from '../src/requester/start.ts';
import { codeOf, must } from './support/must.ts';
import { crypto, makePair, type Pair, type PairOptions, PSK, testKey } from './support/pair.ts';

function started(options: PairOptions): Pair {
  const pair = makePair({ binding: 'mctp', ...options });
  must(pair.run(start(pair.connection)));
  must(pair.run(getCertificate(pair.connection, 0, null)));
  return pair;
}

/** A responder with the genuine key, and cryptography that lies in one place. */
function lying(change: Partial<SpdmCrypto>, options: Partial<PairOptions> = {}): Pair {
  return started({ version: '1.4', ...options, responder: { ...options.responder, crypto: { ...crypto, ...change } } });
}

const bad = (exchange: ExchangeName): readonly Uint8Array[] => {
  const size = EXCHANGE_SIZE[exchange].response;
  const ones = new Uint8Array(size).fill(0xff);
  const one = new Uint8Array(size);
  one[size - 1] = 1;
  return [new Uint8Array(size), one, ones];
};

for (const exchange of DHE_GROUPS) {
  test(`${exchange}: values that are no key are not used, however well signed`, () => {
    for (const data of bad(exchange)) {
      const pair = lying(
        { answerExchange: () => ({ data, secret: new Uint8Array(32) }) },
        { preferences: { exchanges: [exchange] } },
      );
      assert.equal(codeOf(pair.run(establishSession(pair.connection, { slot: 0 }))), 'exchange-data-invalid');
      assert.equal(pair.connection.sessions.size, 0);
    }
    const started = crypto.startExchange(exchange);
    assert.equal(started.finish(started.data.slice(1)), undefined);
    for (const data of bad(exchange)) assert.equal(crypto.answerExchange(exchange, data), undefined);
  });
}

for (const exchange of KEMS) {
  test(`${exchange}: a ciphertext of another key gives another secret, which its MAC shows`, () => {
    const data = new Uint8Array(EXCHANGE_SIZE[exchange].response).fill(3);
    const pair = lying(
      { answerExchange: () => ({ data, secret: new Uint8Array(32) }) },
      { preferences: { exchanges: [exchange] } },
    );
    assert.equal(codeOf(pair.run(establishSession(pair.connection, { slot: 0 }))), 'verify-data-wrong');
    // Coefficients beyond the modulus make no encapsulation key.
    const key = new Uint8Array(EXCHANGE_SIZE[exchange].request).fill(0xff);
    assert.equal(crypto.answerExchange(exchange, key), undefined);
    assert.equal(crypto.startExchange(exchange).finish(data.slice(1)), undefined);
  });
}

test('an exchange that both ends do not come out of with the same secret', () => {
  const answerExchange: SpdmCrypto['answerExchange'] = (name, peer) => {
    const honest = crypto.answerExchange(name, peer);
    return honest === undefined ? undefined : { ...honest, secret: honest.secret.map((byte) => byte ^ 1) };
  };
  for (const clear of [false, true]) {
    const pair = lying(
      { answerExchange },
      { requester: { clearHandshake: clear }, responder: { clearHandshake: clear } },
    );
    const result = pair.run(establishSession(pair.connection, { slot: 0 }));
    // In the clear the responder is the first to notice: the requester's MAC is wrong for it.
    assert.equal(codeOf(result), clear ? 'peer-error' : 'verify-data-wrong');
    assert.equal(pair.connection.sessions.size, 0);
  }
});

test('a pre-shared key that the other end does not have, by either end', () => {
  for (const version of ['1.1', '1.2', '1.3', '1.4'] as const) {
    const pair = started({ version, responder: { psk: () => new Uint8Array(32) } });
    assert.equal(codeOf(pair.run(establishPskSession(pair.connection))), 'verify-data-wrong');
    const unknown = started({ version, requester: { psk: { ...PSK, hint: Uint8Array.of(9) } } });
    assert.equal(codeOf(unknown.run(establishPskSession(unknown.connection))), 'peer-error');
    const one = started({ version, responder: { pskContext: false } });
    const { session } = must(one.run(establishPskSession(one.connection)));
    must(one.run(heartbeat(one.connection, session)));
  }
});

test('a requester whose key is not the one of its chain is not let in', () => {
  for (const mutual of ['plain', 'encapsulated', 'digests'] as const) {
    const other = testKey('ecdsa-p256', 'somebody else');
    const honest = makePair({ version: '1.2', mutual }).connection.options.identity;
    assert.ok(honest !== undefined);
    const pair = started({ version: '1.2', mutual, requester: { identity: { ...honest, key: other.signing } } });
    const result = pair.run(establishSession(pair.connection, { slot: 0 }));
    assert.equal(codeOf(result), 'peer-error');
    assert.equal(pair.responder.sessions, 0);
    assert.equal(pair.connection.sessions.size, 0);
  }
});

test('a requester that is asked and does not say who it is, or is not trusted', () => {
  for (const optional of [false, true]) {
    const mutual = { mode: 'encapsulated' as const, optional, trust: () => ok(null) };
    const anonymous = started({ version: '1.2', responder: { mutual } });
    const result = anonymous.run(establishSession(anonymous.connection, { slot: 0 }));
    if (optional) assert.equal(must(result).mutual, false);
    else assert.equal(codeOf(result), 'peer-error');
  }
  const distrusted = started({
    version: '1.2',
    mutual: 'encapsulated',
    responder: {
      mutual: { mode: 'encapsulated', trust: () => ({ ok: false, error: { code: 'chain-untrusted', message: '' } }) },
    },
  });
  assert.equal(codeOf(distrusted.run(establishSession(distrusted.connection, { slot: 0 }))), 'peer-error');
});

test('a key update that is answered with another tag ends the session', () => {
  const pair = started({ version: '1.2' });
  const { connection } = pair;
  const { session } = must(pair.run(establishSession(connection, { slot: 0 })));
  const procedure = updateKeys(connection, session, false);
  // The request is changed before it is protected: the answer's tag is not the requester's.
  const honest = session.records.protect.bind(session.records);
  const records = session.records as { protect: typeof honest };
  records.protect = (data) => {
    const changed = data.slice();
    const at = changed.indexOf(REQUEST.KEY_UPDATE);
    if (at >= 0) changed[at + 2] = (changed[at + 2] ?? 0) ^ 1;
    return honest(changed);
  };
  assert.equal(codeOf(runAtOnce(procedure, pair.answer)), 'message-unexpected');
  assert.equal(session.phase, 'closed');
  assert.equal(codeOf(pair.run(heartbeat(connection, session))), 'state-wrong');
  must(pair.run(endSession(connection, session)));
});

test('what is said of a session that does not exist, or ended, is not said', () => {
  const pair = started({ version: '1.3' });
  const { connection } = pair;
  const { session } = must(pair.run(establishSession(connection, { slot: 0 })));
  must(pair.run(endSession(connection, session)));
  assert.equal(pair.responder.sessions, 0);
  assert.equal(codeOf(pair.run(heartbeat(connection, session))), 'state-wrong');
  // A new start forgets what was open.
  const { session: other } = must(pair.run(establishSession(connection, { slot: 0 })));
  must(pair.run(start(connection)));
  assert.equal(other.records.closed, true);
});
