import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FRAME_LIMIT } from '@airlock/device/net/frame.ts';
import { DONE } from '@airlock/virtio/ring/queue.ts';
import fc from 'fast-check';
import { ethernet, header, netUnderTest, tcpChecksumsHold, tcpFrame, without } from './support/net-ends.ts';

const NEEDS_CSUM = 1;
const TCPV4 = 1;
const TCPV6 = 4;
const UDP = 3;

test('a frame goes out as it is, however its chain is cut', () => {
  for (const lengths of [[], [12], [1, 11], [5, 5, 5, 40], [11, 1, 1, 1]]) {
    const net = netUnderTest();
    const frame = ethernet(100);
    net.send(header(), frame, lengths);
    assert.deepEqual(net.end.sent[0]?.bytes, frame);
    assert.equal(net.device.counters.sentFrames, 1);
    assert.ok(net.end.flushes > 0);
  }
});

test('chains that are too short for a header and an Ethernet header are dropped and counted', () => {
  const net = netUnderTest();
  for (const length of [1, 10, 11, 12, 13, 25]) net.send(new Uint8Array(0), new Uint8Array(length));
  assert.equal(net.end.sent.length, 0);
  assert.equal(net.device.counters.sentLength, 6);
  net.send(header(), ethernet(14));
  assert.equal(net.end.sent.length, 1);
});

test('a chain that the device can only write to is dropped and given back with nothing', () => {
  const net = netUnderTest();
  net.transmit.driver.writable(net.driven.allocate(100), 100);
  assert.equal(net.transmit.driver.submit(0), DONE);
  net.transmit.driver.publish();
  assert.equal(net.device.serve(1), 1);
  assert.equal(net.transmit.driver.complete(), DONE);
  assert.equal(net.transmit.driver.written, 0);
  assert.equal(net.device.counters.sentLength, 1);
});

test('the longest frame passes, one byte more does not, and neither does a chain of megabytes', () => {
  const net = netUnderTest();
  net.send(header(), ethernet(FRAME_LIMIT));
  assert.equal(net.end.sent[0]?.bytes.length, FRAME_LIMIT);
  net.send(header(), ethernet(FRAME_LIMIT + 1));
  net.send(header(), ethernet(1024 * 1024));
  assert.equal(net.end.sent.length, 1);
  assert.equal(net.device.counters.sentLength, 2);
});

test('a checksum outside of the frame is refused, wherever it is said to be', () => {
  const net = netUnderTest();
  const { bytes } = tcpFrame(new Uint8Array(10));
  const wrong: [number, number][] = [
    [bytes.length - 1, 0],
    [bytes.length, 0],
    [0, bytes.length - 1],
    [34, bytes.length - 35],
    [0xffff, 0xffff],
    [0xffff, 0],
    [0, 0xffff],
  ];
  for (const [checksumStart, checksumOffset] of wrong) {
    net.send(header({ flags: NEEDS_CSUM, checksumStart, checksumOffset }), bytes);
  }
  assert.equal(net.end.sent.length, 0);
  assert.equal(net.device.counters.sentClaims, wrong.length);
  // The last two bytes are within.
  net.send(header({ flags: NEEDS_CSUM, checksumStart: bytes.length - 2 }), bytes);
  assert.equal(net.end.sent.length, 1);
});

test('a checksum that was left to do is done for an end that does not do it', () => {
  for (const version of [4, 6] as const) {
    for (const length of [0, 1, 2, 999, 1448]) {
      const net = netUnderTest();
      const { bytes, transport } = tcpFrame(new Uint8Array(length).fill(0xa7), { version });
      net.send(header({ flags: NEEDS_CSUM, checksumStart: transport, checksumOffset: 16 }), bytes);
      const sent = net.end.sent[0];
      assert.ok(sent !== undefined && sent.flags === 0);
      assert.ok(tcpChecksumsHold(sent.bytes), `IPv${version}, ${length} bytes`);
    }
  }
});

test('an end that does checksums itself gets them undone', () => {
  const all = { checksum: true, tcp4: true, tcp6: true, ecn: true };
  const net = netUnderTest({ end: { takes: all } });
  const { bytes, transport } = tcpFrame(new Uint8Array(100));
  net.send(header({ flags: NEEDS_CSUM, checksumStart: transport, checksumOffset: 16 }), bytes);
  assert.equal(net.end.sent[0]?.flags, NEEDS_CSUM);
  assert.deepEqual(net.end.sent[0]?.bytes, bytes);
});

