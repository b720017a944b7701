import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readChargen } from '@airlock/device/net/user/service.ts';
import { CONNECTIONS_LIMIT } from '@airlock/device/net/user/tcp.ts';
import fc from 'fast-check';
import { tcpChecksumsHold } from './support/net-ends.ts';
import { ACK, ALL_OFFLOADS, NO_OFFLOADS, RST, readTcp, SYN, TcpClient, tcp, Wire } from './support/user-client.ts';

const numbers = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8)) & 0xff);

function lossy(percent: number, seed: number): () => boolean {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % 100 < percent;
  };
}

test('echo gives everything back, then closes; the table is empty after', () => {
  for (const length of [0, 1, 1400, 1401, 65_536, 1_000_000]) {
    const wire = new Wire();
    const client = new TcpClient(wire, 7, numbers(length));
    client.closeAfter = length;
    assert.ok(client.run(), `${length} bytes`);
    assert.equal(client.state, 'closed');
    assert.deepEqual(client.bytes(), numbers(length));
    assert.equal(wire.network.tcp.size, 0);
    assert.equal(wire.network.tcp.counters.retransmitted, 0);
  }
});

test('a client that closes at once still gets everything back (half-closed)', () => {
  const wire = new Wire();
  const client = new TcpClient(wire, 7, numbers(100_000));
  assert.ok(client.run());
  assert.deepEqual(client.bytes(), numbers(100_000));
});

test('over a wire that loses frames in both directions nothing is lost or out of order', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 25 }),
      fc.integer(),
      fc.integer({ min: 0, max: 60_000 }),
      (percent, seed, length) => {
        const wire = new Wire();
        wire.lose = lossy(percent, seed);
        const client = new TcpClient(wire, 7, numbers(length));
        client.closeAfter = length;
        assert.ok(client.run(20_000), `${percent} % of ${length} bytes`);
        // The very last frames may be lost until either side has given up.
        if (client.state === 'closed') assert.deepEqual(client.bytes(), numbers(length));
        else assert.deepEqual(client.bytes(), numbers(length).subarray(0, client.receivedBytes));
      },
    ),
    { numRuns: 40 },
  );
});

test('discard takes everything and sends nothing', () => {
  const wire = new Wire();
  const client = new TcpClient(wire, 9, numbers(3_000_000));
  assert.ok(client.run());
  assert.equal(client.receivedBytes, 0);
  assert.equal(client.state, 'closed');
});

test('the character generator sends RFC 864 until the client closes', () => {
  for (const offloads of [NO_OFFLOADS, ALL_OFFLOADS]) {
    const wire = new Wire(offloads);
    const client = new TcpClient(wire, 19, new Uint8Array(0));
    client.closeAfter = 500_000;
    assert.ok(client.run());
    const got = client.bytes();
    assert.ok(got.length >= 500_000);
    const expected = new Uint8Array(got.length);
    readChargen(0, expected, 0, expected.length);
    assert.deepEqual(got, expected);
    assert.equal(String.fromCharCode(...got.subarray(0, 5), ...got.subarray(72, 77)), ' !"#$\r\n!"#');
    assert.equal(
      wire.seen.some(({ gsoSize }) => gsoSize > 0),
      offloads === ALL_OFFLOADS,
    );
  }
});

test('every segment has right checksums where the other side does not do them', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 19, sequence: 5, flags: SYN, options: [2, 4, 2, 0] }));
  const [answer] = wire.all();
  assert.ok(answer !== undefined && tcpChecksumsHold(answer));
  const seen = readTcp(answer);
  assert.ok(seen !== null && seen.flags === (SYN | ACK) && seen.acknowledged === 6);
  wire.send(tcp({ from: 1, to: 19, sequence: 6, acknowledged: seen.sequence + 1, flags: ACK }));
  const segments = wire.all();
  assert.ok(segments.length > 5 && segments.every(tcpChecksumsHold));
  assert.ok(
    segments.every((one) => (readTcp(one)?.payload.length ?? 0) <= 512),
    'the MSS of the client is held',
  );
});

