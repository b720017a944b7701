import assert from 'node:assert/strict';
import type { Result } from '@airlock/core/result.ts';

export function must<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw new Error(`${result.error.code}: ${result.error.message}`);
}

/** The code of a failure; a success is none. */
export function codeOf(result: Result<unknown>): string {
  assert.equal(result.ok, false, 'it should have been refused');
  return result.ok ? '' : result.error.code;
}
