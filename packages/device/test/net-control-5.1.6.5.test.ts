import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import {
  EVERYTHING,
  ethernet,
  header,
  MAC,
  type NetUnderTest,
  netUnderTest,
  PEER,
  tcpFrame,
  without,
} from './support/net-ends.ts';

const ALL = { checksum: true, tcp4: true, tcp6: true, ecn: true };
const OK = 0;
const ERROR = 1;

function controlled(bits: readonly number[] = EVERYTHING, pairs = 1): NetUnderTest {
  return netUnderTest({ bits, net: { pairs }, end: { gives: ALL }, size: 64 });
}

/** Sends a command and returns its answer. */
function command(net: NetUnderTest, bytes: readonly number[], answerBytes = 1): number {
  const queue = net.driven.queues.at(-1);
  assert.ok(queue !== undefined);
  const out = net.driven.allocate(bytes.length);
  net.driven.at(out, bytes.length).set(bytes);
  if (bytes.length > 0) queue.driver.readable(out, bytes.length);
  const answer = net.driven.allocate(1);
  net.driven.at(answer, 1)[0] = 0xee;
  if (answerBytes > 0) queue.driver.writable(answer, answerBytes);
  assert.equal(queue.driver.submit(0), DONE);
  queue.driver.publish();
  assert.equal(net.device.serve(net.driven.queues.length - 1), 1);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.written, answerBytes > 0 ? 1 : 0);
  return net.driven.at(answer, 1)[0] ?? -1;
}

function passes(net: NetUnderTest, frame: Uint8Array): boolean {
  net.post(2000);
  const before = net.device.counters.receivedFrames;
  net.end.give(frame);
  net.device.serve(0);
  net.received();
  return net.device.counters.receivedFrames > before;
}

const OTHER = Uint8Array.of(0x52, 0x54, 0, 9, 9, 9);
const GROUP = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);
const BROADCAST = new Uint8Array(6).fill(0xff);
const to = (target: Uint8Array) => ethernet(60, 0x88b5, target);

test('a driver that sets nothing gets everything', () => {
  const net = controlled();
  for (const target of [MAC, OTHER, GROUP, BROADCAST]) assert.ok(passes(net, to(target)));
});

test('not promiscuous: its own address and broadcasts, and what the modes add or take', () => {
  const net = controlled();
  const seen = () => [MAC, OTHER, GROUP, BROADCAST].map((target) => passes(net, to(target)));
  assert.equal(command(net, [0, 0, 0]), OK);
  assert.deepEqual(seen(), [true, false, false, true]);
  assert.equal(command(net, [0, 1, 1]), OK); // all multicast
  assert.deepEqual(seen(), [true, false, true, true]);
  assert.equal(command(net, [0, 2, 1]), OK); // all unicast
  assert.deepEqual(seen(), [true, true, true, true]);
  assert.equal(command(net, [0, 3, 1]), OK); // no multicast
  assert.deepEqual(seen(), [true, true, false, true]);
  assert.equal(command(net, [0, 4, 1]), OK); // no unicast
  assert.deepEqual(seen(), [false, false, false, true]);
  assert.equal(command(net, [0, 5, 1]), OK); // no broadcast
  assert.deepEqual(seen(), [false, false, false, false]);
  assert.equal(command(net, [0, 0, 1]), OK);
  assert.deepEqual(seen(), [true, true, true, true]);
  assert.ok(net.device.counters.receivedUnwanted > 0);
});

test('tables of addresses: kept up to 64 each, all of a kind beyond', () => {
  const net = controlled();
  command(net, [0, 0, 0]);
  assert.equal(command(net, [1, 0, 1, 0, 0, 0, ...OTHER, 1, 0, 0, 0, ...GROUP]), OK);
  assert.ok(passes(net, to(OTHER)) && passes(net, to(GROUP)));
  assert.ok(!passes(net, to(PEER)) && !passes(net, to(Uint8Array.of(1, 0, 0x5e, 0, 0, 2))));
  const many = Array.from({ length: 65 }, (_, i) => [2, 0, 0, 0, 0, i]).flat();
  assert.equal(command(net, [1, 0, 65, 0, 0, 0, ...many, 0, 0, 0, 0]), OK);
  assert.ok(passes(net, to(PEER)));
  assert.ok(!passes(net, to(GROUP)));
  assert.equal(command(net, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), OK);
  assert.ok(!passes(net, to(PEER)) && !passes(net, to(OTHER)));
});

