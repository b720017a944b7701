import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

test('the process ends with its exit code while threads hang in open(2)', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-held-'));
  const pipe = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  try {
    // Opening a pipe that nobody writes to holds a thread of the pool for ever, as a mute device would.
    const script = `
      import { open } from 'node:fs/promises';
      import { leave } from ${JSON.stringify(new URL('../src/leave.ts', import.meta.url).href)};
      for (let i = 0; i < 8; i++) open(${JSON.stringify(pipe)}, 'r').catch(() => {});
      setTimeout(() => process.stdout.write('out\\n', () => leave(7)), 50);
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      // Where it hangs it is ended, and the code is not 7.
      timeout: 15_000,
      killSignal: 'SIGKILL',
    });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    const code = await new Promise((resolve) => child.on('close', resolve));
    assert.deepEqual([code, out], [7, 'out\n']);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
