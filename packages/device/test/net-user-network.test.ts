import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { plainChecksum, pseudoHeader, tcpFrame } from './support/net-ends.ts';
import { GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, ipv4, udp, Wire } from './support/user-client.ts';

const BROADCAST = 0xffff_ffff;
const EVERYBODY = new Uint8Array(6).fill(0xff);

function arp(target: number, change: (view: DataView) => void = () => {}): Uint8Array {
  const bytes = new Uint8Array(42);
  const view = new DataView(bytes.buffer);
  bytes.set(EVERYBODY);
  bytes.set(GUEST_MAC, 6);
  view.setUint16(12, 0x0806);
  view.setUint32(14, 0x0001_0800);
  view.setUint32(18, 0x0604_0001);
  bytes.set(GUEST_MAC, 22);
  view.setUint32(28, GUEST);
  view.setUint32(38, target);
  change(view);
  return bytes;
}

function icmp(kind: number, payload: Uint8Array, target = GATEWAY): Uint8Array {
  const message = new Uint8Array(8 + payload.length);
  const view = new DataView(message.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, 0x1234_0001);
  message.set(payload, 8);
  view.setUint16(2, plainChecksum(message));
  return ipv4(1, message, { target });
}

/** Every checksum of an answer, and the addresses on it. */
function assertSound(bytes: Uint8Array): DataView {
  const view = new DataView(bytes.buffer);
  assert.deepEqual(bytes.subarray(6, 12), GATEWAY_MAC);
  assert.equal(view.getUint16(12), 0x0800);
  assert.equal(plainChecksum(bytes.subarray(14, 34)), 0, 'IPv4 checksum');
  assert.equal(view.getUint16(16), bytes.length - 14);
  assert.equal(view.getUint32(26), GATEWAY);
  const transport = bytes.subarray(34);
  const protocol = view.getUint8(23);
  if (protocol === 1) assert.equal(plainChecksum(transport), 0, 'ICMP checksum');
  else assert.equal(plainChecksum(pseudoHeader(bytes, 14, 4, transport.length, protocol), transport), 0, 'checksum');
  return view;
}

test('ARP: the gateway answers for itself and for nobody else', () => {
  const wire = new Wire();
  wire.send(arp(GATEWAY));
  const [answer] = wire.all();
  assert.ok(answer !== undefined);
  const view = new DataView(answer.buffer);
  assert.deepEqual(answer.subarray(0, 6), GUEST_MAC);
  assert.equal(view.getUint16(20), 2);
  assert.deepEqual(answer.subarray(22, 28), GATEWAY_MAC);
  assert.equal(view.getUint32(28), GATEWAY);
  assert.deepEqual(answer.subarray(32, 38), GUEST_MAC);
  assert.equal(view.getUint32(38), GUEST);
  wire.send(arp(GUEST));
  wire.send(arp(GATEWAY, (request) => request.setUint16(20, 2))); // an answer
  wire.send(arp(GATEWAY, (request) => request.setUint16(18, 0x0605))); // other lengths
  wire.send(arp(GATEWAY).subarray(0, 41));
  assert.equal(wire.all().length, 0);
  assert.equal(wire.network.counters.malformed, 2);
});

test('ping: the same payload comes back; what is damaged does not', () => {
  const wire = new Wire();
  for (const length of [0, 1, 56, 1472]) {
    const payload = Uint8Array.from({ length }, (_, i) => i);
    wire.send(icmp(8, payload));
    const [answer] = wire.all();
    assert.ok(answer !== undefined);
    const view = assertSound(answer);
    assert.deepEqual(answer.subarray(0, 6), GUEST_MAC);
    assert.equal(view.getUint8(34), 0);
    assert.equal(view.getUint32(38), 0x1234_0001);
    assert.deepEqual(answer.subarray(42), payload);
  }
  const wrong = icmp(8, new Uint8Array(10));
  wrong[45] = 1;
  wire.send(wrong);
  wire.send(icmp(8, new Uint8Array(10)).subarray(0, 38));
  wire.send(icmp(0, new Uint8Array(10)));
  assert.equal(wire.all().length, 0);
  assert.equal(wire.network.counters.malformed, 2);
});

