import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDENTITY_TIERS, levelRank, TRUST_LEVELS } from '@airlock/core/level.ts';
import fc from 'fast-check';
import { refusingEngine } from '../src/external/engine.ts';
import { narrowDecision, printable, readAnswer, refuseDecision } from '../src/external/narrow.ts';
import { decision, device, inventory } from './external-fixtures.ts';

const problem = { code: 'bundle-tampered', message: 'policy.wasm is not what was signed', hint: 'sign it again' };
const anyDecision = fc
  .record({
    level: fc.constantFrom(...TRUST_LEVELS),
    tier: fc.constantFrom(...IDENTITY_TIERS),
    grantable: fc.constantFrom(...TRUST_LEVELS),
    pending: fc.array(fc.constantFrom('serial', 'features.negotiated')),
  })
  .map(decision);
const anyAnswer = fc.oneof(
  fc.jsonValue(),
  fc.record(
    {
      level: fc.oneof(fc.constantFrom(...TRUST_LEVELS), fc.string()),
      deny: fc.oneof(fc.boolean(), fc.string()),
      reason: fc.string(),
    },
    { requiredKeys: [] },
  ),
);

test('whatever an engine answers, no level and no way up is higher than before', () => {
  fc.assert(
    fc.property(anyDecision, anyAnswer, (native, value) => {
      const answer = readAnswer(value);
      const after = answer.ok ? narrowDecision(native, answer.value, 'opa') : refuseDecision(native, answer.error);
      assert.ok(levelRank(after.level) <= levelRank(native.level));
      assert.ok(levelRank(after.grantable) <= levelRank(native.grantable));
      if (after.level !== native.level) {
        assert.equal(after.reason, answer.ok ? 'external-narrowed' : 'external-failed');
        assert.equal(after.changes[0]?.level, native.level);
        assert.ok(after.detail.length > 0);
      } else assert.deepEqual(after, native);
      if (!answer.ok) assert.equal(after.level, 'disconnected');
      assert.equal(after.rule, native.rule);
    }),
  );
});

test('an answer is {level?, deny?, reason?}; anything else is wrong', () => {
  const right: [unknown, string | null][] = [
    [{}, null],
    [{ deny: false }, null],
    [{ deny: true }, 'disconnected'],
    [{ level: 'limited' }, 'limited'],
    [{ level: 'tcb', deny: true }, 'disconnected'],
    [{ reason: 'nothing to say' }, null],
  ];
  for (const [value, level] of right) {
    const answer = readAnswer(value);
    assert.ok(answer.ok);
    assert.equal(answer.value.level, level);
  }
  const wrong: unknown[] = [
    undefined,
    null,
    true,
    7,
    'deny',
    [],
    [{ deny: true }],
    { dny: true },
    { level: 0 },
    { level: 'Limited' },
  ];
  wrong.push(
    { level: null },
    { deny: 'true' },
    { deny: null },
    { reason: 7 },
    { level: 'constructor' },
    JSON.parse('{"__proto__":{}}'),
  );
  for (const value of wrong) assert.equal(readAnswer(value).ok, false, JSON.stringify(value));
  // What an answer inherits is no answer.
  const inherited = readAnswer(Object.create({ deny: true }));
  assert.ok(inherited.ok && inherited.value.level === null);
});

test('a slip in a key is named', () => {
  const answer = readAnswer({ reasn: 'x' });
  assert.ok(!answer.ok);
  assert.match(answer.error.message, /did you mean "reason"/);
});

test('a raised level changes nothing', () => {
  const native = decision({ level: 'limited' });
  for (const level of ['limited', 'dma', 'link', 'tcb'] as const) {
    assert.deepEqual(narrowDecision(native, { level, reason: 'trust me' }, 'opa'), native);
  }
});

test('a lowered level says who lowered it and why; a denial is final', () => {
  const native = decision({ level: 'dma', tier: 'measured', grantable: 'link', pending: ['serial'] });
  const limited = narrowDecision(native, { level: 'limited', reason: 'test bench' }, 'opa airlock/narrow');
  assert.equal(limited.detail, 'opa airlock/narrow allows at most limited: test bench');
  assert.deepEqual([limited.level, limited.grantable, limited.pending], ['limited', 'limited', ['serial']]);
  const denied = narrowDecision(native, { level: 'disconnected', reason: null }, 'opa');
  assert.deepEqual([denied.level, denied.grantable, denied.pending], ['disconnected', 'disconnected', []]);
});

test('an engine that could not be opened denies what would be connected, with the problem and its hint', async () => {
  const engine = refusingEngine('opa airlock/narrow', problem);
  const off = decision({ level: 'disconnected', reason: 'default' });
  const [a, b] = await engine.narrow([decision(), off], inventory(device()), {});
  assert.deepEqual([a?.level, a?.reason], ['disconnected', 'external-failed']);
  assert.equal(a?.detail, 'policy.wasm is not what was signed (sign it again) [bundle-tampered]');
  assert.deepEqual(b, off);
});

test('the words of an engine cannot steer a terminal', () => {
  assert.equal(printable('\u001b[2J\u0007\u202e\n\u200b\ud800'), '\\u{1b}[2J\\u{7}\\u{202e}\\u{a}\\u{200b}\\u{d800}');
  assert.equal(printable('Gerät veraltet – 装置'), 'Gerät veraltet – 装置');
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 1000 }), (text) => {
      assert.doesNotMatch(printable(text), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
      assert.ok(printable(text).length < 4000);
    }),
  );
});
