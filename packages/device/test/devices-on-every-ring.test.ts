import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { P9Device } from '@airlock/device/9p/p9-device.ts';
import { EVENT, RX, TX, VsockDevice } from '@airlock/device/vsock/vsock-device.ts';
import { encodeVsockHeader, VSOCK_HEADER_SIZE } from '@airlock/virtio/request/vsock.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { consoleGuest } from './support/console-guest.ts';
import { FakeHost } from './support/fake-guest.ts';
import { FakeTimers } from './support/fake-stream.ts';
import { drive } from './support/in-memory-driver.ts';
import { encodeMessage, P9Client } from './support/p9-client.ts';

const INDIRECT = 28;
const EVENT_INDEX = 29;
const PACKED = 34;
const IN_ORDER = 35;

/** Features of the device itself, and each combination of those of its rings. */
const RINGS = Array.from({ length: 16 }, (_, bits) =>
  [INDIRECT, EVENT_INDEX, PACKED, IN_ORDER].filter((_bit, i) => ((bits >> i) & 1) === 1),
);
const OWN = [0, 1, 2];
const ROUNDS = 300;

test('vsock: packets go both ways, past the ends of the rings, whatever their form', () => {
  for (const ring of RINGS) {
    const host = new FakeHost();
    const device = new VsockDevice({ guestCid: 7, connections: 4 }, host, new FakeTimers());
    const driven = drive(device, { bits: [...OWN, ...ring] });
    const [rx, tx] = [driven.queues[RX]?.driver, driven.queues[TX]?.driver];
    assert.ok(rx !== undefined && tx !== undefined);
    assert.equal(device.serve(EVENT), 0, `${ring}: nothing to tell a fresh driver`);
    const [out, into] = [driven.allocate(64), driven.allocate(64)];
    const header = {
      ...{ sourceCid: 7, destinationCid: 2, sourcePort: 1, destinationPort: 80, length: 0, type: 1, flags: 0 },
      ...{ bufferAllocation: 2 ** 20, forwardCount: 0 },
    };
    const send = (bytes: Uint8Array) => {
      driven.at(out, bytes.length).set(bytes);
      tx.readable(out, VSOCK_HEADER_SIZE);
      if (bytes.length > VSOCK_HEADER_SIZE) tx.readable(out + VSOCK_HEADER_SIZE, bytes.length - VSOCK_HEADER_SIZE);
      assert.equal(tx.submit(1), DONE);
      tx.publish();
      device.serve(TX);
      assert.equal(tx.complete(), DONE);
    };
    const receive = () => {
      rx.writable(into, 64);
      assert.equal(rx.submit(1), DONE);
      rx.publish();
      device.serve(RX);
      assert.equal(rx.complete(), DONE, String(ring));
      return driven.at(into, rx.written).slice();
    };
    send(encodeVsockHeader({ ...header, operation: 'request' }));
    assert.equal(receive()[30], 2);
    for (let i = 0; i < ROUNDS; i++) {
      const byte = i & 255;
      send(Uint8Array.from([...encodeVsockHeader({ ...header, operation: 'rw', length: 1, forwardCount: i }), byte]));
      host.stream.send(Uint8Array.of(byte));
      host.stream.turn();
      assert.deepEqual([...receive().subarray(VSOCK_HEADER_SIZE)], [byte]);
    }
    assert.equal(host.stream.all.length, ROUNDS);
    assert.deepEqual(driven.resets, []);
    driven.stop();
  }
});

test('console: bytes go both ways, past the ends of the rings, whatever their form', () => {
  for (const ring of RINGS) {
    const guest = consoleGuest([{ isConsole: true }, { name: 'a' }], { bits: [...OWN, ...ring] });
    guest.control('device-ready', 0);
    assert.deepEqual(guest.words(), ['device-add 0 0', 'device-add 1 0'], String(ring));
    for (const port of [0, 1]) {
      guest.control('port-ready', port);
      guest.control('port-open', port);
    }
    assert.deepEqual(guest.words(), ['console-port 0 1', 'port-name 1 0']);
    const stream = guest.end(1).connect();
    for (let i = 0; i < ROUNDS; i++) {
      guest.send(1, Uint8Array.of(i & 255));
      assert.equal(guest.returned(1), 1, String(ring));
      guest.give(4, 1, 8);
      stream.send(Uint8Array.of(i & 255));
      stream.turn();
      assert.deepEqual([...(guest.got(4)[0] ?? [])], [i & 255]);
    }
    assert.equal(stream.all.length, ROUNDS);
    assert.deepEqual(guest.driven.resets, []);
  }
});

test('9p: requests are answered, past the end of the ring, whatever its form', async () => {
  const client = await P9Client.open({ prepare: (share) => writeFileSync(`${share}/file`, 'content') });
  for (const ring of RINGS) {
    const device = new P9Device('t', client.session, () => {});
    const driven = drive(device, { bits: [...OWN, ...ring] });
    const driver = driven.queues[0]?.driver;
    assert.ok(driver !== undefined);
    const [out, into] = [driven.allocate(256), driven.allocate(256)];
    const call = (message: Uint8Array) => {
      driven.at(out, message.length).set(message);
      driver.readable(out, 7);
      driver.readable(out + 7, message.length - 7);
      driver.writable(into, 11);
      driver.writable(into + 11, 200);
      assert.equal(driver.submit(1), DONE);
      driver.publish();
      assert.equal(device.serve(0), 1, String(ring));
      assert.equal(driver.complete(), DONE);
      return driven.at(into, driver.written).slice();
    };
    call(
      encodeMessage(100, 1, [
        ['u32', 8192],
        ['text', '9P2000.L'],
      ]),
    );
    const attach = encodeMessage(104, 1, [
      ['u32', 0],
      ['u32', 0xffffffff],
      ['text', ''],
      ['text', ''],
      ['u32', 0],
    ]);
    assert.equal(call(attach)[4], 105);
    const walk = encodeMessage(110, 1, [
      ['u32', 0],
      ['u32', 1],
      ['u16', 1],
      ['text', 'file'],
    ]);
    const clunk = encodeMessage(120, 1, [['u32', 1]]);
    for (let i = 0; i < 100; i++) {
      assert.equal(call(walk)[4], 111);
      assert.equal(call(clunk)[4], 121);
    }
    assert.deepEqual(driven.resets, []);
    driven.stop();
  }
  client.end();
});
