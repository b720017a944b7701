import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { REASON_CODES } from '@airlock/core/decision.ts';
import { LINUX_ALWAYS_ACCEPTS } from '@airlock/core/virtio.ts';
import { FINDINGS } from '../src/check.ts';
import { ACTIONS, MODES, PLATFORM_FORBIDS, PLATFORM_REQUIREMENTS, VIOLATIONS } from '../src/policy.ts';
import { policySchema } from '../src/schema.ts';
import { problemsOf } from './policy-fixtures.ts';

const text = readFileSync(join(resolve(import.meta.dirname, '../../..'), 'docs/policy.md'), 'utf8');

type Shape = { properties?: Record<string, Shape>; items?: Shape; anyOf?: readonly Shape[] };

function keysOf(shape: Shape): string[] {
  const own = Object.entries(shape.properties ?? {}).flatMap(([key, inner]) => [key, ...keysOf(inner)]);
  return [...own, ...(shape.items ? keysOf(shape.items) : []), ...(shape.anyOf ?? []).flatMap(keysOf)];
}

test('every word of the language is in docs/policy.md or, for external engines, in docs/opa.md', () => {
  const engines = ['opa', 'entrypoint', 'verify', 'key', 'algorithm', 'scope', 'timeout-ms'];
  const words = [
    ...keysOf(policySchema() as Shape).filter((key) => !engines.includes(key)),
    ...REASON_CODES,
    ...Object.keys(FINDINGS),
    ...MODES,
    ...PLATFORM_REQUIREMENTS,
    ...PLATFORM_FORBIDS,
    ...VIOLATIONS,
    ...ACTIONS,
    ...LINUX_ALWAYS_ACCEPTS,
  ];
  const missing = [...new Set(words)].filter((word) => !new RegExp(`(?<![\\w-])${word}(?![\\w-])`).test(text));
  assert.deepEqual(missing, []);
});

test('every finding and reason that docs/policy.md lists exists', () => {
  const listed = [...text.matchAll(/^\| `([a-z]+(?:-[a-z]+)+)` \|/gm)].map((match) => match[1] ?? '');
  const known: readonly string[] = [
    ...REASON_CODES,
    ...Object.keys(FINDINGS),
    ...PLATFORM_REQUIREMENTS,
    ...PLATFORM_FORBIDS,
    ...keysOf(policySchema() as Shape),
  ];
  assert.deepEqual(
    listed.filter((word) => !known.includes(word)),
    [],
  );
});

test('the policy at the top of docs/policy.md is one', () => {
  const block = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)]
    .map((match) => match[1] ?? '')
    .find((one) => one.startsWith('version: 1\nmode'));
  assert.deepEqual(problemsOf(block ?? ''), []);
});
