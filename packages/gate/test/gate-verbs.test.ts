import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { file, writeCpio } from '@airlock/gate/build/cpio.ts';
import { cacheFolder, toolTree } from '@airlock/gate/build/node-gate-binary.ts';

const house = resolve(import.meta.dirname, '../../..');
const skip = existsSync(join(toolTree(cacheFolder()), 'usr/bin/qjsc'))
  ? false
  : 'no QuickJS in the cache (make setup-guests)';

function airlock(...args: readonly string[]) {
  const ran = spawnSync(join(house, 'airlock'), args, { encoding: 'utf8', cwd: house });
  return { status: ran.status, stdout: ran.stdout, stderr: ran.stderr };
}

test('wrong use says what is needed and exits with 2', () => {
  for (const [args, words] of [
    [[], /needs --policy FILE/],
    [['--policy', 'policies/lab.yaml'], /needs --out FILE/],
    [['--policy', 'policies/lab.yaml', '--out', '/nonexistent/x'], /needs --initrd FILE or --kernel VERSION/],
    [
      ['--policy', 'policies/lab.yaml', '--out', 'x', '--kernel', '7.2', '--mode', 'off'],
      /--mode is one of learn, audit, enforce/,
    ],
    [['--polici', 'x'], /did you mean --policy\?/],
    [['x'], /takes no arguments/],
  ] as const) {
    const ran = airlock('gate', 'initrd', ...args);
    assert.equal(ran.status, 2, ran.stderr);
    assert.match(ran.stderr, words);
  }
});

test('an initramfs is made, named with its digest, and is what is on disk', { skip }, () => {
  const at = mkdtempSync(join(tmpdir(), 'airlock-verb-'));
  try {
    const base = writeCpio([file('init', new Uint8Array(Buffer.from('#!/bin/sh\n')), 0o755)]);
    assert.ok(base.ok);
    writeFileSync(join(at, 'base'), base.value);
    const out = join(at, 'out');
    const args = ['gate', 'initrd', '--initrd', join(at, 'base'), '--policy', 'policies/lab.yaml', '--out', out];
    const ran = airlock(...args, '--json');
    assert.equal(ran.status, 0, ran.stderr);
    const report = JSON.parse(ran.stdout);
    const digest = spawnSync('sha256sum', [out], { encoding: 'utf8' }).stdout.split(' ')[0];
    assert.equal(report.sha256, digest);
    assert.equal(report.bytes, readFileSync(out).length);

    writeFileSync(join(at, 'bad.yaml'), 'version: 1\nmodes: enforce\n');
    const bad = airlock(
      'gate',
      'initrd',
      '--initrd',
      join(at, 'base'),
      '--policy',
      join(at, 'bad.yaml'),
      '--out',
      join(at, 'no'),
    );
    assert.equal(bad.status, 1, bad.stderr);
    assert.match(bad.stderr, /bad\.yaml:2:1: .*did you mean/);
    assert.ok(!existsSync(join(at, 'no')));
    writeFileSync(join(at, 'junk'), 'junk');
    const junk = airlock(
      'gate',
      'initrd',
      '--initrd',
      join(at, 'junk'),
      '--policy',
      'policies/lab.yaml',
      '--out',
      join(at, 'no'),
    );
    assert.equal(junk.status, 3, junk.stderr);
    assert.match(junk.stderr, /initrd-malformed/);
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
});
