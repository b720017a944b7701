import type { ErrorCatalogue } from '@airlock/core/result.ts';

export const POLICY_ERRORS = {
  'yaml-syntax': 'The text is not YAML 1.2; the message says what the parser stumbled over.',
  'yaml-too-large': 'The file is larger than a policy may be; nothing of it was used.',
  'yaml-too-deep': 'The document nests deeper than any policy needs.',
  'yaml-alias': 'Anchors and aliases (&name, *name) are not read: write the value out.',
  'yaml-merge-key': 'Merge keys (<<) are not read: write the values out.',
  'yaml-tag': 'Tags (!name) are not read: values have the type that they look like.',
  'yaml-directive': 'Directives (%YAML, %TAG) are not read: policies are YAML 1.2.',
  'yaml-many-documents': 'One file holds one document; `---` may stand only at its start.',
  'yaml-key': 'A key must be plain text.',
  'document-malformed': 'A compiled policy document does not have the shape of one.',
  'policy-empty': 'There is nothing in the file.',
  'unsupported-version': 'The policy was written for another version of the language.',
  'unknown-key': 'The language has no such key here.',
  'duplicate-key': 'The same key stands twice in one map.',
  'duplicate-id': 'Two rules have the same id.',
  'set-twice': 'Two files of one policy set the same thing.',
  'missing-key': 'A key that is needed here is not there.',
  'wrong-type': 'A value of another type belongs here (text, number, list, map, true or false).',
  'bad-value': 'The value has the right type, but is none that the language allows here.',
  'unknown-name': 'The name is none of those that can stand here.',
  'keys-conflict': 'Two keys that exclude each other, or one that needs another one.',
  'too-many': 'More entries than a policy may have.',
  'source-unreadable': 'A policy file or its folder of drop-ins could not be read.',
  'source-ignored-name': 'A file in the folder of drop-ins has a name that would never be read.',
  'inventory-malformed': 'The file is not an inventory as `airlock list --json` prints it.',
  'claims-malformed': 'The file is not a set of claims, by device id.',
} as const satisfies ErrorCatalogue;

export type PolicyErrorCode = keyof typeof POLICY_ERRORS;

/** External engines have codes of their own. */
export { EXTERNAL_ERRORS } from './external/errors.ts';
