import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bindingDigests } from '@airlock/evidence/machine/binding.ts';
import { writeBundle } from '@airlock/evidence/machine/bundle.ts';
import { nodeCrypto } from '@airlock/evidence/node-crypto.ts';
import { publicPem } from '@airlock/linux/attest/collect.ts';
import { attestBytes, eventLog, type Logged, makeTpm, signAttest } from '../../evidence/test/support/tpm-machine.ts';
import { run } from '../src/main.ts';
import { fakeContext } from './fake-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'airlock-reference-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const tpm = makeTpm();
const nonce = Uint8Array.from({ length: 16 }, (_, i) => i);
const NONCE = Buffer.from(nonce).toString('hex');
const text = (value: string) => new Uint8Array(Buffer.from(value));

/** A machine that booted with this command line and initramfs, as its TPM and its log have it. */
function booted(name: string, cmdline: string, initrd: string, told: { log?: readonly Logged[] } = {}): string {
  const line = Buffer.from(`${cmdline}\0`, 'utf16le').toString('latin1');
  const events: readonly Logged[] = [
    { register: 4, data: 'kernel' },
    { register: 9, data: line },
    { register: 9, data: initrd },
  ];
  const { registers } = eventLog(events);
  const pcrs = Array.from(
    { length: 24 },
    (_, i) => registers.get(i) ?? new Uint8Array(32).fill(i >= 17 && i <= 22 ? 0xff : 0),
  );
  const { qualifyingData } = bindingDigests(nodeCrypto(), nonce, []);
  const attest = attestBytes({ pcrs, nonce: qualifyingData });
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const quote = { message: base64(attest), signature: base64(signAttest(attest, tpm)), pcrs: pcrs.map(base64) };
  const vm = [
    { name: 'tpm-quote', bytes: text(JSON.stringify(quote)) },
    { name: 'tpm-key', bytes: text(publicPem(tpm.spki)) },
    { name: 'tpm-event-log', bytes: eventLog(told.log ?? events).bytes },
  ];
  const path = join(folder, name);
  writeFileSync(path, writeBundle({ nonce, vm, devices: [] }));
  return path;
}

async function airlock(...args: string[]) {
  const context = fakeContext({ cwd: folder });
  const code = await run(context, args);
  return { code, out: context.out(), err: context.err() };
}

async function reference(name: string, ...args: string[]): Promise<string> {
  const made = await airlock('evidence', 'reference', ...args);
  assert.equal(made.code, 0, made.err);
  writeFileSync(join(folder, name), made.out);
  return name;
}

const verify = (path: string, ...references: string[]) =>
  airlock('verify', path, '--nonce', NONCE, '--key', first, ...references.flatMap((one) => ['--reference', one]));

const first = booted('first.json', 'quiet', 'initramfs');

test('what it writes, YAML or JSON, accepts the boot that it came from and refuses another by name', async () => {
  for (const [name, form] of [
    ['boot.yaml', []],
    ['boot.json', ['--json']],
  ] as const) {
    const known = await reference(name, first, '--name', "the guest's", ...form);
    assert.equal((await verify(first, known)).code, 0);
    const other = await verify(booted('other.json', 'quiet', 'another'), known);
    assert.equal(other.code, 1);
    assert.match(other.out.replace(/\s+/g, ' '), /the guest's: pcr9 .* is [0-9a-f]{16}…, not [0-9a-f]{16}…/);
  }
});

test('a boot that never was can be expected: its command line and its initramfs make PCR 9', async () => {
  writeFileSync(join(folder, 'next.img'), 'next initramfs');
  const next = await reference('next.yaml', first, '--cmdline', 'quiet next', '--initrd', 'next.img');
  const known = await reference('known.yaml', first);
  assert.equal((await verify(booted('next.json', 'quiet next', 'next initramfs'), next)).code, 0);
  assert.equal((await verify(first, next)).code, 1);
  assert.equal((await verify(first, next, known)).code, 0, 'either build');
  assert.equal((await verify(booted('mixed.json', 'quiet next', 'initramfs'), next, known)).code, 1, 'half of each');
});

test('PCRs that nothing was measured into are left out unless they are asked for', async () => {
  const made = JSON.parse((await airlock('evidence', 'reference', first, '--json')).out);
  assert.deepEqual(
    Object.keys(made.sets[0]).filter((key) => /^pcr\d+$/.test(key)),
    ['pcr0', 'pcr2', 'pcr4', 'pcr7', 'pcr9'],
  );
  const asked = JSON.parse((await airlock('evidence', 'reference', first, '--pcr', '11,4', '--json')).out);
  assert.deepEqual(Object.keys(asked.sets[0]), ['kind', 'pcr4', 'pcr4-events', 'pcr11']);
});

test('evidence that is not good makes no reference', async () => {
  const lied = booted('lied.json', 'quiet', 'initramfs', { log: [{ register: 9, data: 'another story' }] });
  const made = await airlock('evidence', 'reference', lied);
  assert.deepEqual([made.code, made.out], [1, '']);
  assert.match(made.err, /tpm\.event-log/);
});

test('wrong use', async () => {
  writeFileSync(join(folder, 'text'), 'text');
  for (const args of [
    [],
    [first, first],
    ['text'],
    ['nowhere.json'],
    [first, '--pcr', '24'],
    [first, '--pcr', ''],
    [first, '--cmdline', 'quiet'],
    [first, '--initrd', 'text'],
    [first, '--cmdline', 'a\nb', '--initrd', 'text'],
    [first, '--cmdline', 'quiet', '--initrd', 'nowhere'],
    [first, '--name', 'ä'],
  ]) {
    const made = await airlock('evidence', 'reference', ...args);
    assert.deepEqual([made.code, made.out], [2, ''], args.join(' '));
  }
});
