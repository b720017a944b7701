import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { channelReader, encodeCommand, OUTPUT_LIMIT, SCRIPT_LIMIT } from '../src/channel.ts';

const bytes = (text: string) => Buffer.from(text, 'latin1');

test('an answer comes whole, whatever pieces it arrives in', () => {
  const line = `@lab 7 o ${Buffer.from('out\n').toString('base64')}\r\n@lab 7 e ${Buffer.from('err').toString('base64')}\n@lab 7 x 3\n`;
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 30 }), (sizes) => {
      const read = channelReader();
      const messages = [];
      let at = 0;
      for (const size of [...sizes, line.length]) {
        messages.push(...read(bytes(line.slice(at, at + size))));
        at += size;
      }
      assert.deepEqual(messages, [
        { kind: 'answer', id: 7, answer: { status: 3, stdout: 'out\n', stderr: 'err', truncated: false } },
      ]);
    }),
    { numRuns: 50 },
  );
});

test('kernel messages between and before messages are ignored', () => {
  const read = channelReader();
  const messages = read(bytes('[    1.0] virtio: hello\n[    2.0] no newline here@lab ready\nnoise\n@lab 1 x 0\n'));
  assert.deepEqual(
    messages.map((message) => message.kind),
    ['ready', 'answer'],
  );
});

test('bytes of a guest never reach the reader unescaped', () => {
  const read = channelReader();
  const [message] = read(bytes(`@lab 1 o ${Buffer.from('\x1b[2Jhi\u00e4').toString('base64')}\n@lab 1 x 0\n`));
  assert.equal(message?.kind === 'answer' && message.answer.stdout, '\\x1b[2Jhi\\xc3\\xa4');
});

test('a flood is cut off at the limit and says so', () => {
  const read = channelReader();
  const piece = `@lab 1 o ${Buffer.alloc(9000, 65).toString('base64')}\n`;
  for (let sent = 0; sent <= OUTPUT_LIMIT + 20_000; sent += 9000) assert.deepEqual(read(bytes(piece)), []);
  const [message] = read(bytes('@lab 1 x 0\n'));
  assert.ok(message?.kind === 'answer' && message.answer.truncated && message.answer.stdout.length <= OUTPUT_LIMIT);
});

test('a line that never ends is forgotten, and the next one is heard', () => {
  const read = channelReader();
  for (let i = 0; i < 100; i++) assert.deepEqual(read(Buffer.alloc(10_000, 0x41)), []);
  assert.deepEqual(read(bytes('\n@lab ready\n')), [{ kind: 'ready' }]);
});

test('arbitrary bytes never throw', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 }), (pieces) => {
      const read = channelReader();
      for (const piece of pieces) read(piece);
    }),
    { numRuns: 200 },
  );
});

test('a command that is too long or holds a NUL is refused', () => {
  assert.equal(encodeCommand(1, 5, 'x'.repeat(SCRIPT_LIMIT)).ok, true);
  for (const script of ['x'.repeat(SCRIPT_LIMIT + 1), 'a\0b']) {
    const result = encodeCommand(1, 5, script);
    assert.equal(!result.ok && result.error.code, 'channel-command');
  }
});

test('a command is one line whatever it holds', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (script) => {
      const command = encodeCommand(3, 1.2, script);
      if (!command.ok) return;
      assert.match(command.value, /^run 3 2 [A-Za-z0-9+/=]*\n$/);
    }),
  );
});
