import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CpioEntry, file, folder, link, type NewEntry, readCpio, writeCpio } from '@airlock/gate/build/cpio.ts';
import fc from 'fast-check';

const bytesOf = (text: string) => Uint8Array.from(text, (one) => one.charCodeAt(0));
function written(entries: readonly NewEntry[]): Uint8Array {
  const result = writeCpio(entries);
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}
const plain = (entries: readonly CpioEntry[]) =>
  entries.map(({ path, mode, data, device }) => ({ path, mode, data: [...data], device }));

const name = fc
  .array(fc.stringMatching(/^[a-z0-9_-]{1,12}$/), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.join('/'));
const entry = fc.oneof(
  name.map((path) => folder(path)),
  fc.tuple(name, fc.uint8Array({ maxLength: 40 })).map(([path, data]) => file(path, data, 0o755)),
  fc.tuple(name, fc.stringMatching(/^[a-z/.]{1,20}$/)).map(([path, target]) => link(path, target)),
);

test('what is written is read back, in order, and ends where the archive ends', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 12 }), (entries) => {
      const bytes = written(entries);
      assert.equal(bytes.length % 512, 0);
      const read = readCpio(bytes);
      assert.ok(read.ok, JSON.stringify(read));
      assert.deepEqual(
        plain(read.value.entries),
        entries.map(({ path, mode, data }) => ({ path, mode, data: [...(data ?? [])], device: undefined })),
      );
      assert.ok(bytes.subarray(read.value.end).every((byte) => byte === 0));
    }),
  );
});

test('the same entries give the same bytes', () => {
  const entries = [folder('a'), file('a/b', bytesOf('data')), link('c', 'a/b')];
  assert.deepEqual(written(entries), written([...entries]));
});

test('any bytes are an archive or a coded error, never an exception', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const read = readCpio(bytes);
      if (!read.ok) assert.match(read.error.code, /^cpio-/);
    }),
    { numRuns: 500 },
  );
});

test('a damaged archive is read whole or refused; no entry reaches beyond the bytes', () => {
  const good = written([folder('bin'), file('bin/sh', bytesOf('#!'), 0o755), link('init', 'bin/sh')]);
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, byte, cut) => {
      const bad = good.slice(0, cut === 0 ? good.length : cut);
      if (at < bad.length) bad[at] = byte;
      const read = readCpio(bad);
      if (!read.ok) return assert.match(read.error.code, /^cpio-/);
      for (const one of read.value.entries) assert.ok(one.data.length <= bad.length);
    }),
    { numRuns: 1000 },
  );
});

function header(fields: Readonly<Record<number, string>>, path: string, data = ''): Uint8Array {
  const numbers = Array.from({ length: 13 }, (_, i) => fields[i] ?? '00000000');
  numbers[11] = fields[11] ?? (path.length + 1).toString(16).padStart(8, '0');
  numbers[6] = fields[6] ?? data.length.toString(16).padStart(8, '0');
  const head = `070701${numbers.join('')}${path}\0`;
  const padded = head + '\0'.repeat((4 - (head.length % 4)) % 4) + data;
  return bytesOf(padded + '\0'.repeat((4 - (padded.length % 4)) % 4));
}

for (const [what, bytes] of [
  ['a name of zero bytes', header({ 11: '00000000' }, '')],
  ['a name of 4 GB', header({ 11: 'ffffffff' }, 'a')],
  ['data of 4 GB', header({ 6: 'ffffffff' }, 'a')],
  ['a field that is not hexadecimal', header({ 3: '0000x000' }, 'a')],
  ['a sign in a field', header({ 6: '-0000001' }, 'a')],
  ['a way out of the root', header({}, '../../etc/passwd')],
  ['a zero byte within the name', header({}, 'a\0b')],
  ['no trailer', header({}, 'a', 'data')],
  ['the old binary format', Uint8Array.of(0xc7, 0x71, 0, 0)],
] as const) {
  test(`${what} is refused`, () => {
    const read = readCpio(bytes);
    assert.ok(!read.ok);
    assert.match(read.error.code, /^cpio-/);
  });
}

test('names that the kernel would take apart are not written', () => {
  for (const path of ['', '/abs', 'a//b', './a', 'a/../b', 'TRAILER!!!', 'a\0b']) {
    const result = writeCpio([file(path, new Uint8Array(0))]);
    assert.ok(!result.ok, JSON.stringify(path));
  }
});
