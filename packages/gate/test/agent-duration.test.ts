import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatDuration, LONGEST, parseDuration } from '../src/agent/duration.ts';

const good: Record<string, number> = {
  '90s': 90_000,
  '10m': 600_000,
  '2h': 7_200_000,
  '1h30m': 5_400_000,
  '1d': 86_400_000,
  '30d': LONGEST,
  '1d2h3m4s': 93_784_000,
};
for (const [text, milliseconds] of Object.entries(good)) {
  test(`${text} is ${milliseconds} ms`, () => assert.deepEqual(parseDuration(text), { ok: true, value: milliseconds }));
}

const bad: Record<string, RegExp> = {
  '': /no duration/,
  '10': /no unit.*10s, 10m or 10h/,
  '-5m': /negative/,
  '0m': /no time at all/,
  '10min': /unit min.*did you mean 10m/,
  '5M': /unit M.*did you mean 5m/,
  '1.5h': /no duration/,
  '10 m': /no duration/,
  '5m5m': /once each/,
  '5s1h': /greatest first/,
  '31d': /longer than 30 days/,
  '99999999999s': /too large/,
  '1w': /unit w/,
  m10: /no duration/,
  '١٠m': /no duration/,
  ['9'.repeat(64)]: /too long/,
};
for (const [text, message] of Object.entries(bad)) {
  test(`${JSON.stringify(text)} is no duration`, () => {
    const result = parseDuration(text);
    assert.equal(result.ok, false);
    if (!result.ok) {
      assert.equal(result.error.code, 'duration-malformed');
      assert.match(`${result.error.message} ${result.error.hint ?? ''}`, message);
    }
  });
}

test('any text gives a duration within its bounds or an error', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const result = parseDuration(text);
      return !result.ok || (result.value > 0 && result.value <= LONGEST);
    }),
  );
});

test('what has not ended never reads 0s, and what is shown can be read', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: LONGEST }), (milliseconds) => {
      const text = formatDuration(milliseconds);
      const back = parseDuration(text);
      return text !== '0s' && back.ok && Math.abs(back.value - milliseconds) < 3_600_000;
    }),
  );
  assert.equal(formatDuration(0), '0s');
  assert.equal(formatDuration(598_000), '9m58s');
});
