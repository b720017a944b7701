/** SubjectPublicKeyInfo by itself, RFC 5280 §4.1.2.7. */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { DerReader, TAG } from './der.ts';

const KEYS: readonly string[] = ['1.2.840.113549.1.1.1', '1.2.840.10045.2.1'];
const SPKI_LIMIT = 2048;

/** An RSA or EC key and nothing after it; a copy. Codes: `der-*`. */
export function readSpki(given: Uint8Array): Result<Uint8Array> {
  if (given.length > SPKI_LIMIT) return fail('der-too-large', `a key of ${given.length} bytes`);
  const bytes = given.slice();
  const outer = new DerReader(bytes);
  const reader = outer.enter(TAG.sequence);
  const algorithm = reader.enter(TAG.sequence);
  const known = KEYS.includes(algorithm.oid());
  if (algorithm.more) algorithm.any();
  algorithm.finish();
  reader.octetsOfBits();
  reader.finish();
  outer.finish();
  if (outer.problem !== null) return { ok: false, error: outer.problem };
  return known ? ok(bytes) : fail('der-value-invalid', 'a key of a kind that is not known');
}
