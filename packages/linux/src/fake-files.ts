/**
 * `Files` in memory, for tests: a tree of paths, with the ways in which a real one misbehaves. `write` calls hooks, so
 * that a test can play the kernel (writing a name to `bind` makes the `driver` link appear).
 */
import { fail, ok, type Result } from '@airlock/core/result.ts';
import { type Files, READ_LIMIT } from './files.ts';

export type FakeNode =
  | string
  | Uint8Array
  /** A symbolic link. */
  | { readonly link: string }
  /** A file whose read or write fails with this code. */
  | { readonly fails: string; readonly message?: string };

export interface FakeFiles extends Files {
  /** Every path and what it holds; folders are implied. Tests may change it while it is in use. */
  readonly tree: Map<string, FakeNode>;
  /** Every write in order, refused ones too. */
  readonly writes: { readonly path: string; readonly data: string }[];
  /** Called for a write to `path`; may change the tree; its failed result is what the writer sees. */
  onWrite(path: string | RegExp, react: (data: string, path: string) => Result<void> | undefined): void;
}

export function fakeFiles(initial: Readonly<Record<string, FakeNode>> = {}): FakeFiles {
  const tree = new Map(Object.entries(initial));
  const writes: { path: string; data: string }[] = [];
  const hooks: { path: string | RegExp; react: (data: string, path: string) => Result<void> | undefined }[] = [];

  /** Follows symbolic links in every component, as the kernel does. */
  function resolve(path: string, depth = 0): string {
    if (depth > 40) return path;
    const parts = path.split('/').filter((part) => part !== '' && part !== '.');
    let at = '';
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i] ?? '';
      if (part === '..') {
        at = at.slice(0, Math.max(0, at.lastIndexOf('/')));
        continue;
      }
      at = `${at}/${part}`;
      const node = tree.get(at);
      if (typeof node === 'object' && 'link' in node) {
        const base = node.link.startsWith('/') ? node.link : `${at.slice(0, at.lastIndexOf('/'))}/${node.link}`;
        return resolve([base, ...parts.slice(i + 1)].join('/'), depth + 1);
      }
    }
    return at;
  }
  const isFolder = (path: string) => [...tree.keys()].some((key) => key.startsWith(`${path}/`));

  async function read(path: string): Promise<Result<Uint8Array>> {
    const real = resolve(path);
    const node = tree.get(real);
    if (node === undefined)
      return isFolder(real) ? fail('file-not-regular', `${path}: EISDIR`) : fail('file-missing', `${path}: ENOENT`);
    if (typeof node === 'string') return ok(Uint8Array.from(node, (character) => character.charCodeAt(0)));
    if (node instanceof Uint8Array) return ok(node);
    if ('fails' in node) return fail(node.fails, `${path}: ${node.message ?? node.fails}`);
    return fail('file-missing', `${path}: ENOENT`);
  }

  return {
    tree,
    writes,
    onWrite: (path, react) => void hooks.push({ path, react }),
    async read(path, limit = READ_LIMIT) {
      const bytes = await read(path);
      if (bytes.ok && bytes.value.length > limit) return fail('file-too-large', `${path}: more than ${limit} bytes`);
      return bytes;
    },
    async readAt(path, offset, length) {
      const bytes = await read(path);
      return bytes.ok ? ok(bytes.value.slice(offset, offset + length)) : bytes;
    },
    async list(path) {
      const real = resolve(path);
      const names = new Set<string>();
      for (const key of tree.keys()) {
        if (key.startsWith(`${real}/`)) names.add(key.slice(real.length + 1).split('/')[0] ?? '');
      }
      const node = tree.get(real);
      if (typeof node === 'object' && !(node instanceof Uint8Array) && 'fails' in node) {
        return fail(node.fails, `${path}: ${node.message ?? node.fails}`);
      }
      return names.size === 0 ? fail('file-missing', `${path}: ENOENT`) : ok([...names].sort());
    },
    async link(path) {
      const slash = path.lastIndexOf('/');
      const node = tree.get(`${resolve(path.slice(0, slash))}${path.slice(slash)}`);
      if (typeof node === 'object' && 'link' in node) return ok(node.link);
      return fail(
        node === undefined ? 'file-missing' : 'file-io',
        `${path}: ${node === undefined ? 'ENOENT' : 'EINVAL'}`,
      );
    },
    async write(path, data, offset = 0) {
      const real = resolve(path);
      const text = typeof data === 'string' ? data : String.fromCharCode(...data);
      writes.push({ path: real, data: text });
      for (const { path: pattern, react } of hooks) {
        if (typeof pattern === 'string' ? pattern === real || pattern === path : pattern.test(real)) {
          const result = react(text, real);
          if (result !== undefined) return result;
        }
      }
      const node = tree.get(real);
      if (node === undefined) return fail('file-missing', `${path}: ENOENT`);
      if (typeof node === 'object' && 'fails' in node)
        return fail(node.fails, `${path}: ${node.message ?? node.fails}`);
      if (node instanceof Uint8Array) {
        const copy = node.slice();
        copy.set(typeof data === 'string' ? Uint8Array.from(data, (c) => c.charCodeAt(0)) : data, offset);
        tree.set(real, copy);
      } else {
        tree.set(real, text);
      }
      return ok(undefined);
    },
    async save(path, data) {
      tree.set(path, data);
      return ok(undefined);
    },
    async append(path, data) {
      const node = tree.get(path);
      tree.set(path, `${typeof node === 'string' ? node : ''}${data}`);
      return ok(undefined);
    },
  };
}