test('tables whose counts lie change nothing', () => {
  const net = controlled();
  command(net, [0, 0, 0]);
  command(net, [1, 0, 1, 0, 0, 0, ...OTHER, 0, 0, 0, 0]);
  const wrong = [
    [1, 0],
    [1, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    [1, 0, 255, 255, 255, 255, 0, 0, 0, 0],
    [1, 0, 0, 0, 0, 0, 255, 255, 255, 255],
    [1, 0, 0, 0, 0, 0x80, ...OTHER, 0, 0, 0, 0],
    [1, 0, 1, 0, 0, 0, ...OTHER, 1, 0, 0, 0, ...GROUP.subarray(1)],
  ];
  for (const bytes of wrong) assert.equal(command(net, bytes), ERROR, bytes.join());
  assert.ok(passes(net, to(OTHER)));
  assert.equal(net.device.counters.refusedCommands, wrong.length);
});

test('a new address is in the configuration space and in the filter, until the reset', () => {
  const net = controlled();
  command(net, [0, 0, 0]);
  assert.equal(command(net, [1, 1, ...OTHER]), OK);
  assert.deepEqual(net.device.readConfig().subarray(0, 6), OTHER);
  assert.ok(passes(net, to(OTHER)) && !passes(net, to(MAC)));
  assert.equal(command(net, [1, 1, ...GROUP]), ERROR);
  net.driven.stop();
  assert.deepEqual(net.device.readConfig().subarray(0, 6), MAC);
});

test('VLANs: none at first, then those that were added', () => {
  const net = controlled();
  command(net, [0, 0, 0]);
  const tagged = (id: number) => {
    const frame = to(MAC);
    new DataView(frame.buffer).setUint32(12, 0x8100_e000 | id);
    return frame;
  };
  assert.ok(!passes(net, tagged(5)));
  assert.equal(command(net, [2, 0, 5, 0]), OK);
  assert.ok(passes(net, tagged(5)) && !passes(net, tagged(6)));
  assert.equal(command(net, [2, 1, 5, 0]), OK);
  assert.ok(!passes(net, tagged(5)));
  assert.equal(command(net, [2, 0, 0, 16]), ERROR); // 4096
  assert.equal(command(net, [2, 0, 255, 255]), ERROR);
});

test('pairs of queues: one until the driver says more, never more than there are or fewer than one', () => {
  const net = controlled(EVERYTHING, 4);
  assert.equal(command(net, [4, 0, 4, 0]), OK);
  for (const pairs of [0, 5, 0x8000]) assert.equal(command(net, [4, 0, pairs & 255, pairs >>> 8]), ERROR);
});

test('offloads are taken back and given again, none that was not negotiated', () => {
  const net = controlled();
  assert.deepEqual(net.end.asked, ALL);
  assert.equal(command(net, [5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), OK);
  assert.deepEqual(net.end.asked, { checksum: true, tcp4: false, tcp6: false, ecn: false });
  assert.equal(command(net, [5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0]), OK);
  assert.deepEqual(net.end.asked, { checksum: true, tcp4: true, tcp6: false, ecn: false });
  assert.equal(command(net, [5, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), ERROR, 'segments without checksums');
  assert.equal(command(net, [5, 0, 2, 4, 0, 0, 0, 0, 0, 0]), ERROR, 'UFO');
  assert.equal(command(net, [5, 0, 2, 0, 0, 0, 1, 0, 0, 0]), ERROR, 'a high bit');
});

test('commands of every wrong size, unknown ones, and those that were not negotiated are refused', () => {
  const net = controlled();
  const right: Record<string, readonly number[]> = {
    promiscuous: [0, 0, 1],
    address: [1, 1, ...OTHER],
    vlan: [2, 0, 1, 0],
    offloads: [5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
  };
  for (const bytes of Object.values(right)) {
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(command(net, bytes.slice(0, length)), ERROR, bytes.slice(0, length).join());
    }
    assert.equal(command(net, [...bytes, 0]), ERROR);
    assert.equal(command(net, [...bytes, ...new Array(5000).fill(0)]), ERROR);
    assert.equal(command(net, bytes), OK);
  }
  for (const bytes of [
    [0, 6, 1],
    [0, 0, 2],
    [1, 2, ...OTHER],
    [2, 2, 1, 0],
    [3, 0],
    [4, 0, 1, 0],
    [6, 0],
    [255, 255],
  ]) {
    assert.equal(command(net, bytes), ERROR, bytes.join());
  }
  const less = controlled(without(2, 18, 19, 20, 23));
  for (const bytes of Object.values(right)) assert.equal(command(less, bytes), ERROR);
});

test('a command without room for an answer is done or not, and goes back with nothing', () => {
  const net = controlled();
  command(net, [0, 0, 0], 0);
  command(net, [], 1);
});

test('any bytes are answered', () => {
  const net = netUnderTest({ size: 64, memory: 64 * 1024 * 1024, end: { gives: ALL } });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const answer = command(net, [...bytes]);
      assert.ok(answer === OK || answer === ERROR);
    }),
    { numRuns: 500 },
  );
});

