import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONTROL_RX, CONTROL_TX, ConsoleDevice } from '@airlock/device/console/console-device.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import { consoleGuest, FakeEnd } from './support/console-guest.ts';

const PORTS = [{ isConsole: true }, { name: 'org.example.agent' }, { name: 'b', isConsole: true }];
const NO_MULTIPORT = [0, 2, 28, 29];

test('nothing is said before the driver is ready, then every port is added', () => {
  const guest = consoleGuest(PORTS);
  assert.deepEqual(guest.words(), []);
  guest.control('device-ready', 0);
  assert.deepEqual(guest.words(), ['device-add 0 0', 'device-add 1 0', 'device-add 2 0']);
});

test('a port that is ready is told what it is, how large, its name, and whether somebody is there', () => {
  const guest = consoleGuest(PORTS, { console: { columns: 80, rows: 25 } });
  guest.end(1).connect();
  guest.control('device-ready', 0);
  guest.words();
  guest.control('port-ready', 0);
  const first = guest.told();
  assert.deepEqual(
    first.map(({ event }) => event),
    ['console-port', 'resize'],
  );
  assert.deepEqual(first[1]?.size, { columns: 80, rows: 25 });
  guest.control('port-ready', 1);
  const [name, open] = guest.told();
  assert.equal(new TextDecoder().decode(name?.name), 'org.example.agent');
  assert.deepEqual([open?.event, open?.value], ['port-open', 1]);
  guest.control('port-ready', 2);
  assert.deepEqual(guest.words(), ['console-port 2 1', 'resize 2 0', 'port-name 2 0']);
});

test('who comes and goes at the host’s end is told, also when the guest hears of both at once', () => {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  guest.control('port-ready', 1);
  guest.words();
  guest.end(1).connect();
  assert.deepEqual(guest.words(), ['port-open 1 1']);
  guest.end(1).lost();
  assert.deepEqual(guest.words(), ['port-open 1 0']);
  guest.end(1).connect();
  guest.words();
  // The buffers are all used up: what is owed is owed once.
  const before = guest.queue(CONTROL_RX).inFlight;
  assert.ok(before > 0);
  for (let i = 0; i < 50; i++) {
    guest.end(1).lost();
    guest.end(1).connect();
  }
  const words = guest.words();
  assert.equal(words.at(-1), 'port-open 1 1');
  for (const [i, word] of words.entries()) assert.equal(word, `port-open 1 ${i % 2}`);
});

test('connections in a time without buffers are one close and one open, not one message each', () => {
  const guest = consoleGuest([{ name: 'a' }]);
  guest.give(CONTROL_RX, 3);
  guest.control('device-ready', 0);
  guest.control('port-ready', 0);
  guest.end(0).connect();
  assert.equal(guest.got(CONTROL_RX).length, 3, 'add, name, open');
  for (let i = 0; i < 50; i++) {
    guest.end(0).lost();
    guest.end(0).connect();
  }
  assert.deepEqual(guest.words(), ['port-open 0 0', 'port-open 0 1']);
});

test('a driver that failed to make a port hears no more of it; one that begins anew hears everything anew', () => {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  guest.words();
  guest.control('port-ready', 1, 0);
  guest.end(1).connect();
  assert.deepEqual(guest.words(), []);
  guest.control('device-ready', 0);
  assert.equal(guest.words().length, 3);
  guest.control('port-ready', 1);
  assert.deepEqual(guest.words(), ['port-name 1 0', 'port-open 1 1']);
  guest.control('device-ready', 0, 0);
  assert.deepEqual(guest.words(), []);
});

test('messages that make no sense change nothing', () => {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  guest.words();
  const bad = [
    new Uint8Array(0),
    new Uint8Array(7),
    Uint8Array.of(3, 0, 0, 0, 3, 0, 1, 0), // PORT_READY of port 3 of 3
    Uint8Array.of(255, 255, 255, 255, 3, 0, 1, 0),
    Uint8Array.of(0, 0, 0, 0, 8, 0, 1, 0), // an event that does not exist
    Uint8Array.of(0, 0, 0, 0, 1, 0, 1, 0), // DEVICE_ADD is ours to say
    Uint8Array.of(0, 0, 0, 0, 5, 0, 1, 0), // RESIZE without a size
    new Uint8Array(5000),
  ];
  for (const bytes of bad) guest.send(0, bytes, CONTROL_TX);
  assert.deepEqual(guest.words(), []);
});

test('a buffer that is too small for a message goes back empty', () => {
  const guest = consoleGuest([{ name: 'a' }]);
  guest.give(CONTROL_RX, 2, 7);
  guest.control('device-ready', 0);
  assert.deepEqual(
    guest.got(CONTROL_RX).map(({ length }) => length),
    [0],
  );
});

