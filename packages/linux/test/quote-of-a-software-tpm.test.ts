/** The commands as a TPM that nobody here wrote takes them: swtpm, from the lab's cache. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { ok } from '@airlock/core/result.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { joinQuote } from '@airlock/evidence/tpm/quote.ts';
import { verifyTpm } from '@airlock/evidence/tpm/verify.ts';
import { must } from '../../evidence/test/support/authority.ts';
import type { Exchange } from '../src/attest/hands.ts';
import { quoteTpm, readNvIndex } from '../src/attest/tpm-quote.ts';

const house = resolve(import.meta.dirname, '../../..');
const cache = execFileSync(join(house, 'tools/debian-cache'), ['path'], { encoding: 'utf8' }).trim();
const skip = existsSync(join(cache, 'tools/usr/bin/swtpm')) ? false : 'no swtpm in the cache: tools/debian-cache tools';

async function socketOf(path: string): Promise<Socket> {
  for (let i = 0; i < 100; i++) {
    const socket = connect(path);
    const there = await new Promise<boolean>((done) => {
      socket.once('connect', () => done(true));
      socket.once('error', () => done(false));
    });
    if (there) return socket;
    await setTimeout(50);
  }
  throw new Error(`${path}: nobody listens`);
}

test('a software TPM quotes, always with the same key, and refuses what it does not have', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'airlock-swtpm-'));
  const data = join(folder, 'data');
  const options = ['--server', `type=unixio,path=${data}`, '--ctrl', `type=unixio,path=${join(folder, 'control')}`];
  const child = spawn(
    join(house, 'tools/cached'),
    ['swtpm', 'socket', '--tpm2', ...options, '--tpmstate', `dir=${folder}`, '--flags', 'not-need-init,startup-clear'],
    { stdio: 'ignore' },
  );
  try {
    const socket = await socketOf(data);
    const tpm: Exchange = {
      transceive: (command) =>
        new Promise((done) => {
          socket.once('data', (answer) => done(ok(new Uint8Array(answer))));
          socket.write(command);
        }),
      close: async () => void socket.end(),
    };
    const nonce = new Uint8Array(32).fill(7);
    const quote = must(await quoteTpm(tpm, nonce));
    const read = must(joinQuote(quote.message, quote.signature, new Map(quote.pcrs.entries())));
    const key = { spki: quote.key.spki, from: 'the test', doubt: null };
    const appraisal = verifyTpm({ crypto: nodeCrypto(), quote: read, keys: [key], logs: [], nonce });
    assert.deepEqual(
      appraisal.checks.filter(({ status }) => status !== 'passed'),
      [],
    );
    const again = must(await quoteTpm(tpm, nonce));
    assert.deepEqual(again.key.spki, quote.key.spki);
    assert.equal(must(await readNvIndex(tpm, 0x01400001)), null);
    const absent = await quoteTpm(tpm, nonce, 0x81000003);
    assert.ok(!absent.ok && absent.error.code === 'tpm-refused');
    await tpm.close();
  } finally {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  }
});
