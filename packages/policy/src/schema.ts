/** The published JSON Schemas, made from the shapes that the decoders read with. */
import { policyFile } from './language.ts';
import type { Schema } from './shape.ts';
import { testFile } from './test-file.ts';

/** schema/policy.schema.json, for editors. The decoder is stricter: it also knows what contradicts what. */
export function policySchema(): Schema {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Airlock policy',
    description: 'Which I/O devices a confidential VM may use, and how far. See docs/policy.md.',
    ...policyFile.schema,
  };
}

/** schema/policy-test.schema.json */
export function policyTestSchema(): Schema {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Airlock policy tests',
    description: 'What a policy is expected to decide; run by airlock policy test. See docs/policy.md.',
    ...testFile.schema,
  };
}
