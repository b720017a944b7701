import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { SystemCalls } from '@airlock/transport/system-calls.ts';
import { listenUnix } from '@airlock/transport/unix-listener.ts';
import { connectUnix, receive, send, type UnixSocketType } from '@airlock/transport/unix-socket.ts';
import { calls, missing } from './support/calls.ts';
import { openDescriptors } from './support/descriptors.ts';

const skip = missing;
const folder = mkdtempSync(join(tmpdir(), 'airlock-listen-'));
after(() => rmSync(folder, { recursive: true }));
let count = 0;
const fresh = () => join(folder, `s${count++}`);
const codeOf = (result: { ok: boolean; error?: { code: string } }) => (result.ok ? 'ok' : result.error?.code);

function listen(path: string, type: UnixSocketType = 'stream') {
  const listener = listenUnix(calls, path, type);
  assert.ok(listener.ok, JSON.stringify(listener));
  return listener.value;
}

for (const type of ['stream', 'seqpacket'] as const) {
  test(`a ${type} listener accepts, and both ends talk`, { skip }, () => {
    const before = openDescriptors();
    const path = fresh();
    const listener = listen(path, type);
    assert.deepEqual(listener.accept(), { ok: true, value: null });
    const client = connectUnix(calls, path, type);
    const server = listener.accept();
    assert.ok(client.ok && server.ok && server.value !== null);
    assert.ok(send(calls, client.value, new Uint8Array([7])).ok);
    const into = new Uint8Array(1);
    assert.ok(receive(calls, server.value, into, 0).ok);
    assert.equal(into[0], 7);
    for (const fd of [client.value, server.value]) calls.close(fd);
    listener.close();
    listener.close();
    assert.equal(existsSync(path), false);
    assert.deepEqual(openDescriptors(), before);
  });
}

test('only the owner may connect, whatever the umask', { skip }, () => {
  const old = process.umask(0);
  const listener = listen(fresh());
  process.umask(old);
  assert.equal(statSync(listener.path).mode & 0o777, 0o600);
  listener.close();
});

test('a file, a folder, a link to a socket and a link to nothing stay what they are', { skip }, () => {
  const file = fresh();
  writeFileSync(file, 'precious');
  assert.equal(codeOf(listenUnix(calls, file)), 'socket-path-taken');
  assert.equal(readFileSync(file, 'utf8'), 'precious');
  assert.equal(codeOf(listenUnix(calls, folder)), 'socket-path-taken');

  const dead = fresh();
  const first = listen(dead);
  calls.close(first.fd);
  const link = fresh();
  symlinkSync(dead, link);
  assert.equal(codeOf(listenUnix(calls, link)), 'socket-path-taken');
  assert.ok(lstatSync(link).isSymbolicLink());
  const dangling = fresh();
  symlinkSync(join(folder, 'nowhere'), dangling);
  assert.equal(codeOf(listenUnix(calls, dangling)), 'socket-path-taken');
  assert.equal(existsSync(join(folder, 'nowhere')), false);
});

test('a socket in use stays, also one of another type; a dead one is replaced', { skip }, () => {
  const path = fresh();
  const live = listen(path);
  assert.equal(codeOf(listenUnix(calls, path)), 'socket-path-taken');
  assert.equal(codeOf(listenUnix(calls, path, 'seqpacket')), 'socket-path-taken');
  assert.equal(codeOf(connectUnix(calls, path, 'seqpacket')), 'socket-wrong-type');
  const client = connectUnix(calls, path);
  assert.ok(client.ok);
  calls.close(client.value);
  live.close();

  const abandoned = fresh();
  const server = calls.socket(1, 1, 0);
  const address = new Uint8Array([1, 0, ...Buffer.from(abandoned), 0]);
  assert.equal(calls.bind(server, address), 0);
  calls.close(server);
  assert.equal(codeOf(connectUnix(calls, abandoned)), 'socket-refused');
  listen(abandoned).close();
});

test('closing removes no other socket that took the path', { skip }, () => {
  const path = fresh();
  const first = listen(path);
  rmSync(path);
  const second = listen(path);
  first.close();
  assert.ok(lstatSync(path).isSocket());
  second.close();
});

test('paths that are no addresses are refused', { skip }, () => {
  for (const path of ['', 'x'.repeat(108), `${folder}/a\0b`]) {
    assert.equal(codeOf(listenUnix(calls, path)), 'socket-path-invalid');
    assert.equal(codeOf(connectUnix(calls, path)), 'socket-path-invalid');
  }
  assert.equal(codeOf(listenUnix(calls, join(folder, 'no', 'folder'))), 'system-call-failed');
});

test('without descriptors the waiting connection is closed instead of told for ever', { skip }, () => {
  const path = fresh();
  let exhausted = true;
  const closed: number[] = [];
  const short: SystemCalls = {
    ...calls,
    close(fd) {
      exhausted = false;
      closed.push(fd);
      return calls.close(fd);
    },
    accept4: (fd, flags) => (exhausted ? -24 : calls.accept4(fd, flags)),
  };
  const listener = listenUnix(short, path);
  assert.ok(listener.ok);
  const client = connectUnix(calls, path);
  assert.ok(client.ok);
  assert.equal(codeOf(listener.value.accept()), 'descriptors-exhausted');
  assert.equal(closed.length, 2);
  const end = receive(calls, client.value, new Uint8Array(1), 0);
  assert.equal(end.ok && end.value.closed, true);
  assert.deepEqual(listener.value.accept(), { ok: true, value: null });
  calls.close(client.value);
  listener.value.close();
});
