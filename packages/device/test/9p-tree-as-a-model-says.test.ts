import assert from 'node:assert/strict';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { P9Client, ROOT } from './support/p9-client.ts';
import { openDescriptors } from './support/real-reactor.ts';

/** A tree in memory, with the rules that a guest's requests follow. */
interface Folder {
  readonly kind: 'folder';
  readonly names: Map<string, Node>;
}
interface File {
  readonly kind: 'file';
  content: string;
}
interface Link {
  readonly kind: 'link';
  readonly target: string;
}
type Node = Folder | File | Link;

const NAMES = ['a', 'b', 'c'];
const name = fc.constantFrom(...NAMES);
/** One of two levels. */
const folder = fc.constantFrom<readonly string[]>([], ['a'], ['b']);

const operation = fc.oneof(
  fc.record({
    kind: fc.constant('write' as const),
    folder,
    name,
    text: fc.string({ maxLength: 20, unit: 'grapheme-ascii' }),
  }),
  fc.record({ kind: fc.constant('mkdir' as const), folder, name }),
  fc.record({
    kind: fc.constant('symlink' as const),
    folder,
    name,
    target: fc.constantFrom('a', '../b', '/etc/passwd'),
  }),
  fc.record({ kind: fc.constant('unlink' as const), folder, name, asFolder: fc.boolean() }),
  fc.record({
    kind: fc.constantFrom('rename' as const, 'renameat' as const, 'link' as const),
    folder,
    name,
    to: folder,
    newName: name,
  }),
  fc.record({ kind: fc.constant('remove' as const), folder, name }),
  fc.record({ kind: fc.constant('truncate' as const), folder, name, size: fc.integer({ min: 0, max: 30 }) }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function find(root: Folder, path: readonly string[]): Node | undefined {
  let node: Node | undefined = root;
  for (const step of path) node = node?.kind === 'folder' ? node.names.get(step) : undefined;
  return node;
}

function holds(folder: Folder, node: Node): boolean {
  return (
    folder === node ||
    [...folder.names.values()].some((one) => one === node || (one.kind === 'folder' && holds(one, node)))
  );
}

/** What the model makes of an operation: did it succeed? */
function apply(root: Folder, op: Operation): boolean {
  const into = find(root, op.folder);
  if (into?.kind !== 'folder') return false;
  const node = into.names.get(op.name);
  switch (op.kind) {
    case 'write':
      if (node !== undefined && node.kind !== 'file') return false;
      if (node === undefined) into.names.set(op.name, { kind: 'file', content: op.text });
      else node.content = op.text + node.content.slice(op.text.length);
      return true;
    case 'mkdir':
      if (node !== undefined) return false;
      into.names.set(op.name, { kind: 'folder', names: new Map() });
      return true;
    case 'symlink':
      if (node !== undefined) return false;
      into.names.set(op.name, { kind: 'link', target: op.target });
      return true;
    case 'unlink':
    case 'remove': {
      if (node === undefined) return false;
      const asFolder = op.kind === 'remove' ? node.kind === 'folder' : op.asFolder;
      if (asFolder !== (node.kind === 'folder')) return false;
      if (node.kind === 'folder' && node.names.size > 0) return false;
      into.names.delete(op.name);
      return true;
    }
    case 'truncate':
      if (node?.kind !== 'file') return false;
      node.content = node.content.slice(0, op.size).padEnd(op.size, '\0');
      return true;
    default: {
      const to = find(root, op.to);
      if (node === undefined || to?.kind !== 'folder') return false;
      const there = to.names.get(op.newName);
      if (op.kind === 'link') {
        if (node.kind === 'folder' || there !== undefined) return false;
        to.names.set(op.newName, node);
        return true;
      }
      // rename(2): the same file twice is left as it is, and succeeds.
      if (there === node) return true;
      if (node.kind === 'folder' && holds(node, to)) return false;
      if (there !== undefined) {
        if ((there.kind === 'folder') !== (node.kind === 'folder')) return false;
        if (there.kind === 'folder' && there.names.size > 0) return false;
      }
      into.names.delete(op.name);
      to.names.set(op.newName, node);
      return true;
    }
  }
}

/** The same through the share: with fids that are walked to for it. */
function request(client: P9Client, op: Operation): boolean {
  const [AT, TO, FILE] = [1, 2, 3];
  try {
    if (!client.reaches(AT, ...op.folder)) return false;
    if ('to' in op && !client.reaches(TO, ...op.to)) return false;
    const walked = () => client.walk(AT, FILE, op.name).errno === 0;
    switch (op.kind) {
      case 'write':
        client.walk(AT, FILE);
        return client.lcreate(FILE, op.name, 2) === 0 && client.write(FILE, op.text).errno === 0;
      case 'mkdir':
        return client.mkdir(AT, op.name) === 0;
      case 'symlink':
        return client.symlink(AT, op.name, op.target) === 0;
      case 'unlink':
        return client.unlinkat(AT, op.name, op.asFolder ? 0x200 : 0) === 0;
      case 'remove':
        return walked() && client.remove(FILE) === 0;
      case 'truncate':
        return walked() && client.setattr(FILE, 8, { size: op.size }) === 0;
      case 'rename':
        return walked() && client.rename(FILE, TO, op.newName) === 0;
      case 'renameat':
        return client.renameat(AT, op.name, TO, op.newName) === 0;
      default:
        return walked() && client.link(TO, FILE, op.newName) === 0;
    }
  } finally {
    for (const fid of [AT, TO, FILE]) client.clunk(fid);
  }
}

type Shown = string | { readonly [name: string]: Shown };

function showModel(node: Node): Shown {
  if (node.kind === 'file') return `file ${node.content}`;
  if (node.kind === 'link') return `link ${node.target}`;
  return Object.fromEntries([...node.names].sort().map(([key, value]) => [key, showModel(value)]));
}

function showDisk(path: string): Shown {
  const status = lstatSync(path);
  if (status.isSymbolicLink()) return `link ${readlinkSync(path)}`;
  if (status.isFile()) return `file ${readFileSync(path, 'utf8')}`;
  return Object.fromEntries(
    readdirSync(path)
      .sort()
      .map((one) => [one, showDisk(`${path}/${one}`)]),
  );
}

test('any sequence of requests makes of the folder what a model makes of it, and succeeds where that does', async () => {
  const client = await P9Client.open();
  const before = openDescriptors();
  let runs = 0;
  fc.assert(
    fc.property(fc.array(operation, { minLength: 1, maxLength: 60 }), (operations) => {
      const model: Folder = { kind: 'folder', names: new Map() };
      const top = `run${runs++}`;
      // Each run in a folder of its own, at which its guest is attached by a walk.
      client.version();
      client.attach(9);
      assert.equal(client.mkdir(9, top), 0);
      assert.equal(client.walk(9, ROOT, top).errno, 0);
      for (const op of operations) {
        const expected = apply(model, op);
        assert.equal(request(client, op), expected, JSON.stringify(op));
      }
      assert.deepEqual(showDisk(`${client.path}/${top}`), showModel(model));
      client.version();
      assert.equal(openDescriptors(), before);
    }),
    { numRuns: 200 },
  );
  client.end();
});
