import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { spawnSandboxed } from '@airlock/transport/sandbox-spawn.ts';

const ELOOP = 40;

test('a share and the host’s side of a vsock do their work where no path leads anywhere any more', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-sandboxed-'));
  mkdirSync(join(folder, 'share/folder'), { recursive: true });
  writeFileSync(join(folder, 'share/folder/file'), 'content');
  symlinkSync('/etc/passwd', join(folder, 'share/out'));
  const server = createServer(() => {});
  await new Promise<void>((resolve) => server.listen(join(folder, 'v.sock_80'), resolve));
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const script = join(import.meta.dirname, 'support/sandboxed-devices.ts');
  const child = spawnSandboxed(script, [folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
    folders: [folder, join(folder, 'share')],
  });
  let said = '';
  child.stdout?.on('data', (bytes) => {
    said += String(bytes);
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  assert.equal(code, 0, said);
  const { entered, ...result } = JSON.parse(said);
  assert.ok(entered.ok, JSON.stringify(entered));
  const failed = entered.value.layers.filter(({ status }: { status: string }) => status === 'failed');
  assert.deepEqual(failed, []);
  const status = (name: string) => entered.value.layers.find(({ layer }: { layer: string }) => layer === name)?.status;
  if (status('root') === 'enforced') {
    assert.equal(status('descriptors'), 'enforced');
    // The share, a folder in it that a fid holds, the folder of the sockets: above each there is nothing else.
    assert.deepEqual(result['around'], ['ENOENT', 'ENOENT', 'ENOENT']);
  }
  delete result['around'];
  assert.deepEqual(result, {
    open: 0,
    read: 'content',
    create: 0,
    write: 0,
    link: 0,
    mode: 0,
    out: ELOOP,
    'served port': true,
    'other port': false,
    cwd: '/',
  });
  assert.equal(readFileSync(join(folder, 'share/made'), 'utf8'), 'made');
  assert.equal(statSync(join(folder, 'share/folder/file')).mode & 0o777, 0o640);
});
