import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BEHIND_LIMIT } from '@airlock/device/console/port.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import { consoleGuest } from './support/console-guest.ts';
import { join } from './support/fake-stream.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);
const PORTS = [{ isConsole: true }, { name: 'a' }, { name: 'b' }];

function opened() {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  for (const port of [0, 1, 2]) {
    guest.control('port-ready', port);
    guest.control('port-open', port);
  }
  guest.words();
  return guest;
}

test('a port that nobody reads holds its own buffers, and the others go on', () => {
  const guest = opened();
  const slow = guest.end(1).connect();
  const quick = guest.end(2).connect();
  slow.room = 3;
  assert.ok(guest.send(1, bytes('stuck here')));
  assert.ok(guest.send(1, bytes(' and here')));
  assert.equal(guest.returned(1), 0);
  assert.equal(guest.device.serve(guest.rx(1) + 1), 0, 'no work is made of waiting');
  for (let i = 0; i < 10; i++) guest.send(2, bytes('x'));
  assert.equal(guest.returned(2), 10);
  assert.equal(text(quick.all), 'xxxxxxxxxx');
  slow.room = 4;
  slow.turn();
  assert.equal(text(slow.all), 'stuck h');
  slow.room = 100;
  slow.turn();
  assert.equal(text(slow.all), 'stuck here and here');
  assert.equal(guest.returned(1), 2);
  assert.ok((guest.driven.notified[guest.rx(1) + 1] ?? 0) > 0);
});

test('a port at whose end nobody is takes everything, and keeps nothing', () => {
  const guest = opened();
  for (let i = 0; i < 100; i++) {
    guest.send(1, new Uint8Array(1000));
    assert.equal(guest.returned(1), 1);
  }
  assert.equal(guest.end(1).connect().all.length, 0);
});

test('a console that nobody reads never holds the guest: it is behind by so much, and what is more is lost', () => {
  const guest = opened();
  const stream = guest.end(0).connect();
  stream.room = 0;
  for (let i = 0; i < 20; i++) {
    guest.send(0, new Uint8Array(10_000).fill(i));
    assert.equal(guest.returned(0), 1);
  }
  assert.equal(guest.device.ports[0]?.counts.dropped, 200_000 - BEHIND_LIMIT);
  stream.room = Number.POSITIVE_INFINITY;
  stream.turn();
  assert.equal(stream.all.length, BEHIND_LIMIT);
  assert.ok(stream.all.subarray(0, 60_000).every((byte, i) => byte === Math.floor(i / 10_000)));
  guest.send(0, bytes('again'));
  assert.equal(text(stream.all.subarray(-5)), 'again');
});

test('what the host sends waits at the host while the guest has no buffer or has not opened the port', () => {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  guest.control('port-ready', 1);
  const stream = guest.end(1).connect();
  for (let i = 0; i < 100; i++) stream.send(new Uint8Array(1000));
  for (let i = 0; i < 100; i++) stream.turn();
  assert.equal(stream.reads, 0, 'closed in the guest');
  guest.control('port-open', 1);
  for (let i = 0; i < 100; i++) stream.turn();
  assert.ok(stream.reads <= 2, `${stream.reads} reads without a buffer`);
  let got = 0;
  for (let i = 0; i < 200 && got < 100_000; i++) {
    guest.give(guest.rx(1), 2, 777);
    stream.turn();
    for (const one of guest.got(guest.rx(1))) got += one.length;
  }
  assert.equal(got, 100_000);
});

test('a guest that closes the port is sent nothing; it is delivered when it opens again', () => {
  const guest = opened();
  const stream = guest.end(1).connect();
  guest.give(guest.rx(1), 4);
  guest.control('port-open', 1, 0);
  stream.send(bytes('later'));
  stream.turn();
  assert.deepEqual(guest.got(guest.rx(1)), []);
  guest.control('port-open', 1);
  stream.turn();
  assert.equal(text(join(guest.got(guest.rx(1)))), 'later');
});

