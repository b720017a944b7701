/** What a finding and a pass rest on. */
import { printable } from '../attribute.ts';

/** A file and what stood in it. Both are printable ASCII. */
export interface Evidence {
  readonly path: string;
  readonly value: string;
}

const VALUE_LIMIT = 240;

/** One piece of evidence, made printable and short. */
export function evidence(path: string, value: string): Evidence {
  const text = printable(value.replace(/[\n\t]+/g, ' '));
  return {
    path: printable(path),
    value: text.length > VALUE_LIMIT ? `${text.slice(0, VALUE_LIMIT - 3)}...` : text,
  };
}
