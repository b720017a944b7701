import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCrypto } from '../src/node-crypto.ts';
import { recognise } from '../src/recognise.ts';
import { appraiseReferences, type References } from '../src/references.ts';
import { timeText } from '../src/time.ts';
import { readXml } from '../src/xml/document.ts';
import { issue, signer } from './support/authority.ts';

/** A record of RFC 9999 in a record in a record …: ten bytes a level. */
function nestedCmw(levels: number): Uint8Array {
  const innermost = 64;
  const whole = new Uint8Array(innermost + 10 * levels);
  for (let i = 0; i < levels; i++) {
    const size = innermost + 10 * (levels - i - 1);
    whole.set(
      [0x82, 0x63, 0x61, 0x2f, 0x62, 0x5a, size >>> 24, (size >> 16) & 0xff, (size >> 8) & 0xff, size & 0xff],
      10 * i,
    );
  }
  return whole;
}

test('records within records are looked into so deep and no deeper', () => {
  for (const levels of [8, 20_000])
    assert.deepEqual(
      recognise('file', nestedCmw(levels)).problems.map(({ code }) => code),
      ['file-too-crowded'],
    );
});

test('the depth of XML is counted whatever stands in attributes, and at once', () => {
  const code = (text: string) => {
    const read = readXml(Buffer.from(text));
    return read.ok ? 'ok' : read.error.message;
  };
  assert.equal(code(`${'<a b="/>">'.repeat(16)}${'</a>'.repeat(16)}`), 'ok');
  assert.match(code(`${'<a b="/>">'.repeat(17)}${'</a>'.repeat(17)}`), /nested deeper/);
  assert.match(code(`${"<a b='\"/>'>".repeat(17)}${'</a>'.repeat(17)}`), /nested deeper/);
  // Neither the end of a tag nor that of a value is looked for again and again.
  assert.match(code(`<a ${'< </'.repeat(200_000)}`), /a tag without an end/);
  assert.notEqual(code('<a b="/></a>'.repeat(1000)), 'ok');
  assert.match(code(`<a>${'<b "'.repeat(1001)}`), /a tag without an end/);
});

test('dates beyond every calendar are told, not thrown', () => {
  const file: References = {
    ...{ source: 'x', title: 'x', sets: [], endorsements: [], keys: [], unread: [], signature: null },
    validity: { from: -(2 ** 53) * 1000, until: 2 ** 53 * 1000 },
  };
  const { checks } = appraiseReferences(file, { crypto: nodeCrypto(), asOf: 0 });
  assert.match(checks[0]?.expected ?? '', /no calendar/);
  for (const moment of [Number.NaN, Number.POSITIVE_INFINITY, 9e15]) assert.match(timeText(moment), /no calendar/);
});

test('of certificates that stand one after the other none is passed over in silence', () => {
  const { der } = issue({ subject: signer('a'), issuer: signer('a') });
  const codes = (count: number) =>
    recognise('file', Buffer.concat(Array(count).fill(der))).problems.map(({ code }) => code);
  assert.deepEqual(codes(32), []);
  assert.deepEqual(codes(33), ['file-too-crowded']);
});
