import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { MSIZE_LIMIT } from '@airlock/device/9p/session.ts';
import { P9Client, ROOT } from './support/p9-client.ts';
import { openDescriptors } from './support/real-reactor.ts';

const EPERM = 1;
const ENOENT = 2;
const EBADF = 9;
const EEXIST = 17;
const EBUSY = 16;
const EISDIR = 21;
const EINVAL = 22;
const EFBIG = 27;
const EMSGSIZE = 90;
const EPROTO = 71;
const EOPNOTSUPP = 95;
const ESTALE = 116;

const text = (bytes: Uint8Array | number) =>
  typeof bytes === 'number' ? `errno ${bytes}` : new TextDecoder().decode(bytes);

test('the version is agreed on before anything else; msize is the smaller of both, and 4096 at least', async () => {
  const client = await P9Client.open();
  client.session.reset();
  assert.equal(client.attach(ROOT).errno, EPROTO);
  const msize = (reply: { body: Uint8Array }) => new DataView(reply.body.slice().buffer).getUint32(0, true);
  assert.equal(msize(client.version(8192)), 8192);
  assert.equal(msize(client.version(0xffffffff)), MSIZE_LIMIT);
  assert.equal(client.version(4095).errno, EINVAL);
  assert.equal(client.attach(ROOT).errno, EPROTO, 'a failed version leaves no session');
  for (const other of ['9P2000', '9P2000.u', '9P2000.L2', '', 'x'.repeat(1000)]) {
    assert.equal(text(client.version(8192, other).body.subarray(6)), 'unknown');
    assert.equal(client.attach(ROOT).errno, EPROTO);
  }
  client.end();
});

test('a new version forgets every fid and closes what was open', async () => {
  const client = await P9Client.open();
  const before = openDescriptors();
  client.walk(ROOT, 1);
  client.lcreate(1, 'file');
  assert.ok(openDescriptors() > before);
  client.version();
  assert.equal(openDescriptors(), before);
  assert.equal(client.getattr(1).errno, EBADF);
  client.end();
});

test('a file is made, written, read back in pieces, synced and cut', async () => {
  const client = await P9Client.open();
  client.walk(ROOT, 1);
  assert.equal(client.lcreate(1, 'file', 2, 0o640), 0);
  assert.equal(client.write(1, 'hello').errno, 0);
  assert.equal(client.write(1, 'world', 6).errno, 0);
  assert.equal(text(client.read(1)), 'hello\0world');
  assert.equal(text(client.read(1, 6, 3)), 'wor');
  assert.equal(text(client.read(1, 11)), '');
  assert.equal(text(client.read(1, 1000)), '');
  assert.equal(
    client.call(50, [
      ['u32', 1],
      ['u32', 1],
    ]).errno,
    0,
  );
  assert.equal(client.getattr(1).size, 11);
  assert.equal(client.setattr(1, 8, { size: 5 }), 0);
  assert.equal(readFileSync(`${client.path}/file`, 'utf8'), 'hello');
  assert.equal(statSync(`${client.path}/file`).mode & 0o7777, 0o640 & ~process.umask());
  assert.equal(client.clunk(1), 0);
  assert.equal(client.clunk(1), EBADF);
  client.end();
});

