import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNECTION_BUFFER } from '@airlock/device/vsock/connection.ts';
import { ReceiveCredit, SendCredit } from '@airlock/device/vsock/credit.ts';
import fc from 'fast-check';
import { FakeGuest } from './support/fake-guest.ts';
import { join } from './support/fake-stream.ts';

test('no room before the guest said so, and exactly what it said', () => {
  const credit = new SendCredit();
  assert.equal(credit.room, 0);
  assert.ok(credit.told(100, 0));
  assert.equal(credit.room, 100);
  credit.spend(60);
  assert.equal(credit.room, 40);
  assert.ok(credit.told(100, 60));
  assert.equal(credit.room, 100);
});

test('a guest that makes its buffer smaller than what is on the way leaves no room, never a negative one', () => {
  const credit = new SendCredit();
  credit.told(100, 0);
  credit.spend(80);
  assert.ok(credit.told(10, 0));
  assert.equal(credit.room, 0);
  assert.ok(credit.told(10, 75));
  assert.equal(credit.room, 5);
});

test('counters wrap at 32 bits', () => {
  const credit = new SendCredit();
  credit.told(1000, 0);
  for (let i = 0; i < 5_000_000; i++) {
    credit.spend(1000);
    assert.ok(credit.told(1000, ((i + 1) * 1000) >>> 0));
  }
  assert.equal(credit.room, 1000);
  const receive = new ReceiveCredit(1000);
  for (let i = 0; i < 5_000_000; i++) {
    assert.ok(receive.take(1000));
    receive.forward(1000);
  }
  assert.equal(receive.forwarded, 5_000_000_000 >>> 0);
  assert.ok(!receive.take(1001));
});

test('a count of bytes that were never sent is a broken rule; an older count is not, and changes nothing', () => {
  const credit = new SendCredit();
  credit.told(100, 0);
  credit.spend(50);
  assert.equal(credit.told(100, 51), false);
  assert.ok(credit.told(100, 40));
  assert.ok(credit.told(100, 20));
  assert.equal(credit.room, 90);
});

test('huge buffers are believed only so far that the arithmetic holds', () => {
  const credit = new SendCredit();
  credit.told(0xffffffff, 0);
  assert.equal(credit.room, 2 ** 30);
});

test('a guest that sends beyond its credit is reset, and not one byte of the surplus is held', () => {
  const guest = new FakeGuest();
  guest.host.room = 0;
  guest.send('request');
  guest.take();
  const chunk = new Uint8Array(65536);
  for (let sent = 0; sent < CONNECTION_BUFFER; sent += chunk.length) guest.send('rw', {}, chunk);
  assert.equal(guest.hub.counts.violations, 0);
  guest.send('rw', {}, new Uint8Array(1));
  assert.deepEqual(guest.operations(), ['rst']);
  assert.equal(guest.hub.counts.violations, 1);
});

test('forward counts beyond what was sent end the connection, in every packet', () => {
  for (const operation of ['rw', 'credit-update', 'credit-request', 'shutdown', 'request'] as const) {
    const guest = new FakeGuest();
    if (operation !== 'request') {
      guest.send('request');
      guest.take();
    }
    guest.send(operation, { forwardCount: 1 });
    assert.ok(guest.operations().includes('rst'), operation);
    assert.equal(guest.hub.size, 0, operation);
  }
});

test('a host that reads again after a stall gets the guest going again: CREDIT_UPDATE without being asked', () => {
  const guest = new FakeGuest();
  guest.host.room = 0;
  guest.send('request');
  guest.take();
  for (let sent = 0; sent < CONNECTION_BUFFER; sent += 65536) guest.send('rw', {}, new Uint8Array(65536));
  assert.deepEqual(guest.operations(), []);
  guest.host.stream.room = CONNECTION_BUFFER;
  guest.host.stream.turn();
  const [update] = guest.take();
  assert.equal(update?.header.operation, 'credit-update');
  assert.equal(update?.header.forwardCount, CONNECTION_BUFFER);
});