test('what was not negotiated is refused: checksums, segments, ECN', () => {
  const { bytes, transport } = tcpFrame(new Uint8Array(3000));
  const checksum = { flags: NEEDS_CSUM, checksumStart: transport, checksumOffset: 16 };
  const segments = { ...checksum, gsoType: TCPV4, gsoSize: 1000, headerLength: 54 };
  const cases = [
    { bits: without(0, 11, 12, 13), fields: checksum },
    { bits: without(11, 13), fields: segments },
    { bits: without(13), fields: { ...segments, ecn: true } },
    { bits: without(), fields: { ...segments, gsoType: UDP } },
    { bits: without(), fields: { ...segments, gsoType: 5 } },
    { bits: without(), fields: { ...segments, gsoType: 0x7f } },
    { bits: without(), fields: { ...checksum, ecn: true } },
  ];
  for (const { bits, fields } of cases) {
    const net = netUnderTest({ bits });
    net.send(header(fields), bytes);
    assert.equal(net.end.sent.length, 0);
    assert.equal(net.device.counters.sentClaims, 1);
  }
});

test('a joined frame whose claims are false is refused', () => {
  const { bytes, transport } = tcpFrame(new Uint8Array(3000));
  const right = {
    flags: NEEDS_CSUM,
    gsoType: TCPV4,
    gsoSize: 1000,
    headerLength: 54,
    checksumStart: transport,
    checksumOffset: 16,
  };
  const change = (edit: (view: DataView) => void) => {
    const copy = bytes.slice();
    edit(new DataView(copy.buffer));
    return copy;
  };
  const cases: [string, Uint8Array, Uint8Array][] = [
    ['no size', header({ ...right, gsoSize: 0 }), bytes],
    ['no checksum', header({ ...right, flags: 0 }), bytes],
    ['headers longer than the frame', header({ ...right, headerLength: 0xffff }), bytes],
    ['checksum not of TCP', header({ ...right, checksumOffset: 6 }), bytes],
    ['checksum elsewhere', header({ ...right, checksumStart: transport + 2 }), bytes],
    ['checksum before', header({ ...right, checksumStart: 0 }), bytes],
    ['segments of IPv6 in IPv4', header({ ...right, gsoType: TCPV6 }), bytes],
    ['header length of IPv4 beyond the frame', header(right), change((view) => view.setUint8(14, 0x4f))],
    ['no header of IPv4', header(right), change((view) => view.setUint8(14, 0x41))],
    ['IP version', header(right), change((view) => view.setUint8(14, 0x55))],
    ['a fragment', header(right), change((view) => view.setUint16(20, 0x2000))],
    ['a later fragment', header(right), change((view) => view.setUint16(20, 1))],
    ['UDP', header(right), change((view) => view.setUint8(23, 17))],
    ['not IP', header(right), change((view) => view.setUint16(12, 0x0806))],
    ['a TCP header of 16 bytes', header(right), change((view) => view.setUint8(transport + 12, 0x40))],
    ['cut within the TCP header', header({ ...right, headerLength: 0 }), bytes.slice(0, transport + 19)],
    ['cut within the IP header', header({ ...right, headerLength: 0 }), bytes.slice(0, 20)],
  ];
  for (const [what, asked, frame] of cases) {
    const net = netUnderTest();
    net.send(asked, frame);
    assert.equal(net.end.sent.length, 0, what);
    assert.equal(net.device.counters.sentClaims, 1, what);
  }
  const net = netUnderTest();
  net.send(header(right), bytes);
  assert.equal(net.end.sent.length, 3);
});

test('flags that only a device may set are ignored', () => {
  const net = netUnderTest();
  net.send(header({ flags: 0xfe }), ethernet(60));
  assert.equal(net.end.sent[0]?.flags, 0);
});

test('while nobody is there, frames are dropped and counted', () => {
  const net = netUnderTest({ end: { up: false } });
  net.send(header(), ethernet(60));
  assert.equal(net.device.counters.sentUnplugged, 1);
  assert.equal(net.end.sent.length, 0);
});

test('an end without room holds the driver up; nothing is lost and nothing is taken', () => {
  const net = netUnderTest({ end: { rooms: 0 } });
  const address = net.driven.allocate(80);
  net.transmit.driver.readable(address, 80);
  net.transmit.driver.submit(0);
  net.transmit.driver.publish();
  assert.equal(net.device.serve(1), 0);
  assert.equal(net.transmit.device.inFlight, 0);
  net.end.rooms = 1;
  net.device.wake();
  assert.equal(net.end.sent.length, 1);
  assert.equal(net.transmit.driver.complete(), DONE);
});

