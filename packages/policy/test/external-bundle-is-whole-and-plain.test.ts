import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { BUNDLE_LIMITS, readBundle } from '../src/external/bundle.ts';
import { canonicalJson } from '../src/external/canonical-json.ts';
import { gunzipBounded } from '../src/external/node-gunzip.ts';
import { readTar } from '../src/external/tar.ts';
import { checkWasm } from '../src/external/wasm-shape.ts';
import {
  bytesOf,
  importOf,
  join8,
  manifest,
  moduleOf,
  ownMemory,
  type TarEntry,
  tableOf,
  tar,
  vector,
} from './external-fixtures.ts';

const LIMITS = { files: 20, fileBytes: 4096 };
const wasm = moduleOf({ evaluate: [0x41, 0] });
const file = (name: string, text = 'x'): TarEntry => ({ name, content: bytesOf(text) });
const pack = (entries: readonly TarEntry[]) => new Uint8Array(gzipSync(tar(entries)));
const read = (bytes: Uint8Array) => readBundle(bytes, gunzipBounded);

function code(result: { ok: true } | { ok: false; error: { code: string } }): string {
  return result.ok ? 'ok' : result.error.code;
}

test("a bundle of OPA's own compiler is read", async () => {
  const bundle = await read(vector('narrow.tar.gz'));
  assert.ok(bundle.ok);
  assert.deepEqual([...bundle.value.files.keys()], ['data.json', 'narrow.rego', 'policy.wasm', '.manifest']);
  assert.deepEqual(bundle.value.entrypoints, ['airlock/narrow']);
  assert.equal(bundle.value.revision, 'example-1');
  assert.equal(JSON.parse(bundle.value.data).airlock.least_revision.network, 2);
});

test('names that lead out of the archive, or that two readers could take for two things, are refused', () => {
  const hostile = [
    '../x',
    '/../x',
    'a/../../x',
    '..',
    '.',
    'a//b',
    '//x',
    'a/./b',
    '././x',
    'a\\..\\b',
    'a\nb',
    'a\x1b[2J',
    'é',
    '',
    '/',
    'x/',
  ];
  for (const name of hostile) {
    assert.equal(code(readTar(tar([file(name)]), LIMITS)), 'bundle-entry-forbidden', JSON.stringify(name));
  }
  assert.equal(code(readTar(tar([{ ...file('x'), prefix: '..' }]), LIMITS)), 'bundle-entry-forbidden');
  assert.equal(code(readTar(tar([file('policy.wasm\0evil')]), LIMITS)), 'bundle-entry-forbidden');
});

test('links, devices, pipes, sparse files and extended headers are refused', () => {
  for (const type of ['1', '2', '3', '4', '6', '7', 'x', 'g', 'L', 'K', 'S', 'V', 'D', 'A']) {
    assert.equal(
      code(readTar(tar([{ ...file('a'), type, link: '/etc/passwd' }]), LIMITS)),
      'bundle-entry-forbidden',
      type,
    );
  }
});

test('the same file twice is refused, however it is written', () => {
  for (const second of ['policy.wasm', '/policy.wasm', './policy.wasm']) {
    assert.equal(code(readTar(tar([file('policy.wasm'), file(second)]), LIMITS)), 'bundle-entry-forbidden', second);
  }
});

test('folders are passed over, and a front part of a long name belongs to the name', () => {
  const entries = [
    { name: './', type: '5' },
    { name: './a/', type: '5' },
    { ...file('c.rego'), prefix: 'a/b' },
  ];
  const files = readTar(tar(entries), LIMITS);
  assert.ok(files.ok);
  assert.deepEqual([...files.value.keys()], ['a/b/c.rego']);
});

test('headers that are wrong anywhere are malformed', () => {
  const good = tar([file('policy.wasm')]);
  const flipped = good.slice();
  flipped[10] = 0x41;
  assert.equal(code(readTar(flipped, LIMITS)), 'bundle-malformed');
  for (const size of [
    '-0000000001\0',
    '0x000000010\0',
    '99999999999\0',
    '\x80\0\0\0\0\0\0\0\0\0\0\x01',
    '           \0',
  ]) {
    assert.equal(code(readTar(tar([{ ...file('a'), size }]), LIMITS)), 'bundle-malformed', size);
  }
  assert.equal(code(readTar(tar([{ ...file('a'), magic: 'tar' }]), LIMITS)), 'bundle-malformed');
  assert.equal(code(readTar(tar([{ ...file('a'), type: '5' }]), LIMITS)), 'bundle-malformed');
  assert.equal(code(readTar(join8([good, tar([file('b')])]), LIMITS)), 'bundle-malformed');
});

