import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EVERYTHING, ethernet, netUnderTest, PEER, tcpChecksumsHold, tcpFrame, without } from './support/net-ends.ts';

const HEADER = 12;
const MRG_RXBUF = 15;
const VERSION_1 = 32;
const ring = (...bits: readonly number[]) => [...EVERYTHING, ...bits];

test('a frame goes into the next buffer behind a header of 12 bytes with num_buffers 1', () => {
  for (const bits of [EVERYTHING, without(MRG_RXBUF), ring(34), ring(34, 28, 29, 35), ring(29), ring(35)]) {
    const net = netUnderTest({ bits });
    net.post(2000);
    const frame = ethernet(100);
    net.end.give(frame);
    assert.equal(net.device.serve(0), 1);
    const [got] = net.received();
    assert.ok(got !== undefined);
    assert.deepEqual(got.subarray(0, HEADER), Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0));
    assert.deepEqual(got.subarray(HEADER), frame);
    assert.equal(net.driven.notified[0], 1);
  }
});

test('with MRG_RXBUF a frame takes as many buffers as it needs, each but the last full', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 12, max: 900 }), { minLength: 1, maxLength: 40 }),
      fc.array(fc.integer({ min: 14, max: 3000 }), { minLength: 1, maxLength: 6 }),
      fc.constantFrom(EVERYTHING, ring(34), ring(34, 35), ring(35, 29)),
      (buffers, frames, bits) => {
        const net = netUnderTest({ bits });
        for (const length of buffers) net.post(length);
        for (const length of frames) net.end.give(ethernet(length));
        net.device.serve(0);
        const got = net.received();
        let at = 0;
        for (const length of frames) {
          const first = got[at];
          if (first === undefined) break;
          const count = (first[10] ?? 0) | ((first[11] ?? 0) << 8);
          const parts = got.slice(at, at + count);
          assert.equal(parts.length, count, 'every buffer of a frame came with it');
          for (const [i, part] of parts.entries()) {
            if (i < count - 1) assert.equal(part.length, buffers[at + i]);
          }
          const whole = Uint8Array.from(parts.flatMap((part) => [...part]));
          assert.deepEqual(whole.subarray(HEADER), ethernet(length));
          at += count;
        }
        // Every frame was delivered or is waiting for buffers.
        const { receivedFrames, receivedNoFit } = net.device.counters;
        assert.equal(receivedFrames + receivedNoFit + net.end.incoming.length, frames.length);
      },
    ),
    { numRuns: 200 },
  );
});

test('without buffers a frame waits, and comes when there is one', () => {
  const net = netUnderTest();
  net.end.give(ethernet(60));
  assert.equal(net.device.serve(0), 0);
  net.device.wake();
  assert.equal(net.end.incoming.length, 1);
  net.post(1526);
  assert.equal(net.device.serve(0), 1);
  assert.equal(net.received().length, 1);
});

test('without MRG_RXBUF a frame that is longer than the buffer is dropped and counted; the buffer serves the next', () => {
  const net = netUnderTest({ bits: without(MRG_RXBUF) });
  net.post(200);
  net.end.give(ethernet(1000));
  net.end.give(ethernet(188));
  net.device.serve(0);
  const got = net.received();
  assert.equal(got.length, 1);
  assert.equal(got[0]?.length, 200);
  assert.equal(net.device.counters.receivedNoFit, 1);
});

test('a frame that all buffers of the queue together cannot hold is dropped; what was taken serves the next', () => {
  const net = netUnderTest({ size: 4 });
  for (let i = 0; i < 4; i++) net.post(20);
  net.end.give(ethernet(1000));
  net.end.give(ethernet(40));
  net.device.serve(0);
  assert.equal(net.device.counters.receivedNoFit, 1);
  assert.deepEqual(
    net.received().map(({ length }) => length),
    [20, 20, 12],
  );
  net.driven.stop();
  assert.deepEqual(
    net.received().map(({ length }) => length),
    [0],
    'what was held comes back empty',
  );
});

test('buffers of 1 byte go back empty, and those behind them are used', () => {
  const net = netUnderTest();
  for (const length of [1, 11, 1, 2000]) net.post(length);
  net.end.give(ethernet(100));
  net.device.serve(0);
  assert.deepEqual(
    net.received().map(({ length }) => length),
    [0, 0, 0, 112],
  );
  assert.equal(net.device.counters.shortBuffers, 3);
});

test('a driver that gives only buffers of 1 byte gets them back and no frame; the device does not spin', () => {
  const net = netUnderTest({ size: 8 });
  net.end.give(ethernet(100));
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 8; i++) net.post(1);
    net.device.serve(0);
    assert.equal(net.received().length, 8);
  }
  assert.equal(net.end.incoming.length, 1);
});

test('a buffer that only can be read goes back', () => {
  const net = netUnderTest();
  net.receive.driver.readable(net.driven.allocate(2000), 2000);
  net.receive.driver.submit(0);
  net.receive.driver.publish();
  net.end.give(ethernet(100));
  net.device.serve(0);
  assert.equal(net.device.counters.shortBuffers, 1);
});

