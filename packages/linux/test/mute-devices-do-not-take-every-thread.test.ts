import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { heldCalls } from '../src/held-calls.ts';
import { nodeFiles } from '../src/node-files.ts';

const never = new Promise<never>(() => undefined);

test('what is held is not begun again, and of one kind only so many are held', () => {
  const held = heldCalls(2);
  held.hold('read serial', '/sys/devices/a/serial', never);
  assert.equal(held.refuse('read serial', '/sys/devices/a/serial'), 'again');
  assert.equal(held.refuse('read serial', '/sys/devices/b/serial'), undefined);
  held.hold('read serial', '/sys/devices/b/serial', never);
  // A third mute disk costs no thread; other attributes, and writes, are asked for as ever.
  assert.equal(held.refuse('read serial', '/sys/devices/c/serial'), 'crowd');
  assert.equal(held.refuse('read vendor', '/sys/devices/c/vendor'), undefined);
  assert.equal(held.refuse('write serial', '/sys/devices/c/serial'), undefined);
});

test('what ends at last, well or not, counts no more', async () => {
  const held = heldCalls(1);
  for (const work of [async () => 1, () => Promise.reject(new Error('EIO'))]) {
    const ended = work();
    held.hold('read serial', 'a', ended);
    assert.notEqual(held.refuse('read serial', 'b'), undefined);
    await ended.catch(() => undefined);
    await new Promise((go) => setImmediate(go));
    assert.equal(held.refuse('read serial', 'a'), undefined);
    assert.equal(held.refuse('read serial', 'b'), undefined);
  }
});

test('a write that is still held is not begun again; the same file takes another word', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'airlock-held-'));
  t.after(() => rmSync(root, { recursive: true }));
  writeFileSync(join(root, 'unbind'), '');
  // Nothing but its size makes this write slow: far longer than the time limit of a few milliseconds.
  const slow = 'x'.repeat(96 * 1024 * 1024);
  const files = nodeFiles({ root, timeout: 1 });
  const first = await files.write('/unbind', slow);
  assert.equal(first.ok ? 'written' : first.error.code, 'file-timeout');
  const second = await files.write('/unbind', slow);
  assert.match(second.ok ? '' : second.error.message, /still not answered/);
  let last = second;
  while (!last.ok && /still not answered/.test(last.error.message)) {
    await new Promise((go) => setTimeout(go, 20));
    last = await files.write('/unbind', slow);
  }
});
