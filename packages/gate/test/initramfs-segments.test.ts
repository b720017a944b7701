import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { file, folder, link, type NewEntry, writeCpio } from '@airlock/gate/build/cpio.ts';
import { readInitramfs, resolveEntry } from '@airlock/gate/build/initramfs.ts';
import { nodeDecompress } from '@airlock/gate/build/node-decompress.ts';
import { zstdFrameLength } from '@airlock/gate/build/zstd-frame.ts';
import fc from 'fast-check';

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
function archive(entries: readonly NewEntry[]): Uint8Array {
  const made = writeCpio(entries);
  assert.ok(made.ok);
  return made.value;
}
const join = (...parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const read = (bytes: Uint8Array) => readInitramfs(bytes, nodeDecompress());
const textAt = (entries: ReadonlyMap<string, { data: Uint8Array }>, path: string) =>
  Buffer.from(entries.get(path)?.data ?? []).toString();

const early = archive([folder('kernel'), file('kernel/microcode', bytesOf('microcode'))]);
const main = archive([file('init', bytesOf('one'), 0o755), file('etc', bytesOf('x'))]);
const late = archive([file('init', bytesOf('two'), 0o755)]);

for (const [what, compress] of [
  ['gzip', (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes))],
  ['zstd', (bytes: Uint8Array) => new Uint8Array(zstdCompressSync(bytes))],
] as const) {
  test(`plain, ${what}, zero bytes and plain again: the last of a name counts`, async () => {
    const middle = compress(main);
    const pad = new Uint8Array(4 - (middle.length % 4) + 512);
    const result = await read(join(early, middle, pad, late));
    assert.ok(result.ok, JSON.stringify(result));
    assert.deepEqual(
      result.value.segments.map((one) => one.compression),
      ['none', what, 'none'],
    );
    assert.equal(textAt(result.value.entries, 'init'), 'two');
    assert.equal(textAt(result.value.entries, 'kernel/microcode'), 'microcode');
    assert.equal(textAt(result.value.entries, 'etc'), 'x');
  });

  test(`a damaged ${what} stream is a coded error`, async () => {
    const bytes = compress(main);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
    const result = await read(bytes.slice(0, bytes.length - 7));
    assert.ok(!result.ok);
    assert.match(result.error.code, /^(initrd|cpio)-/);
  });
}

test('an archive that the kernel would not see (not on a multiple of 4) is refused', async () => {
  const result = await read(join(early, new Uint8Array(2), late));
  assert.ok(!result.ok);
  assert.equal(result.error.code, 'initrd-malformed');
});

test('what is no archive is refused with its place', async () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(4096), bytesOf('#!/bin/sh\n'), join(early, bytesOf('junk'))]) {
    const result = await read(bytes);
    assert.ok(!result.ok);
    assert.equal(result.error.code, 'initrd-malformed');
  }
});

test('any bytes are an initramfs or a coded error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      const result = await readInitramfs(bytes, async () => ({
        ok: false,
        error: { code: 'initrd-compression', message: '' },
      }));
      if (!result.ok) assert.match(result.error.code, /^(initrd|cpio)-/);
    }),
  );
});

test('the end of a zstd stream is found for any content, and never beyond the bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), fc.uint8Array({ maxLength: 20 }), (content, after) => {
      const frame = new Uint8Array(zstdCompressSync(content));
      // What follows must not look like one more frame.
      const tail = after.length > 0 ? join(Uint8Array.of(0), after) : after;
      assert.equal(zstdFrameLength(join(frame, tail)), frame.length);
      for (const cut of [4, 5, frame.length >> 1, frame.length - 1]) {
        const length = zstdFrameLength(frame.subarray(0, cut));
        assert.ok(length === undefined || length <= cut);
      }
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (junk) => {
      const bytes = join(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd), junk);
      const length = zstdFrameLength(bytes);
      assert.ok(length === undefined || length <= bytes.length);
    }),
  );
});

test('links are followed as the kernel follows them, and a circle ends', async () => {
  const result = await read(
    archive([
      link('init', 'usr/lib/systemd/systemd'),
      link('lib', '/usr/lib'),
      folder('usr'),
      folder('usr/lib'),
      folder('usr/lib/systemd'),
      file('usr/lib/systemd/systemd', bytesOf('ELF'), 0o755),
      link('a', 'b'),
      link('b', 'a'),
      link('up', '../../../usr/lib/systemd/systemd'),
    ]),
  );
  assert.ok(result.ok);
  const { entries } = result.value;
  for (const path of ['init', 'lib/systemd/systemd', 'up']) {
    assert.equal(resolveEntry(entries, path)?.path, 'usr/lib/systemd/systemd', path);
  }
  assert.equal(resolveEntry(entries, 'a'), undefined);
  assert.equal(resolveEntry(entries, 'none'), undefined);
});
