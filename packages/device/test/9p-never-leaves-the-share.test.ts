import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { P9Client, ROOT } from './support/p9-client.ts';

const EINVAL = 22;
const ENAMETOOLONG = 36;
const ENOTDIR = 20;
const ELOOP = 40;
const ENXIO = 6;
const EPERM = 1;

const SECRET = 'what the guest must not see';

function prepare(share: string, outside: string): void {
  writeFileSync(`${outside}/secret`, SECRET);
  writeFileSync(`${share}/file`, 'inside');
  mkdirSync(`${share}/folder`);
}

const BAD_NAMES = ['', '.', '..', '/', 'a/b', '../outside', '/etc', 'folder/', 'a\0b', '\0', 'folder/../..'];

test('names that are none are refused in every request that takes one', async () => {
  const client = await P9Client.open({ prepare });
  client.walk(ROOT, 1, 'file');
  for (const name of [...BAD_NAMES, 'x'.repeat(256)]) {
    const wanted = name.length > 255 ? ENAMETOOLONG : EINVAL;
    const shown = JSON.stringify(name.slice(0, 20));
    assert.equal(client.walk(ROOT, 2, name).errno, wanted, `walk ${shown}`);
    assert.equal(client.walk(ROOT, 2, 'folder', name).body[0], 1, `walk folder ${shown}`);
    assert.equal(client.mkdir(ROOT, name), wanted, `mkdir ${shown}`);
    assert.equal(client.symlink(ROOT, name, 'target'), wanted, `symlink ${shown}`);
    assert.equal(client.mknod(ROOT, name, 0o100644), wanted, `mknod ${shown}`);
    assert.equal(client.link(ROOT, 1, name), wanted, `link ${shown}`);
    assert.equal(client.rename(1, ROOT, name), wanted, `rename ${shown}`);
    assert.equal(client.renameat(ROOT, name, ROOT, 'new'), wanted, `renameat from ${shown}`);
    assert.equal(client.renameat(ROOT, 'file', ROOT, name), wanted, `renameat to ${shown}`);
    assert.equal(client.unlinkat(ROOT, name, 0x200), wanted, `unlinkat ${shown}`);
    client.walk(ROOT, 3);
    assert.equal(client.lcreate(3, name), wanted, `lcreate ${shown}`);
    client.clunk(3);
  }
  assert.deepEqual(readdirSync(client.path).sort(), ['file', 'folder']);
  assert.deepEqual(readdirSync(client.outside), ['secret']);
  client.end();
});

test('a link of the share that leads out is given to the guest as a link, and followed by nothing', async () => {
  const client = await P9Client.open({
    prepare(share, outside) {
      prepare(share, outside);
      symlinkSync(outside, `${share}/out`);
      symlinkSync('..', `${share}/up`);
      symlinkSync(`${outside}/secret`, `${share}/secret`);
      symlinkSync('/proc/self/root', `${share}/root`);
      symlinkSync('folder', `${share}/harmless`);
    },
  });
  for (const name of ['out', 'up', 'root', 'harmless']) {
    assert.equal(client.walk(ROOT, 1, name, 'secret').body[0], 1, `through ${name}`);
    assert.equal(client.walk(ROOT, 1, name).errno, 0);
    assert.equal(client.getattr(1).type, 2);
    assert.equal(client.walk(1, 2, 'secret').errno, ENOTDIR);
    assert.equal(client.lopen(1), ELOOP);
    assert.notEqual(client.mkdir(1, 'x'), 0);
    assert.notEqual(client.symlink(1, 'x', 'y'), 0);
    assert.notEqual(client.mknod(1, 'x', 0o100644), 0);
    assert.notEqual(client.unlinkat(1, 'secret', 0), 0);
    assert.notEqual(client.renameat(1, 'secret', ROOT, 'got-it'), 0);
    assert.notEqual(client.renameat(ROOT, 'file', 1, 'file'), 0);
    assert.notEqual(client.lcreate(1, 'x'), 0);
    client.clunk(1);
  }
  client.walk(ROOT, 1, 'secret');
  assert.equal(client.lopen(1), ELOOP);
  assert.equal(client.lopen(1, 2), ELOOP);
  assert.notEqual(client.setattr(1, 8, { size: 0 }), 0);
  assert.notEqual(
    client.setattr(1, 1, { mode: 0o777 }),
    0,
    'a link has no mode of its own, and its target is not meant',
  );
  client.xattrwalk(1, 2, 'user.x');
  // Opening by name what is a link there:
  client.walk(ROOT, 4);
  assert.equal(client.lcreate(4, 'secret', 0x200 | 2), ELOOP, 'with O_TRUNC');
  // Another name for a link is another link.
  assert.equal(client.link(ROOT, 1, 'twin'), 0);
  client.walk(ROOT, 5, 'twin');
  assert.equal(client.readlink(5), `${client.outside}/secret`);
  assert.equal(statSync(`${client.outside}/secret`).nlink, 1);
  // Times of a link are its own.
  const before = statSync(`${client.outside}/secret`).mtimeMs;
  client.setattr(1, 0x1b0, { times: [5n, 0n, 5n, 0n] });
  assert.equal(statSync(`${client.outside}/secret`).mtimeMs, before);
  assert.equal(readFileSync(`${client.outside}/secret`, 'utf8'), SECRET);
  assert.equal(statSync(`${client.outside}/secret`).mode & 0o777, 0o644 & ~process.umask());
  client.end();
});

