/** Trees of sysfs as real guests showed them (vectors/*.json, made as vectors/README.md tells), as `FakeFiles`. */
import { readFileSync } from 'node:fs';
import { type FakeFiles, type FakeNode, fakeFiles } from '../src/fake-files.ts';

type Vector = Record<string, string | { link: string } | { base64: string; size: number }>;

/** `name` is that of a file in vectors/, without its ending. */
export function vectorFiles(name: string): FakeFiles {
  const vector = JSON.parse(readFileSync(new URL(`vectors/${name}.json`, import.meta.url), 'utf8')) as Vector;
  return fakeFiles(
    Object.fromEntries(
      Object.entries(vector).map(([path, node]): [string, FakeNode] => {
        if (typeof node === 'string' || 'link' in node) return [path, node];
        const bytes = new Uint8Array(node.size);
        bytes.set(Buffer.from(node.base64, 'base64'));
        return [path, bytes];
      }),
    ),
  );
}