test('nothing else is reached: other addresses are unreachable, errors and groups are not answered', () => {
  const wire = new Wire();
  wire.send(icmp(8, new Uint8Array(20), 0x0808_0808));
  wire.send(udp(1000, 53, new Uint8Array(5)));
  const answers = wire.all();
  assert.deepEqual(
    answers.map((one) => {
      const view = assertSound(one);
      return [view.getUint8(34), view.getUint8(35)];
    }),
    [
      [3, 0],
      [3, 3],
    ],
  );
  // The IP header and 8 bytes are quoted.
  assert.deepEqual(answers[1]?.subarray(42), udp(1000, 53, new Uint8Array(5)).subarray(14, 42));
  wire.send(icmp(3, new Uint8Array(20), 0x0808_0808));
  wire.send(udp(1, 2, new Uint8Array(5), { target: 0xe000_0001, mac: Uint8Array.of(1, 0, 0x5e, 0, 0, 1) }));
  wire.send(udp(1, 2, new Uint8Array(5), { source: 0 }));
  wire.send(udp(1, 2, new Uint8Array(5), { source: BROADCAST }));
  wire.send(udp(1, 2, new Uint8Array(5), { mac: EVERYBODY }));
  wire.send(ipv4(47, new Uint8Array(30)));
  assert.equal(wire.all().length, 0);
});

test('UDP: echo, discard, character generator', () => {
  const wire = new Wire();
  const payload = Uint8Array.from({ length: 100 }, (_, i) => i);
  wire.send(udp(1000, 7, payload));
  const [echoed] = wire.all();
  assert.ok(echoed !== undefined);
  const view = assertSound(echoed);
  assert.deepEqual([view.getUint16(34), view.getUint16(36)], [7, 1000]);
  assert.deepEqual(echoed.subarray(42), payload);
  wire.send(udp(1000, 9, payload));
  assert.equal(wire.all().length, 0);
  wire.send(udp(1000, 19, payload));
  const [generated] = wire.all();
  assert.ok(generated !== undefined && assertSound(generated) !== undefined);
  assert.equal(generated.length, 42 + 512);
  const damaged = udp(1000, 7, payload);
  damaged[50] = (damaged[50] ?? 0) ^ 1;
  wire.send(damaged);
  assert.equal(wire.all().length, 0);
  damaged.fill(0, 40, 42); // no checksum
  wire.send(damaged);
  assert.equal(wire.all().length, 1);
});

test('UDP lengths that lie', () => {
  const wire = new Wire();
  const right = udp(1000, 7, new Uint8Array(20));
  for (const length of [0, 7, 29, 0xffff]) {
    const bytes = right.slice();
    new DataView(bytes.buffer).setUint16(38, length);
    bytes.fill(0, 40, 42);
    wire.send(bytes);
  }
  assert.equal(wire.all().length, 0);
  assert.equal(wire.network.counters.malformed, 4);
});

function dhcp(kind: number, options: readonly number[] = [], client = 0, length = 300): Uint8Array {
  const message = new Uint8Array(length);
  const view = new DataView(message.buffer);
  message.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  view.setUint32(12, client);
  message.set(GUEST_MAC, 28);
  view.setUint32(236, 0x6382_5363);
  message.set([53, 1, kind, ...options, 255], 240);
  return udp(68, 67, message, { source: client, target: BROADCAST, mac: EVERYBODY });
}

function readDhcp(bytes: Uint8Array | undefined) {
  assert.ok(bytes !== undefined);
  const view = assertSound(bytes);
  assert.deepEqual([view.getUint16(34), view.getUint16(36)], [67, 68]);
  assert.equal(view.getUint32(42 + 4), 0xdead_beef);
  const options = new Map<number, number[]>();
  for (let at = 42 + 240; bytes[at] !== 255; at += 2 + (bytes[at + 1] ?? 0)) {
    options.set(bytes[at] ?? 0, [...bytes.subarray(at + 2, at + 2 + (bytes[at + 1] ?? 0))]);
  }
  return { address: view.getUint32(42 + 16), kind: options.get(53)?.[0], options, to: view.getUint32(30) };
}

