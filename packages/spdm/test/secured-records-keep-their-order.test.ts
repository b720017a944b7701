import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AEADS, type AeadName } from '../src/algorithms.ts';
import { doeBinding } from '../src/doe/binding.ts';
import { mctpBinding } from '../src/mctp/binding.ts';
import { nodeSpdmCrypto } from '../src/node-crypto.ts';
import type { Binding } from '../src/secured/binding.ts';
import { createRecordSession, type RecordOptions, type RecordSession } from '../src/secured/records.ts';
import { codeOf, must } from './support/must.ts';

const crypto = nodeSpdmCrypto();
const secrets = (seed: number) => ({
  request: new Uint8Array(48).fill(seed),
  response: new Uint8Array(48).fill(seed + 100),
});

interface Pair {
  readonly requester: RecordSession;
  readonly responder: RecordSession;
}

function pair(given: Partial<RecordOptions> = {}): Pair {
  const make = (role: RecordOptions['role']) => {
    const session = createRecordSession({
      crypto,
      suite: { version: '1.2', hash: 'sha384', aead: 'aes-256-gcm' },
      binding: doeBinding,
      sessionId: 0xfffe_ffff,
      protection: 'encrypted',
      ...given,
      role,
    });
    session.install(secrets(1));
    return session;
  };
  return { requester: make('requester'), responder: make('responder') };
}

const text = (words: string) => new Uint8Array(Buffer.from(words));

const kinds: readonly { name: string; given: Partial<RecordOptions> }[] = [
  ...AEADS.map((aead: AeadName) => ({
    name: `doe, encrypted, ${aead}`,
    given: { suite: { version: '1.2', hash: 'sha384', aead } as const },
  })),
  { name: 'doe, authenticated', given: { protection: 'authenticated' } },
  { name: 'mctp, encrypted', given: { binding: mctpBinding } },
  { name: 'mctp, authenticated', given: { binding: mctpBinding, protection: 'authenticated' } },
];