test('a port where nobody is answers with RST; a RST is never answered', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 80, sequence: 5, flags: SYN }));
  const [reset] = wire.all();
  assert.ok(reset !== undefined && tcpChecksumsHold(reset));
  assert.deepEqual([readTcp(reset)?.flags, readTcp(reset)?.acknowledged], [RST | ACK, 6]);
  wire.send(tcp({ from: 1, to: 7, sequence: 5, acknowledged: 99, flags: ACK }));
  assert.deepEqual(
    wire.all().map((one) => [readTcp(one)?.flags, readTcp(one)?.sequence]),
    [[RST, 99]],
  );
  for (const flags of [RST, RST | ACK, RST | SYN]) wire.send(tcp({ from: 1, to: 80, sequence: 5, flags }));
  assert.equal(wire.all().length, 0);
});

test('a window of zero is asked about until it opens, and nothing is sent into it', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 19, sequence: 0, flags: SYN, window: 0 }));
  const first = readTcp(wire.next() ?? new Uint8Array(60));
  assert.ok(first !== null);
  const start = (first.sequence + 1) >>> 0;
  const acknowledge = (bytes: number, window: number) =>
    wire.send(tcp({ from: 1, to: 19, sequence: 1, acknowledged: start + bytes, flags: ACK, window }));
  acknowledge(0, 0);
  assert.equal(wire.all().length, 0);
  let probes = 0;
  for (let i = 0; i < 600; i++) {
    wire.time += 100;
    wire.network.tcp.tick(wire.time);
    for (const one of wire.all()) {
      assert.equal(readTcp(one)?.payload.length, 1);
      probes++;
      acknowledge(0, 0);
    }
  }
  assert.ok(probes >= 4 && probes < 60, `${probes} probes in a minute`);
  acknowledge(0, 3000);
  // Whole segments of 536 bytes, at once, and from the byte that was only a question.
  assert.deepEqual(
    wire.all().map((one) => readTcp(one)?.payload.length),
    [536, 536, 536, 536, 536],
  );
});

test('a connection that is never answered is given up', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 19, sequence: 0, flags: SYN }));
  let sent = 0;
  for (let i = 0; i < 10_000 && wire.network.tcp.size > 0; i++) {
    sent += wire.all().length;
    wire.time += 100;
    wire.network.tcp.tick(wire.time);
  }
  assert.equal(wire.network.tcp.size, 0);
  assert.ok(sent >= 5 && sent < 20, `${sent} times`);
});

test('blind attacks: a reset or SYN that is only near is answered and does not end the connection (RFC 5961)', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 7, sequence: 100, flags: SYN }));
  const first = readTcp(wire.next() ?? new Uint8Array(60));
  assert.ok(first !== null);
  const acknowledged = first.sequence + 1;
  wire.send(tcp({ from: 1, to: 7, sequence: 101, acknowledged, flags: ACK }));
  const cases: [number, number][] = [
    [RST, 102],
    [RST, 5000],
    [SYN, 101],
    [SYN | ACK, 300],
  ];
  for (const [flags, sequence] of cases) {
    wire.send(tcp({ from: 1, to: 7, sequence, acknowledged, flags }));
    const answers = wire.all().map(readTcp);
    assert.deepEqual(
      answers.map((one) => [one?.flags, one?.acknowledged]),
      [[ACK, 101]],
    );
    assert.equal(wire.network.tcp.size, 1);
  }
  wire.send(tcp({ from: 1, to: 7, sequence: 101 - 5000, flags: RST }));
  assert.equal(wire.all().length, 0);
  // An acknowledgement of what was never sent.
  wire.send(tcp({ from: 1, to: 7, sequence: 101, acknowledged: acknowledged + 1000, flags: ACK }));
  assert.equal(wire.all().length, 1);
  wire.send(tcp({ from: 1, to: 7, sequence: 101, flags: RST }));
  assert.equal(wire.network.tcp.size, 0);
});

