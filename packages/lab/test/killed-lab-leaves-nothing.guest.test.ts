import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bootLab } from '../src/images.ts';
import { imagesOrSkip } from './guests.ts';

const IMAGES = new URL('../src/images.ts', import.meta.url).href;

/** A process of its own that starts a guest in `folder` and says when it runs. */
function startLab(folder: string, initramfs: string, more: object) {
  const script = `
import { bootLab, prepareImages } from '${IMAGES}';
const images = await prepareImages('6.12', () => {});
const guest = await bootLab(images.value, ${JSON.stringify(initramfs)}, {
  onConsole: (line) => console.log('running', line.length),
  cmdline: 'loglevel=7',
  ...${JSON.stringify(more)},
});
console.log('up', guest.ok);
setInterval(() => {}, 1000);
`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** Command lines of processes that name the folder. */
function processesOf(folder: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      if (command.includes(folder)) found.push(command);
    } catch {}
  }
  return found;
}

for (const [name, withTpm] of [
  ['a lab that is killed leaves no process and no folder', false],
  ['nor does one with a TPM beside its guest', true],
] as const) {
  test(name, { timeout: 300_000 }, async (t) => {
    const images = await imagesOrSkip(t, '6.12');
    if (images === undefined) return;
    const folder = mkdtempSync(join(tmpdir(), 'airlock-killed-'));
    const tpmState = mkdtempSync(join(tmpdir(), 'airlock-state-'));
    t.after(() => [folder, tpmState].forEach((path) => void rmSync(path, { recursive: true, force: true })));
    const lab = startLab(folder, images.plain, withTpm ? { tpmState } : {});
    t.after(() => lab.kill('SIGKILL'));
    // The first line of the console: QEMU, its sockets and its folder are there.
    await once(lab.stdout, 'data');
    assert.ok(processesOf(folder).length > 0);
    assert.equal(
      processesOf(folder).some((command) => command.includes('swtpm')),
      withTpm,
    );
    assert.equal(readdirSync(folder).length, 1);
    lab.kill('SIGKILL');
    await once(lab, 'exit');
    const left = () => [...processesOf(folder), ...readdirSync(folder)];
    for (let tries = 0; tries < 50 && left().length > 0; tries++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(left(), []);
  });
}

test('a lab that is interrupted says so and leaves nothing', { timeout: 300_000 }, async (t) => {
  const images = await imagesOrSkip(t, '6.12');
  if (images === undefined) return;
  const stop = new AbortController();
  const before = new Set(readdirSync(tmpdir()));
  const guest = await bootLab(images, images.plain, {
    signal: stop.signal,
    cmdline: 'loglevel=7',
    onConsole: () => stop.abort(),
  });
  assert.equal(!guest.ok && guest.error.code, 'lab-interrupted');
  const left = readdirSync(tmpdir()).filter((name) => name.startsWith('airlock-guest-') && !before.has(name));
  assert.deepEqual(
    left.filter((name) => processesOf(name).length === 0),
    [],
    'folders that no guest of another test uses',
  );
});
