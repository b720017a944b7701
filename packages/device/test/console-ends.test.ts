import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { test } from 'node:test';
import { served as share } from '@airlock/device/9p/serve.ts';
import { ConsoleDevice } from '@airlock/device/console/console-device.ts';
import type { PortEnd } from '@airlock/device/console/port-end.ts';
import { parsePortSpec } from '@airlock/device/console/port-spec.ts';
import { served } from '@airlock/device/console/serve.ts';
import { openSocketEnd } from '@airlock/device/console/socket-end.ts';
import { openFileEnd, openPtyEnd } from '@airlock/device/console/terminal.ts';
import { served as vsock } from '@airlock/device/vsock/serve.ts';
import { connectUnix, receive, send } from '@airlock/transport/unix-socket.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { drive, must } from './support/in-memory-driver.ts';
import { openDescriptors, realReactor } from './support/real-reactor.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

/** A console of one port, its driver, and what it received. */
function withEnd(end: PortEnd) {
  const device = new ConsoleDevice({ ports: [{ name: '', isConsole: true, end }], size: null });
  const driven = drive(device, { bits: [28, 29], start: [0, 1] });
  const [rx, tx] = [driven.queues[0]?.driver, driven.queues[1]?.driver];
  assert.ok(rx !== undefined && tx !== undefined);
  for (let i = 0; i < 8; i++) {
    const address = driven.allocate(64);
    rx.writable(address, 64);
    rx.submit(address);
  }
  rx.publish();
  device.serve(0);
  let received = '';
  return {
    device,
    send(words: string) {
      const address = driven.allocate(words.length);
      driven.at(address, words.length).set(bytes(words));
      tx.readable(address, words.length);
      tx.submit(0);
      tx.publish();
      device.serve(1);
      assert.equal(tx.complete(), DONE);
    },
    get received(): string {
      while (rx.complete() === DONE) received += text(driven.at(rx.token, rx.written));
      return received;
    },
    end() {
      driven.stop();
      device.close();
    },
  };
}

test('a socket: one program at a time, the next waits in line and is served when the first has gone', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const path = `${real.folder}/port.sock`;
  const guest = withEnd(must(openSocketEnd(real.calls, real.reactor, path)));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  guest.send('into nowhere');
  const first = must(connectUnix(real.calls, path));
  const second = must(connectUnix(real.calls, path));
  must(send(real.calls, first, bytes('one ')));
  must(send(real.calls, second, bytes('two')));
  assert.ok(real.until(() => guest.received === 'one '));
  guest.send('hello one');
  const into = new Uint8Array(100);
  assert.equal(text(into.subarray(0, must(receive(real.calls, first, into, 0)).length)), 'hello one');
  real.calls.close(first);
  assert.ok(real.until(() => guest.received === 'one two'));
  guest.send('hello two');
  assert.equal(text(into.subarray(0, must(receive(real.calls, second, into, 0)).length)), 'hello two');
  real.calls.close(second);
  guest.end();
  assert.equal(openDescriptors(), before);
  real.end();
});

test('a file: what the guest says is added to its end; a link is not followed to another file', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const path = `${real.folder}/log`;
  writeFileSync(path, 'before;');
  const guest = withEnd(must(openFileEnd(real.calls, real.reactor, path)));
  guest.send('after');
  real.until(() => false, 5);
  guest.send(', and more');
  assert.equal(readFileSync(path, 'utf8'), 'before;after, and more');
  guest.end();
  symlinkSync(path, `${real.folder}/link`);
  const linked = openFileEnd(real.calls, real.reactor, `${real.folder}/link`);
  assert.equal(linked.ok, false);
  assert.equal(openFileEnd(real.calls, real.reactor, real.folder).ok, false);
  assert.equal(openDescriptors(), before);
  real.end();
});

