import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNECTION_BUFFER } from '@airlock/device/vsock/connection.ts';
import { RESETS_LIMIT } from '@airlock/device/vsock/hub.ts';
import type { VsockOperation } from '@airlock/virtio/request/vsock.ts';
import { FakeGuest, GUEST_CID, SEQPACKET } from './support/fake-guest.ts';
import { FakeStream, join } from './support/fake-stream.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

function connected(): FakeGuest {
  const guest = new FakeGuest();
  guest.send('request');
  const [response] = guest.take();
  assert.equal(response?.header.operation, 'response');
  return guest;
}

test('a REQUEST for a port that is served is answered with RESPONSE, with our buffer, from the port it was sent to', () => {
  const guest = new FakeGuest();
  guest.send('request');
  assert.deepEqual(
    guest.take().map(({ header }) => header),
    [
      {
        sourceCid: 2,
        destinationCid: GUEST_CID,
        sourcePort: 80,
        destinationPort: 1000,
        length: 0,
        type: 1,
        operation: 'response',
        flags: 0,
        bufferAllocation: CONNECTION_BUFFER,
        forwardCount: 0,
      },
    ],
  );
});

test('a REQUEST that nobody serves is answered with RST', () => {
  const guest = new FakeGuest();
  guest.send('request', { destinationPort: 81 });
  assert.deepEqual(guest.operations(), ['rst']);
  assert.equal(guest.hub.size, 0);
});

test('whatever belongs to no connection is answered with RST, and RST with nothing', () => {
  const operations: VsockOperation[] = ['response', 'shutdown', 'rw', 'credit-update', 'credit-request'];
  for (const operation of operations) {
    const guest = new FakeGuest();
    guest.send(operation);
    assert.deepEqual(guest.operations(), ['rst'], operation);
  }
  const guest = new FakeGuest();
  guest.send('rst');
  assert.deepEqual(guest.operations(), []);
});

test('an unknown type is answered with a RST of that type, also where a stream has the same ports', () => {
  const guest = connected();
  for (const operation of ['request', 'rw', 'shutdown'] as const) {
    guest.send(operation, { type: 9 });
    const [reset] = guest.take();
    assert.equal(reset?.header.operation, 'rst');
    assert.equal(reset?.header.type, 9);
  }
  assert.equal(guest.hub.size, 1);
});

test('SEQPACKET is refused where it was not negotiated', () => {
  const guest = new FakeGuest();
  guest.hub.seqpacket = false;
  guest.send('request', { type: SEQPACKET });
  assert.deepEqual(guest.operations(), ['rst']);
});

test('packets of other CIDs are not answered', () => {
  const guest = new FakeGuest();
  guest.send('request', { sourceCid: 8 });
  guest.send('request', { destinationCid: 3 });
  guest.send('request', { destinationCid: 1 });
  assert.deepEqual(guest.operations(), []);
  assert.equal(guest.hub.counts.misaddressed, 3);
});

test('bytes go both ways, in order', () => {
  const guest = connected();
  guest.send('rw', {}, bytes('to the '));
  guest.send('rw', {}, bytes('host'));
  assert.equal(text(guest.host.stream.all), 'to the host');
  guest.host.stream.send(bytes('to the guest'));
  guest.host.stream.turn();
  assert.equal(guest.woken, 1);
  const packets = guest.take(undefined, 5);
  assert.deepEqual(
    packets.map(({ header }) => [header.operation, header.length]),
    [
      ['rw', 5],
      ['rw', 5],
      ['rw', 2],
    ],
  );
  assert.equal(text(join(packets.map(({ payload }) => payload))), 'to the guest');
});

test('the host ends its half: SHUTDOWN after its last byte, and the guest’s half goes on', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.send(bytes('last'));
  stream.end();
  stream.turn();
  const packets = guest.take();
  assert.deepEqual(
    packets.map(({ header }) => [header.operation, header.flags]),
    [
      ['rw', 0],
      ['shutdown', 2],
    ],
  );
  guest.send('rw', {}, bytes('still here'));
  assert.equal(text(stream.all), 'still here');
  guest.send('shutdown', { flags: 2 });
  assert.ok(stream.writingEnded);
  const [shutdown] = guest.take();
  assert.equal(shutdown?.header.operation, 'shutdown');
  assert.equal(shutdown?.header.flags, 3);
  assert.ok(stream.closed);
  guest.send('rst');
  assert.equal(guest.hub.size, 0);
});

