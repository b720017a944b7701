import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeAlgorithms, encodeAlgorithms } from '../src/messages/negotiation.ts';
import { ALL_PREFERENCES, DEFAULT_PREFERENCES, selectVersion } from '../src/negotiate.ts';
import { runAtOnce } from '../src/requester/procedure.ts';
import { start } from '../src/requester/start.ts';
import { codeOf, must } from './support/must.ts';
import { makePair } from './support/pair.ts';
import { authenticate } from './support/whole-exchange.ts';

const entry = (major: number, minor: number, alpha = 0) => ({ major, minor, update: 0, alpha });

test('the highest common version, drafts and unknown ones left out', () => {
  assert.equal(must(selectVersion(['1.1', '1.2', '1.3', '1.4'], [entry(1, 1), entry(1, 3), entry(1, 2)])), '1.3');
  assert.equal(must(selectVersion(['1.2', '1.1'], [entry(1, 1), entry(1, 2), entry(1, 9), entry(2, 0)])), '1.2');
  assert.equal(must(selectVersion(['1.2', '1.1'], [entry(1, 1), entry(1, 2, 3)])), '1.1');
  assert.equal(codeOf(selectVersion(['1.2'], [entry(1, 0), entry(1, 1)])), 'version-unacceptable');
  assert.equal(codeOf(selectVersion(['1.2'], [entry(1, 2, 1)])), 'version-unacceptable');
});

test('without being asked, nothing below 128 bits is offered', () => {
  assert.ok(!DEFAULT_PREFERENCES.signatures.some((name) => name.endsWith('2048')));
  assert.ok(!DEFAULT_PREFERENCES.exchanges.includes('ffdhe2048'));
});

test('a version that somebody strikes out of the list is missed in the first signature', () => {
  const pair = makePair({
    version: '1.2',
    preferences: { versions: ['1.1', '1.2'] },
  });
  const downgraded = runAtOnce(authenticate(pair.connection), (bytes) => {
    const answer = pair.answer(bytes);
    // VERSION behind its DOE header: one entry instead of two.
    if (answer[9] !== 0x04) return answer;
    const changed = answer.slice();
    changed[13] = 1;
    changed.set([0, 0], 16);
    return changed.slice(0, 16).fill(4, 4, 5);
  });
  assert.equal(codeOf(downgraded), 'signature-wrong');
  assert.equal(pair.connection.version, '1.1');
});

test('what is selected must have been offered, once, and be there where it is needed', () => {
  for (const version of ['1.1', '1.2', '1.3', '1.4'] as const) {
    const { connection, answer } = makePair({
      version,
      preferences: { hashes: ['sha384'], aeads: ['aes-256-gcm'] },
    });
    let honest: Uint8Array | undefined;
    must(
      runAtOnce(start(connection), (bytes) => {
        const given = answer(bytes);
        if (given[9] === 0x63) honest = given;
        return given;
      }),
    );
    const message = must(decodeAlgorithms(honest?.slice(8) ?? new Uint8Array(), connection.context)).message;
    type Selection = typeof message;
    const tables = (change: Partial<Selection['tables']>) => ({ tables: { ...message.tables, ...change } });
    const bad: [string, Partial<Selection>][] = [
      ['no hash', { hash: 0 }],
      ['a hash that was not offered', { hash: 1 }],
      ['two hashes', { hash: 3 }],
      ['SM3', { hash: 0x40 }],
      ['no signature algorithm', { signature: 0 }],
      ['another signature algorithm', { signature: 0x80 }],
      ['two signature algorithms', { signature: 0x90 }],
      ['no group', tables({ dhe: 0 })],
      ['another group', tables({ dhe: 1 })],
      ['no AEAD', tables({ aead: 0 })],
      ['another AEAD', tables({ aead: 1 })],
      ['two AEADs', tables({ aead: 6 })],
      ['no key schedule', tables({ keySchedule: 0 })],
      ['a requester’s signature that was not offered', tables({ requesterSignature: 0x10 })],
      ['no measurement hash', { measurementHash: 0 }],
      ['two measurement hashes', { measurementHash: 6 }],
      ['no measurement specification', { measurementSpecification: 0 }],
      ['a measurement specification that was not offered', { measurementSpecification: 2 }],
      ...(version === '1.1'
        ? []
        : ([
            ['no opaque data format', { otherParameters: 0 }],
            ['an opaque data format that was not offered', { otherParameters: 1 }],
          ] as [string, Partial<Selection>][])),
      ...(version === '1.3' || version === '1.4'
        ? ([
            ['a log that was not offered', { measurementLog: 1 }],
            ['several keys of a requester that has one', { otherParameters: 0x12 }],
          ] as [string, Partial<Selection>][])
        : []),
      ...(version === '1.4'
        ? ([
            ['a PQC signature that was not offered', { pqcSignature: 1 }],
            ['a PQC signature alone', { signature: 0, pqcSignature: 1 }],
            ['a KEM that was not offered', tables({ dhe: 0, kem: 1 })],
          ] as [string, Partial<Selection>][])
        : []),
    ];
    for (const [what, change] of bad) {
      const forged = encodeAlgorithms(version, {
        ...message,
        present: [
          ...new Set([
            ...message.present,
            ...(change.tables?.requesterSignature ? (['requesterSignature'] as const) : []),
          ]),
        ].sort(
          (a, b) =>
            ['dhe', 'aead', 'requesterSignature', 'keySchedule', 'kem'].indexOf(a) -
            ['dhe', 'aead', 'requesterSignature', 'keySchedule', 'kem'].indexOf(b),
        ),
        ...change,
      });
      const wrapped = must(connection.options.binding.wrap('plain', forged));
      const refused = runAtOnce(start(connection), (bytes) => (bytes[9] === 0xe3 ? wrapped : answer(bytes)));
      assert.ok(['algorithms-unacceptable', 'message-malformed'].includes(codeOf(refused)), `${version}: ${what}`);
      assert.equal(connection.negotiated, null);
    }
  }
});

test('a responder selects what both can, in its own order, and nothing else', () => {
  const pair = makePair({
    version: '1.2',
    preferences: { hashes: ['sha512', 'sha256'], exchanges: ['secp384r1', 'secp256r1'] },
  });
  const agreed = must(pair.run(start(pair.connection)));
  assert.deepEqual([agreed.hash, agreed.exchange], ['sha512', 'secp384r1']);
  const apart = makePair({
    version: '1.2',
    preferences: { hashes: ['sha512'] },
    requester: { preferences: { ...ALL_PREFERENCES, versions: ['1.2'], hashes: ['sha256'] } },
  });
  assert.equal(codeOf(apart.run(start(apart.connection))), 'peer-error');
});

test('an extended algorithm that a table selects is none that was offered', () => {
  const { connection, answer } = makePair({ version: '1.3' });
  const extended = runAtOnce(start(connection), (bytes) => {
    const given = answer(bytes);
    if (given[9] !== 0x63) return given;
    // Behind the DOE header and 36 bytes: the first table, of which one more algorithm of four bytes is said to be.
    const message = given.slice(8);
    const end = message[4] ?? 0;
    const changed = Buffer.concat([message.subarray(0, 40), new Uint8Array(4), message.subarray(40, end)]);
    changed[4] = changed.length;
    changed[37] = 0x21;
    const header = given.slice(0, 8);
    header[4] = (8 + changed.length) / 4;
    return new Uint8Array(Buffer.concat([header, changed]));
  });
  assert.equal(codeOf(extended), 'message-malformed');
});
