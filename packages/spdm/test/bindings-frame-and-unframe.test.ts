import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { doeBinding } from '../src/doe/binding.ts';
import { mctpBinding } from '../src/mctp/binding.ts';
import { decodeTcpMessage, encodeTcpMessage, TCP_TYPE, tcpBinding } from '../src/tcp/binding.ts';
import { decodeEmulatorFrame, encodeEmulatorFrame } from '../src/tcp/emulator-frame.ts';
import { createEmulatorFramer, createTcpFramer } from '../src/tcp/framer.ts';
import { codeOf, must } from './support/must.ts';

const bindings = [doeBinding, mctpBinding, tcpBinding];

for (const binding of bindings) {
  test(`${binding.name}: what is wrapped is unwrapped, and its kind is kept`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 600 }), fc.boolean(), (message, secured) => {
        const kind = secured ? 'secured' : 'plain';
        const back = must(binding.unwrap(must(binding.wrap(kind, message))));
        assert.equal(back.kind, kind);
        assert.deepEqual(back.message.slice(0, message.length), message);
        assert.ok(back.message.length - message.length <= binding.padding);
        assert.deepEqual(must(binding.unwrapApplication(binding.wrapApplication(message))), message);
      }),
    );
  });

  test(`${binding.name}: any bytes give a value or a coded refusal`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        for (const result of [binding.unwrap(bytes), binding.unwrapApplication(bytes)])
          if (!result.ok) assert.match(result.error.code, /^(doe|mctp|tcp)-/);
      }),
    );
  });

  test(`${binding.name}: the longest message is taken and one byte more is not`, () => {
    assert.ok(binding.wrap('plain', new Uint8Array(binding.messageLimit)).ok);
    assert.match(codeOf(binding.wrap('plain', new Uint8Array(binding.messageLimit + 1))), /too-large|invalid/);
  });
}

test('MCTP: other types and integrity checks are refused, outside and within a session', () => {
  for (const first of [0, 1, 7, 0x7e, 0x85, 0x86, 0xff])
    assert.equal(codeOf(mctpBinding.unwrap(Uint8Array.of(first, 1, 2))), 'mctp-message-invalid');
  assert.equal(codeOf(mctpBinding.unwrap(new Uint8Array())), 'mctp-message-invalid');
  assert.equal(codeOf(mctpBinding.unwrapApplication(Uint8Array.of(6, 1, 2))), 'mctp-message-invalid');
});

test('TCP: length, version and type are checked', () => {
  for (const wrong of [
    [],
    [6, 0, 1],
    [6, 0, 2, 5, 1, 2, 3, 4],
    [0, 0, 1, 5],
    [1, 0, 1, 5],
    [7, 0, 1, 5, 1, 2, 3, 4],
    [5, 0, 1, 5, 1, 2, 3, 4],
    [6, 0, 1, 7, 1, 2, 3, 4],
    [2, 0, 1, 0xbf],
  ])
    assert.equal(codeOf(tcpBinding.unwrap(Uint8Array.from(wrong))), 'tcp-message-invalid', String(wrong));
  assert.equal(must(tcpBinding.unwrap(Uint8Array.of(6, 0, 1, 5, 1, 2, 3, 4))).kind, 'plain');
});

test('TCP: a refusal says why, with either way of writing its length', () => {
  for (const length of [0, 2])
    for (const type of [0xc0, 0xc1, 0xc2, 0xc3])
      assert.equal(codeOf(tcpBinding.unwrap(Uint8Array.of(length, 0, 1, type))), 'tcp-refused');
  assert.equal(must(decodeTcpMessage(Uint8Array.of(0, 0, 1, TCP_TYPE.roleInquiry))).type, TCP_TYPE.roleInquiry);
});

test('frames come out of a stream whole and in order, however it is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 30 }),
      (messages, cuts) => {
        const cases = [
          {
            framer: createTcpFramer(),
            encode: (message: Uint8Array) => must(encodeTcpMessage({ type: 5, message })),
            decode: (bytes: Uint8Array) => must(decodeTcpMessage(bytes)).message,
          },
          {
            framer: createEmulatorFramer(),
            encode: (payload: Uint8Array) => must(encodeEmulatorFrame({ command: 1, transport: 2, payload })),
            decode: (bytes: Uint8Array) => must(decodeEmulatorFrame(bytes)).payload,
          },
        ];
        for (const { framer, encode, decode } of cases) {
          const stream = new Uint8Array(Buffer.concat(messages.map(encode)));
          const got: Uint8Array[] = [];
          for (let at = 0, i = 0; at < stream.length; i++) {
            const next = at + (cuts[i % cuts.length] ?? 1);
            got.push(...must(framer.push(stream.slice(at, next))));
            at = next;
          }
          assert.equal(framer.pending, 0);
          assert.deepEqual(got.map(decode), messages);
        }
      },
    ),
  );
});

test('a stream that lost its place stays lost, and a size out of bounds is refused before it is stored', () => {
  const framer = createEmulatorFramer();
  assert.equal(codeOf(framer.push(Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 2, 0, 0x10, 0, 1))), 'emulator-frame-invalid');
  assert.equal(
    codeOf(framer.push(must(encodeEmulatorFrame({ command: 1, transport: 2, payload: new Uint8Array() })))),
    'emulator-frame-invalid',
  );
  const tcp = createTcpFramer();
  assert.equal(codeOf(tcp.push(Uint8Array.of(9, 0, 7, 5))), 'tcp-message-invalid');
  assert.equal(codeOf(tcp.push(Uint8Array.of(2, 0, 1, 5))), 'tcp-message-invalid');
});

test('a large frame in single bytes costs no more than its size', () => {
  const framer = createEmulatorFramer();
  const frame = must(encodeEmulatorFrame({ command: 1, transport: 2, payload: new Uint8Array(200_000) }));
  let whole = 0;
  for (const byte of frame) whole += must(framer.push(Uint8Array.of(byte))).length;
  assert.equal(whole, 1);
});

test('emulator frames: header and size are checked', () => {
  for (const wrong of [
    [],
    [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
    [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1],
    [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 9],
  ])
    assert.equal(codeOf(decodeEmulatorFrame(Uint8Array.from(wrong))), 'emulator-frame-invalid');
});
