/** A `Context` for tests: what was printed is kept, nothing is a terminal. */
import type { Context } from '../src/verb.ts';

export interface FakeContext extends Context {
  readonly out: () => string;
  readonly err: () => string;
}

export function fakeContext(given: Partial<Context> & { readonly stdin?: string } = {}): FakeContext {
  let out = '';
  let err = '';
  return {
    stdout: (text) => {
      out += text;
    },
    stderr: (text) => {
      err += text;
    },
    terminal: false,
    columns: 100,
    env: {},
    cwd: process.cwd(),
    readStdin: async () => given.stdin ?? '',
    signal: new AbortController().signal,
    ...given,
    out: () => out,
    err: () => err,
  };
}
