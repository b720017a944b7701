/**
 * The one shape of an error and of a result. Nothing in Airlock throws for input that somebody else controls: a
 * function that can fail returns a `Result`, and its docstring names the codes.
 */

/** Where in a text something stands; line and column count from 1. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** `code` is stable and listed in the package's `errors.ts`; `message` is for people and may change. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly at?: Position;
  /** What the reader can do about it. */
  readonly hint?: string;
}

export type Result<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: Problem };

export function ok<T>(value: T): Result<T> {
  return { ok: true, value };
}

/** A failed result. `more` may carry `at` and `hint`. */
export function fail(code: string, message: string, more?: { at?: Position; hint?: string }): Result<never> {
  return { ok: false, error: { code, message, ...more } };
}

/** `policy.yaml:12:3: message (hint)`, as compilers print it. */
export function formatProblem(problem: Problem): string {
  const at = problem.at ? `${problem.at.file}:${problem.at.line}:${problem.at.column}: ` : '';
  const hint = problem.hint ? ` (${problem.hint})` : '';
  return `${at}${problem.message}${hint} [${problem.code}]`;
}

/** One entry of a package's error catalogue (`errors.ts`), from which docs/errors.md is generated. */
export type ErrorCatalogue = Readonly<Record<string, string>>;