test('the guest ends its half: the host sees the end after the last byte, and its own half goes on', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.room = 2;
  guest.send('rw', {}, bytes('four'));
  guest.send('shutdown', { flags: 2 });
  assert.equal(stream.writingEnded, false);
  stream.room = 100;
  stream.turn();
  assert.equal(text(stream.all), 'four');
  assert.equal(stream.writingEnded, true);
  stream.send(bytes('answer'));
  stream.turn();
  assert.deepEqual(
    guest.take().map(({ header }) => header.operation),
    ['rw'],
  );
});

test('the guest ends both halves: RST when the host has everything', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.room = 0;
  guest.send('rw', {}, bytes('four'));
  guest.send('shutdown', { flags: 3 });
  assert.deepEqual(guest.operations(), []);
  stream.room = 100;
  stream.turn();
  assert.deepEqual(guest.operations(), ['rst']);
  assert.equal(text(stream.all), 'four');
  assert.ok(stream.closed);
  assert.equal(guest.hub.size, 0);
});

test('a guest that resets after an orderly end loses nothing that it sent; its ports are free at once', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.room = 0;
  guest.send('rw', {}, bytes('four'));
  guest.send('shutdown', { flags: 3 });
  guest.send('rst');
  guest.send('request');
  assert.deepEqual(guest.operations(), ['response']);
  assert.equal(guest.hub.size, 2);
  stream.room = 100;
  stream.turn();
  assert.equal(text(stream.all), 'four');
  assert.ok(stream.closed);
  assert.equal(guest.hub.size, 1);
  guest.send('rw', {}, bytes('new'));
  assert.equal(text(guest.host.stream.all), 'new');
});

test('a guest that resets in the middle ends the stream at once', () => {
  const guest = connected();
  guest.host.stream.room = 0;
  guest.send('rw', {}, bytes('four'));
  guest.send('rst');
  assert.ok(guest.host.stream.closed);
  assert.equal(guest.hub.size, 0);
});

test('the host hangs up: what it left is delivered, then both halves end', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.send(bytes('bye'));
  stream.hangUp();
  stream.turn();
  const packets = guest.take();
  assert.deepEqual(
    packets.map(({ header }) => [header.operation, header.flags]),
    [
      ['rw', 0],
      ['shutdown', 3],
    ],
  );
  // Sent before the guest knew: no reason for a RST.
  guest.send('rw', {}, bytes('too late'));
  assert.deepEqual(guest.operations(), []);
  guest.send('rst');
  assert.equal(guest.hub.size, 0);
});

test('a host that hung up is not asked again and again while the guest has no credit', () => {
  const guest = new FakeGuest();
  guest.send('request', { bufferAllocation: 4 });
  guest.take();
  const { stream } = guest.host;
  stream.send(bytes('eight by'));
  stream.hangUp();
  stream.turn();
  assert.equal(join(guest.take().map(({ payload }) => payload)).length, 4);
  assert.equal(stream.waitsFor, 0);
  guest.send('credit-update', { bufferAllocation: 4, forwardCount: 4 });
  const packets = guest.take();
  assert.deepEqual(
    packets.map(({ header }) => [header.operation, header.length]),
    [['rw', 4]],
  );
  guest.send('credit-update', { bufferAllocation: 4, forwardCount: 8 });
  assert.deepEqual(guest.operations(), ['shutdown']);
});

test('a host that stops taking: the guest is told, its bytes count as taken, and its half can still be read', () => {
  const guest = connected();
  const { stream } = guest.host;
  stream.gone = true;
  guest.send('rw', {}, bytes('nobody reads this'));
  const [shutdown] = guest.take();
  assert.equal(shutdown?.header.operation, 'shutdown');
  assert.equal(shutdown?.header.flags, 1);
  assert.equal(shutdown?.header.forwardCount, 17);
});

test('packets in the wrong state end the connection', () => {
  const wrong: [string, (guest: FakeGuest) => void][] = [
    ['a second REQUEST', (guest) => guest.send('request')],
    ['RESPONSE to what nobody asked', (guest) => guest.send('response')],
    [
      'RW after SHUTDOWN',
      (guest) => {
        guest.send('shutdown', { flags: 2 });
        guest.send('rw', {}, bytes('more'));
      },
    ],
  ];
  for (const [name, act] of wrong) {
    const guest = connected();
    act(guest);
    assert.deepEqual(guest.operations(), ['rst'], name);
    assert.equal(guest.hub.size, 0, name);
    assert.ok(guest.host.stream.closed, name);
    assert.equal(guest.hub.counts.violations, 1, name);
  }
});

