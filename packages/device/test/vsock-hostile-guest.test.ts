import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNECTION_BUFFER } from '@airlock/device/vsock/connection.ts';
import { EVENT, RX, TX, VsockDevice } from '@airlock/device/vsock/vsock-device.ts';
import {
  encodeVsockHeader,
  VSOCK_HEADER_SIZE,
  VSOCK_OPERATIONS,
  type VsockHeader,
} from '@airlock/virtio/request/vsock.ts';
import { DONE, NONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import { FakeGuest, FakeHost, GUEST_CID, SEQPACKET } from './support/fake-guest.ts';
import { FakeTimers } from './support/fake-stream.ts';
import { drive } from './support/in-memory-driver.ts';

const HEADER: VsockHeader = {
  sourceCid: GUEST_CID,
  destinationCid: 2,
  sourcePort: 1000,
  destinationPort: 80,
  length: 0,
  type: 1,
  operation: 'request',
  flags: 0,
  bufferAllocation: 65536,
  forwardCount: 0,
};

function served(bits?: readonly number[]) {
  const host = new FakeHost();
  const timers = new FakeTimers();
  const device = new VsockDevice({ guestCid: GUEST_CID, connections: 8 }, host, timers);
  const driven = drive(device, bits ? { bits } : {});
  const queue = (index: number) => {
    const found = driven.queues[index];
    assert.ok(found !== undefined);
    return found.driver;
  };
  return {
    host,
    timers,
    device,
    driven,
    queue,
    /** Puts bytes into the tx queue as pieces of these lengths. */
    send(bytes: Uint8Array, cut = bytes.length) {
      const address = driven.allocate(bytes.length + 16);
      driven.at(address, bytes.length).set(bytes);
      queue(TX).readable(address, cut);
      if (cut < bytes.length) queue(TX).readable(address + cut, bytes.length - cut);
      assert.equal(queue(TX).submit(0), DONE);
      queue(TX).publish();
      device.serve(TX);
      assert.equal(queue(TX).complete(), DONE);
      assert.equal(queue(TX).written, 0);
    },
    give(length: number, count = 1): number {
      const address = driven.allocate(length);
      for (let i = 0; i < count; i++) {
        queue(RX).writable(address, length);
        assert.equal(queue(RX).submit(address), DONE);
      }
      queue(RX).publish();
      device.serve(RX);
      return address;
    },
    /** Bytes of the next packet that came. */
    got(): Uint8Array | null {
      const outcome = queue(RX).complete();
      if (outcome === NONE) return null;
      assert.equal(outcome, DONE);
      return driven.at(queue(RX).token, queue(RX).written).slice();
    },
  };
}

test('a connection through the queues, the header in pieces, the payload behind it', () => {
  const rig = served();
  rig.send(encodeVsockHeader(HEADER), 13);
  assert.equal(rig.got(), null, 'no buffer was given');
  rig.give(4096);
  const response = rig.got();
  assert.equal(response?.length, VSOCK_HEADER_SIZE);
  assert.equal(response?.[30], VSOCK_OPERATIONS.indexOf('response'));
  const payload = new TextEncoder().encode('hello');
  rig.send(new Uint8Array([...encodeVsockHeader({ ...HEADER, operation: 'rw', length: 5 }), ...payload]), 46);
  assert.deepEqual(rig.host.stream.all, payload);
  rig.give(4096);
  rig.host.stream.send(payload);
  rig.host.stream.turn();
  const data = rig.got();
  assert.deepEqual(data?.subarray(VSOCK_HEADER_SIZE), payload);
  assert.ok((rig.driven.notified[RX] ?? 0) > 0);
});

test('packets that are too short, claim more than there is, or have an operation that does not exist go back and change nothing', () => {
  const rig = served();
  const good = encodeVsockHeader(HEADER);
  const lying = encodeVsockHeader({ ...HEADER, operation: 'rw', length: 0xffffffff });
  const unknown = good.slice();
  unknown[30] = 8;
  const invalid = good.slice();
  invalid[30] = 0;
  const highCid = good.slice();
  highCid[4] = 1;
  const huge = new Uint8Array(VSOCK_HEADER_SIZE + CONNECTION_BUFFER + 1);
  huge.set(encodeVsockHeader({ ...HEADER, operation: 'rw', length: CONNECTION_BUFFER + 1 }));
  const bad = [good.subarray(0, 1), good.subarray(0, 43), lying, unknown, invalid, highCid, huge];
  for (const bytes of bad) rig.send(bytes);
  assert.equal(rig.device.malformed, bad.length);
  rig.give(4096);
  assert.equal(rig.got(), null);
  rig.send(good);
  assert.ok(rig.got() !== null, 'it still works');
});

test('buffers that are too small for a header, or for any byte after it, go back empty and cost no packet', () => {
  const rig = served();
  rig.give(43);
  rig.send(encodeVsockHeader(HEADER));
  assert.equal(rig.got()?.length, 0);
  rig.give(VSOCK_HEADER_SIZE);
  assert.equal(rig.got()?.[30], VSOCK_OPERATIONS.indexOf('response'));
  rig.give(VSOCK_HEADER_SIZE);
  rig.host.stream.send(new Uint8Array([1, 2, 3]));
  rig.host.stream.turn();
  assert.equal(rig.got()?.length, 0);
  rig.give(4096);
  assert.deepEqual(rig.got()?.subarray(VSOCK_HEADER_SIZE), new Uint8Array([1, 2, 3]));
});

test('a broken ring asks for a reset, once the device sees it', () => {
  const rig = served();
  rig.driven.region.view.setUint16(0x10000 + 0x4000 + 2, 5000, true);
  rig.device.serve(TX);
  assert.equal(rig.driven.resets[0]?.code, 'avail-index-jump');
});

test('a driver that was here before us is told that its connections are gone; a fresh one is not', () => {
  const rig = served();
  const event = rig.queue(EVENT);
  const address = rig.driven.allocate(8);
  const offer = () => {
    event.writable(address, 8);
    event.submit(1);
    event.publish();
    return rig.device.serve(EVENT);
  };
  assert.equal(offer(), 0);
  rig.send(encodeVsockHeader(HEADER));
  const { stream } = rig.host;
  rig.driven.stop();
  assert.ok(stream.closed);
  // Another process goes on with the same rings.
  rig.device.start({
    features: rig.device.features,
    notify() {},
    configChanged() {},
    needsReset() {},
  });
  for (const index of [RX, TX, EVENT]) {
    const queue = rig.driven.queues[index];
    assert.ok(queue !== undefined);
    rig.device.startQueue(index, queue.device);
  }
  assert.equal(rig.device.serve(EVENT), 1);
  assert.equal(event.complete(), DONE);
  assert.equal(event.written, 4);
  assert.deepEqual(rig.driven.at(address, 4), new Uint8Array(4));
  assert.equal(offer(), 0, 'once');
});

test('callers on the host are heard only while there is a driver', () => {
  const rig = served();
  assert.ok(rig.host.call !== null);
  rig.driven.stop();
  assert.equal(rig.host.call, null);
});

test('the configuration space is the guest’s CID and cannot be written', () => {
  const rig = served();
  assert.deepEqual(rig.device.readConfig(), new Uint8Array([GUEST_CID, 0, 0, 0, 0, 0, 0, 0]));
  assert.equal(rig.device.writeConfig(), false);
});

test('work goes on where one turn was not enough', () => {
  const rig = served();
  rig.send(encodeVsockHeader({ ...HEADER, bufferAllocation: 2 ** 20 }));
  rig.give(4096);
  rig.got();
  for (let i = 0; i < 10; i++) rig.host.stream.send(new Uint8Array(200));
  rig.give(VSOCK_HEADER_SIZE + 10, 60);
  rig.host.stream.turn();
  let bytes = 0;
  for (let rounds = 0; rounds < 100 && bytes < 2000; rounds++) {
    for (let packet = rig.got(); packet !== null; packet = rig.got()) bytes += packet.length - VSOCK_HEADER_SIZE;
    rig.give(VSOCK_HEADER_SIZE + 10, 40);
    rig.host.stream.turn();
    rig.timers.expire();
  }
  assert.equal(bytes, 2000);
});

const arbitraryHeader = fc.record({
  sourcePort: fc.integer({ min: 0, max: 3 }),
  destinationPort: fc.constantFrom(80, 81, 2 ** 30, 2 ** 30 + 1, 0xffffffff),
  type: fc.constantFrom(1, 1, 1, SEQPACKET, 0, 3),
  operation: fc.constantFrom(...VSOCK_OPERATIONS.filter((one) => one !== 'invalid')),
  flags: fc.integer({ min: 0, max: 7 }),
  bufferAllocation: fc.constantFrom(0, 1, 100, 65536, 0xffffffff),
  forwardCount: fc.constantFrom(0, 0, 0, 1, 100, 0x7fffffff, 0x80000000, 0xffffffff),
  payload: fc.integer({ min: 0, max: 70_000 }),
  host: fc.constantFrom('nothing', 'sends', 'ends', 'hangs-up', 'reads', 'calls', 'buffers'),
});

test('whatever a guest sends, what is held for it stays bounded and nothing throws or spins', () => {
  fc.assert(
    fc.property(fc.array(arbitraryHeader, { maxLength: 150 }), (steps) => {
      const guest = new FakeGuest(4);
      guest.host.served.add(81);
      guest.host.room = 100;
      for (const { payload, host, ...header } of steps) {
        const bytes = new Uint8Array(header.operation === 'rw' ? payload : 0);
        guest.send(header.operation, header, bytes);
        const stream = guest.host.streams.at(-1);
        if (host === 'sends') stream?.send(new Uint8Array(5000));
        if (host === 'ends') stream?.end();
        if (host === 'hangs-up') stream?.hangUp();
        if (host === 'reads' && stream) stream.room += 1000;
        if (host === 'buffers') guest.take(3);
        if (host === 'calls') {
          const more = { rest: new Uint8Array(3), greeting: () => new Uint8Array(5) };
          const caller = guest.host.connect(80, 1);
          if (caller && !guest.hub.call({ port: 1, stream: caller, ...more })) caller.close();
        }
        for (const one of guest.host.streams) for (let i = 0; i < 3 && one.turn(); i++);
        assert.ok(guest.hub.size <= 4);
        const open = guest.host.streams.filter((one) => !one.closed).length;
        assert.ok(open <= guest.hub.size, `${open} streams open for ${guest.hub.size} connections`);
      }
      const packets = guest.take(100_000);
      assert.ok(packets.length < 100_000);
      guest.hub.clear();
      assert.equal(guest.hub.size, 0);
      assert.ok(guest.host.streams.every((one) => one.closed));
      assert.equal(guest.timers.count, 0);
    }),
    { numRuns: 300 },
  );
});

test('messages of SEQPACKET keep their borders both ways', () => {
  const guest = new FakeGuest();
  guest.send('request', { type: SEQPACKET });
  guest.take();
  const { stream } = guest.host;
  guest.send('rw', { type: SEQPACKET }, new Uint8Array([1, 2]));
  assert.equal(stream.written.length, 0);
  guest.send('rw', { type: SEQPACKET, flags: 1 }, new Uint8Array([3]));
  guest.send('rw', { type: SEQPACKET, flags: 3 }, new Uint8Array([4]));
  assert.deepEqual(
    stream.written.map((one) => [...one]),
    [[1, 2, 3], [4]],
  );
  stream.send(new Uint8Array([5, 6, 7]));
  stream.send(new Uint8Array([8]));
  stream.turn();
  const packets = guest.take(undefined, 2);
  assert.deepEqual(
    packets.map(({ header, payload }) => [header.flags, ...payload]),
    [
      [0, 5, 6],
      [1, 7],
      [1, 8],
    ],
  );
});

test('a message larger than the guest’s whole buffer can never arrive: the connection ends', () => {
  const guest = new FakeGuest();
  guest.send('request', { type: SEQPACKET, bufferAllocation: 100 });
  guest.take();
  guest.host.stream.send(new Uint8Array(101));
  guest.host.stream.turn();
  assert.deepEqual(guest.operations(), ['rst']);
});

test('a flood of empty messages, which take no credit, has an end', () => {
  const guest = new FakeGuest();
  guest.host.room = 0;
  guest.send('request', { type: SEQPACKET });
  guest.take();
  guest.send('rw', { type: SEQPACKET, flags: 1 }, new Uint8Array([1]));
  for (let i = 0; i < 5000; i++) guest.send('rw', { type: SEQPACKET, flags: 1 });
  assert.equal(guest.hub.counts.violations, 1);
  assert.equal(guest.hub.size, 0);
});