test('sizes and counts beyond the limits are refused before anything is copied', async () => {
  assert.equal(code(readTar(tar([{ ...file('a'), size: 4097 }]), LIMITS)), 'bundle-too-large');
  const many = Array.from({ length: 21 }, (_, i) => file(`${i}.rego`));
  assert.equal(code(readTar(tar(many), LIMITS)), 'bundle-too-large');
  assert.equal(code(readTar(tar([{ ...file('a'), size: 4096 }]), LIMITS)), 'bundle-malformed');
  assert.equal(code(await read(new Uint8Array(BUNDLE_LIMITS.packedBytes + 1))), 'bundle-too-large');
});

test('a gzip bomb is stopped at the limit', async () => {
  const bomb = new Uint8Array(gzipSync(new Uint8Array(BUNDLE_LIMITS.unpackedBytes + 1)));
  assert.ok(bomb.length < 100_000);
  assert.equal(code(await read(bomb)), 'bundle-too-large');
});

test('a bundle that is cut off anywhere is refused, never read in part', async () => {
  const packed = vector('narrow.tar.gz');
  const unpacked = new Uint8Array(gunzipSync(packed));
  await fc.assert(
    fc.asyncProperty(fc.nat(packed.length - 1), async (length) => {
      assert.equal(code(await read(packed.subarray(0, length))), 'bundle-unreadable');
    }),
    { numRuns: 60 },
  );
  const limits = { files: 20, fileBytes: 1 << 20 };
  fc.assert(
    fc.property(fc.nat(unpacked.length - 1), (length) => {
      assert.notEqual(code(readTar(unpacked.subarray(0, length), limits)), 'ok');
    }),
  );
  assert.equal(code(readTar(unpacked, limits)), 'ok');
  // One of the two blocks of the end mark is not an end.
  assert.equal(code(readTar(tar([file('policy.wasm')], 512), limits)), 'bundle-malformed');
});

test('arbitrary bytes and arbitrary damage give a whole bundle or a coded error', async () => {
  const packed = vector('narrow.tar.gz');
  const unpacked = new Uint8Array(gunzipSync(packed));
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), async (bytes) => {
      assert.notEqual(code(await read(bytes)), 'ok');
      assert.notEqual(code(await read(new Uint8Array(gzipSync(bytes)))), 'ok');
      assert.notEqual(code(readTar(bytes, LIMITS)), 'ok');
      assert.equal(typeof code(canonicalJson(bytes, 'data.json')), 'string');
      assert.equal(typeof code(checkWasm(join8([wasm.subarray(0, 8), bytes]))), 'string');
    }),
    { numRuns: 60 },
  );
  // A changed byte in a header is always seen; one in a file is what signatures are for.
  fc.assert(
    fc.property(fc.nat(511), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = unpacked.slice();
      damaged[at] = (damaged[at] ?? 0) ^ change;
      const files = readTar(damaged, { files: 20, fileBytes: 1 << 20 });
      // The checksum's own field has more than one way to write the same number.
      if (at < 148 || at >= 156) assert.ok(!files.ok);
    }),
  );
});

test('only the files of a compiled bundle may be in it', async () => {
  const usual = [{ name: 'policy.wasm', content: wasm }, manifest()];
  assert.equal(code(await read(pack(usual))), 'ok');
  assert.equal(code(await read(pack([...usual, file('rules/a.rego')]))), 'ok');
  for (const name of [
    'a/data.json',
    'data.yaml',
    'patch.json',
    'plan.json',
    'a/policy.wasm',
    'a/.manifest',
    'x.sh',
    '.signatures.json.bak',
  ]) {
    assert.equal(code(await read(pack([...usual, file(name, '{}')]))), 'bundle-entry-forbidden', name);
  }
  for (const i of [0, 1]) assert.equal(code(await read(pack(usual.toSpliced(i, 1)))), 'bundle-incomplete');
});

