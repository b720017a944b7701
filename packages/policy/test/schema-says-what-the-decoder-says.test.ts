import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { parse as parseYaml } from 'yaml';
import { policySchema, policyTestSchema } from '../src/schema.ts';
import { anyHead, anyRules, policyText, problemsOf } from './policy-fixtures.ts';

const house = resolve(import.meta.dirname, '../../..');
const compile = (schema: object) => new Ajv({ strict: true, strictTypes: false, allErrors: false }).compile(schema);
const policy = compile(policySchema());
const tests = compile(policyTestSchema());
const read = (text: string): unknown => parseYaml(text, { version: '1.2', schema: 'core' });

test('the published files are what the code says', () => {
  for (const [name, schema] of [
    ['policy', policySchema()],
    ['policy-test', policyTestSchema()],
  ] as const) {
    const text = readFileSync(join(house, `schema/${name}.schema.json`), 'utf8');
    assert.equal(
      text,
      `${JSON.stringify(schema, null, 2)}\n`,
      `run: ./airlock policy schema > schema/${name}.schema.json`,
    );
  }
});

test('the profiles and their tests are valid', () => {
  for (const name of readdirSync(join(house, 'policies')).filter((one) => one.endsWith('.yaml'))) {
    const validate = name.endsWith('.test.yaml') ? tests : policy;
    assert.ok(
      validate(read(readFileSync(join(house, 'policies', name), 'utf8'))),
      `${name} ${JSON.stringify(validate.errors)}`,
    );
  }
});

test('what the decoder takes, the schema takes', () => {
  fc.assert(
    fc.property(anyHead, anyRules, (head, rules) => {
      const text = policyText(head, rules);
      assert.deepEqual(problemsOf(text), []);
      assert.ok(policy(read(text)), `${text}${JSON.stringify(policy.errors)}`);
    }),
    { numRuns: 150 },
  );
});

test('what is wrong in shape, both refuse', () => {
  const rule = (body: string) => `version: 1\nrules: [{ id: a, ${body} }]`;
  for (const text of [
    'mode: enforce',
    'version: 2',
    'version: 1\nmdoe: audit',
    'version: 1\nmode: permissive',
    'version: 1\ndefault: no',
    'version: 1\nboot-critical: []',
    'version: 1\nplatform: { require: [swiotlb-froce] }',
    'version: 1\nlearn: { for: 30 }',
    'version: 1\nrules: {}',
    'version: 1\nrules:',
    rule('level: limited'),
    rule('match: {}, level: 1'),
    rule('match: { bus: pcie }, level: limited'),
    rule('match: { type: blok }, level: limited'),
    rule('match: { vendor: 15b3 }, level: limited'),
    rule('match: { vendor: -1 }, level: limited'),
    rule('match: { device: 65536 }, level: limited'),
    rule('match: { vendor: [] }, level: limited'),
    rule('match: { serial: 12 }, level: limited'),
    rule('match: { hotplugged: no }, level: limited'),
    rule('match: { subsystem: {} }, level: limited'),
    rule('match: { class: netwrok }, level: limited'),
    rule('match: {}, level: limited, features: { forbid: ring_packed }'),
    rule('match: {}, level: limited, protect: { disk: { integrity: aead } }'),
    rule('match: {}, level: limited, action: allow'),
    'version: 1\non: { ring-violation: [explode] }',
    'version: 1\nexternal: { opa: x, timeout-ms: 0 }',
  ]) {
    assert.notDeepEqual(problemsOf(text), [], text);
    assert.equal(policy(read(text)), false, text);
  }
});
