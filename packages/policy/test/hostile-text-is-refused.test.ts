import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decide } from '../src/decide.ts';
import { decodePolicy } from '../src/decode.ts';
import { packDocuments, unpackDocuments } from '../src/document.ts';
import { formatPolicy } from '../src/format.ts';
import { generatePolicy } from '../src/generate.ts';
import { decodeClaims, decodeInventory } from '../src/inventory-json.ts';
import { compileGlob, parseRange } from '../src/pattern.ts';
import { readYaml, TEXT_LIMIT } from '../src/yaml.ts';
import { anyHead, anyRules, compile, device, parse, policyText, problemsOf, rules } from './policy-fixtures.ts';

test('nesting without end, size without end', () => {
  const endless = [
    '['.repeat(100_000),
    '{a: '.repeat(50_000),
    '- '.repeat(100_000),
    '? '.repeat(100_000),
    'a: '.repeat(50_000),
    Array.from({ length: 3000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'),
    '"'.repeat(100_001),
    `a: ${'&x '.repeat(10_000)}`,
    '!'.repeat(100_000),
    '*'.repeat(100_000),
    '\u2028'.repeat(10_000),
    `version: 1\nrules:\n${'  - {}\n'.repeat(5000)}`,
  ];
  for (const text of endless) assert.ok(problemsOf(text).length > 0, text.slice(0, 40));
  assert.equal(problemsOf('a'.repeat(TEXT_LIMIT + 1))[0]?.code, 'yaml-too-large');
});

test('billions of laughs are not laughed', () => {
  const levels = Array.from(
    { length: 20 },
    (_, i) =>
      `l${i}: &l${i} [${Array(10)
        .fill(i === 0 ? 'lol' : `*l${i - 1}`)
        .join(', ')}]`,
  );
  assert.equal(problemsOf(levels.join('\n'))[0]?.code, 'yaml-alias');
});

test('keys that JavaScript gives a meaning are unknown keys', () => {
  for (const key of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    assert.equal(problemsOf(`version: 1\n${key}: { a: 1 }`)[0]?.code, 'unknown-key');
    assert.equal(
      problemsOf(`version: 1\nrules: [{ id: a, match: { ${key}: 1 }, level: limited }]`)[0]?.code,
      'unknown-key',
    );
    assert.equal(problemsOf(`version: 1\non: { ${key}: [log] }`)[0]?.code, 'unknown-key');
    assert.equal(
      problemsOf(`version: 1\nrules: [{ id: a, match: { type: ${key} }, level: limited }]`)[0]?.code,
      'unknown-name',
    );
    assert.equal(
      problemsOf(`version: 1\nrules: [{ id: a, match: { class: ${key} }, level: limited }]`)[0]?.code,
      'unknown-name',
    );
  }
});

test('any text gives a policy or problems, never both, never an exception', () => {
  const piece = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom(
      'version: 1\n',
      'rules:\n',
      '  - id: a\n',
      '    match: ',
      '{',
      '}',
      '[',
      ']',
      ': ',
      '&a ',
      '*a',
      '!!',
      '<<',
      '|\n',
      '>\n',
      '"',
      "'",
      '#',
      '\t',
      '---\n',
      '...\n',
      '? ',
      '%YAML 1.1\n',
    ),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = pieces.join('');
      const { node, problems } = readYaml(text, 'f');
      assert.equal(node === undefined, problems.length > 0);
      if (node === undefined) return;
      const decoded = decodePolicy([node]);
      assert.equal(decoded.policy === undefined, decoded.problems.length > 0);
      const formatted = formatPolicy(text, 'f');
      if (formatted.ok) assert.deepEqual(formatPolicy(formatted.value, 'f'), formatted);
    }),
    { numRuns: 1500 },
  );
});

test('a policy that the gate carries as JSON is the same policy', () => {
  fc.assert(
    fc.property(anyHead, anyRules, (head, rules) => {
      const { node } = readYaml(policyText(head, rules), 'p.yaml');
      assert.ok(node);
      const carried = unpackDocuments(packDocuments([node]));
      assert.ok(carried.ok);
      assert.deepEqual(decodePolicy(carried.value), decodePolicy([node]));
      assert.deepEqual(decodePolicy([node]).problems, []);
    }),
    { numRuns: 200 },
  );
});

test('documents, inventories and claims of any shape are refused or whole', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
      for (const value of [
        a,
        { version: 1, documents: [a, b] },
        { version: 1, documents: [{ kind: 'map', at: { file: '', line: 1, column: 1 }, entries: [a, b] }] },
      ]) {
        const documents = unpackDocuments(JSON.stringify(value));
        if (documents.ok) decodePolicy(documents.value);
        else assert.equal(documents.error.code, 'document-malformed');
      }
      const inventory = decodeInventory({ version: 1, kernel: a, devices: [b] });
      if (!inventory.ok) assert.equal(inventory.error.code, 'inventory-malformed');
      const holed = decodeInventory({
        version: 1,
        kernel: {},
        devices: [{ ...device(), nodes: [a], [JSON.stringify(b)]: b, features: a }],
      });
      if (holed.ok) {
        parse(generatePolicy(holed.value));
        decide(compile(rules()), holed.value, {});
      }
      const claims = decodeClaims(a);
      if (!claims.ok) assert.equal(claims.error.code, 'claims-malformed');
    }),
    { numRuns: 500 },
  );
  assert.equal(unpackDocuments('{').ok, false);
  const nested = (depth: number): unknown =>
    depth === 0
      ? { kind: 'scalar', value: 1, at: { file: '', line: 1, column: 1 } }
      : { kind: 'list', items: [nested(depth - 1)], at: { file: '', line: 1, column: 1 } };
  assert.equal(unpackDocuments(JSON.stringify({ version: 1, documents: [nested(500)] })).ok, false);
});

test('a glob takes a bounded number of steps and agrees with its plain meaning', () => {
  const letter = fc.constantFrom('a', 'b', '*', ':');
  const text = fc.array(fc.constantFrom('a', 'b', ':'), { maxLength: 12 }).map((list) => list.join(''));
  fc.assert(
    fc.property(fc.array(letter, { maxLength: 8 }), text, (letters, subject) => {
      const glob = letters.join('');
      const plain = new RegExp(`^${glob.replaceAll('*', '[^]*')}$`);
      assert.equal(compileGlob(glob)(subject), plain.test(subject), `${glob} ${subject}`);
    }),
    { numRuns: 2000 },
  );
  const evil = compileGlob('*a*a*a*a*a*a*a*b');
  assert.equal(evil('a'.repeat(200_000)), false);
});

test('a range holds exactly the numbers that it says', () => {
  const number = fc.nat(0xffff);
  fc.assert(
    fc.property(number, number, (limit, value) => {
      const holds = (text: string) => {
        const range = parseRange(text, 0xffff);
        return range !== undefined && value >= range.min && value <= range.max;
      };
      assert.equal(holds(`>=${limit}`), value >= limit);
      assert.equal(holds(`>${limit}`), value > limit);
      assert.equal(holds(`<=${limit}`), value <= limit);
      assert.equal(holds(`<${limit}`), value < limit);
      assert.equal(holds(`0x${limit.toString(16)}`), value === limit);
    }),
  );
  for (const bad of ['', '>', '1..', '..2', '1...2', '0x', '1 ..2', '>=>=1', '65536', '-1', '01']) {
    assert.equal(parseRange(bad, 0xffff), undefined, bad);
  }
});