test('a read gives what fits into msize, whatever was asked for', async () => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/big`, Buffer.alloc(100_000, 7)) });
  client.version(8192);
  client.attach(ROOT);
  client.walk(ROOT, 1, 'big');
  client.lopen(1);
  const got = client.read(1, 0, 0xffffffff);
  assert.ok(typeof got !== 'number');
  assert.equal(got.length, 8192 - 11);
  assert.ok(got.every((byte) => byte === 7));
  client.end();
});

test('a message that is longer than msize is refused', async () => {
  const client = await P9Client.open();
  client.version(4096);
  client.attach(ROOT);
  client.walk(ROOT, 1);
  client.lcreate(1, 'file');
  assert.equal(client.write(1, new Uint8Array(4096)).errno, EMSGSIZE);
  assert.equal(client.write(1, new Uint8Array(4096 - 23)).errno, 0);
  client.end();
});

test('offsets beyond what a file can have are refused, not rounded', async () => {
  const client = await P9Client.open();
  client.walk(ROOT, 1);
  client.lcreate(1, 'file');
  for (const offset of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    assert.equal(client.read(1, offset), EFBIG);
    assert.equal(client.write(1, 'x', offset).errno, EFBIG);
    assert.equal(client.setattr(1, 8, { size: offset }), EFBIG);
  }
  client.end();
});

test('a walk makes its fid only where every name was found, and says how far it came', async () => {
  const client = await P9Client.open({
    prepare(share) {
      mkdirSync(`${share}/a/b`, { recursive: true });
      writeFileSync(`${share}/a/b/c`, 'deep');
    },
  });
  const far = client.walk(ROOT, 1, 'a', 'b', 'c');
  assert.equal(far.body.length, 2 + 3 * 13);
  client.lopen(1);
  assert.equal(text(client.read(1)), 'deep');
  assert.equal(client.walk(ROOT, 2, 'a', 'x', 'c').body.length, 2 + 13);
  assert.equal(client.getattr(2).errno, EBADF);
  assert.equal(client.walk(ROOT, 2, 'x').errno, ENOENT);
  assert.equal(client.walk(ROOT, 1, 'a').errno, EINVAL, 'a fid in use');
  assert.equal(client.walk(ROOT, 0xffffffff, 'a').errno, EINVAL, 'NOFID');
  assert.equal(client.walk(77, 2, 'a').errno, EBADF);
  assert.equal(client.walk(ROOT, 3).errno, 0, 'no names: the same file again');
  assert.equal(client.walk(3, 3, 'a').errno, 0, 'in place');
  assert.equal(client.getattr(3).path, BigInt(statSync(`${client.path}/a`).ino));
  assert.equal(client.walk(ROOT, 4, ...Array.from({ length: 17 }, () => 'a')).errno, EINVAL);
  client.end();
});

test('a large folder is read whole through a small window, every name once', async () => {
  const names = Array.from({ length: 700 }, (_, i) => `file-${i}-${'x'.repeat(i % 50)}`);
  const client = await P9Client.open({
    prepare: (share) => names.forEach((name) => void writeFileSync(`${share}/${name}`, '')),
  });
  client.walk(ROOT, 1);
  assert.equal(client.lopen(1), 0);
  const seen: string[] = [];
  let offset = 0n;
  for (let rounds = 0; rounds < 1000; rounds++) {
    const entries = client.readdir(1, offset, 512);
    assert.ok(typeof entries !== 'number');
    if (entries.length === 0) break;
    for (const entry of entries) {
      seen.push(entry.name);
      offset = entry.next;
    }
  }
  assert.deepEqual(seen.sort(), ['.', '..', ...names].sort());
  const again = client.readdir(1, 0n, 65536);
  assert.ok(typeof again !== 'number' && again.length > 400);
  assert.equal(client.readdir(1, 0n, 10), EINVAL, 'not even one entry fits');
  client.end();
});

test('what is above the share is not told, not even as a number', async () => {
  const client = await P9Client.open();
  client.walk(ROOT, 1);
  client.lopen(1);
  const entries = client.readdir(1, 0n, 4096);
  assert.ok(typeof entries !== 'number');
  const own = BigInt(statSync(client.path).ino);
  assert.deepEqual(
    entries.map(({ path }) => path),
    [own, own],
  );
  client.end();
});

test('attributes are those of the file, and of a link itself', async () => {
  const client = await P9Client.open({
    prepare(share) {
      writeFileSync(`${share}/file`, 'abc');
      chmodSync(`${share}/file`, 0o604);
      linkSync(`${share}/file`, `${share}/second`);
      symlinkSync('file', `${share}/link`);
      utimesSync(`${share}/file`, 1, 1_234_567_890);
    },
  });
  client.walk(ROOT, 1, 'file');
  client.walk(ROOT, 2, 'second');
  client.walk(ROOT, 3, 'link');
  const file = client.getattr(1);
  assert.equal(file.mode, 0o100604);
  assert.equal(file.size, 3);
  assert.equal(file.links, 2);
  assert.equal(file.mtime, 1_234_567_890n);
  assert.equal(file.path, client.getattr(2).path, 'one file, one qid');
  const link = client.getattr(3);
  assert.equal(link.mode & 0o170000, 0o120000);
  assert.equal(link.type, 2);
  assert.equal(client.readlink(3), 'file');
  assert.equal(client.readlink(1), EINVAL);
  assert.equal(client.getattr(ROOT).type, 0x80);
  client.end();
});

test('setattr: mode, times and owner; a mode that makes programs run as somebody else is refused', async () => {
  const client = await P9Client.open({
    prepare(share) {
      writeFileSync(`${share}/file`, 'abc');
      mkdirSync(`${share}/folder`);
    },
  });
  client.walk(ROOT, 1, 'file');
  client.walk(ROOT, 2, 'folder');
  assert.equal(client.setattr(1, 1, { mode: 0o100400 }), 0);
  assert.equal(statSync(`${client.path}/file`).mode & 0o7777, 0o400);
  for (const mode of [0o4755, 0o2755, 0o6755]) assert.equal(client.setattr(1, 1, { mode }), EPERM);
  assert.equal(client.setattr(2, 1, { mode: 0o4755 }), EPERM);
  assert.equal(client.setattr(2, 1, { mode: 0o3755 }), 0, 'a folder that hands its group on');
  assert.equal(client.setattr(1, 0x1b0, { times: [5n, 6n, 7n, 8n] }), 0);
  assert.equal(statSync(`${client.path}/file`).mtimeMs, 7000.000008);
  assert.equal(client.setattr(1, 0x1b0, { times: [5n, 1_000_000_000n, 7n, 8n] }), EINVAL);
  assert.equal(client.setattr(1, 0x1b0, { times: [5n, 0x3fffffffn, 7n, 8n] }), EINVAL, 'no secret meanings');
  assert.equal(client.setattr(1, 0x20, {}), 0);
  assert.ok(statSync(`${client.path}/file`).mtimeMs > 1e12, 'now');
  assert.equal(client.setattr(1, 8, { size: 1 }), 0, 'a fid that is not open');
  assert.equal(readFileSync(`${client.path}/file`, 'utf8'), 'a');
  const { uid, gid } = statSync(`${client.path}/file`);
  assert.equal(client.setattr(1, 6, { uid, gid }), 0);
  client.end();
});

test('folders, links and names are made, moved and removed', async () => {
  const client = await P9Client.open();
  assert.equal(client.mkdir(ROOT, 'a'), 0);
  assert.equal(client.mkdir(ROOT, 'a'), EEXIST);
  assert.equal(client.mkdir(ROOT, 'b', 0o700), 0);
  client.walk(ROOT, 1, 'a');
  client.walk(ROOT, 2, 'b');
  client.walk(1, 3);
  assert.equal(client.lcreate(3, 'file'), 0);
  client.write(3, 'content');
  assert.equal(client.renameat(1, 'file', 2, 'moved'), 0);
  assert.equal(readFileSync(`${client.path}/b/moved`, 'utf8'), 'content');
  assert.equal(text(client.read(3)), 'content', 'an open file stays open');
  assert.equal(client.rename(3, 1, 'back'), 0, 'by fid: the fid knows the new name');
  assert.ok(existsSync(`${client.path}/a/back`));
  assert.equal(client.link(2, 3, 'second'), 0);
  assert.equal(statSync(`${client.path}/b/second`).nlink, 2);
  assert.equal(client.symlink(2, 'link', '/etc/passwd'), 0);
  assert.equal(readlinkSync(`${client.path}/b/link`), '/etc/passwd');
  assert.equal(client.unlinkat(ROOT, 'a', 0), EISDIR);
  assert.notEqual(client.unlinkat(ROOT, 'a', 0x200), 0, 'not empty');
  assert.equal(client.unlinkat(2, 'link', 0), 0);
  assert.equal(client.unlinkat(2, 'second', 1), EINVAL);
  assert.equal(client.remove(3), 0);
  assert.equal(client.getattr(3).errno, EBADF);
  assert.equal(existsSync(`${client.path}/a/back`), false);
  assert.equal(client.unlinkat(ROOT, 'a', 0x200), 0);
  assert.deepEqual(readdirSync(client.path), ['b']);
  client.end();
});

test('Tremove takes the fid away even where it fails; the root stays', async () => {
  const client = await P9Client.open({
    prepare(share) {
      mkdirSync(`${share}/full/x`, { recursive: true });
    },
  });
  client.walk(ROOT, 1, 'full');
  assert.notEqual(client.remove(1), 0);
  assert.equal(client.getattr(1).errno, EBADF);
  assert.equal(client.rename(ROOT, ROOT, 'x'), EBUSY);
  assert.equal(client.remove(ROOT), EBUSY);
  client.end();
});

test('a fid means its file: when the host put another there, nothing is done to that', async () => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/file`, 'mine') });
  for (const fid of [1, 2, 3]) client.walk(ROOT, fid, 'file');
  assert.equal(client.lopen(3), 0);
  renameSync(`${client.path}/file`, `${client.path}/elsewhere`);
  writeFileSync(`${client.path}/file`, 'another');
  assert.equal(client.rename(1, ROOT, 'taken'), ESTALE);
  assert.equal(client.link(ROOT, 1, 'linked'), ESTALE);
  assert.equal(client.lopen(1, 0o1000 | 1), ESTALE);
  assert.equal(client.setattr(1, 8, { size: 0 }), ESTALE);
  assert.equal(client.remove(1), ESTALE);
  assert.equal(client.setattr(2, 1, { mode: 0o600 }), 0, 'what needs no name is done to the file');
  assert.equal(statSync(`${client.path}/elsewhere`).mode & 0o777, 0o600);
  assert.equal(text(client.read(3)), 'mine');
  assert.equal(readFileSync(`${client.path}/file`, 'utf8'), 'another');
  assert.deepEqual(readdirSync(client.path).sort(), ['elsewhere', 'file']);
  client.end();
});