/** A guest that keeps the rules, as its own books say. */
interface Books {
  sent: number;
  theirForward: number;
  received: number;
  forwarded: number;
  allocation: number;
}

const step = fc.oneof(
  fc.record({ kind: fc.constant('guest-sends' as const), bytes: fc.integer({ min: 1, max: 70_000 }) }),
  fc.record({ kind: fc.constant('guest-reads' as const), bytes: fc.integer({ min: 1, max: 9000 }) }),
  fc.record({ kind: fc.constant('guest-resizes' as const), bytes: fc.integer({ min: 0, max: 9000 }) }),
  fc.record({ kind: fc.constant('host-sends' as const), bytes: fc.integer({ min: 1, max: 70_000 }) }),
  fc.record({ kind: fc.constant('host-reads' as const), bytes: fc.integer({ min: 1, max: 70_000 }) }),
  fc.record({ kind: fc.constant('buffers' as const), bytes: fc.integer({ min: 1, max: 6 }) }),
);

test('whatever the two ends do, no byte is lost or out of order and no credit is overdrawn', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const guest = new FakeGuest();
      guest.host.room = 0;
      const books: Books = { sent: 0, theirForward: 0, received: 0, forwarded: 0, allocation: 4096 };
      let ours = CONNECTION_BUFFER;
      const tell = () => ({ bufferAllocation: books.allocation, forwardCount: books.forwarded >>> 0 });
      guest.send('request', tell());
      const fromHost: Uint8Array[] = [];
      const toGuest: Uint8Array[] = [];
      let counter = 0;
      const make = (length: number) => Uint8Array.from({ length }, () => counter++ % 251);
      const take = (most: number) => {
        for (const { header, payload } of guest.take(most)) {
          assert.notEqual(header.operation, 'rst');
          ours = header.bufferAllocation;
          assert.ok(header.forwardCount <= books.sent, 'more forwarded than was sent');
          assert.ok(header.forwardCount >= books.theirForward, 'forward count went back');
          books.theirForward = header.forwardCount;
          books.received += payload.length;
          toGuest.push(payload);
        }
      };
      take(1);
      const { stream } = guest.host;
      const sentByGuest: Uint8Array[] = [];
      for (const { kind, bytes } of steps) {
        if (kind === 'guest-sends') {
          const credit = ours - (books.sent - books.theirForward);
          const payload = make(Math.min(bytes, credit));
          books.sent += payload.length;
          sentByGuest.push(payload);
          guest.send('rw', tell(), payload);
        } else if (kind === 'guest-reads') {
          books.forwarded += Math.min(bytes, books.received - books.forwarded);
          guest.send('credit-update', tell());
        } else if (kind === 'guest-resizes') {
          books.allocation = bytes;
          guest.send('credit-update', tell());
        } else if (kind === 'host-sends') {
          const piece = make(bytes);
          fromHost.push(piece);
          stream.send(piece);
        } else if (kind === 'host-reads') {
          stream.room = bytes;
        } else {
          const before = books.received;
          const room = Math.max(0, books.allocation - (books.received - books.forwarded));
          take(bytes);
          assert.ok(books.received - before <= room, 'more was sent than the guest has room for');
        }
        while (stream.turn()) if (stream.waitsFor === 0) break;
      }
      assert.equal(guest.hub.counts.violations, 0);
      // Let everything through.
      stream.room = Number.POSITIVE_INFINITY;
      books.allocation = 65536;
      for (let i = 0; i < 10_000; i++) {
        const before = books.received;
        books.forwarded = books.received;
        guest.send('credit-update', tell());
        stream.turn();
        take(100);
        if (books.received === before && !stream.turn()) break;
      }
      assert.deepEqual(join(toGuest), join(fromHost));
      assert.deepEqual(stream.all, join(sentByGuest));
    }),
    { numRuns: 150 },
  );
});
