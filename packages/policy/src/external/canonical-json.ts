/**
 * JSON in the one form that OPA hashes (v1/bundle/hash.go): keys in byte order, no spaces, numbers as they were written,
 * strings as Go's encoder writes them. Whoever changes only the layout of a signed data.json does not break it.
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';

const DEPTH_LIMIT = 200;

/** A number kept as its text, so that 1.50 and 12345678901234567890 stay what was signed. */
type Value = null | boolean | string | { readonly number: string } | Value[] | Map<string, Value>;

/** Code: `bundle-json-malformed` (also for bytes that are not UTF-8 and for nesting beyond 200). */
export function canonicalJson(bytes: Uint8Array, name: string): Result<string> {
  const malformed = (message: string) => fail('bundle-json-malformed', `${name}: ${message}`);
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
    const canonical = write(parse(text), 0);
    return canonical === undefined ? malformed(`nested deeper than ${DEPTH_LIMIT}`) : ok(canonical);
  } catch {
    return malformed('not JSON in UTF-8');
  }
}

function parse(text: string): Value {
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) => {
    if (typeof value === 'number') return { number: context?.source ?? String(value) };
    // Arrays and what a number became pass; objects become maps, which no key named __proto__ confuses.
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return new Map(Object.entries(value));
    return value;
  });
}

function write(value: Value, depth: number): string | undefined {
  if (depth > DEPTH_LIMIT) return undefined;
  if (typeof value === 'string') return writeString(value);
  if (value === null || typeof value === 'boolean') return String(value);
  const parts: string[] = [];
  if (Array.isArray(value)) {
    for (const item of value) {
      const part = write(item, depth + 1);
      if (part === undefined) return undefined;
      parts.push(part);
    }
    return `[${parts.join(',')}]`;
  }
  if (!(value instanceof Map)) return value.number;
  for (const [key, item] of [...value].sort(([a], [b]) => compareCodePoints(a, b))) {
    const part = write(item, depth + 1);
    if (part === undefined) return undefined;
    parts.push(`${writeString(key)}:${part}`);
  }
  return `{${parts.join(',')}}`;
}

/** Go writes U+2028 and U+2029 as escapes and puts U+FFFD in place of half a surrogate pair. */
function writeString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(/[\u2028\u2029]/g, (c) =>
    c === '\u2028' ? '\\u2028' : '\\u2029',
  );
}

/** The order of UTF-8 bytes, which is that of code points, not of UTF-16 units. */
function compareCodePoints(a: string, b: string): number {
  const left = [...a];
  const right = [...b];
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