test('names are bytes: what is no UTF-8 works as it is', async () => {
  const client = await P9Client.open();
  const name = Uint8Array.of(0xff, 0xfe, 0x80, 0x2e, 0x2e);
  client.walk(ROOT, 1);
  assert.equal(client.lcreate(1, name), 0);
  assert.equal(client.walk(ROOT, 2, name).errno, 0);
  const [found] = readdirSync(client.path, { encoding: 'buffer' });
  assert.deepEqual(new Uint8Array(found ?? []), name);
  client.end();
});

test('locks of two fids hold against each other, and end with the fid', async () => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/file`, 'abc') });
  for (const fid of [1, 2]) {
    client.walk(ROOT, fid, 'file');
    client.lopen(fid, 2);
  }
  assert.equal(client.lock(1, 1), 0);
  assert.equal(client.lock(2, 1), 1, 'blocked');
  assert.equal(client.lock(2, 0), 1);
  assert.equal(client.getlock(2, 1), 1);
  assert.equal(client.getlock(1, 1), 2);
  assert.equal(client.lock(1, 2), 0);
  assert.equal(client.lock(2, 0, 0n, 1n), 0);
  assert.equal(client.lock(1, 1, 1n, 1n), 0, 'other bytes');
  client.clunk(2);
  assert.equal(client.lock(1, 1), 0);
  assert.equal(client.lock(1, 3), -EINVAL);
  assert.equal(client.lock(1, 1, 2n ** 64n - 1n, 2n ** 64n - 1n), 2);
  client.walk(ROOT, 3, 'file');
  assert.equal(client.lock(3, 0), -EBADF, 'not open');
  client.end();
});

test('extended attributes: those of users, and no others', async (t) => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/file`, 'abc') });
  client.walk(ROOT, 1, 'file');
  client.walk(ROOT, 2, 'file');
  assert.equal(client.xattrcreate(2, 'user.colour', 4), 0);
  client.write(2, 'bl');
  client.write(2, 'ue', 2);
  const set = client.clunk(2);
  if (set === EOPNOTSUPP) {
    client.end();
    t.skip('this file system has no extended attributes');
    return;
  }
  assert.equal(set, 0);
  assert.equal(client.xattrwalk(1, 3, 'user.colour'), 0);
  assert.equal(text(client.read(3)), 'blue');
  assert.equal(text(client.read(3, 1, 2)), 'lu');
  assert.equal(client.write(3, 'red').errno, EBADF);
  assert.equal(client.xattrwalk(1, 4, ''), 0);
  assert.equal(text(client.read(4)), 'user.colour\0');
  for (const name of ['security.capability', 'trusted.x', 'system.posix_acl_access', 'user.', 'user']) {
    assert.equal(client.xattrwalk(1, 5, name), EOPNOTSUPP, name);
    assert.equal(client.xattrcreate(1, name, 1), EOPNOTSUPP, name);
  }
  assert.equal(client.xattrcreate(1, 'user.big', 65537), EINVAL);
  assert.equal(client.xattrcreate(1, 'user.big', 2n ** 64n - 1n), EINVAL);
  client.walk(ROOT, 6, 'file');
  assert.equal(client.xattrcreate(6, 'user.half', 10), 0);
  assert.equal(client.write(6, 'gap', 5).errno, EINVAL);
  assert.equal(client.write(6, 'far too long').errno, EINVAL);
  assert.equal(client.clunk(6), EINVAL, 'not all of it came');
  client.walk(ROOT, 7, 'file');
  assert.equal(client.xattrcreate(7, 'user.colour', 0), 0);
  assert.equal(client.clunk(7), 0);
  assert.notEqual(client.xattrwalk(1, 8, 'user.colour'), 0);
  client.end();
});