test('a driver without VERSION_1 and MRG_RXBUF has a header of 10 bytes', () => {
  const net = netUnderTest({ bits: without(MRG_RXBUF) });
  net.driven.stop();
  net.device.start({
    features: [0, 0, 0, 0],
    notify: () => {},
    configChanged: () => {},
    needsReset: () => {},
  });
  net.device.startQueue(0, net.receive.device);
  net.device.startQueue(1, net.transmit.device);
  net.post(500);
  net.end.give(ethernet(100));
  net.device.serve(0);
  assert.equal(net.received()[0]?.length, 110);
  net.send(new Uint8Array(10), ethernet(77));
  assert.equal(net.end.sent[0]?.bytes.length, 77);
  assert.ok(VERSION_1 === 32);
});

test('checksums that the end left undone are done for a driver that does not take them, and not for one that does', () => {
  const gives = { checksum: true, tcp4: true, tcp6: true, ecn: true };
  const { bytes, transport } = tcpFrame(new Uint8Array(333).fill(3));
  const undone = { flags: 1, checksumStart: transport, checksumOffset: 16 };
  const takes = netUnderTest({ end: { gives } });
  takes.post(2000);
  takes.end.give(bytes, undone);
  takes.device.serve(0);
  assert.deepEqual(takes.received()[0]?.subarray(HEADER), bytes);
  assert.equal(takes.end.asked.checksum, true);

  const plain = netUnderTest({ end: { gives }, bits: without(1, 7, 8, 9) });
  plain.post(2000);
  plain.end.give(bytes, undone);
  plain.device.serve(0);
  const got = plain.received()[0];
  assert.ok(got !== undefined && got[0] === 0);
  assert.ok(tcpChecksumsHold(got.slice(HEADER)));
  assert.equal(plain.end.asked.checksum, false);
});

test('joined frames are cut for a driver that does not take them, also when its buffers run out between segments', () => {
  const { bytes, transport } = tcpFrame(new Uint8Array(5000).map((_, i) => i));
  const joined = { flags: 1, gsoType: 1, gsoSize: 1000, checksumStart: transport, checksumOffset: 16 };
  const net = netUnderTest({ bits: without(7, 8, 9) });
  net.end.give(bytes, joined);
  net.post(2000);
  net.post(2000);
  net.device.serve(0);
  assert.equal(net.end.incoming.length, 1);
  for (let i = 0; i < 4; i++) net.post(2000);
  net.end.give(ethernet(60));
  net.device.serve(0);
  const got = net.received();
  assert.equal(got.length, 6);
  assert.ok(got.slice(0, 5).every((one) => tcpChecksumsHold(one.slice(HEADER))));
  const payload = got.slice(0, 5).flatMap((one) => [...one.subarray(HEADER + transport + 20)]);
  assert.deepEqual(Uint8Array.from(payload), bytes.subarray(transport + 20));
  assert.deepEqual(got[5]?.subarray(HEADER), ethernet(60));
});

test('a queue that ends while a frame is being cut leaves nothing of it for the next driver', () => {
  const { bytes, transport } = tcpFrame(new Uint8Array(5000));
  const net = netUnderTest({ bits: without(7, 8, 9) });
  net.end.give(bytes, { flags: 1, gsoType: 1, gsoSize: 1000, checksumStart: transport, checksumOffset: 16 });
  net.post(2000);
  net.device.serve(0);
  net.driven.stop();
  assert.equal(net.end.incoming.length, 0);
});

test('a peer that floods gets its turn like any other, and the rest is not forgotten', () => {
  const net = netUnderTest({ size: 1024 });
  for (let i = 0; i < 600; i++) net.post(100);
  for (let i = 0; i < 600; i++) net.end.give(ethernet(60));
  assert.equal(net.device.serve(0), 256);
  assert.equal(net.device.restless, true);
  assert.equal(net.device.work(), true);
  assert.equal(net.device.work(), true);
  assert.equal(net.device.restless, false);
  assert.equal(net.device.counters.receivedFrames, 600);
});

test('a peer that floods with what nobody wants does not hold the device either', () => {
  const net = netUnderTest();
  net.send(new Uint8Array(12), ethernet(60));
  net.driven.queues[2]?.driver.readable(net.driven.allocate(3), 3);
  for (let i = 0; i < 1000; i++) net.end.give(ethernet(60, 0x0800, PEER));
  command(net, 0, 0, [0]); // promiscuous off
  net.post(100);
  assert.equal(net.device.serve(0), 0);
  assert.equal(net.device.restless, true);
  assert.ok(net.device.counters.receivedUnwanted < 1000);
});

function command(net: ReturnType<typeof netUnderTest>, kind: number, number: number, data: readonly number[]): void {
  const queue = net.driven.queues[2];
  assert.ok(queue !== undefined);
  queue.driver.reset();
  const out = net.driven.allocate(2 + data.length);
  net.driven.at(out, 2 + data.length).set([kind, number, ...data]);
  queue.driver.readable(out, 2 + data.length);
  queue.driver.writable(net.driven.allocate(1), 1);
  queue.device.reset();
  queue.driver.submit(0);
  queue.driver.publish();
  assert.equal(net.device.serve(2), 1);
}

test('frames above the MTU that was negotiated are dropped, joined ones are not', () => {
  const net = netUnderTest({ net: { mtu: 1000 } });
  for (let i = 0; i < 3; i++) net.post(4000);
  net.end.give(ethernet(1019));
  net.end.give(ethernet(1018));
  assert.equal(net.device.serve(0), 1);
  assert.equal(net.device.counters.receivedNoFit, 1);
});

test('frames wait while no receive queue is started', () => {
  const net = netUnderTest({ start: [1] });
  net.end.give(ethernet(60));
  net.device.wake();
  assert.equal(net.end.incoming.length, 1);
});
