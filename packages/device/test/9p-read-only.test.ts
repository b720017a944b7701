import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { P9Client, ROOT } from './support/p9-client.ts';

const EROFS = 30;

test('a read-only share can be read, and every request that would change something gets EROFS', async () => {
  const client = await P9Client.open({
    readOnly: true,
    prepare(share) {
      writeFileSync(`${share}/file`, 'content');
      mkdirSync(`${share}/folder`);
      symlinkSync('file', `${share}/link`);
    },
  });
  const before = statSync(`${client.path}/file`);
  client.walk(ROOT, 1, 'file');
  client.walk(ROOT, 2, 'folder');
  client.walk(ROOT, 3, 'link');
  client.walk(ROOT, 4);
  client.walk(ROOT, 5);
  const changes: [string, () => number][] = [
    ['open for writing', () => client.lopen(1, 1)],
    ['open for both', () => client.lopen(1, 2)],
    ['open and cut', () => client.lopen(1, 0o1000)],
    ['access 3', () => client.lopen(1, 3)],
    ['create', () => client.lcreate(4, 'new')],
    ['create what is there', () => client.lcreate(4, 'file')],
    ['mkdir', () => client.mkdir(ROOT, 'new')],
    ['symlink', () => client.symlink(ROOT, 'new', 'file')],
    ['mknod', () => client.mknod(ROOT, 'new', 0o100644)],
    ['mknod of a pipe', () => client.mknod(ROOT, 'new', 0o010644)],
    ['mknod of a device', () => client.mknod(ROOT, 'new', 0o020644)],
    ['link', () => client.link(ROOT, 1, 'new')],
    ['rename', () => client.rename(1, ROOT, 'new')],
    ['renameat', () => client.renameat(ROOT, 'file', ROOT, 'new')],
    ['unlinkat', () => client.unlinkat(ROOT, 'file')],
    ['unlinkat of a folder', () => client.unlinkat(ROOT, 'folder', 0x200)],
    ['remove', () => client.remove(5) && client.call(122, [['u32', 3]]).errno],
    ['mode', () => client.setattr(1, 1, { mode: 0o777 })],
    ['owner', () => client.setattr(1, 6, {})],
    ['size', () => client.setattr(1, 8, { size: 0 })],
    ['times', () => client.setattr(1, 0x30, {})],
    ['xattrcreate', () => client.xattrcreate(1, 'user.x', 1)],
  ];
  for (const [name, change] of changes) assert.equal(change(), EROFS, name);
  assert.equal(client.lopen(1), 0);
  assert.equal(new TextDecoder().decode(client.read(1) as Uint8Array), 'content');
  assert.notEqual(client.write(1, 'x').errno, 0);
  assert.notEqual(client.lock(1, 1), 0, 'a write lock needs a file that is open for writing');
  assert.deepEqual(readdirSync(client.path).sort(), ['file', 'folder', 'link']);
  const after = statSync(`${client.path}/file`);
  assert.deepEqual(
    [after.mode, after.size, after.mtimeMs, after.ctimeMs, after.nlink],
    [before.mode, before.size, before.mtimeMs, before.ctimeMs, before.nlink],
  );
  assert.equal(readFileSync(`${client.path}/file`, 'utf8'), 'content');
  client.end();
});