test('statfs tells sizes, and not which file system it is', async () => {
  const client = await P9Client.open();
  const { errno, body } = client.call(8, [['u32', ROOT]]);
  assert.equal(errno, 0);
  assert.equal(body.length, 60);
  const view = new DataView(body.slice().buffer);
  assert.ok(view.getUint32(4, true) >= 512);
  assert.ok(view.getBigUint64(8, true) > 0n);
  assert.equal(view.getBigUint64(48, true), 0n);
  client.end();
});

test('nobody has to authenticate, there is one tree, and a flush finds nothing left to do', async () => {
  const client = await P9Client.open();
  assert.equal(
    client.call(102, [
      ['u32', 9],
      ['text', 'root'],
      ['text', ''],
      ['u32', 0],
    ]).errno,
    EOPNOTSUPP,
  );
  assert.equal(client.attach(9, '', 3).errno, EBADF);
  assert.equal(client.attach(9, '../outside').errno, ENOENT);
  assert.equal(client.attach(9, '..').errno, ENOENT);
  assert.equal(client.attach(9, '/').errno, 0);
  assert.equal(client.attach(ROOT).errno, EINVAL);
  assert.equal(client.call(108, [['u16', 77]]).errno, 0);
  client.end();
});

test('one fid is one open file, and a link or a folder is not written to', async () => {
  const client = await P9Client.open({ prepare: (share) => symlinkSync('nowhere', `${share}/link`) });
  client.walk(ROOT, 1);
  assert.equal(client.write(1, 'x').errno, EBADF);
  assert.equal(client.read(1), EBADF);
  assert.equal(client.readdir(1, 0n, 4096), EBADF);
  assert.equal(client.lopen(1, 1), EISDIR);
  assert.equal(client.lopen(1), 0);
  assert.equal(client.lopen(1), EINVAL);
  assert.equal(client.read(1), EISDIR);
  assert.equal(client.write(1, 'x').errno, EISDIR);
  assert.equal(client.lcreate(1, 'x'), EINVAL);
  assert.equal(client.walk(1, 1, 'link').errno, EINVAL, 'an open fid is not moved');
  assert.equal(client.walk(1, 2, 'link').errno, 0, 'but walked from');
  assert.ok(lstatSync(`${client.path}/link`).isSymbolicLink());
  client.end();
});