test('the connection limit holds; a connection that only waits for its RST makes place', () => {
  const guest = new FakeGuest(2);
  guest.send('request', { sourcePort: 1 });
  guest.send('request', { sourcePort: 2 });
  guest.send('request', { sourcePort: 3 });
  assert.deepEqual(guest.operations(), ['rst', 'response', 'response']);
  const [first] = guest.host.streams;
  first?.hangUp();
  first?.turn();
  assert.deepEqual(guest.operations(), ['shutdown']);
  guest.send('request', { sourcePort: 3 });
  const packets = guest.take();
  assert.deepEqual(
    packets.map(({ header }) => [header.operation, header.destinationPort]),
    [
      ['rst', 1],
      ['response', 3],
    ],
  );
  assert.equal(guest.hub.size, 2);
});

test('a flood of REQUESTs by a guest that takes no answers is held for in a line of fixed length', () => {
  const guest = new FakeGuest(4);
  for (let port = 0; port < 3 * RESETS_LIMIT; port++) guest.send('request', { sourcePort: port });
  assert.equal(guest.hub.size, 4);
  const packets = guest.take();
  assert.equal(packets.length, RESETS_LIMIT + 4);
  assert.equal(guest.hub.counts.lostResets, 2 * RESETS_LIMIT - 4);
});

test('a flood of CREDIT_REQUESTs is owed one answer', () => {
  const guest = connected();
  for (let i = 0; i < 10_000; i++) guest.send('credit-request');
  assert.deepEqual(guest.operations(), ['credit-update']);
});

test('somebody on the host calls: REQUEST from a port of ours, greeting after RESPONSE, what came early is kept', () => {
  const guest = new FakeGuest();
  const stream = new FakeStream();
  const greeting = (port: number) => bytes(`OK ${port}\n`);
  assert.ok(guest.hub.call({ port: 22, stream, rest: bytes('early '), greeting }));
  const [request] = guest.take();
  assert.equal(request?.header.operation, 'request');
  assert.equal(request?.header.destinationPort, 22);
  const ours = request?.header.sourcePort ?? 0;
  assert.ok(ours >= 2 ** 30 && ours < 2 ** 31);
  stream.send(bytes('bird'));
  assert.equal(stream.turn(), false, 'nothing is read before the guest answers');
  guest.send('response', { sourcePort: 22, destinationPort: ours });
  assert.equal(text(stream.all), `OK ${ours}\n`);
  assert.equal(guest.timers.count, 0);
  let got = guest.take();
  stream.turn();
  got = [...got, ...guest.take()];
  assert.equal(text(join(got.map(({ payload }) => payload))), 'early bird');
  guest.send('rw', { sourcePort: 22, destinationPort: ours }, bytes('hello'));
  assert.equal(text(stream.all), `OK ${ours}\nhello`);
});

test('a call that the guest refuses, or leaves without answer, ends', () => {
  const guest = new FakeGuest();
  const greeting = () => bytes('OK\n');
  const refused = new FakeStream();
  guest.hub.call({ port: 22, stream: refused, rest: new Uint8Array(0), greeting });
  const ours = guest.take()[0]?.header.sourcePort ?? 0;
  guest.send('rst', { sourcePort: 22, destinationPort: ours });
  assert.ok(refused.closed);
  assert.equal(refused.all.length, 0);
  const ignored = new FakeStream();
  guest.hub.call({ port: 23, stream: ignored, rest: new Uint8Array(0), greeting });
  guest.take();
  guest.timers.expire();
  assert.ok(ignored.closed);
  assert.deepEqual(guest.operations(), ['rst']);
  assert.equal(guest.hub.size, 0);
});

test('a RESPONSE before its REQUEST was sent is no answer', () => {
  const guest = new FakeGuest();
  const stream = new FakeStream();
  guest.hub.call({ port: 22, stream, rest: new Uint8Array(0), greeting: () => bytes('OK\n') });
  guest.send('response', { sourcePort: 22, destinationPort: 2 ** 30 });
  assert.ok(stream.closed);
  assert.equal(stream.all.length, 0);
});

test('one connection that sends all the time does not keep the others from their turns', () => {
  const guest = new FakeGuest();
  for (const sourcePort of [1, 2]) guest.send('request', { sourcePort, bufferAllocation: 2 ** 20 });
  guest.take();
  const [loud, quiet] = guest.host.streams;
  for (let i = 0; i < 100; i++) loud?.send(new Uint8Array(65536));
  quiet?.send(bytes('please'));
  loud?.turn();
  quiet?.turn();
  const turns = guest.take(4, 4096).map(({ header }) => header.destinationPort);
  assert.ok(turns.includes(2), `turns of ${turns.join()}`);
});
