import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { served as consoles } from '@airlock/device/console/serve.ts';
import { serveDevice } from '@airlock/device/serve.ts';
import { served as vsock } from '@airlock/device/vsock/serve.ts';
import { must } from './support/in-memory-driver.ts';

for (const [name, type, values] of [
  ['console', consoles, { port: ['name=a,socket=port.sock'] }],
  ['vsock', vsock, { host: 'port.sock' }],
] as const) {
  test(`${name}: the sockets that a device listens on are there while it is served, and only then`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'airlock-serve-'));
    const path = join(folder, 'port.sock');
    const stop = new AbortController();
    let there = false;
    const problem = await serveDevice({
      request: {
        ...{ type: name, transport: 'vhost-user', socket: join(folder, 'device.sock'), folder, values },
        ...{ once: false, unsealedMemory: false, sandbox: true, plain: false },
      },
      needs: must(type.prepare(values)).needs,
      signal: stop.signal,
      told(event) {
        if (event.event !== 'listening') return;
        there = existsSync(path) && existsSync(join(folder, 'device.sock'));
        stop.abort();
      },
    });
    assert.equal(problem, null);
    assert.ok(there);
    assert.equal(existsSync(path), false);
    assert.equal(existsSync(join(folder, 'device.sock')), false);
    rmSync(folder, { recursive: true });
  });
}

test('what took the place of such a socket meanwhile stays', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-serve-'));
  const path = join(folder, 'port.sock');
  const stop = new AbortController();
  const values = { host: 'port.sock' };
  const problem = await serveDevice({
    request: {
      ...{ type: 'vsock', transport: 'vhost-user', socket: join(folder, 'device.sock'), folder, values },
      ...{ once: false, unsealedMemory: false, sandbox: false, plain: false },
    },
    needs: must(vsock.prepare(values)).needs,
    signal: stop.signal,
    told(event) {
      if (event.event !== 'listening') return;
      rmSync(path);
      writeFileSync(path, 'mine');
      stop.abort();
    },
  });
  assert.equal(problem, null);
  assert.ok(existsSync(path));
  rmSync(folder, { recursive: true });
});
