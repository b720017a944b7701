import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { recognise } from '../src/recognise.ts';
import { bytesOfDump } from '../src/text-forms.ts';
import { token } from './support/cca-realm.ts';
import { snpMachine } from './support/snp-machine.ts';
import { quoteBytes, rootCertificate } from './support/td-machine.ts';
import { eventLog } from './support/tpm-machine.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
const cut = (text: string, size: number, by: string) => (text.match(new RegExp(`.{1,${size}}`, 'g')) ?? []).join(by);
const utf16 = (text: string, big = false) => {
  const bytes = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(text, 'utf16le')]);
  return big ? bytes.swap16() : bytes;
};
const marked = (text: string) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(text)]);

/** As xxd and `hexdump -C` print it; every byte that is no letter is a dot in the margin. */
const margin = (line: Uint8Array) =>
  [...line].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
function dump(bytes: Uint8Array, like: 'xxd' | 'hexdump'): string {
  const lines: string[] = [];
  let before = '';
  for (let at = 0; at < bytes.length; at += 16) {
    const line = bytes.subarray(at, at + 16);
    const offset = at.toString(16).padStart(8, '0');
    if (like === 'xxd') lines.push(`${offset}: ${cut(hex(line), 4, ' ').padEnd(39)}  ${margin(line)}`);
    else if (hex(line) === before && line.length === 16) {
      if (lines.at(-1) !== '*') lines.push('*');
    } else {
      const [left, right] = [line.subarray(0, 8), line.subarray(8)].map((half) => cut(hex(half), 2, ' '));
      lines.push(`${offset}  ${left}  ${right}`.padEnd(60).concat(`|${margin(line)}|`));
    }
    before = hex(line);
  }
  if (like === 'hexdump') lines.push(bytes.length.toString(16).padStart(8, '0'));
  return `${lines.join('\n')}\n`;
}

const FORMS: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array | string>> = {
  hex: (bytes) => `${hex(bytes).toUpperCase()}\r\n`,
  'hex with 0x': (bytes) => `0x${hex(bytes)}`,
  'hex in lines': (bytes) => cut(hex(bytes), 64, '\r\n'),
  'hex with colons': (bytes) => cut(hex(bytes), 2, ':'),
  'an array of C': (bytes) => `{ ${hex(bytes).replace(/../g, '0x$&, ')}};`,
  'a list of hex': (bytes) => `[${cut(hex(bytes).replace(/../g, '0x$&'), 4, ', ')}]`,
  'escapes of a string': (bytes) => hex(bytes).replace(/../g, '\\x$&'),
  xxd: (bytes) => dump(bytes, 'xxd'),
  'hexdump -C': (bytes) => dump(bytes, 'hexdump'),
  base64: (bytes) => cut(base64(bytes), 76, '\r\n'),
  base64url: (bytes) => Buffer.from(bytes).toString('base64url'),
  'a data URI': (bytes) => `data:application/octet-stream;base64,${base64(bytes)}`,
  'PEM of a label of its own': (bytes) =>
    `-----BEGIN EVIDENCE-----\n${cut(base64(bytes), 64, '\n')}\n-----END EVIDENCE-----\n`,
  'UTF-8 with a mark': (bytes) => marked(hex(bytes)),
  'JSON with a mark': (bytes) => marked(JSON.stringify({ x: base64(bytes) })),
  'UTF-16': (bytes) => utf16(base64(bytes)),
  'UTF-16, big-endian, of JSON': (bytes) => utf16(JSON.stringify({ name: 'Ä', x: hex(bytes) }), true),
  'a JSON text': (bytes) => JSON.stringify(base64(bytes)),
  'JSON lines': (bytes) => `${JSON.stringify({ a: 1 })}\n${JSON.stringify({ x: base64(bytes) })}\n`,
  'JSON of a typed array': (bytes) => JSON.stringify({ x: Object.fromEntries([...bytes].map((byte, i) => [i, byte])) }),
  'JSON of a Buffer': (bytes) => JSON.stringify(Buffer.from(bytes)),
  'JSON within JSON': (bytes) =>
    JSON.stringify({ a: JSON.stringify({ b: base64(Buffer.from(JSON.stringify({ c: hex(bytes) }))) }) }),
  'a JWT': (bytes) =>
    `eyJhbGciOiJub25lIn0.${Buffer.from(JSON.stringify({ r: base64(bytes) })).toString('base64url')}.AAAA`,
};