test('without MQ the control queue is number 2 (§5.1.2), whatever the device could have', () => {
  const net = netUnderTest({ bits: without(22), net: { pairs: 4 } });
  const queue = net.driven.queues[2];
  assert.ok(queue !== undefined);
  const out = net.driven.allocate(3);
  queue.driver.readable(out, 3);
  queue.driver.writable(net.driven.allocate(1), 1);
  queue.driver.submit(0);
  queue.driver.publish();
  assert.equal(net.device.serve(2), 1);
  assert.equal(queue.driver.complete(), DONE);
  assert.equal(queue.driver.written, 1);
});

test('flows come back on the pair on which they were sent', () => {
  // No control queue: the front-end keeps it, and every queue that is started is used.
  const net = netUnderTest({ bits: without(17, 18, 19, 20, 23), net: { pairs: 4 } });
  for (let pair = 0; pair < 4; pair++) {
    const queue = net.driven.queues[2 * pair];
    assert.ok(queue !== undefined);
    const address = net.driven.allocate(2000);
    queue.driver.writable(address, 2000);
    queue.driver.submit(pair);
    queue.driver.publish();
  }
  const { bytes } = tcpFrame(new Uint8Array(10));
  const transmit = net.driven.queues[2 * 3 + 1];
  assert.ok(transmit !== undefined);
  const address = net.driven.allocate(12 + bytes.length);
  net.driven.at(address, 12 + bytes.length).set([...header(), ...bytes]);
  transmit.driver.readable(address, 12 + bytes.length);
  transmit.driver.submit(0);
  transmit.driver.publish();
  net.device.serve(7);
  const back = bytes.slice();
  back.set(bytes.subarray(26, 30), 30); // addresses and ports the other way round
  back.set(bytes.subarray(30, 34), 26);
  back.set(bytes.subarray(34, 36), 36);
  back.set(bytes.subarray(36, 38), 34);
  net.end.give(back);
  net.device.wake();
  assert.equal(net.driven.queues[6]?.driver.complete(), DONE);
});

test('the link goes down and up, and the driver is told', () => {
  const net = controlled();
  assert.equal(net.device.readConfig()[6], 1);
  net.end.up = false;
  net.device.wake();
  assert.equal(net.device.readConfig()[6], 0);
  net.end.up = true;
  net.device.wake();
  assert.equal(net.device.readConfig()[6], 1);
  assert.equal(net.driven.configChanges.length, 2);
});