test('who hangs up is delivered to the end, then the next can come', () => {
  const guest = opened();
  const stream = guest.end(1).connect();
  stream.send(bytes('last words'));
  stream.hangUp();
  guest.give(guest.rx(1), 4);
  stream.turn();
  assert.equal(text(join(guest.got(guest.rx(1)))), 'last words');
  assert.ok(stream.closed);
  assert.equal(guest.end(1).stream, null);
  assert.deepEqual(guest.words(), ['port-open 1 1', 'port-open 1 0']);
});

test('who hangs up while the guest has the port closed makes place for the next', () => {
  const guest = consoleGuest(PORTS);
  const stream = guest.end(1).connect();
  guest.send(1, bytes('x'));
  stream.hangUp();
  guest.send(1, bytes('lost'));
  guest.control('device-ready', 0);
  guest.control('port-ready', 1);
  assert.ok(stream.closed || guest.end(1).stream === stream);
  // The next look at the port finds it out.
  guest.control('port-open', 1, 0);
  assert.ok(stream.closed);
});

test('an end that takes no more loses the rest, and holds nobody', () => {
  const guest = opened();
  const stream = guest.end(1).connect();
  stream.gone = true;
  for (let i = 0; i < 5; i++) {
    guest.send(1, bytes('nobody'));
    assert.equal(guest.returned(1), 1);
  }
});

test('a queue that ends in the middle of a buffer gives it back, and the bytes go on when it goes on', () => {
  const guest = opened();
  const stream = guest.end(1).connect();
  stream.room = 2;
  const index = guest.rx(1) + 1;
  guest.send(1, bytes('in the middle'));
  assert.equal(guest.returned(1), 0);
  guest.device.stopQueue(index);
  assert.equal(guest.returned(1), 1);
  const queue = guest.driven.queues[index]?.device;
  assert.ok(queue !== undefined);
  assert.equal(queue.inFlight, 0);
  guest.device.startQueue(index, queue);
  guest.send(1, bytes(', and after'));
  assert.equal(guest.returned(1), 0, 'in order');
  stream.room = 100;
  stream.turn();
  assert.equal(text(stream.all), 'in the middle, and after');
  assert.equal(guest.returned(1), 1);
});

test('buffers of the wrong direction, empty ones and huge ones', () => {
  const guest = opened();
  const stream = guest.end(1).connect();
  guest.send(1, new Uint8Array(0));
  assert.equal(guest.returned(1), 1);
  const driver = guest.queue(guest.rx(1));
  const address = guest.driven.allocate(64);
  driver.readable(address, 64);
  driver.submit(1);
  driver.publish();
  stream.send(bytes('kept'));
  stream.turn();
  guest.device.serve(guest.rx(1));
  assert.equal(driver.complete(), DONE);
  assert.equal(driver.written, 0);
  guest.give(guest.rx(1), 1);
  stream.turn();
  assert.equal(text(join(guest.got(guest.rx(1)))), 'kept');
  // One chain of many times the same memory: sent in turns.
  const large = guest.driven.allocate(1_000_000);
  const tx = guest.queue(guest.rx(1) + 1);
  for (let i = 0; i < 14; i++) tx.readable(large, 1_000_000);
  assert.equal(tx.submit(1), DONE);
  tx.publish();
  let turns = 0;
  while (guest.device.serve(guest.rx(1) + 1) > 0) turns++;
  assert.ok(turns > 10, `${turns} turns`);
  assert.equal(guest.returned(1), 1);
  assert.equal(stream.all.length, 14_000_000);
});

test('a broken ring asks for a reset', () => {
  const guest = opened();
  guest.driven.region.view.setUint16(0x10000 * 5 + 0x4000 + 2, 5000, true);
  guest.device.serve(5);
  assert.equal(guest.driven.resets[0]?.code, 'avail-index-jump');
});

test('the driver goes, and whoever is at the host’s end stays', () => {
  const guest = opened();
  const stream = guest.end(0).connect();
  guest.driven.stop();
  assert.equal(stream.closed, false);
  guest.device.close();
  assert.ok(stream.closed);
  assert.ok(guest.end(0).closed);
});