test('DHCP: discover, offer, request, acknowledgement', () => {
  const wire = new Wire();
  wire.send(dhcp(1));
  const offer = readDhcp(wire.all()[0]);
  assert.deepEqual([offer.kind, offer.address, offer.to], [2, GUEST, BROADCAST]);
  assert.deepEqual(offer.options.get(54), [10, 0, 2, 2]);
  wire.send(dhcp(3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2]));
  const answer = readDhcp(wire.all()[0]);
  assert.deepEqual([answer.kind, answer.address], [5, GUEST]);
  assert.deepEqual(answer.options.get(1), [255, 255, 255, 0]);
  assert.deepEqual(answer.options.get(3), [10, 0, 2, 2]);
  assert.equal(answer.options.get(26), undefined);
  // Renewal: from its address, to its address.
  wire.send(dhcp(3, [], GUEST));
  assert.deepEqual([readDhcp(wire.all()[0]).kind], [5]);
});

test('DHCP: another address is refused, another server left alone, the MTU told', () => {
  const wire = new Wire(undefined, 9000);
  wire.send(dhcp(3, [50, 4, 10, 0, 2, 99]));
  const refused = readDhcp(wire.all()[0]);
  assert.deepEqual([refused.kind, refused.address, refused.to], [6, 0, BROADCAST]);
  wire.send(dhcp(3, [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 3]));
  assert.equal(wire.all().length, 0);
  wire.send(dhcp(1));
  assert.deepEqual(readDhcp(wire.all()[0]).options.get(26), [0x23, 0x28]);
});

test('DHCP: options that run over the end, wrong sizes, no kind', () => {
  const wire = new Wire();
  wire.send(dhcp(1, [50, 255, 1]));
  wire.send(dhcp(1, [12], 0, 245));
  wire.send(dhcp(9));
  wire.send(dhcp(1, [], 0, 260).subarray(0, 100));
  assert.equal(wire.all().length, 0);
});

test('fragments and packets for other networks are counted and left', () => {
  const wire = new Wire();
  wire.send(ipv4(17, new Uint8Array(40), { fragment: 0x2000 }));
  wire.send(ipv4(17, new Uint8Array(40), { fragment: 5 }));
  wire.send(tcpFrame(new Uint8Array(5), { vlan: 7 }).bytes);
  wire.send(tcpFrame(new Uint8Array(5), { version: 6 }).bytes);
  assert.equal(wire.network.counters.unserved, 4);
  assert.equal(wire.all().length, 0);
});

test('IPv4 headers that lie are dropped', () => {
  const right = icmp(8, new Uint8Array(20));
  const cases: ((view: DataView) => void)[] = [
    (view) => view.setUint8(14, 0x44),
    (view) => view.setUint8(14, 0x4f),
    (view) => view.setUint8(14, 0x65),
    (view) => view.setUint16(16, 19),
    (view) => view.setUint16(16, 0xffff),
    (view) => view.setUint16(24, 0),
  ];
  for (const change of cases) {
    const wire = new Wire();
    const bytes = right.slice();
    change(new DataView(bytes.buffer));
    wire.send(bytes);
    assert.equal(wire.all().length, 0);
    assert.equal(wire.network.counters.malformed, 1);
  }
});

test('a guest that asks and never listens: answers are bounded and counted', () => {
  const wire = new Wire();
  for (let i = 0; i < 2000; i++) wire.send(icmp(8, new Uint8Array(1000)));
  assert.ok(wire.network.counters.answersDropped >= 1700);
  assert.ok(wire.all().length <= 256);
});

test('any bytes whatever are taken and answered with sound frames', () => {
  const seeds = [
    icmp(8, new Uint8Array(30)),
    udp(5, 7, new Uint8Array(30)),
    arp(GATEWAY),
    dhcp(1),
    tcpFrame(new Uint8Array(9)).bytes,
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(400), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
      fc.nat(400),
      (seed, changes, length) => {
        const wire = new Wire();
        const bytes = seed.slice(0, Math.max(14, length));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        wire.send(bytes);
        wire.send(bytes, { flags: 1, checksumStart: 34, checksumOffset: 0 });
        assert.ok(wire.all().length <= 4);
      },
    ),
    { numRuns: 1000 },
  );
});
