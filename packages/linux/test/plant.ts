/** A vector as real files below a temporary folder, for what reads through `nodeFiles`. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { FakeFiles } from '../src/fake-files.ts';

export interface Planted {
  readonly root: string;
  remove(): void;
}

/** Every file and link of a fake tree, below a new folder; unreadable ones are left out. */
export function plant(files: FakeFiles): Planted {
  const root = mkdtempSync(join(tmpdir(), 'airlock-tree-'));
  for (const [path, node] of files.tree) {
    const at = join(root, path);
    mkdirSync(dirname(at), { recursive: true });
    if (typeof node === 'string') writeFileSync(at, node, 'latin1');
    else if (node instanceof Uint8Array) writeFileSync(at, node);
    else if ('link' in node) symlinkSync(node.link, at);
  }
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) };
}
