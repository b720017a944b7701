import type { ErrorCatalogue } from '@airlock/core/result.ts';

/** Codes of external engines: OPA bundles, their signatures, and the worker that runs them. */
export const EXTERNAL_ERRORS = {
  'bundle-unreadable': 'The bundle is not a whole gzip file.',
  'bundle-too-large': 'The bundle, what it unpacks to, or one of its files is larger than a bundle may be.',
  'bundle-malformed': 'The bundle is not a whole tar archive: a header, a checksum or the end is wrong.',
  'bundle-entry-forbidden':
    'The bundle holds something that a compiled bundle does not hold: a link, a device node, a path out of it, a file twice, a file of an unknown kind.',
  'bundle-incomplete': 'The bundle lacks policy.wasm or .manifest.',
  'bundle-json-malformed': 'A JSON file of the bundle (.manifest, data.json, .signatures.json) does not parse.',
  'bundle-wasm-malformed': 'policy.wasm is not a module as the OPA compiler makes it.',
  'bundle-entrypoint-missing': 'The bundle was not built with the entry point that the policy names.',
  'bundle-unsigned': 'The policy names a key for the bundle, and the bundle carries no signature.',
  'bundle-key-missing': 'The bundle is signed, and the policy names no key, or not the key that signed.',
  'bundle-key-malformed': 'The verification key cannot be read, is too short, or does not fit its algorithm.',
  'bundle-signature-invalid':
    'The signature of the bundle is wrong, of another scope, expired, or not what OPA writes.',
  'bundle-tampered': 'A file of the bundle differs from what was signed, is not signed, or is signed and not there.',
  'engine-not-started': 'The engine could not load the policy: invalid code, wrong ABI, memory or time limit.',
  'engine-slow': 'The engine did not answer within the time limit; it was stopped.',
  'engine-crashed': 'The engine failed while it decided: a trap, a limit, a conflict of rules, a missing built-in.',
  'engine-answer-wrong': 'The engine answered something that is not {level?, deny?, reason?}.',
  'engine-closed': 'The engine was asked after it was closed.',
  'external-file-unreadable': 'The bundle or its verification key, as the policy names them, could not be read.',
} as const satisfies ErrorCatalogue;
