import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { file, folder, link, type NewEntry, writeCpio } from '@airlock/gate/build/cpio.ts';
import { readInitramfs } from '@airlock/gate/build/initramfs.ts';
import { nodeDecompress } from '@airlock/gate/build/node-decompress.ts';
import { buildGate, cacheFolder, toolTree } from '@airlock/gate/build/node-gate-binary.ts';
import { makeInitrd } from '@airlock/gate/build/node-initrd.ts';

const skip = existsSync(join(toolTree(cacheFolder()), 'usr/bin/qjsc'))
  ? false
  : 'no QuickJS in the cache (make setup-guests)';
const POLICY = 'version: 1\nmode: enforce\ndefault: disconnected\nrules: []\n';
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text));

async function withFolder(work: (at: string) => Promise<void>): Promise<void> {
  const at = mkdtempSync(join(tmpdir(), 'airlock-initrd-'));
  try {
    writeFileSync(join(at, 'policy.yaml'), POLICY);
    await work(at);
  } finally {
    rmSync(at, { recursive: true, force: true });
  }
}

function archive(entries: readonly NewEntry[]): Uint8Array {
  const made = writeCpio(entries);
  assert.ok(made.ok);
  return made.value;
}

async function gated(at: string, base: Uint8Array, name = 'base') {
  writeFileSync(join(at, name), base);
  const made = await makeInitrd({ policy: join(at, 'policy.yaml'), initrd: join(at, name) });
  assert.ok(made.initrd !== undefined, JSON.stringify(made.problems));
  const read = await readInitramfs(made.initrd.bytes, nodeDecompress());
  assert.ok(read.ok, JSON.stringify(read));
  return { made: made.initrd, entries: read.value.entries };
}

test('the gate is one static program of at most 4 MB, and the second build is the first', { skip }, async () => {
  const [one, two] = [await buildGate(), await buildGate()];
  assert.ok(one.ok && two.ok);
  assert.ok(one.value.bytes <= 4e6, String(one.value.bytes));
  assert.equal(two.value.cached, true);
  assert.equal(one.value.digest, two.value.digest);
  const elf = readFileSync(one.value.path);
  assert.equal(elf.subarray(0, 4).toString('latin1'), '\x7fELF');
  const types = Array.from({ length: elf.readUInt16LE(0x38) }, (_, i) =>
    elf.readUInt32LE(Number(elf.readBigUInt64LE(0x20)) + i * elf.readUInt16LE(0x36)),
  );
  const interpreter = 3;
  assert.ok(!types.includes(interpreter), 'static: it asks for no loader');
});

test('the same input gives the same bytes, again when the gate is there already, and at most 5 MB more', { skip }, () =>
  withFolder(async (at) => {
    const base = archive([file('init', bytesOf('#!/bin/sh\n'), 0o755)]);
    const first = await gated(at, base);
    const second = await gated(at, base);
    assert.deepEqual(second.made.digest, first.made.digest);
    assert.ok(first.made.added <= 5e6, String(first.made.added));
    const again = await gated(at, first.made.bytes, 'again');
    assert.equal(again.made.digest, first.made.digest);
  }),
);

test('the old init is kept, as a file or as the link that it was', { skip }, () =>
  withFolder(async (at) => {
    const plain = await gated(at, new Uint8Array(gzipSync(archive([file('init', bytesOf('OLD'), 0o755)]))));
    assert.equal(Buffer.from(plain.entries.get('airlock/init')?.data ?? []).toString(), 'OLD');
    assert.match(Buffer.from(plain.entries.get('init')?.data ?? []).toString(), /^#!\/airlock\/busybox sh\n/);
    const systemd = await gated(
      at,
      archive([folder('usr'), file('usr/systemd', bytesOf('ELF'), 0o755), link('init', 'usr/systemd')]),
    );
    assert.equal(Buffer.from(systemd.entries.get('airlock/init')?.data ?? []).toString(), '/usr/systemd');
  }),
);

test('an initramfs without an init that could run is refused', { skip }, () =>
  withFolder(async (at) => {
    for (const entries of [[file('bin', bytesOf('x'))], [link('init', 'nowhere')], [folder('init')]]) {
      writeFileSync(join(at, 'base'), archive(entries));
      const made = await makeInitrd({ policy: join(at, 'policy.yaml'), initrd: join(at, 'base') });
      assert.equal(made.problems[0]?.code, 'initrd-without-init');
    }
  }),
);

test('a policy with an error makes no initramfs', { skip }, () =>
  withFolder(async (at) => {
    writeFileSync(join(at, 'base'), archive([file('init', bytesOf('x'), 0o755)]));
    writeFileSync(join(at, 'policy.yaml'), `${POLICY}ruls: []\n`);
    const made = await makeInitrd({ policy: join(at, 'policy.yaml'), initrd: join(at, 'base') });
    assert.equal(made.initrd, undefined);
    assert.equal(made.problems[0]?.at?.line, 5);
  }),
);

test('what rules name goes with the policy, and what is not beside it makes no initramfs', { skip }, () =>
  withFolder(async (at) => {
    const rule = (files: string) =>
      `rules: [{ id: a, match: {}, level: limited, require: { identity: attested, ${files} } }]`;
    const write = (files: string) => writeFileSync(join(at, 'policy.yaml'), POLICY.replace('rules: []', rule(files)));
    const base = archive([file('init', bytesOf('x'), 0o755)]);
    writeFileSync(join(at, 'maker.pem'), 'ROOT');
    writeFileSync(join(at, 'v1.corim'), Uint8Array.of(0, 0xff));
    write('roots: [maker.pem], measurements: [v1.corim]');
    const { entries } = await gated(at, base);
    assert.equal(Buffer.from(entries.get('airlock/anchors/maker.pem')?.data ?? []).toString(), 'ROOT');
    assert.deepEqual([...(entries.get('airlock/anchors/v1.corim')?.data ?? [])], [0, 0xff]);
    assert.equal((entries.get('airlock/anchors')?.mode ?? 0) & 0o777, 0o700);
    write('roots: [other.pem]');
    const made = await makeInitrd({ policy: join(at, 'policy.yaml'), initrd: join(at, 'base') });
    assert.equal(made.problems[0]?.code, 'initrd-anchor-missing');
    assert.match(made.problems[0]?.message ?? '', /other\.pem: no such file; rule a names it/);
  }),
);

test('in audit mode nothing is turned off before the gate runs', { skip }, () =>
  withFolder(async (at) => {
    writeFileSync(join(at, 'base'), archive([file('init', bytesOf('x'), 0o755)]));
    const of = async (mode: 'audit' | 'enforce') => {
      const made = await makeInitrd({ policy: join(at, 'policy.yaml'), initrd: join(at, 'base'), mode });
      assert.ok(made.initrd !== undefined);
      const read = await readInitramfs(made.initrd.bytes, nodeDecompress());
      assert.ok(read.ok);
      return Buffer.from(read.value.entries.get('init')?.data ?? []).toString();
    };
    assert.doesNotMatch(await of('audit'), /drivers_autoprobe/);
    assert.match(await of('enforce'), /echo 0 >\/sys\/bus\/\$bus\/drivers_autoprobe/);
  }),
);
