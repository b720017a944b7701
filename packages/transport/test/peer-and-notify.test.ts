import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { peerOf } from '@airlock/transport/peer.ts';
import { notifyService } from '@airlock/transport/service-notify.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from '@airlock/transport/sys/sockets.ts';
import { loadSystemCalls } from '@airlock/transport/system-calls.ts';

const loaded = await loadSystemCalls();
const missing = loaded.ok ? false : loaded.error.message;

test('the other end of a Unix socket is this process', { skip: missing }, async () => {
  assert.ok(loaded.ok);
  const folder = mkdtempSync(join(tmpdir(), 'airlock-peer-'));
  const path = join(folder, 's');
  const seen = await new Promise<unknown>((resolve) => {
    const server = createServer((socket) => {
      const handle: unknown = Reflect.get(socket, '_handle');
      const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : -1;
      resolve(typeof fd === 'number' ? peerOf(loaded.value, fd) : undefined);
      socket.destroy();
      server.close();
    });
    server.listen(path, () =>
      connect(path)
        .on('error', () => undefined)
        .resume(),
    );
  });
  rmSync(folder, { recursive: true });
  assert.deepEqual(seen, {
    ok: true,
    value: { pid: process.pid, uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 },
  });
});

test('a descriptor that is no socket has no peer', { skip: missing }, () => {
  assert.ok(loaded.ok);
  const peer = peerOf(loaded.value, 1_000_000);
  assert.match(peer.ok ? '' : peer.error.message, /EBADF/);
});

test('the service manager gets the datagram', { skip: missing }, (t) => {
  assert.ok(loaded.ok);
  const calls = loaded.value;
  // An abstract name, bound through the same calls (Node has no Unix datagram sockets).
  const name = `airlock-test-${process.pid}`;
  const address = new Uint8Array([1, 0, 0, ...Buffer.from(name)]);
  const fd = calls.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  t.after(() => calls.close(fd));
  assert.equal(calls.bind(fd, address), 0);
  assert.deepEqual(notifyService(calls, `@${name}`, 'READY=1'), { ok: true, value: undefined });
  const message = calls.allocate(200);
  message.view.setBigUint64(16, BigInt(message.address + 64), true);
  message.view.setBigUint64(24, 1n, true);
  message.view.setBigUint64(64, BigInt(message.address + 96), true);
  message.view.setBigUint64(72, 100n, true);
  const length = calls.recvmsg(fd, message, 0x40);
  assert.equal(Buffer.from(message.bytes.slice(96, 96 + Math.max(0, length))).toString(), 'READY=1');
});

test('a NOTIFY_SOCKET that is no socket address is refused, one where nobody listens is an error', {
  skip: missing,
}, () => {
  assert.ok(loaded.ok);
  for (const path of ['', 'relative', '@', '/', `/${'x'.repeat(200)}`, '/a\0b']) {
    const sent = notifyService(loaded.value, path, 'READY=1');
    assert.equal(sent.ok ? 'sent' : sent.error.code, 'notify-refused', path);
  }
  const nobody = notifyService(loaded.value, '/nowhere/at/all', 'READY=1');
  assert.equal(nobody.ok ? 'sent' : nobody.error.code, 'system-call-failed');
});