for (const { name, given } of kinds) {
  test(`${name}: both directions, any data`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), fc.uint8Array({ maxLength: 200 })), { maxLength: 12 }),
        (messages) => {
          const { requester, responder } = pair(given);
          for (const [up, data] of messages) {
            const [from, to] = up ? [requester, responder] : [responder, requester];
            assert.deepEqual(must(to.unprotect(must(from.protect(data)))), data);
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  test(`${name}: any byte changed, cut or added is refused`, () => {
    const record = must(pair(given).requester.protect(text('START_INTERFACE')));
    const spoilt = [
      ...Array.from(record, (byte, at) => Uint8Array.from(record, (old, i) => (i === at ? byte ^ 1 : old))),
      ...Array.from(record, (_, at) => record.slice(0, at)),
      Uint8Array.of(...record, 1),
      Uint8Array.of(...record, 0, 0, 0, 0),
    ];
    for (const wrong of spoilt)
      assert.match(
        codeOf(pair(given).responder.unprotect(wrong)),
        /^record-(invalid|forged|session-unknown|out-of-order)$/,
      );
  });

  test(`${name}: repeated, reordered, left out and reflected records are refused`, () => {
    const again = pair(given);
    const first = must(again.requester.protect(text('one')));
    const second = must(again.requester.protect(text('two')));
    must(again.responder.unprotect(first));
    assert.match(codeOf(again.responder.unprotect(first)), /^record-(forged|out-of-order)$/);
    const skipped = pair(given);
    assert.match(codeOf(skipped.responder.unprotect(second)), /^record-(forged|out-of-order)$/);
    const reflected = pair(given);
    assert.match(
      codeOf(reflected.requester.unprotect(must(reflected.requester.protect(text('me'))))),
      /^record-forged$/,
    );
  });
}

test('a forgery closes the session; a record of another session does not', () => {
  const { requester, responder } = pair();
  const record = must(requester.protect(text('data')));
  const other = record.slice();
  other[0] = 1;
  assert.equal(codeOf(responder.unprotect(other)), 'record-session-unknown');
  assert.equal(responder.closed, false);
  const forged = record.slice();
  forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 0x80;
  assert.equal(codeOf(responder.unprotect(forged)), 'record-forged');
  assert.equal(responder.closed, true);
  assert.equal(codeOf(responder.unprotect(record)), 'session-closed');
  assert.equal(codeOf(responder.protect(record)), 'session-closed');
  responder.install(secrets(1));
  assert.equal(codeOf(responder.protect(record)), 'session-closed');
});

test('MCTP: a record that comes twice is refused and the next one is still good', () => {
  const { requester, responder } = pair({ binding: mctpBinding });
  const first = must(requester.protect(text('one')));
  must(responder.unprotect(first));
  assert.equal(codeOf(responder.unprotect(first)), 'record-out-of-order');
  assert.deepEqual(must(responder.unprotect(must(requester.protect(text('two'))))), text('two'));
});

test('MCTP: the two bytes of the sequence number in the header wrap, the nonce does not', () => {
  const { requester, responder } = pair({ binding: mctpBinding, protection: 'authenticated' });
  const seen = new Set<string>();
  for (let i = 0; i < 0x10002; i++) {
    const record = must(requester.protect(new Uint8Array()));
    if (i < 2 || i >= 0x10000) {
      assert.equal(record[4], i % 0x10000);
      seen.add(Buffer.from(record).toString('hex'));
    }
    must(responder.unprotect(record));
  }
  assert.equal(seen.size, 4, 'the record after 65536 others is not the first one again');
});

test('keys of one phase open nothing of another', () => {
  const { requester, responder } = pair();
  const before = must(requester.protect(text('handshake')));
  requester.install(secrets(2));
  responder.install(secrets(2));
  assert.equal(codeOf(responder.unprotect(before)), 'record-forged');
});

test('a key update of one direction, and of both', () => {
  const { requester, responder } = pair();
  must(responder.unprotect(must(requester.protect(text('UpdateKey')))));
  responder.renew('request');
  must(requester.unprotect(must(responder.protect(text('ACK under the old response key')))));
  requester.renew('request');
  must(responder.unprotect(must(requester.protect(text('VerifyNewKey')))));

  must(responder.unprotect(must(requester.protect(text('UpdateAllKeys')))));
  responder.renew('request');
  responder.renew('response');
  requester.renew('response');
  must(requester.unprotect(must(responder.protect(text('ACK under the new response key')))));
  requester.renew('request');
  must(responder.unprotect(must(requester.protect(text('VerifyNewKey')))));
});

test('a refused update is taken back by the first record under the old key, and only by the first', () => {
  const { requester, responder } = pair();
  requester.renew('response');
  assert.deepEqual(must(requester.unprotect(must(responder.protect(text('ERROR'))))), text('ERROR'));
  assert.deepEqual(must(requester.unprotect(must(responder.protect(text('on with it'))))), text('on with it'));

  const done = pair();
  done.requester.renew('response');
  const old = must(done.responder.protect(text('old')));
  done.responder.renew('response');
  must(done.requester.unprotect(must(done.responder.protect(text('new')))));
  assert.equal(codeOf(done.requester.unprotect(old)), 'record-forged');
});

test('a key protects as many records as it may, and no more', () => {
  const { requester, responder } = pair({ limitExponent: 2 });
  for (let i = 0; i < 4; i++) must(responder.unprotect(must(requester.protect(text(`${i}`)))));
  assert.equal(codeOf(requester.protect(text('5'))), 'record-exhausted');
  requester.renew('request');
  responder.renew('request');
  must(responder.unprotect(must(requester.protect(text('under the next key')))));
});

test('a responder that ignores the limit is refused by its peer', () => {
  const limited = pair({ limitExponent: 1 });
  const careless = pair();
  must(limited.requester.unprotect(must(careless.responder.protect(text('1')))));
  must(limited.requester.unprotect(must(careless.responder.protect(text('2')))));
  assert.equal(codeOf(limited.requester.unprotect(must(careless.responder.protect(text('3'))))), 'record-exhausted');
});

test('data that state more than there is close the session', () => {
  const { requester } = pair();
  const suite = { version: '1.2', hash: 'sha384', aead: 'aes-256-gcm' } as const;
  // A peer that protects what it likes: the same keys, without the length in front.
  const liar = createRecordSession({
    crypto: { ...crypto, seal: (aead, key, iv, start, plain) => crypto.seal(aead, key, iv, start, plain.fill(0xff)) },
    suite,
    binding: doeBinding,
    sessionId: 0xfffe_ffff,
    protection: 'encrypted',
    role: 'responder',
  });
  liar.install(secrets(1));
  assert.equal(codeOf(requester.unprotect(must(liar.protect(text('data'))))), 'record-invalid');
  assert.equal(requester.closed, true);
});

test('the largest data fit, one byte more does not', () => {
  const { requester, responder } = pair();
  const largest = new Uint8Array(0xffff - 16 - 2).fill(7);
  assert.deepEqual(must(responder.unprotect(must(requester.protect(largest)))), largest);
  assert.equal(codeOf(requester.protect(new Uint8Array(0xffff - 16 - 1))), 'record-too-large');
  const mctp = pair({ binding: mctpBinding });
  assert.deepEqual(must(mctp.responder.unprotect(must(mctp.requester.protect(largest)))), largest);
});

test('random bytes hide the length where the transport has them', () => {
  const lengths = (binding: Binding) => {
    const { requester } = pair({ binding });
    return new Set(Array.from({ length: 200 }, () => must(requester.protect(text('same'))).length));
  };
  assert.equal(lengths(doeBinding).size, 1);
  const mctp = lengths(mctpBinding);
  assert.ok(mctp.size > 5);
  assert.ok(Math.max(...mctp) - Math.min(...mctp) <= 32);
});

test('padding of the transport is taken when it is zero and shorter than a dword', () => {
  for (const count of [0, 1, 2, 3]) {
    const { requester, responder } = pair();
    const record = must(requester.protect(text('data')));
    must(responder.unprotect(Uint8Array.of(...record, ...new Uint8Array(count))));
  }
  const mctp = pair({ binding: mctpBinding });
  const record = must(mctp.requester.protect(text('data')));
  assert.equal(codeOf(mctp.responder.unprotect(Uint8Array.of(...record, 0))), 'record-invalid');
});

test('big-endian sequence numbers agree with themselves and with nothing else', () => {
  const big = pair({ order: 'big' });
  const little = pair();
  const zero = must(big.requester.protect(text('0')));
  const one = must(big.requester.protect(text('1')));
  must(big.responder.unprotect(zero));
  must(big.responder.unprotect(one));
  must(little.responder.unprotect(zero));
  assert.equal(codeOf(little.responder.unprotect(one)), 'record-forged');
});
