import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeFiles } from '../src/node-files.ts';

test('a read that is still held is not begun again; answered at last, it is', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'airlock-held-'));
  t.after(() => rmSync(root, { recursive: true }));
  // Nothing but its size makes this file slow: far longer than the time limit of a few milliseconds.
  const size = 128 * 1024 * 1024;
  writeFileSync(join(root, 'slow'), '');
  truncateSync(join(root, 'slow'), size);
  writeFileSync(join(root, 'other'), 'x');
  const files = nodeFiles({ root, timeout: 1 });
  const first = await files.readAt('/slow', 0, size);
  assert.equal(first.ok ? 'read' : first.error.code, 'file-timeout');
  const second = await files.read('/slow', 1);
  assert.match(second.ok ? '' : second.error.message, /an earlier read is still not answered/);
  assert.ok((await files.read('/other')).ok, 'others are read');
  let last = second;
  while (!last.ok && last.error.code === 'file-timeout') {
    await new Promise((go) => setTimeout(go, 20));
    last = await files.read('/slow', 1);
  }
  assert.equal(last.ok ? 'read' : last.error.code, 'file-too-large');
});
