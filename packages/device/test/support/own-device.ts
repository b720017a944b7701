/** The program of docs/write-your-own-device.md, as it stands there, started as its reader starts it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const CHECKOUT = fileURLToPath(new URL('../../../..', import.meta.url));

export function ownDeviceProgram(): string {
  const document = readFileSync(join(CHECKOUT, 'docs/write-your-own-device.md'), 'utf8');
  return /^```ts\n([\s\S]*?)^```$/m.exec(document)?.[1] ?? '';
}

export interface OwnDevice {
  readonly socket: string;
  /** Its exit code; null when a signal ended it. */
  readonly gone: Promise<number | null>;
  /** What it wrote to standard error. */
  said(): string;
}

/** Gives it once it listens; it ends with the test. */
export async function startOwnDevice(t: TestContext): Promise<OwnDevice> {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-own-device-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // As in the checkout: its imports lead somewhere.
  symlinkSync(join(CHECKOUT, 'node_modules'), join(folder, 'node_modules'));
  writeFileSync(join(folder, 'my-device.ts'), ownDeviceProgram());
  const socket = join(folder, 's');
  const child = spawn(process.execPath, [join(folder, 'my-device.ts'), socket], { stdio: ['ignore', 'pipe', 'pipe'] });
  const gone = new Promise<number | null>((resolve) => child.on('close', resolve));
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (bytes: Buffer) => {
      said += bytes.toString();
    });
    child.stdout.on('data', () => resolve());
    void gone.then(() => reject(new Error(said)));
  });
  assert.equal(child.exitCode, null);
  return { socket, gone, said: () => said };
}
