import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ok, type Result } from '@airlock/core/result.ts';
import fc from 'fast-check';
import { decodePciMessage, pciAsk } from '../src/doe/pci-protocol.ts';
import {
  decodeIdeMessage,
  encodeIdeMessage,
  type IdeMessage,
  type IdeSlot,
  readIdeCapability,
} from '../src/ide-km/messages.ts';
import { programKey, queryPort, slotsOf, startKeySet, stopKeySet } from '../src/ide-km/requester.ts';
import { createIdeResponder } from '../src/ide-km/responder.ts';
import { missing, readDump } from './support/dump.ts';
import { codeOf, must } from './support/must.ts';

const port = { devfn: 8, bus: 1, segment: 0, registers: [0x0103_0042, 0] };
const slot: IdeSlot = { stream: 5, keySet: 1, direction: 'tx', subStream: 'cpl', port: 1 };
const key = { key: new Uint8Array(32).fill(1), iv: new Uint8Array(8).fill(2) };

const messages: readonly IdeMessage[] = [
  { name: 'QUERY', port: 1 },
  { name: 'QUERY_RESP', port: 1, devfn: 8, bus: 1, segment: 2, maxPort: 7, registers: [1, 0xffff_ffff] },
  { name: 'KEY_PROG', slot, ...key },
  { name: 'KP_ACK', slot, status: 3 },
  { name: 'K_SET_GO', slot },
  { name: 'K_SET_STOP', slot },
  { name: 'K_GOSTOP_ACK', slot },
];

test('every message comes back; cut or longer it is refused', () => {
  for (const message of messages) {
    const bytes = encodeIdeMessage(message);
    assert.deepEqual(must(decodeIdeMessage(bytes)), message);
    for (let length = 0; length < bytes.length; length++)
      if (message.name !== 'QUERY_RESP' || length < 7 || (length - 7) % 4 !== 0)
        assert.equal(codeOf(decodeIdeMessage(bytes.slice(0, length))), 'ide-km-message-invalid');
    assert.equal(codeOf(decodeIdeMessage(Uint8Array.of(...bytes, 0))), 'ide-km-message-invalid');
  }
});

test('unknown objects, sub-streams and reserved fields are refused', () => {
  const go = encodeIdeMessage({ name: 'K_SET_GO', slot });
  for (const [at, byte] of [
    [0, 7],
    [1, 1],
    [2, 1],
    [4, 1],
    [5, 0x30],
    [5, 0x04],
    [5, 0x08],
  ] as const) {
    const wrong = go.slice();
    wrong[at] = byte;
    assert.equal(codeOf(decodeIdeMessage(wrong)), 'ide-km-message-invalid', `${at}: ${byte}`);
  }
});

test('any bytes give a value that encodes to them, or a refusal', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(7), (bytes, id) => {
      if (bytes.length > 0) bytes[0] = id;
      const read = decodeIdeMessage(bytes);
      if (read.ok) assert.deepEqual(encodeIdeMessage(read.value), bytes);
      else assert.equal(read.error.code, 'ide-km-message-invalid');
    }),
    { numRuns: 2000 },
  );
});

test('a key set is programmed whole before any of it is used, receivers first', async () => {
  const responder = createIdeResponder([port, port]);
  const asked: string[] = [];
  const ask = async (bytes: Uint8Array): Promise<Result<Uint8Array>> => {
    const message = must(decodeIdeMessage(bytes));
    asked.push('slot' in message ? `${message.name} ${message.slot.direction}` : message.name);
    return responder.answer(bytes);
  };
  assert.equal(must(await queryPort(ask, 1)).maxPort, 1);
  must(await startKeySet(ask, 5, 1, 1, () => key));
  assert.deepEqual(asked.slice(1), [
    ...Array(3).fill('KEY_PROG rx'),
    ...Array(3).fill('KEY_PROG tx'),
    ...Array(3).fill('K_SET_GO rx'),
    ...Array(3).fill('K_SET_GO tx'),
  ]);
  for (const one of slotsOf(5, 1, 1)) assert.equal(responder.stateOf(one), 'in use');
  must(await stopKeySet(ask, 5, 1, 1));
  for (const one of slotsOf(5, 1, 1)) assert.equal(responder.stateOf(one), undefined);
});

test('what was started is stopped again when a later step fails', async () => {
  const responder = createIdeResponder([port]);
  let started = 0;
  const ask = async (bytes: Uint8Array): Promise<Result<Uint8Array>> => {
    if (must(decodeIdeMessage(bytes)).name === 'K_SET_GO' && ++started === 5)
      return ok(encodeIdeMessage({ name: 'K_GOSTOP_ACK', slot }));
    return responder.answer(bytes);
  };
  assert.equal(codeOf(await startKeySet(ask, 0, 0, 0, () => key)), 'ide-km-unexpected');
  for (const one of slotsOf(0, 0, 0)) assert.notEqual(responder.stateOf(one), 'in use');
});

