/** A guest that speaks FUSE to a session, over a folder of its own; and one that lies. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Share } from '@airlock/device/9p/share.ts';
import { FUSE, IN_HEADER, OUT_HEADER } from '@airlock/device/fs/fuse.ts';
import { FuseSession } from '@airlock/device/fs/session.ts';
import { must, random } from './support/in-memory-driver.ts';
import { realReactor } from './support/real-reactor.ts';

const ROOT = 1n;
const [ENOENT, EBADF, EINVAL, EROFS, ENOSYS, ELOOP, EPROTO, ESTALE] = [2, 9, 22, 30, 38, 40, 71, 116];

async function client(options: { readOnly?: boolean } = {}) {
  const real = await realReactor();
  const [path, outside] = [`${real.folder}/share`, `${real.folder}/outside`];
  mkdirSync(`${path}/folder`, { recursive: true });
  mkdirSync(outside);
  writeFileSync(`${path}/file`, 'inside');
  writeFileSync(`${outside}/secret`, 'what the guest must not see');
  symlinkSync('../outside/secret', `${path}/out`);
  symlinkSync('../outside', `${path}/folder/away`);
  const share = must(Share.open(real.calls, path, { readOnly: options.readOnly ?? false }));
  const session = new FuseSession(real.calls, share);
  let unique = 0n;
  const call = (opcode: number, node: bigint, body: Uint8Array = new Uint8Array(0), room = 4096) => {
    const request = new Uint8Array(IN_HEADER + body.length);
    const view = new DataView(request.buffer);
    unique++;
    view.setUint32(0, request.length, true);
    view.setUint32(4, opcode, true);
    view.setBigUint64(8, unique, true);
    view.setBigUint64(16, node, true);
    request.set(body, IN_HEADER);
    const reply = new Uint8Array(room);
    const length = session.answer(request, request.length, reply);
    assert.ok(length <= room);
    const out = new DataView(reply.buffer);
    if (length > 0) {
      assert.equal(out.getUint32(0, true), length);
      assert.equal(out.getBigUint64(8, true), unique);
    }
    const errno = length === 0 ? 0 : Math.abs(out.getInt32(4, true));
    return { errno, length, body: reply.subarray(OUT_HEADER, Math.max(OUT_HEADER, length)), out };
  };
  const init = () => call(FUSE.INIT, 0n, fields([7, 38, 65_536, 0]));
  const lookup = (node: bigint, name: string) => call(FUSE.LOOKUP, node, text(name));
  const find = (node: bigint, name: string) => {
    const found = lookup(node, name);
    assert.equal(found.errno, 0, name);
    return found.out.getBigUint64(OUT_HEADER, true);
  };
  const open = (node: bigint, flags = 0, opcode: number = FUSE.OPEN) => {
    const opened = call(opcode, node, fields([flags, 0]));
    return { errno: opened.errno, handle: opened.errno === 0 ? opened.out.getBigUint64(OUT_HEADER, true) : 0n };
  };
  const read = (handle: bigint, offset: bigint, size: number, opcode: number = FUSE.READ) => {
    const body = new Uint8Array(40);
    new DataView(body.buffer).setBigUint64(0, handle, true);
    new DataView(body.buffer).setBigUint64(8, offset, true);
    new DataView(body.buffer).setUint32(16, size, true);
    return call(opcode, ROOT, body);
  };
  const write = (handle: bigint, offset: bigint, data: Uint8Array, size = data.length) => {
    const body = new Uint8Array(40 + data.length);
    new DataView(body.buffer).setBigUint64(0, handle, true);
    new DataView(body.buffer).setBigUint64(8, offset, true);
    new DataView(body.buffer).setUint32(16, size, true);
    body.set(data, 40);
    return call(FUSE.WRITE, ROOT, body);
  };
  const end = () => {
    session.reset();
    assert.equal(share.held, 1); // the share itself
    share.close();
    real.end();
  };
  return { path, outside, session, share, call, init, lookup, find, open, read, write, end };
}

function text(...names: string[]): Uint8Array {
  return new TextEncoder().encode(names.map((name) => `${name}\0`).join(''));
}

function fields(values: readonly number[], more: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(4 * values.length + more.length);
  values.forEach((value, i) => {
    new DataView(bytes.buffer).setUint32(4 * i, value, true);
  });
  bytes.set(more, 4 * values.length);
  return bytes;
}

test('a file is found, read, written, renamed and removed; what is forgotten is closed', async () => {
  const one = await client();
  one.init();
  const file = one.find(ROOT, 'file');
  const { handle } = one.open(file, 2);
  assert.equal(Buffer.from(one.read(handle, 2n, 100).body).toString(), 'side');
  assert.equal(one.write(handle, 6n, Buffer.from(' and out')).errno, 0);
  assert.equal(readFileSync(`${one.path}/file`, 'utf8'), 'inside and out');
  const folder = one.find(ROOT, 'folder');
  assert.equal(one.call(FUSE.RENAME, ROOT, fields([Number(folder), 0], text('file', 'moved'))).errno, 0);
  assert.equal(one.open(file).errno, 0); // it is known where it is now
  assert.equal(one.call(FUSE.UNLINK, folder, text('moved')).errno, 0);
  assert.equal(one.open(file).errno, ENOENT);
  assert.equal(one.call(FUSE.FORGET, file, fields([1, 0])).length, 0);
  assert.equal(one.call(FUSE.GETATTR, file, new Uint8Array(16)).errno, ESTALE);
  one.end();
});

test('names that are none, and links that lead out, lead nowhere in every request', async () => {
  const one = await client();
  one.init();
  const folder = one.find(ROOT, 'folder');
  for (const name of ['', '.', '..', '/', 'a/b', '../outside', '/etc', 'folder/../..']) {
    for (const node of [ROOT, folder]) {
      assert.equal(one.lookup(node, name).errno, EINVAL, name);
      assert.equal(one.call(FUSE.MKDIR, node, fields([0o777, 0], text(name))).errno, EINVAL);
      assert.equal(one.call(FUSE.UNLINK, node, text(name)).errno, EINVAL);
      assert.equal(one.call(FUSE.SYMLINK, node, text(name, 'target')).errno, EINVAL);
      assert.equal(one.call(FUSE.CREATE, node, fields([1, 0o644, 0, 0], text(name))).errno, EINVAL);
      assert.equal(one.call(FUSE.RENAME, ROOT, fields([Number(folder), 0], text('file', name))).errno, EINVAL);
    }
  }
  const out = one.find(ROOT, 'out');
  assert.equal(one.open(out).errno, ELOOP);
  const away = one.find(folder, 'away');
  assert.notEqual(one.lookup(away, 'secret').errno, 0);
  assert.notEqual(one.call(FUSE.CREATE, away, fields([1, 0o644, 0, 0], text('new'))).errno, 0);
  assert.equal(Buffer.from(one.call(FUSE.READLINK, out).body).toString(), '../outside/secret');
  assert.deepEqual(readdirSync(one.outside), ['secret']);
  one.end();
});

test('nothing is answered before the session began; numbers and handles are only those that were given', async () => {
  const one = await client();
  assert.equal(one.lookup(ROOT, 'file').errno, EPROTO);
  assert.equal(one.call(FUSE.INIT, 0n, fields([7, 20, 0, 0])).errno, EPROTO);
  one.init();
  for (const number of [0n, 2n, 2n ** 32n, 2n ** 64n - 1n]) {
    assert.equal(one.call(FUSE.GETATTR, number, new Uint8Array(16)).errno, ESTALE);
    assert.equal(one.lookup(number, 'file').errno, ESTALE);
    assert.equal(one.read(number, 0n, 10).errno, EBADF);
    assert.equal(one.write(number, 0n, new Uint8Array(1)).errno, EBADF);
    assert.equal(one.call(FUSE.RELEASE, ROOT, fields([Number(number & 0xffffffffn), 0, 0, 0, 0, 0])).errno, EBADF);
  }
  assert.equal(one.call(99, ROOT).errno, ENOSYS);
  one.end();
});

test('lengths that lie: of the message, of the data, of the reply’s room', async () => {
  const one = await client();
  one.init();
  const { handle } = one.open(one.find(ROOT, 'file'), 2);
  assert.equal(one.write(handle, 0n, new Uint8Array(4), 400).errno, EINVAL);
  assert.equal(one.write(handle, 2n ** 63n, new Uint8Array(4)).errno, 27);
  assert.equal(one.read(handle, 2n ** 60n, 4).errno, 27);
  assert.equal(one.read(handle, 0n, 0xffff_ffff).body.length, 6);
  assert.equal(one.call(FUSE.LOOKUP, ROOT, text('file'), OUT_HEADER + 10).errno, EINVAL);
  assert.equal(one.call(FUSE.LOOKUP, ROOT, new Uint8Array([0x66])).errno, EPROTO); // no zero
  assert.equal(one.call(FUSE.LOOKUP, ROOT, text('file'), OUT_HEADER - 1).length, 0);
  const request = new Uint8Array(IN_HEADER);
  new DataView(request.buffer).setUint32(0, 4000, true);
  const reply = new Uint8Array(64);
  assert.equal(one.session.answer(request, request.length, reply), OUT_HEADER);
  assert.equal(-new DataView(reply.buffer).getInt32(4, true), EPROTO);
  assert.equal(one.session.answer(new Uint8Array(5), 5, reply), OUT_HEADER);
  assert.equal(readFileSync(`${one.path}/file`, 'utf8'), 'inside');
  one.end();
});

test('a folder is listed whole, in pieces as small as the guest asks for', async () => {
  const one = await client();
  one.init();
  for (let i = 0; i < 50; i++) writeFileSync(`${one.path}/folder/name-${i}`, '');
  const { handle } = one.open(one.find(ROOT, 'folder'), 0, FUSE.OPENDIR);
  const names: string[] = [];
  for (let offset = 0n, rounds = 0; rounds < 100; rounds++) {
    const { body, errno } = one.read(handle, offset, 200, FUSE.READDIR);
    assert.equal(errno, 0);
    if (body.length === 0) break;
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    for (let at = 0; at < body.length; ) {
      const length = view.getUint32(at + 16, true);
      offset = view.getBigUint64(at + 8, true);
      names.push(Buffer.from(body.subarray(at + 24, at + 24 + length)).toString());
      at += 24 + Math.ceil(length / 8) * 8;
    }
  }
  assert.equal(names.length, 53);
  assert.equal(new Set(names).size, 53);
  assert.equal(one.read(handle, 0n, 10, FUSE.READDIR).errno, EINVAL); // not one entry fits
  one.end();
});

test('a read-only share changes nothing', async () => {
  const one = await client({ readOnly: true });
  one.init();
  const file = one.find(ROOT, 'file');
  assert.equal(one.open(file, 1).errno, EROFS);
  assert.equal(one.open(file, 0o1000).errno, EROFS); // truncates
  assert.equal(one.call(FUSE.CREATE, ROOT, fields([1, 0o644, 0, 0], text('new'))).errno, EROFS);
  assert.equal(one.call(FUSE.MKDIR, ROOT, fields([0o755, 0], text('new'))).errno, EROFS);
  assert.equal(one.call(FUSE.UNLINK, ROOT, text('file')).errno, EROFS);
  for (const valid of [1, 2, 4, 8, 16, 32]) {
    const body = new Uint8Array(88);
    body[0] = valid;
    assert.equal(one.call(FUSE.SETATTR, file, body).errno, EROFS, String(valid));
  }
  assert.equal(readFileSync(`${one.path}/file`, 'utf8'), 'inside');
  one.end();
});

test('random requests never leave the share, never throw, and leave no descriptor behind', async () => {
  const one = await client();
  const draw = random(0xf05e);
  const opcodes = Object.values(FUSE);
  for (let round = 0; round < 1500; round++) {
    if (round % 100 === 0) one.init();
    const opcode = opcodes[draw(opcodes.length)] ?? 1;
    const names = ['file', 'folder', 'out', 'away', '..', 'x', 'a/b', ''];
    const name = text(names[draw(names.length)] ?? 'x', names[draw(names.length)] ?? 'x');
    const head = Array.from({ length: draw(12) }, () => (draw(3) === 0 ? draw(0xffff_ffff) : draw(6)));
    one.call(opcode, BigInt(draw(6)), draw(2) === 0 ? fields(head, name) : name, draw(3) === 0 ? draw(200) : 4096);
  }
  assert.deepEqual(readdirSync(one.outside), ['secret']);
  assert.equal(readFileSync(`${one.outside}/secret`, 'utf8'), 'what the guest must not see');
  assert.ok(existsSync(one.path));
  one.end();
});