const THINGS: Readonly<Record<string, Uint8Array>> = {
  'snp-report': snpMachine().report.bytes,
  'tdx-quote': quoteBytes(),
  'cca-token': token(),
  certificate: rootCertificate.der,
  'event-log': eventLog([{ register: 4, data: 'kernel' }]).bytes,
};

for (const [form, make] of Object.entries(FORMS)) {
  test(`evidence as ${form}`, () => {
    for (const [kind, bytes] of Object.entries(THINGS)) {
      const { found, problems } = recognise('file', Buffer.from(make(bytes)));
      assert.deepEqual([found.map(({ item }) => item.kind), problems], [[kind], []], kind);
    }
  });
}

test('a dump gives the very bytes, and one with a line missing or moved none', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 40, maxLength: 300 }),
      fc.constantFrom('xxd' as const, 'hexdump' as const),
      (bytes, like) => {
        const text = dump(bytes, like);
        assert.deepEqual(Buffer.from(bytesOfDump(text) ?? []), Buffer.from(bytes));
        const lines = text.split('\n');
        const without = bytesOfDump([...lines.slice(0, 1), ...lines.slice(2)].join('\n'));
        assert.ok(without === undefined || Buffer.compare(without, bytes) !== 0 || lines[1] === '*');
      },
    ),
  );
  const zeros = new Uint8Array(4096);
  assert.deepEqual(bytesOfDump(dump(zeros, 'hexdump')), zeros);
  assert.equal(bytesOfDump(`00000000  00 00  |..|\n*\nffffffff\n`), undefined);
});

test('a dump that repeats a line for megabytes is read once, and not in every text of a document', () => {
  const zeros = dump(new Uint8Array(8 * 1024 * 1024 - 16), 'hexdump');
  assert.ok(zeros.length < 200);
  assert.equal(bytesOfDump(zeros)?.length, 8 * 1024 * 1024 - 16);
  assert.equal(bytesOfDump(`00000000  00  |.|\n*\n007ffff0\n`), undefined);
  assert.equal(bytesOfDump(zeros.replace(/\n[0-9a-f]{8}\n$/, '\n01800000\n')), undefined);
  const many = JSON.stringify(Array.from({ length: 4000 }, () => zeros));
  assert.deepEqual(recognise('x', Buffer.from(many)).found, []);
});

test('texts that are nothing are nothing, and none is looked at for long', () => {
  for (const text of [
    '12:34:5x'.repeat(40),
    `${'ab '.repeat(100)}q`,
    '{'.repeat(100),
    `0x${'12'.repeat(31)}1`,
    '\\x12'.repeat(20).slice(0, -1),
    'a.b.c',
    `${'ab:'.repeat(1_000_000)}x`,
    `{"0":1,"63":2}`,
    `{${Array.from({ length: 70 }, (_, i) => `"${i}":${i === 9 ? 256 : 1}`).join(',')}}`,
  ])
    assert.deepEqual(recognise('x', Buffer.from(text)).found, []);
  // Keys of the user's are no evidence, and nothing is looked for within them.
  const key = `-----BEGIN PRIVATE KEY-----\n${base64(snpMachine().report.bytes)}\n-----END PRIVATE KEY-----\n`;
  assert.deepEqual(recognise('x', Buffer.from(key)).found, []);
  let nested: string = base64(THINGS['cca-token'] ?? new Uint8Array());
  for (let i = 0; i < 12; i++) nested = JSON.stringify(nested);
  const deep = recognise('x', Buffer.from(nested));
  assert.deepEqual([deep.found, deep.problems.map(({ code }) => code)], [[], ['file-too-crowded']]);
});

test('nothing that is written as text makes it throw', () => {
  fc.assert(
    fc.property(
      fc.string({ maxLength: 200 }),
      fc.constantFrom('', '0x', '00000000: ', '{', '"', '\\x', '\ufeff'),
      (text, start) => {
        recognise('x', Buffer.from(`${start}${text}${'ab'.repeat(40)}`));
        recognise('x', Buffer.from(`${start}${text}`, 'utf16le'));
      },
    ),
  );
});