test('without MULTIPORT there is one console, open from the start, and no message', () => {
  const guest = consoleGuest([{}, { name: 'x' }], { bits: NO_MULTIPORT, start: [0, 1] });
  const stream = guest.end(0).connect();
  guest.send(0, new TextEncoder().encode('boot'));
  assert.equal(new TextDecoder().decode(stream.all), 'boot');
  guest.give(0);
  stream.send(new TextEncoder().encode('key'));
  stream.turn();
  assert.equal(new TextDecoder().decode(guest.got(0)[0]), 'key');
});

test('a driver that was here before this process is told who is there, and is not asked to begin anew', () => {
  const guest = consoleGuest(PORTS);
  guest.control('device-ready', 0);
  for (const port of [0, 1, 2]) guest.control('port-ready', port);
  guest.words();
  const ends = PORTS.map(() => new FakeEnd());
  const next = new ConsoleDevice({
    ports: PORTS.map(({ name = '', isConsole = false }, i) => ({ name, isConsole, end: ends[i] ?? new FakeEnd() })),
    size: null,
  });
  ends[1]?.connect();
  next.start({ features: guest.device.features, notify() {}, configChanged() {}, needsReset() {} });
  for (const [index, queue] of guest.driven.queues.entries()) next.startQueue(index, queue.device);
  next.serve(CONTROL_RX);
  assert.deepEqual(guest.words(), ['port-open 0 0', 'port-open 1 0', 'port-open 1 1', 'port-open 2 0']);
});

test('the configuration space: the number of ports, the size where there is one, and a place to write in need', () => {
  const sized = consoleGuest(PORTS, { console: { columns: 132, rows: 43 } });
  assert.deepEqual(sized.device.readConfig(), Uint8Array.of(132, 0, 43, 0, 3, 0, 0, 0, 0, 0, 0, 0));
  const guest = consoleGuest(PORTS);
  assert.deepEqual(guest.device.readConfig(), Uint8Array.of(0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0));
  const stream = guest.end(0).connect();
  assert.equal(guest.device.writeConfig(8, Uint8Array.of(65, 0, 0, 0)), true);
  assert.equal(guest.device.writeConfig(8, Uint8Array.of(66)), true);
  assert.equal(new TextDecoder().decode(stream.all), 'AB');
  for (const [offset, length] of [
    [0, 2],
    [4, 4],
    [9, 1],
    [8, 5],
    [8, 0],
    [12, 1],
  ] as const) {
    assert.equal(guest.device.writeConfig(offset, new Uint8Array(length)), false);
  }
  stream.room = 0;
  for (let i = 0; i < 200_000; i++) guest.device.writeConfig(8, Uint8Array.of(67));
  stream.room = Number.POSITIVE_INFINITY;
  stream.turn();
  assert.equal(stream.all.length, 2 + 65_536);
});

const step = fc.oneof(
  fc.record({ kind: fc.constant('control' as const), bytes: fc.uint8Array({ maxLength: 12 }) }),
  fc.record({
    kind: fc.constant('event' as const),
    bytes: fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 2 })),
  }),
  fc.record({ kind: fc.constant('data' as const), bytes: fc.uint8Array({ maxLength: 40 }) }),
  fc.record({
    kind: fc.constantFrom('connect', 'lose', 'hang-up', 'host-sends', 'host-reads', 'buffers'),
    port: fc.nat(2),
  }),
);

test('whatever a guest says, what is owed to it stays bounded, and nothing throws or spins', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const guest = consoleGuest(PORTS, { memory: 2 ** 20 });
      for (const one of steps) {
        if ('port' in one) {
          const end = guest.end(one.port);
          const { stream } = end;
          if (one.kind === 'connect' && stream === null) end.connect();
          if (one.kind === 'lose') end.lost();
          if (one.kind === 'hang-up') stream?.hangUp();
          if (one.kind === 'host-sends') stream?.send(new Uint8Array(300));
          if (one.kind === 'host-reads' && stream) stream.room = 100;
          if (one.kind === 'buffers') {
            const index = guest.rx(one.port);
            guest.got(index);
            if (guest.queue(index).free > 0) guest.give(index, 1, 100);
          }
          for (let i = 0; i < 4 && stream?.turn(); i++);
        } else {
          const [port, event, value] = one.kind === 'event' ? one.bytes : [0, 0, 0];
          const message = one.kind === 'event' ? Uint8Array.of(port, 0, 0, 0, event, 0, value, 0) : one.bytes;
          const index = one.kind === 'data' ? 5 : CONTROL_TX;
          guest.send(1, message, index);
          while (guest.queue(index).complete() === DONE);
        }
      }
      // One of each kind for each port at most, and those that buffers were there for.
      let rounds = 0;
      while (guest.words().length > 0) assert.ok(++rounds < 10);
      assert.deepEqual(guest.driven.resets, []);
      guest.driven.stop();
    }),
    { numRuns: 150 },
  );
});