test('a manifest or data of the wrong shape is malformed', async () => {
  const usual: TarEntry[] = [{ name: 'policy.wasm', content: wasm }];
  const module = '/policy.wasm';
  const wrong: unknown[] = [
    null,
    [],
    7,
    { revision: 7 },
    { revision: 'x'.repeat(300) },
    { wasm: {} },
    { wasm: [null] },
    { wasm: ['airlock/narrow'] },
    { wasm: [{ entrypoint: 1, module }] },
    { wasm: [{ entrypoint: 'a' }] },
    { wasm: [{ entrypoint: 'a', module: '/other.wasm' }] },
    { wasm: Array.from({ length: 1001 }, () => ({ entrypoint: 'a', module })) },
  ];
  for (const value of wrong) {
    const bundle = pack([...usual, file('.manifest', JSON.stringify(value))]);
    assert.equal(code(await read(bundle)), 'bundle-json-malformed', JSON.stringify(value).slice(0, 80));
  }
  for (const text of ['', '{', '[]', '7', '{"a":1}x', `${'['.repeat(300)}${']'.repeat(300)}`, '\xff']) {
    const data =
      text === '\xff' ? { name: 'data.json', content: new Uint8Array([0x22, 0xff, 0x22]) } : file('data.json', text);
    assert.equal(code(await read(pack([...usual, manifest(), data]))), 'bundle-json-malformed', text.slice(0, 20));
  }
  // __proto__ is a key like any other, and no manifest
  const polluted = pack([
    ...usual,
    file('.manifest', '{"__proto__":{"wasm":[{"entrypoint":"a","module":"/policy.wasm"}]}}'),
  ]);
  const bundle = await read(polluted);
  assert.ok(bundle.ok);
  assert.deepEqual(bundle.value.entrypoints, []);
});

test('code that brings memory or tables of its own, or asks for more than OPA does, is refused', () => {
  assert.equal(code(checkWasm(wasm)), 'ok');
  const body = [0x41, 0];
  const hostile: Readonly<Record<string, Uint8Array>> = {
    'own memory': moduleOf({ evaluate: body, extra: ownMemory }),
    'table without a maximum': moduleOf({ evaluate: body, extra: tableOf([0x70, 0, 1]) }),
    'huge table': moduleOf({ evaluate: body, extra: tableOf([0x70, 1, 1, 0xff, 0xff, 0xff, 0x07]) }),
    'table of external references': moduleOf({ evaluate: body, extra: tableOf([0x6f, 1, 1, 1]) }),
    'foreign function': moduleOf({ evaluate: body, imports: importOf('wasi_snapshot_preview1', 'fd_write', [0, 0]) }),
    'foreign name': moduleOf({ evaluate: body, imports: importOf('env', 'constructor', [0, 0]) }),
    'imported table': moduleOf({ evaluate: body, imports: importOf('env', 'memory', [1, 0x70, 0, 1]) }),
    'imported global': moduleOf({ evaluate: body, imports: importOf('env', 'memory', [3, 0x7f, 0]) }),
    'shared memory': moduleOf({ evaluate: body, imports: importOf('env', 'memory', [2, 3, 1, 1]) }),
    '64-bit memory': moduleOf({ evaluate: body, imports: importOf('env', 'memory', [2, 4, 1]) }),
    'cut off': wasm.subarray(0, wasm.length - 1),
    'no module': bytesOf('#!/bin/sh\n'),
    component: new Uint8Array([0, 0x61, 0x73, 0x6d, 0x0d, 0, 1, 0]),
  };
  for (const [name, bytes] of Object.entries(hostile))
    assert.equal(code(checkWasm(bytes)), 'bundle-wasm-malformed', name);
});

test('canonical JSON does not depend on layout and keeps what was written', () => {
  const canonical = (text: string) => {
    const result = canonicalJson(bytesOf(text), 'data.json');
    return result.ok ? result.value : result.error.code;
  };
  assert.equal(canonical('\ufeff{}'), '{}'); // OPA strips it too
  assert.equal(canonical(' { "b" : 1.50 , "a" : [ true , null ] } '), '{"a":[true,null],"b":1.50}');
  assert.equal(canonical('12345678901234567890'), '12345678901234567890');
  assert.equal(canonical('"<\\u2028\\ud800&>"'), '"<\\u2028\ufffd&>"');
  // Bytes of UTF-8, not UTF-16 units: U+FFFD comes before U+1F600
  assert.equal(canonical('{"\u{1F600}":1,"\ufffd":2}'), '{"\ufffd":2,"\u{1F600}":1}');
  assert.equal(canonical('{"__proto__":{"a":1}}'), '{"__proto__":{"a":1}}');
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = canonical(JSON.stringify(value, null, 3));
      assert.equal(text, canonical(text));
      assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
    }),
  );
});