test('an acknowledgement of another slot, or a status that is not success, is no success', async () => {
  const others: readonly IdeSlot[] = [
    { ...slot, stream: 6 },
    { ...slot, keySet: 0 },
    { ...slot, direction: 'rx' },
    { ...slot, subStream: 'pr' },
    { ...slot, port: 0 },
  ];
  for (const other of others) {
    const ask = async () => ok(encodeIdeMessage({ name: 'KP_ACK', slot: other, status: 0 }));
    assert.equal(codeOf(await programKey(ask, slot, key)), 'ide-km-unexpected');
  }
  for (const status of [1, 2, 3, 4, 200]) {
    const ask = async () => ok(encodeIdeMessage({ name: 'KP_ACK', slot, status }));
    assert.equal(codeOf(await programKey(ask, slot, key)), 'ide-km-refused');
  }
  const wrong = async () => ok(encodeIdeMessage({ name: 'K_GOSTOP_ACK', slot }));
  assert.equal(codeOf(await programKey(wrong, slot, key)), 'ide-km-unexpected');
  assert.equal(codeOf(await queryPort(wrong, 1)), 'ide-km-unexpected');
});

test('the responder: wrong port, wrong length, a key in use, a key that is not there', () => {
  const responder = createIdeResponder([port, port]);
  const say = (message: IdeMessage) => responder.answer(encodeIdeMessage(message));
  const status = (result: Result<Uint8Array>) => {
    const answer = must(decodeIdeMessage(must(result)));
    return answer.name === 'KP_ACK' ? answer.status : -1;
  };
  assert.equal(codeOf(say({ name: 'QUERY', port: 2 })), 'ide-km-unexpected');
  assert.equal(codeOf(say({ name: 'K_SET_GO', slot })), 'ide-km-unexpected');
  assert.equal(status(say({ name: 'KEY_PROG', slot: { ...slot, port: 2 }, ...key })), 2);
  assert.equal(status(responder.answer(encodeIdeMessage({ name: 'KEY_PROG', slot, ...key }).slice(0, 30))), 1);
  assert.equal(responder.stateOf(slot), undefined);
  assert.equal(status(say({ name: 'KEY_PROG', slot, ...key })), 0);
  must(say({ name: 'K_SET_GO', slot }));
  assert.equal(status(say({ name: 'KEY_PROG', slot, ...key })), 3);
  must(say({ name: 'K_SET_STOP', slot }));
  assert.equal(codeOf(say({ name: 'K_SET_GO', slot })), 'ide-km-unexpected');
  assert.equal(codeOf(say({ name: 'K_GOSTOP_ACK', slot })), 'ide-km-unexpected');
});

test('an answer of another protocol is no answer', async () => {
  const tdisp = pciAsk('ide-km', async () => ok(Uint8Array.of(1, 2, 3)));
  assert.equal(codeOf(await queryPort(tdisp, 0)), 'pci-protocol-invalid');
  const unknown = pciAsk('ide-km', async () => ok(Uint8Array.of(9)));
  assert.equal(codeOf(await queryPort(unknown, 0)), 'pci-protocol-invalid');
  const empty = pciAsk('ide-km', async () => ok(new Uint8Array()));
  assert.equal(codeOf(await queryPort(empty, 0)), 'pci-protocol-invalid');
});

test('the capability register', () => {
  const capability = readIdeCapability(0x0003_2043);
  assert.deepEqual([capability.link, capability.selective, capability.ideKm], [true, true, true]);
  assert.deepEqual([capability.linkStreams, capability.selectiveStreams], [2, 4]);
  assert.equal(readIdeCapability(0).selectiveStreams, 0);
});

for (const name of ['v11-p384', 'v12-p384', 'v13-p384']) {
  test(`${name}: every IDE_KM message of DMTF’s devices is read, and written byte for byte`, { skip: missing }, () => {
    let count = 0;
    for (const { line, parts } of readDump(name)) {
      const vendor = parts.get('PCI Vendor');
      if (vendor === undefined || !line.includes(' IDE_KM(')) continue;
      const { protocol, message } = must(decodePciMessage(vendor.slice(7)));
      assert.equal(protocol, 'ide-km');
      const read = must(decodeIdeMessage(message));
      assert.deepEqual(encodeIdeMessage(read), message);
      assert.ok(line.includes(read.name.replace('K_GOSTOP', 'K_SET_GOSTOP')), line);
      count++;
    }
    assert.ok(count > 20, `${count} messages`);
  });
}
