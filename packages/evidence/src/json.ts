/** JSON from strangers: bounded in size and depth, every name once in its object, and where each member stands. */
import { fail, ok, type Result } from '@airlock/core/result.ts';

export const JSON_LIMIT = 4 * 1024 * 1024;
const DEPTH_LIMIT = 24;

export interface JsonObject {
  readonly [name: string]: unknown;
}

export interface JsonDocument {
  readonly value: unknown;
  /** Text of each member of the outermost object, exactly as it stands: what a signature covers. */
  readonly members: ReadonlyMap<string, string>;
}

const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const ATOM = /true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const BLANK = /[ \t\r\n]*/y;

/** Codes: `json-invalid`. */
export function readJson(text: string): Result<JsonDocument> {
  if (text.length > JSON_LIMIT) return fail('json-invalid', `${text.length} characters`);
  const members = new Map<string, string>();
  let at = 0;
  let wrong = '';
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  const refuse = (what: string): false => {
    wrong ||= `${what}, at character ${at}`;
    return false;
  };
  const value = (depth: number): boolean => {
    if (depth > DEPTH_LIMIT) return refuse(`nested deeper than ${DEPTH_LIMIT}`);
    match(BLANK);
    const letter = text[at];
    if (letter === '"') return match(STRING) !== undefined || refuse('a string');
    if (letter !== '{' && letter !== '[') return match(ATOM) !== undefined || refuse('a value');
    at++;
    const close = letter === '{' ? '}' : ']';
    const names = new Set<string>();
    match(BLANK);
    if (text[at] === close) {
      at++;
      return true;
    }
    for (;;) {
      let name = '';
      if (letter === '{') {
        match(BLANK);
        const quoted = match(STRING);
        if (quoted === undefined) return refuse('a name');
        name = JSON.parse(quoted) as string;
        if (names.has(name)) return refuse('a name that stands twice');
        names.add(name);
        match(BLANK);
        if (text[at] !== ':') return refuse('a colon is missing');
        at++;
        match(BLANK);
      }
      const start = at;
      if (!value(depth + 1)) return false;
      if (depth === 0 && letter === '{') members.set(name, text.slice(start, at));
      match(BLANK);
      const next = text[at];
      at++;
      if (next === close) return true;
      if (next !== ',') return refuse('a comma is missing');
    }
  };
  if (!value(0)) return fail('json-invalid', wrong);
  match(BLANK);
  if (at !== text.length) return fail('json-invalid', `something follows, at character ${at}`);
  return ok({ value: JSON.parse(text), members });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