test('a folder that is exchanged for a link between two requests is still the folder', async () => {
  const client = await P9Client.open({
    prepare(share, outside) {
      prepare(share, outside);
      writeFileSync(`${share}/folder/secret`, 'harmless');
    },
  });
  client.walk(ROOT, 1, 'folder');
  renameSync(`${client.path}/folder`, `${client.path}/folder.old`);
  symlinkSync(client.outside, `${client.path}/folder`);
  client.walk(1, 2, 'secret');
  assert.equal(client.lopen(2), 0);
  assert.equal(new TextDecoder().decode(client.read(2) as Uint8Array), 'harmless');
  assert.equal(client.mkdir(1, 'made'), 0);
  assert.ok(existsSync(`${client.path}/folder.old/made`));
  assert.equal(existsSync(`${client.outside}/made`), false);
  client.end();
});

test('another process exchanges folders for links all the time: nothing outside is read, made or removed', async () => {
  const client = await P9Client.open({
    prepare(share, outside) {
      prepare(share, outside);
      for (const base of [share, outside]) {
        mkdirSync(`${base}/a/b`, { recursive: true });
        writeFileSync(`${base}/a/b/secret`, base === outside ? SECRET : 'harmless');
      }
    },
  });
  // RENAME_EXCHANGE: at every moment there is either the folder or the link of that name.
  const racer = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { loadLibc } from '@airlock/transport/sys/libc.ts';
       import { symlinkSync, writeSync } from 'node:fs';
       const libc = await loadLibc();
       const exchange = libc.value.func('int64_t syscall(int64_t, int, const char *, int, const char *, uint32_t)');
       const [share, outside] = process.argv.slice(1);
       symlinkSync(outside + '/a', share + '/a.link');
       symlinkSync(outside + '/a/b', share + '/a/b.link');
       writeSync(1, 'ready');
       const number = process.arch === 'arm64' ? 276 : 316;
       for (;;) {
         if (exchange(number, -100, share + '/a', -100, share + '/a.link', 2) < 0) process.exit(1);
         exchange(number, -100, share + '/a.link/b', -100, share + '/a.link/b.link', 2);
         exchange(number, -100, share + '/a/b', -100, share + '/a/b.link', 2);
       }`,
      client.path,
      client.outside,
    ],
    { cwd: new URL('..', import.meta.url).pathname, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  try {
    await new Promise((resolve, reject) => {
      racer.stdout.once('data', resolve);
      racer.once('exit', () => reject(new Error('the racer ended')));
    });
    let inside = 0;
    let blocked = 0;
    for (let i = 0; i < 20_000; i++) {
      const reply = client.walk(ROOT, 1, 'a', 'b', 'secret');
      if (reply.errno !== 0 || reply.body[0] !== 3) {
        if (reply.errno === 0) blocked++;
        // Half of the way is a fid too.
        if (client.walk(ROOT, 2, 'a', 'b').body[0] === 2) {
          client.mkdir(2, 'made');
          client.lcreate(2, `file-${i % 7}`, 0o101 | 2);
          client.unlinkat(2, 'secret.not', 0);
        }
        client.clunk(2);
        continue;
      }
      inside++;
      if (client.lopen(1) === 0) {
        const got = client.read(1);
        assert.equal(new TextDecoder().decode(got as Uint8Array), 'harmless');
      }
      client.clunk(1);
    }
    assert.ok(inside > 0, 'the folder was never there');
    assert.ok(blocked > 0, 'the link was never there');
    assert.equal(racer.exitCode, null, 'the racer ended early');
  } finally {
    racer.kill('SIGKILL');
    await new Promise((resolve) => racer.once('close', resolve));
  }
  assert.deepEqual(readdirSync(client.outside).sort(), ['a', 'secret']);
  assert.deepEqual(readdirSync(`${client.outside}/a`), ['b']);
  assert.deepEqual(readdirSync(`${client.outside}/a/b`), ['secret']);
  assert.equal(readFileSync(`${client.outside}/a/b/secret`, 'utf8'), SECRET);
  client.end();
});

test('pipes, sockets and devices are shown and never opened: nothing hangs', async () => {
  const client = await P9Client.open({ prepare });
  assert.equal(client.mknod(ROOT, 'pipe', 0o010644), 0);
  assert.equal(client.mknod(ROOT, 'socket', 0o140644), 0);
  assert.equal(client.mknod(ROOT, 'regular', 0o100644), 0);
  assert.ok(statSync(`${client.path}/pipe`).isFIFO());
  for (const [fid, name] of [
    [1, 'pipe'],
    [2, 'socket'],
  ] as const) {
    client.walk(ROOT, fid, name);
    for (const flags of [0, 1, 2, 0o1000 | 1]) assert.equal(client.lopen(fid, flags), ENXIO, name);
    assert.equal(client.setattr(fid, 8, { size: 0 }), ENXIO);
    assert.equal(
      client.call(50, [
        ['u32', fid],
        ['u32', 0],
      ]).errno,
      ENXIO,
    );
    assert.notEqual(client.xattrwalk(fid, 9, 'user.x'), 0);
    assert.equal(client.setattr(fid, 1, { mode: 0o600 }), 0, 'its mode can be changed all the same');
    client.walk(ROOT, 5);
    assert.equal(client.lcreate(5, name), ENXIO, 'by name');
    client.clunk(5);
  }
  client.end();
});

test('a guest makes no device of this machine, and no program that runs as somebody else', async () => {
  const client = await P9Client.open({ prepare });
  for (const mode of [0o020666, 0o060666]) assert.equal(client.mknod(ROOT, 'device', mode), EPERM);
  client.walk(ROOT, 1);
  assert.equal(client.lcreate(1, 'program', 2, 0o6755), 0);
  client.mknod(ROOT, 'other', 0o106755);
  for (const name of ['program', 'other']) assert.equal(statSync(`${client.path}/${name}`).mode & 0o7000, 0, name);
  assert.equal(existsSync(`${client.path}/device`), false);
  client.end();
});

test('what is mounted within the share is not entered', async (t) => {
  const client = await P9Client.open();
  client.end();
  // /proc is a mount in / on every machine: share / read-only, and look.
  const root = await P9Client.open({ readOnly: true });
  const { Share } = await import('@airlock/device/9p/share.ts');
  const shared = Share.open(root.real.calls, '/', { readOnly: true });
  if (!shared.ok) {
    root.end();
    t.skip('/ cannot be shared here');
    return;
  }
  const found = shared.value.walk(shared.value.root, new TextEncoder().encode('proc'));
  assert.equal(found, -18);
  shared.value.close();
  root.end();
});

test('a guest that goes on in a folder that was removed finds nothing there', async () => {
  const client = await P9Client.open({ prepare });
  client.walk(ROOT, 1, 'folder');
  rmSync(`${client.path}/folder`, { recursive: true });
  assert.notEqual(client.mkdir(1, 'x'), 0);
  assert.notEqual(client.walk(1, 2, 'x').errno, 0);
  client.end();
});