test('a joined frame that finds no room for its later segments goes on where it stopped', () => {
  const net = netUnderTest({ end: { rooms: 2 } });
  const { bytes, transport } = tcpFrame(new Uint8Array(5000).map((_, i) => i));
  const fields = { flags: NEEDS_CSUM, gsoType: TCPV4, gsoSize: 1000, checksumStart: transport, checksumOffset: 16 };
  net.send(header(fields), bytes);
  assert.equal(net.end.sent.length, 2);
  assert.equal(net.device.serve(1), 0);
  net.end.rooms = 2;
  net.device.wake();
  assert.equal(net.end.sent.length, 4);
  net.end.rooms = 9;
  net.device.wake();
  assert.equal(net.end.sent.length, 5);
  const payload = net.end.sent.flatMap((one) => [...one.bytes.subarray(transport + 20)]);
  assert.deepEqual(Uint8Array.from(payload), bytes.subarray(transport + 20));
});

test('a broken ring asks for a reset once, and nothing is done until the device is stopped', () => {
  const net = netUnderTest();
  const { region } = net.driven;
  region.view.setUint16(0x1_0000 + 0x4000 + 2, 999, true); // available index of the transmit queue
  assert.equal(net.device.serve(1), 0);
  assert.equal(net.device.serve(1), 0);
  assert.equal(net.device.serve(0), 0);
  assert.deepEqual(
    net.driven.resets.map(({ code }) => code),
    ['avail-index-jump'],
  );
  net.driven.stop();
});

test('what was dropped is told once, in words, when the driver has gone', () => {
  const lines: string[] = [];
  const net = netUnderTest({ net: { warn: (text) => lines.push(text) } });
  net.send(header(), new Uint8Array(3));
  net.send(header({ flags: NEEDS_CSUM, checksumStart: 500 }), ethernet(60));
  net.driven.stop();
  assert.deepEqual(lines, [
    'dropped: 1 sent, with an impossible length; 1 sent, with a header that is not true of the frame',
  ]);
  net.device.stop();
  assert.equal(lines.length, 1);
});

test('any header before any frame: each is sent or counted once, and what is sent is a frame with nothing left to do', () => {
  const seeds = [4, 6].flatMap((version) =>
    [0, 20, 4000].map((length) => tcpFrame(new Uint8Array(length), { version: version as 4 | 6 }).bytes),
  );
  fc.assert(
    fc.property(
      fc.record({
        flags: fc.integer({ min: 0, max: 3 }),
        gsoType: fc.constantFrom(0, TCPV4, TCPV6, UDP, 5, 2, 0x7f),
        ecn: fc.boolean(),
        headerLength: fc.oneof(fc.nat(100), fc.nat(0xffff)),
        gsoSize: fc.oneof(fc.nat(200), fc.nat(0xffff)),
        checksumStart: fc.oneof(fc.constantFrom(34, 54), fc.nat(0xffff)),
        checksumOffset: fc.oneof(fc.constant(16), fc.nat(0xffff)),
      }),
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(80), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.oneof(fc.constant(5000), fc.nat(100)),
      (fields, seed, changes, length) => {
        const net = netUnderTest({ bits: [...without(), 13], memory: 256 * 1024 });
        const frame = seed.slice(0, Math.max(1, length));
        for (const [at, value] of changes) frame[at % frame.length] = value;
        net.send(header(fields), frame);
        const { sentLength, sentClaims, sentFrames } = net.device.counters;
        assert.equal(sentFrames, net.end.sent.length);
        assert.equal(sentLength + sentClaims, sentFrames > 0 ? 0 : 1);
        for (const { bytes, flags, gsoType } of net.end.sent) {
          assert.ok(flags === 0 && gsoType === 0);
          assert.ok(bytes.length >= 14 && bytes.length <= frame.length);
        }
      },
    ),
    { numRuns: 1500 },
  );
});

test('segments that are smaller than any TCP has are refused, and those that are many use up a turn', () => {
  const net = netUnderTest();
  const { bytes, transport } = tcpFrame(new Uint8Array(60_000));
  const joined = { flags: NEEDS_CSUM, gsoType: TCPV4, checksumStart: transport, checksumOffset: 16 };
  for (const gsoSize of [1, 7]) net.send(header({ ...joined, gsoSize }), bytes);
  assert.equal(net.end.sent.length, 0);
  assert.equal(net.device.counters.sentClaims, 2);
  for (let i = 0; i < 4; i++) {
    const at = net.driven.allocate(12 + bytes.length);
    net.driven.at(at, 12).set(header({ ...joined, gsoSize: 8 }));
    net.driven.at(at + 12, bytes.length).set(bytes);
    net.transmit.driver.readable(at, 12 + bytes.length);
    assert.equal(net.transmit.driver.submit(i), DONE);
  }
  net.transmit.driver.publish();
  for (let i = 1; i <= 4; i++) {
    assert.equal(net.device.serve(1), 1, 'thousands of frames for one chain: then it is another queue’s turn');
    assert.equal(net.end.sent.length, i * 7500);
  }
});