test('a pseudo-terminal passes every byte both ways, and outlives the program at its other side', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const pty = must(openPtyEnd(real.calls, real.reactor));
  const guest = withEnd(pty.end);
  for (const round of ['first', 'second']) {
    const program = openSync(pty.path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
    const typed = `${round}\r\x03\x04\x13\x7f`;
    writeSync(program, typed);
    assert.ok(
      real.until(() => guest.received.endsWith(typed)),
      JSON.stringify(guest.received),
    );
    guest.send(`${round}\n`);
    const into = new Uint8Array(100);
    assert.equal(text(into.subarray(0, readSync(program, into))), `${round}\n`);
    closeSync(program);
    real.until(() => false, 5);
  }
  guest.end();
  assert.equal(openDescriptors(), before);
  real.end();
});

test('port specifications', () => {
  assert.deepEqual(must(parsePortSpec('console,stdio')), { name: '', isConsole: true, target: { kind: 'stdio' } });
  assert.deepEqual(must(parsePortSpec('name=org.a-b_1,socket=/a=b')), {
    name: 'org.a-b_1',
    isConsole: false,
    target: { kind: 'socket', path: '/a=b' },
  });
  const wrong = [
    '',
    ',',
    'console',
    'name=x',
    'pty,pty',
    'pty,stdio',
    'socket',
    'socket=',
    'pty=1',
    'console=yes,pty',
    'name=,pty',
    'name=a/b,pty',
    'name=a b,pty',
    `name=${'x'.repeat(65)},pty`,
    'colour=red,pty',
    'pty,',
  ];
  for (const spec of wrong) assert.equal(parsePortSpec(spec).ok, false, spec);
});

test('options that cannot be are named before anything is opened', () => {
  const cases = [
    [served, {}],
    [served, { port: ['console'] }],
    [served, { port: ['name=a,pty', 'name=a,pty'] }],
    [served, { port: ['stdio', 'stdio'] }],
    [served, { port: Array.from({ length: 17 }, () => 'pty') }],
    [served, { port: ['pty'], size: '80' }],
    [served, { port: ['pty'], size: '0x25' }],
    [served, { port: ['pty'], size: '70000x25' }],
    [vsock, {}],
    [vsock, { host: '/x', cid: '2' }],
    [vsock, { host: '/x', cid: '4294967295' }],
    [vsock, { host: '/x', cid: '0x3' }],
    [vsock, { host: '/x', connections: '0' }],
    [vsock, { host: '' }],
    [share, {}],
    [share, { share: '/x', tag: '' }],
    [share, { share: '/x', tag: 'a b' }],
    [share, { share: '/x', tag: 'ä' }],
    [share, { share: '/x', tag: 'x'.repeat(256) }],
  ] as const;
  for (const [type, values] of cases) {
    const prepared = type.prepare(values);
    assert.ok(!prepared.ok, JSON.stringify(values));
    assert.equal(prepared.error.code, 'device-option-invalid');
  }
  assert.ok(served.prepare({ port: ['pty'], size: '80x25' }).ok);
  assert.ok(vsock.prepare({ host: '/x' }).ok);
  assert.ok(share.prepare({ share: '/x', 'read-only': true }).ok);
});

test('what cannot be opened is an error that names it, and leaves nothing open', async () => {
  const real = await realReactor();
  const before = openDescriptors();
  const host = { calls: real.calls, reactor: real.reactor, folder: real.folder, warn() {} };
  writeFileSync(`${real.folder}/file`, '');
  const cases = [
    [share, { share: 'nowhere' }, 'share-not-usable'],
    [share, { share: 'file' }, 'share-not-usable'],
    [vsock, { host: 'file' }, 'socket-path-taken'],
    [vsock, { host: 'no/such/folder/v.sock' }, 'system-call-failed'],
    [served, { port: ['pty', 'socket=file'] }, 'socket-path-taken'],
  ] as const;
  for (const [type, values, code] of cases) {
    const opened = must(type.prepare(values)).open(host);
    assert.ok(!opened.ok, JSON.stringify(values));
    assert.equal(opened.error.code, code);
    assert.equal(openDescriptors(), before, JSON.stringify(values));
  }
  real.end();
});
