import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodePolicy } from '../src/decode.ts';
import { formatPolicy } from '../src/format.ts';
import { policyTestSchema } from '../src/schema.ts';
import { readYaml } from '../src/yaml.ts';
import { anyHead, anyRules, policyText } from './policy-fixtures.ts';

const format = (text: string) => {
  const result = formatPolicy(text, 'p.yaml');
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
};

test('keys come in the order of the language, comments and numbers stay', () => {
  const messy = `# yaml-language-server: $schema=x.json
# head

# what is decided
rules:
    - level:   limited    # why
      # what it is
      match: {vendor:   0x0010,   bus: pci , class: 0x0108}
      id: a


    - {match: {}, level: disconnected, id: "b"}
mode: enforce # mode
version: 1
`;
  assert.equal(
    format(messy),
    `# yaml-language-server: $schema=x.json
# head

version: 1
mode: enforce # mode
# what is decided
rules:
  - id: a
    # what it is
    match: { bus: pci, class: 0x0108, vendor: 0x0010 }
    level: limited # why

  - { id: "b", match: {}, level: disconnected }
`,
  );
});

test('the line for editors stays at the top, also without an empty line after it', () => {
  assert.equal(
    format('# yaml-language-server: $schema=x.json\n# the rules\nrules: []\nversion: 1\n'),
    '# yaml-language-server: $schema=x.json\nversion: 1\n# the rules\nrules: []\n',
  );
});

test('a laid out text is laid out; the policy is the same but for places', () => {
  const shape = (text: string) =>
    JSON.stringify(decodePolicy([readYaml(text, 'p').node ?? assert.fail()]).policy, (key, value: unknown) =>
      key === 'at' ? undefined : value,
    );
  fc.assert(
    fc.property(anyHead, anyRules, (head, rules) => {
      const text = policyText(head, rules);
      const once = format(text);
      assert.equal(format(once), once);
      assert.equal(shape(once).length, shape(text).length);
      assert.deepEqual(sorted(JSON.parse(shape(once))), sorted(JSON.parse(shape(text))));
    }),
    { numRuns: 150 },
  );
});

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort()
      .map(([key, one]) => [key, sorted(one)]),
  );
}

test('what is no policy yet is laid out too, what is no YAML is refused', () => {
  assert.equal(format('vresion:   1\nrules: []\n'), 'rules: []\nvresion: 1\n');
  assert.equal(formatPolicy('a: [', 'f').ok, false);
  assert.equal(formatPolicy('a: *b', 'f').ok, false);
  assert.equal(formatPolicy('', 'f').ok, false);
  assert.equal(formatPolicy('# only a comment\n', 'f').ok, false);
});

test('the profiles are laid out', () => {
  const folder = resolve(import.meta.dirname, '../../../policies');
  for (const name of readdirSync(folder).filter((one) => one.endsWith('.yaml'))) {
    const text = readFileSync(join(folder, name), 'utf8');
    const schema = name.endsWith('.test.yaml') ? policyTestSchema() : undefined;
    const result = formatPolicy(text, name, schema);
    assert.ok(result.ok);
    assert.equal(result.value, text, name);
  }
});