test('connections are limited; one that only waits makes way', () => {
  const wire = new Wire();
  for (let port = 1; port <= CONNECTIONS_LIMIT; port++) {
    wire.send(tcp({ from: port, to: 7, sequence: 0, flags: SYN }));
    const first = readTcp(wire.next() ?? new Uint8Array(60));
    assert.ok(first !== null && first.flags === (SYN | ACK));
    wire.send(tcp({ from: port, to: 7, sequence: 1, acknowledged: first.sequence + 1, flags: ACK }));
  }
  wire.send(tcp({ from: 5000, to: 7, sequence: 0, flags: SYN }));
  assert.equal(readTcp(wire.next() ?? new Uint8Array(60))?.flags, RST | ACK);
  assert.equal(wire.network.tcp.size, CONNECTIONS_LIMIT);
  wire.send(tcp({ from: 1, to: 7, sequence: 1, flags: RST }));
  // Many that are only begun never keep others out.
  for (let port = 6000; port < 6500; port++) wire.send(tcp({ from: port, to: 7, sequence: 0, flags: SYN }));
  assert.equal(wire.network.tcp.size, CONNECTIONS_LIMIT);
});

test('any segments whatever: bounded, and never more sent than the window', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          flags: fc.integer({ min: 0, max: 63 }),
          sequence: fc.oneof(fc.integer({ min: 95, max: 120 }), fc.integer({ min: 0, max: 0xffff_ffff })),
          acknowledged: fc.integer({ min: -3, max: 5 }),
          window: fc.integer({ min: 0, max: 20 }),
          length: fc.integer({ min: 0, max: 5 }),
          to: fc.constantFrom(7, 9, 19),
        }),
        { maxLength: 60 },
      ),
      (segments) => {
        const wire = new Wire();
        const base = new Map<number, number>();
        for (const { to, ...one } of segments) {
          const acknowledged = (base.get(to) ?? 0) + one.acknowledged;
          wire.send(tcp({ ...one, from: 9, to, acknowledged, payload: new Uint8Array(one.length) }));
          const answers = wire.all();
          assert.ok(answers.length <= 40);
          for (const answer of answers) {
            const seen = readTcp(answer);
            if (seen !== null && (seen.flags & SYN) !== 0) base.set(to, seen.sequence);
            assert.ok((seen?.payload.length ?? 0) <= 536);
          }
          wire.time += 1000;
          wire.network.tcp.tick(wire.time);
          assert.ok(wire.all().length <= 20);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('a client that closes first may use the same port again at once', () => {
  const wire = new Wire();
  for (let i = 0; i < 3; i++) {
    const client = new TcpClient(wire, 7, numbers(10));
    client.closeAfter = 10;
    assert.ok(client.run());
    assert.deepEqual(client.bytes(), numbers(10));
  }
});

test('bytes out of order are kept and given in order; more than a few are not', () => {
  const wire = new Wire();
  wire.send(tcp({ from: 1, to: 7, sequence: 0, flags: SYN }));
  const first = readTcp(wire.next() ?? new Uint8Array(60));
  assert.ok(first !== null);
  const acknowledged = first.sequence + 1;
  const piece = (at: number, length: number) => {
    const payload = numbers(1000).subarray(at, at + length);
    wire.send(tcp({ from: 1, to: 7, sequence: 1 + at, acknowledged, flags: ACK, payload }));
  };
  piece(200, 100);
  piece(100, 100);
  piece(200, 100); // again
  piece(250, 100); // overlapping
  assert.deepEqual(
    wire.all().map((one) => readTcp(one)?.acknowledged),
    [1],
  );
  piece(0, 100);
  const back = wire.all().map(readTcp);
  assert.deepEqual(Uint8Array.from(back.flatMap((one) => [...(one?.payload ?? [])])), numbers(350));
  assert.equal(back.at(-1)?.acknowledged, 351);
  for (let at = 400; at < 600; at++) piece(at, 1);
  assert.ok(wire.network.tcp.counters.untaken >= 136);
});
